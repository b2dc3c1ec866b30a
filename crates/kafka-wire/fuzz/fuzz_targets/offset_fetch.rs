//! OffsetFetch: bodies of requests and responses in every version.
#![no_main]

use sapwood_kafka_wire::{messages::OffsetFetchRequest, testing::check_request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check_request::<OffsetFetchRequest>(data);
});
