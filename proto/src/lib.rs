//! The schemas of stockd, compiled: `stock.v1` is the public API, `cluster.v1` is what nodes say to
//! each other, `log.v1` is what is replicated and kept. The `.proto` files beside this crate are the
//! reference; they carry the units, bounds and rules.

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

/// Node to node.
pub mod cluster {
    pub mod v1 {
        tonic::include_proto!("cluster.v1");
    }
}

/// What is replicated and kept.
pub mod log {
    pub mod v1 {
        tonic::include_proto!("log.v1");
    }
}
