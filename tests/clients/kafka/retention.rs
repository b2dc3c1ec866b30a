//! Retention as kcat sees it, on the running binary.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::program::{has_kcat, output};
use crate::harness::Settings;

const RETAINED_BYTES: u64 = 40_000;
const SEGMENT_BYTES: u64 = 16_384;
/// How long retention may need on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn kcat(settings: &Settings, args: &[&str]) -> Command {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &settings.address(), "-t", "events"])
        .args(args);
    kcat
}

/// The one partition, as `topic describe` has it.
fn partition(settings: &Settings) -> Value {
    let described = settings
        .cli(&["topic", "describe", "events", "-o", "json"], b"")
        .ok();
    let described: Value = serde_json::from_str(&described.text()).expect("JSON");
    described["partitions"][0].clone()
}

fn produce(settings: &Settings, numbers: std::ops::Range<u32>) {
    let lines: String = numbers.map(|n| format!("{n:>1000}\n")).collect();
    let mut kcat = kcat(settings, &["-P", "-X", "batch.num.messages=8"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat runs");
    let mut input = kcat.stdin.take().expect("standard input is a pipe");
    input.write_all(lines.as_bytes()).expect("kcat reads");
    drop(input);
    assert!(kcat.wait().expect("kcat ends").success());
}

/// The numbers that a consumer reads, with their offsets.
fn consume(settings: &Settings, args: &[&str]) -> Vec<(u64, u64)> {
    let mut kcat = kcat(settings, &["-C", "-e", "-q", "-f", "%o %s\n"]);
    kcat.args(args);
    let (read, _) = output(kcat);
    let lines = read.lines().map(|line| {
        let mut words = line
            .split_whitespace()
            .map(|word| word.parse().expect("a number"));
        (
            words.next().expect("an offset"),
            words.next().expect("a record"),
        )
    });
    lines.collect()
}

#[test]
fn a_log_stays_within_its_bytes_and_a_consumer_that_fell_off_its_end_goes_on() {
    if !has_kcat() {
        return;
    }
    let settings = Settings::new(&["storage.retention_interval_ms=200"]);
    let mut broker = settings.start();
    let (retained, segment) = (
        format!("retention.bytes={RETAINED_BYTES}"),
        format!("segment.bytes={SEGMENT_BYTES}"),
    );
    let create = [
        "topic", "create", "events", "--set", &retained, "--set", &segment,
    ];
    settings.cli(&create, b"").ok();
    let mut written = 0;
    for restarts in [false, true] {
        if restarts {
            broker.restart_after_kill(&settings);
        }
        produce(&settings, written..written + 200);
        written += 200;
        let began = Instant::now();
        let found = loop {
            let found = partition(&settings);
            let size = found["size_bytes"].as_u64().expect("a size");
            if size < RETAINED_BYTES + SEGMENT_BYTES {
                assert!(size >= RETAINED_BYTES, "{found}");
                break found;
            }
            assert!(began.elapsed() < PATIENCE, "nothing is removed: {found}");
            thread::sleep(Duration::from_millis(50));
        };
        let start = found["log_start_offset"].as_u64().expect("an offset");
        assert!(start > u64::from(written) - 200, "{found}");
        let expected: Vec<_> = (start..u64::from(written)).map(|n| (n, n)).collect();
        assert_eq!(consume(&settings, &["-o", "beginning"]), expected);
        // One that was at offset 3 is out of range, and begins where the log does.
        let reset = ["-o", "3", "-X", "topic.auto.offset.reset=earliest"];
        assert_eq!(consume(&settings, &reset), expected);
        let next = &found["next_removal"];
        assert_eq!(next["start_offset"], found["log_start_offset"]);
        assert!(
            next["after_bytes"].as_u64() <= Some(2 * SEGMENT_BYTES),
            "{found}"
        );
    }
    broker.stop();
    settings.verify();
}
