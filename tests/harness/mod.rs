//! What the tests share: the binary, brokers as processes, failing disks under them, the command line,
//! single requests of Kafka's, random numbers.

mod binary;
mod broker;
mod cli;
mod faults;
mod http;
mod kafka;
mod random;

use std::path::{Path, PathBuf};

pub(crate) use self::{
    binary::binary,
    broker::{Broker, Settings},
    cli::{Run, run},
    faults::{Call, Faults},
    http::Http,
    kafka::{KAFKA_STORAGE_ERROR, Kafka, Refused},
    random::{Random, seed},
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests are in a folder of the repository")
        .to_owned()
}

/// Says that the calling test checked nothing, and why; it must then return. Where nothing may be
/// skipped (`SAPWOOD_TESTS_SKIP=never`) this is a failure.
pub(crate) fn skip(reason: &str) {
    let never = std::env::var("SAPWOOD_TESTS_SKIP").is_ok_and(|value| value == "never");
    assert!(!never, "skipped, where nothing may be: {reason}");
    let thread = std::thread::current();
    eprintln!("SKIPPED {}: {reason}", thread.name().unwrap_or("a test"));
}
