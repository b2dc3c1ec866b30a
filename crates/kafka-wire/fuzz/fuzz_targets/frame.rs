//! Whole requests of any API: header and body, as a broker gets them.
#![no_main]

use sapwood_kafka_wire::testing::check_frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check_frame(data);
});
