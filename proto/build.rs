//! Generates the Rust types and services from `proto/gotgan/v1`, without needing `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 7] = [
    "gotgan/v1/cluster.proto",
    "gotgan/v1/common.proto",
    "gotgan/v1/jobs.proto",
    "gotgan/v1/nodes.proto",
    "gotgan/v1/order.proto",
    "gotgan/v1/quota.proto",
    "gotgan/v1/workers.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // Ordered maps, so that the same message always encodes to the same bytes: requests are told apart by a digest.
    let build = tonic_prost_build::configure().btree_map(".");
    build.codec_path("crate::codec::FrugalCodec").compile_fds(descriptors)?;
    Ok(())
}
