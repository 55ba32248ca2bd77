//! Compiles the schemas with protox, so that no protoc is needed on the machine.

#[path = "shapes.rs"]
mod shapes;

use std::{env, fs, path::PathBuf};

use prost::Message;

/// What callers see: for reflection, and for the command line's JSON.
const PUBLIC: &[&str] = &[
    "stock/v1/common.proto",
    "stock/v1/errors.proto",
    "stock/v1/reservation.proto",
    "stock/v1/availability.proto",
    "stock/v1/inventory.proto",
    "stock/v1/catalog.proto",
    "stock/v1/topology.proto",
    "stock/admin/v1/cluster.proto",
    "stock/admin/v1/reservation.proto",
    // What errors say is read by it.
    "google/rpc/error_details.proto",
];

/// The laboratory's, and what nodes call of each other.
const OTHERS: &[&str] = &["stock/lab/v1/echo.proto", "stock/internal/v1/joining.proto"];

/// Its parts are read when somebody looks at them.
const UNREAD: &str = ".stock.v1.ReserveStreamRequest";

/// Encoded by hand.
const HEADER: &str = ".stock.v1.ResponseHeader";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for folder in ["stock", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Written as the compiler has it, with the options that prost does not know: the paths of HTTP.
    let mut public = protox::Compiler::new(["."])?;
    public.include_imports(true).open_files(PUBLIC)?;
    let public = public.encode_file_descriptor_set();
    fs::write(out.join("public.bin"), public)?;
    let lab = protox::compile(OTHERS, ["."])?;
    fs::write(out.join("others.bin"), lab.encode_to_vec())?;
    let all = protox::compile(PUBLIC.iter().chain(OTHERS), ["."])?;
    fs::write(out.join("shapes.rs"), shapes::shapes(&all, UNREAD))?;
    // Messages know their names, by which the command line finds their descriptions.
    let mut named = prost_build::Config::new();
    named.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".stock.lab.v1")
        .bytes(".stock.v1.ReadOptions.incarnation")
        .extern_path(".google.rpc", "::tonic_types")
        .extern_path(UNREAD, "crate::unread::ReserveStreamRequest")
        .extern_path(HEADER, "crate::header::ResponseHeader")
        .codec_path("crate::codec::StrictCodec")
        .compile_fds_with_config(all, named)?;
    Ok(())
}
