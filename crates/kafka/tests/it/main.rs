//! The Kafka door over real sockets: a broker in a temporary directory, and a client that writes and
//! reads frames.

#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod support;

mod admin;
mod connection;
mod fetch;
mod garbage;
mod groups;
mod handshake;
mod mutations;
mod offsets;
mod produce;
mod produce_errors;
mod sessions;
