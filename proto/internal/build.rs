//! Compiles the schemas with protox, so that no protoc is needed on the machine.

const SCHEMAS: &[&str] = &["cluster/v1/peer.proto", "log/v1/log.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../cluster");
    println!("cargo:rerun-if-changed=../log");
    let compiled = protox::compile(SCHEMAS, [".."])?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(compiled)?;
    Ok(())
}
