//! The public API, `stock.v1`, compiled. The `.proto` files beside this crate are the reference;
//! they carry the units, bounds and rules. What nodes say to each other is in `internal/`.

pub mod codec;
mod unread;

/// The public API.
#[expect(clippy::all, reason = "generated code")]
pub mod stock {
    pub mod v1 {
        tonic::include_proto!("stock.v1");

        pub use crate::unread::ReserveStreamRequest;

        /// The descriptors of this package, for reflection and for JSON.
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/stock_v1.bin"));
    }
}
