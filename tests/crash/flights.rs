//! What a person does: the command line produces a file while the broker is killed under it.

use std::{fmt::Write as _, thread, time::Duration};

use super::{longest_run, rounds, workload::SMALL};
use crate::harness::{Random, Settings, seed};

/// Lines a second. Slow enough to be killed in the middle.
const RATE: u64 = 4_000;

#[test]
fn the_command_line_brings_every_line_through_kill_9_once_and_in_order() {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 42);
    let longest = u64::try_from(longest_run().as_millis())
        .unwrap_or(u64::MAX)
        .max(2);
    let lines = usize::try_from(RATE * rounds() * longest / 1000).expect("some thousand lines");
    let input = csv(lines.max(1000), &mut random);
    let settings = Settings::new(SMALL);
    let mut broker = settings.start();
    let create = [
        "topic",
        "create",
        "flights",
        "-p",
        "6",
        "--set",
        "max.message.bytes=262144",
    ];
    settings.cli(&create, b"").ok();
    let rate = format!("{RATE}/s");
    let produce = [
        "topic",
        "produce",
        "flights",
        "--format",
        "csv",
        "--key-column",
        "tail",
    ];
    let produce = [&produce[..], &["--rate", &rate, "--batch-bytes", "65536"]].concat();
    thread::scope(|scope| {
        let producing = scope.spawn(|| settings.cli(&produce, input.as_bytes()));
        // It has found the broker: one that finds nobody at first gives up.
        while !producing.is_finished() && !has_records(&settings) {
            thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..rounds() {
            thread::sleep(Duration::from_millis(random.within(1..longest)));
            broker.restart_after_kill(&settings);
        }
        producing.join().expect("the producer does not panic").ok();
    });
    let consumed = settings
        .cli(
            &[
                "topic",
                "consume",
                "flights",
                "--exit-at-end",
                "-f",
                "%p %v\\n",
            ],
            b"",
        )
        .ok()
        .text();
    check(&input, &consumed);
    broker.stop();
    settings.verify();
}

/// A header line, and lines with a key that is sometimes empty and sometimes quoted.
fn csv(lines: usize, random: &mut Random) -> String {
    let mut text = String::from("number,tail,note\n");
    for line in 0..lines {
        let _ = match random.within(0..10) {
            0 => writeln!(text, "{line},,no plane"),
            1 => writeln!(
                text,
                "{line},\"N{:05}\",\"quoted, with a comma\"",
                random.within(0..50)
            ),
            _ => writeln!(text, "{line},N{:05},plain", random.within(0..50)),
        };
    }
    text
}

/// Every line once; within a partition in the order of the input; equal keys in one partition.
fn check(input: &str, consumed: &str) {
    let mut sent: Vec<&str> = input.lines().skip(1).collect();
    let number = |line: &str| line.split(',').next().and_then(|n| n.parse::<u64>().ok());
    let mut last = [None; 6];
    let mut received = Vec::new();
    for line in consumed.lines() {
        let (partition, line) = line.split_once(' ').expect("a partition and a line");
        let partition: usize = partition.parse().expect("a partition's number");
        let number = number(line);
        assert!(
            last[partition] < number,
            "{line} is out of order in partition {partition}"
        );
        last[partition] = number;
        received.push(line);
    }
    sent.sort_unstable();
    received.sort_unstable();
    assert_eq!(
        sent.len(),
        received.len(),
        "lines are missing or there twice"
    );
    assert!(sent == received, "other lines came out than went in");
    assert!(
        last.iter().filter(|last| last.is_some()).count() > 1,
        "several partitions were used"
    );
}

/// Whether anything was produced.
fn has_records(settings: &Settings) -> bool {
    let describe = ["topic", "describe", "flights", "-o", "json"];
    let described = settings.cli(&describe, b"").ok().text();
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    let partitions = described["partitions"].as_array().expect("partitions");
    let mut sizes = partitions.iter().map(|one| one["size_bytes"].as_u64());
    sizes.any(|bytes| bytes > Some(0))
}
