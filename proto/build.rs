//! Compiles the schemas with protox, so that no protoc is needed on the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{env, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const PUBLIC: &[&str] = &[
    "stock/v1/common.proto",
    "stock/v1/reservation.proto",
    "stock/v1/availability.proto",
    "stock/v1/inventory.proto",
    "stock/v1/catalog.proto",
    "stock/v1/cluster.proto",
];
const INTERNAL: &[&str] = &["cluster/v1/peer.proto", "log/v1/log.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for folder in ["stock", "cluster", "log", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // Reflection and the command line's JSON describe the public API only.
    let public = protox::compile(PUBLIC, ["."])?;
    fs::write(out.join("stock_v1.bin"), public.encode_to_vec())?;
    fs::write(out.join("stock_v1_counts.rs"), counts(&public)?)?;
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

    let internal = protox::compile(INTERNAL, ["."])?;
    tonic_prost_build::configure()
        .bytes(".cluster.v1")
        .bytes(".log.v1")
        .build_client(false)
        .build_server(false)
        .compile_fds(internal)?;
    Ok(())
}

/// Says of each message that a call sends or answers whether there may be several of it.
fn counts(set: &FileDescriptorSet) -> Result<String, Box<dyn std::error::Error>> {
    let mut of_messages: BTreeMap<&str, bool> = BTreeMap::new();
    let services = set.file.iter().flat_map(|file| &file.service);
    for method in services.flat_map(|service| &service.method) {
        for (message, is_stream) in [
            (method.input_type(), method.client_streaming()),
            (method.output_type(), method.server_streaming()),
        ] {
            if of_messages.insert(message, is_stream) == Some(!is_stream) {
                return Err(format!(
                    "{message} comes alone in one call and in a stream in another"
                )
                .into());
            }
        }
    }
    let mut code = String::new();
    for (message, is_stream) in of_messages {
        let name = message.strip_prefix(".stock.v1.");
        let name = name.ok_or_else(|| format!("{message} is none of stock.v1"))?;
        writeln!(
            code,
            "impl crate::codec::Counted for crate::stock::v1::{name} {{ const MAY_BE_MANY: bool = {is_stream}; }}"
        )?;
    }
    Ok(code)
}
