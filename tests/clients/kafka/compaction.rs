//! Compaction as kcat sees it, on the running binary.

use std::{
    collections::BTreeMap,
    io::Write,
    ops::Range,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::program::{has_kcat, output, with_confluent_kafka};
use crate::harness::Settings;

/// So many keys take turns.
const KEYS: u64 = 23;

fn kcat(settings: &Settings, args: &[&str]) -> Command {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &settings.address(), "-t", "state"])
        .args(args);
    kcat
}

/// The record with a number has that offset; several are in a batch.
fn produce(settings: &Settings, numbers: Range<u64>) {
    let lines: String = numbers
        .map(|n| format!("k{}:{n:0>200}\n", n % KEYS))
        .collect();
    let args = ["-P", "-K:", "-z", "lz4", "-X", "batch.num.messages=7"];
    let mut kcat = kcat(settings, &args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat runs");
    let mut input = kcat.stdin.take().expect("standard input is a pipe");
    input.write_all(lines.as_bytes()).expect("kcat reads");
    drop(input);
    assert!(kcat.wait().expect("kcat ends").success());
}

/// Offset, key and number of every record, as they come.
fn consume(settings: &Settings, from: &str) -> Vec<(u64, String, u64)> {
    let args = ["-C", "-e", "-q", "-o", from, "-f", "%o %k %s\n"];
    let (read, _) = output(kcat(settings, &args));
    let lines = read.lines().map(|line| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("three words").to_owned();
        let (offset, key, value) = (next(), next(), next());
        let number = |text: String| text.parse().expect("a number");
        (number(offset), key, number(value))
    });
    lines.collect()
}

/// The latest record of each key of those numbers, in the order of the offsets.
fn latest(numbers: Range<u64>) -> Vec<(u64, String, u64)> {
    let latest: BTreeMap<u64, u64> = numbers.map(|n| (n % KEYS, n)).collect();
    let mut latest: Vec<_> = latest
        .into_iter()
        .map(|(key, n)| (n, format!("k{key}"), n))
        .collect();
    latest.sort();
    latest
}

fn compact(settings: &Settings) -> Value {
    let compact = ["storage", "compact", "state", "--now", "-o", "json"];
    let done = settings.cli(&compact, b"").ok();
    let done: Value = serde_json::from_str(&done.text()).expect("JSON");
    done[0].clone()
}

/// kafka-python, confluent-kafka and aiokafka end with the same state.
fn python_clients_find(settings: &Settings, end: u64, expected: &[(u64, String, u64)]) {
    let Some(mut command) = with_confluent_kafka("compacted.py") else {
        return;
    };
    command.args([&settings.address(), "state", &end.to_string()]);
    let (said, _) = output(command);
    let state: BTreeMap<&str, String> = expected
        .iter()
        .map(|(_, key, n)| (&**key, format!("{n:0>200}")))
        .collect();
    let mut clients = Vec::new();
    for line in said.lines() {
        let said: Value = serde_json::from_str(line).expect("JSON");
        let client = said["client"].as_str().expect("a name").to_owned();
        assert_eq!(said["records"], expected.len(), "{client}");
        assert_eq!(said["rises"], true, "{client}");
        for (key, value) in &state {
            assert_eq!(said["state"][key], **value, "{client}: {key}");
        }
        clients.push(client);
    }
    assert_eq!(clients, ["kafka-python", "confluent-kafka", "aiokafka"]);
}

#[test]
fn a_reader_from_the_beginning_finds_the_latest_of_each_key_also_after_a_kill() {
    if !has_kcat() {
        return;
    }
    // Only what is asked for.
    let settings = Settings::new(&["storage.compaction_bytes_per_second=0"]);
    let mut broker = settings.start();
    let create = [
        "topic",
        "create",
        "state",
        "--set",
        "cleanup.policy=compact",
        "--set",
        "segment.bytes=4096",
    ];
    settings.cli(&create, b"").ok();
    let mut compacted = 0;
    for written in [1000, 1500] {
        produce(&settings, compacted..written);
        let mut before = latest(0..compacted);
        before.extend((compacted..written).map(|n| (n, format!("k{}", n % KEYS), n)));
        assert_eq!(consume(&settings, "beginning"), before);
        let done = compact(&settings);
        assert_eq!(done["clean_offset"], written, "{done}");
        let expected = latest(0..written);
        assert_eq!(
            done["removed_records"],
            before.len() - expected.len(),
            "{done}"
        );
        assert_eq!(consume(&settings, "beginning"), expected);
        broker.restart_after_kill(&settings);
        assert_eq!(consume(&settings, "beginning"), expected);
        // From an offset whose record is gone the reader goes on behind it.
        let from = expected[3].0 + 1;
        let behind: Vec<_> = expected.into_iter().filter(|one| one.0 >= from).collect();
        assert_eq!(consume(&settings, &from.to_string()), behind);
        compacted = written;
    }
    python_clients_find(&settings, compacted, &latest(0..compacted));
    broker.stop();
    settings.verify();
}
