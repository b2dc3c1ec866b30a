//! Generates the messages and services of `proto/` with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 7] = [
    "sapwood/v1/error.proto",
    "sapwood/v1/record.proto",
    "sapwood/v1/produce.proto",
    "sapwood/v1/fetch.proto",
    "sapwood/v1/topic.proto",
    "sapwood/v1/group.proto",
    "sapwood/v1/storage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For server reflection.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut messages = tonic_prost_build::Config::new();
    messages.enable_type_names();
    tonic_prost_build::configure()
        // Slices of the received message instead of copies.
        .bytes(".")
        // Maps in one order, so that answers are the same each time.
        .btree_map(".")
        .compile_fds_with_config(descriptors, messages)?;
    Ok(())
}
