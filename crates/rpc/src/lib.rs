//! Generated gRPC code for the native API, and how its errors travel.
//!
//! [`v1`] is what `proto/sapwood/v1/*.proto` says, with the comments there as its documentation.
//! `bytes` fields are [`bytes::Bytes`]: slices of the received message. [`status`] packs an
//! [`Error`](v1::Error) into a [`tonic::Status`] and unpacks it.

pub mod status;

/// Messages, clients and servers of the package `sapwood.v1`.
// The generator writes modules and client methods without documentation, and arms of its own style.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/sapwood.v1.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
