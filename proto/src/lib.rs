//! The API, compiled: `stock.v1` for shops, `stock.admin.v1` for operators, `stock.internal.v1` for
//! nodes, and the laboratory's `stock.lab.v1`. The `.proto` files beside this crate are the
//! reference; they carry the units, bounds and rules. What nodes say to each other without gRPC is
//! in `internal/`.

pub mod codec;
mod header;
pub mod header_text;
mod shorthand;
mod unread;
pub mod whole;

/// The packages, one inside the other as they are named.
#[expect(clippy::all, reason = "generated code")]
pub mod stock {
    /// For shops.
    pub mod v1 {
        tonic::include_proto!("stock.v1");

        pub use crate::header::ResponseHeader;
        pub use crate::unread::ReserveStreamRequest;
    }

    /// For operators.
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("stock.admin.v1");
        }
    }

    /// Between nodes.
    pub mod internal {
        pub mod v1 {
            tonic::include_proto!("stock.internal.v1");
        }
    }

    /// For measuring.
    pub mod lab {
        pub mod v1 {
            tonic::include_proto!("stock.lab.v1");
        }
    }
}

/// The descriptors of what callers see, `stock.v1` and `stock.admin.v1`: for reflection and JSON.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));

/// The descriptors of the other services, whose calls a node answers where it is told to, or for
/// nodes.
pub const OTHER_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/others.bin"));
