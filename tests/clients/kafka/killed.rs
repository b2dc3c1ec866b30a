//! `kill -9` under an idempotent producer of a Kafka client.

use std::{
    collections::BTreeMap,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use super::program::with_confluent_kafka;
use crate::{
    crash::{longest_run, rounds},
    harness::{Random, Settings, seed},
};

const PARTITIONS: usize = 3;
/// How long a producer may need to go on after its broker is back.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes back from both sides: each record's number by partition and offset.
type Places = BTreeMap<(u32, u64), u64>;

#[test]
fn an_idempotent_kafka_producer_brings_every_record_through_kill_9_once_and_in_order() {
    kill_under_a_producer("fsync");
}

#[test]
fn an_idempotent_kafka_producer_to_an_os_topic_survives_kill_9_too() {
    kill_under_a_producer("os");
}

fn kill_under_a_producer(durability: &str) {
    let Some(mut command) = with_confluent_kafka("killed_producer.py") else {
        return;
    };
    let seed = seed();
    let mut random = Random::new(seed, 1 << 43);
    let longest = u64::try_from(longest_run().as_millis())
        .unwrap_or(u64::MAX)
        .max(2);
    // Small segments and journal files, so that a short run rolls them.
    let settings = Settings::new(&["storage.journal_file_bytes=1048576"]);
    let mut broker = settings.start();
    let durability = format!("durability={durability}");
    let create = ["topic", "create", "ledger", "-p", "3", "--set", &durability];
    let small = [
        "--set",
        "segment.bytes=262144",
        "--set",
        "max.message.bytes=131072",
    ];
    settings.cli(&[&create[..], &small].concat(), b"").ok();
    let mut producing = command
        .args([&settings.address(), "ledger", &PARTITIONS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be run");
    let stop = producing.stdin.take().expect("standard input is a pipe");
    // Read all the while: it prints more than a pipe holds.
    let output = thread::spawn(move || producing.wait_with_output());
    for round in 0..rounds() {
        // After a lost connection the client takes a second or two. Killed before, it would never write.
        let end = wait_for_more(&settings);
        thread::sleep(Duration::from_millis(random.within(1..longest)));
        broker.restart_after_kill(&settings);
        eprintln!("round {round}: killed after {end} records, and ready again");
    }
    drop(stop);
    let output = output
        .join()
        .expect("it does not panic")
        .expect("its output can be read");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let acknowledged = places(&String::from_utf8_lossy(&output.stdout));
    let consume = [
        "topic",
        "consume",
        "ledger",
        "--exit-at-end",
        "-f",
        "%p %o %k\\n",
    ];
    let consumed = places(&settings.cli(&consume, b"").ok().text());
    check(&acknowledged, &consumed);
    eprintln!("{} records", consumed.len());
    broker.stop();
    settings.verify();
}

/// Waits until the topic grows; answers with the number of its records.
fn wait_for_more(settings: &Settings) -> u64 {
    let started = Instant::now();
    let before = records(settings);
    loop {
        let now = records(settings);
        if now > before {
            return now;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "the producer writes nothing more"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn records(settings: &Settings) -> u64 {
    let describe = ["topic", "describe", "ledger", "-o", "json"];
    let described = settings.cli(&describe, b"").ok().text();
    let described: serde_json::Value = serde_json::from_str(&described).expect("it is JSON");
    let partitions = described["partitions"]
        .as_array()
        .expect("there are partitions");
    let ends = partitions
        .iter()
        .map(|partition| partition["log_end_offset"].as_u64());
    ends.map(|end| end.expect("a partition has an end")).sum()
}

/// Every record is where the broker said, nothing else is there, and each partition has them in the
/// order in which they were sent, without a gap.
fn check(acknowledged: &Places, consumed: &Places) {
    for (place, number) in acknowledged {
        assert_eq!(
            consumed.get(place),
            Some(number),
            "acknowledged at {place:?}"
        );
    }
    assert_eq!(
        consumed.len(),
        acknowledged.len(),
        "records are there twice, or not acknowledged"
    );
    let mut next = BTreeMap::<u32, (u64, u64)>::new();
    for ((partition, offset), number) in consumed {
        let (next_offset, next_number) =
            next.entry(*partition).or_insert((0, u64::from(*partition)));
        assert_eq!(
            (offset, number),
            (&*next_offset, &*next_number),
            "partition {partition}"
        );
        *next_offset += 1;
        *next_number += 3;
    }
}

/// Lines of partition, offset and number.
fn places(text: &str) -> Places {
    let mut places = Places::new();
    for line in text.lines() {
        let fields: Vec<u64> = line
            .split(' ')
            .map(|field| field.parse().unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect();
        let [partition, offset, number] = fields[..] else {
            panic!("{line}");
        };
        let partition = u32::try_from(partition).expect("a small number");
        let earlier = places.insert((partition, offset), number);
        assert_eq!(earlier, None, "two records at one place: {line}");
    }
    places
}
