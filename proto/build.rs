//! Compiles the schemas with protox, so that no protoc is needed on the machine.

use std::{env, fs, path::PathBuf};

use prost::Message;

const PUBLIC: &[&str] = &[
    "stock/v1/common.proto",
    "stock/v1/reservation.proto",
    "stock/v1/availability.proto",
    "stock/v1/inventory.proto",
    "stock/v1/catalog.proto",
    "stock/v1/cluster.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for folder in ["stock", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // Reflection and the command line's JSON describe the public API only.
    let public = protox::compile(PUBLIC, ["."])?;
    fs::write(out.join("stock_v1.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".stock.v1.EchoRequest")
        .bytes(".stock.v1.EchoResponse")
        .bytes(".stock.v1.EchoStreamRequest")
        .bytes(".stock.v1.EchoStreamResponse")
        .extern_path(".google.rpc", "::tonic_types")
        .extern_path(
            ".stock.v1.ReserveStreamRequest",
            "crate::unread::ReserveStreamRequest",
        )
        .codec_path("crate::codec::StrictCodec")
        .compile_fds(public)?;
    Ok(())
}
