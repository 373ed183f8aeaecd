//! The gRPC API of Gotgan as Rust types.
//!
//! Everything here is generated from `proto/gotgan/v1/*.proto`; the comments there are the reference. This crate
//! holds no behaviour.

/// Version 1 of the API.
pub mod v1 {
    #![allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
    tonic::include_proto!("gotgan.v1");
}

/// The encoded file descriptors of the API, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Domain of every `google.rpc.ErrorInfo` the scheduler sends.
pub const ERROR_DOMAIN: &str = "gotgan";

/// Reason of the refusal by a scheduler that does not lead. Its metadata says who does, where that is known.
pub const NOT_LEADER: &str = "NOT_LEADER";

/// Key in the metadata of [`NOT_LEADER`]: the address of the leader, as in `https://host:port`.
pub const LEADER_ADDRESS: &str = "leader";

/// Key in the metadata of [`NOT_LEADER`]: the leader's epoch, in decimal digits.
pub const LEADER_EPOCH: &str = "epoch";

/// Largest message a client may send or receive, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// Largest message on a worker's stream, in bytes.
pub const WORKER_MESSAGE_MAX_BYTES: usize = 16 << 20;
