//! A data directory that is damaged by hand, repaired by the command, and served again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::broker::{Broker, Done, SIGKILL, SIGTERM, run, sapwood, verify};

/// Each a batch of its own: they are sent one by one.
const RECORDS: usize = 8;
const TOPICS: [&str; 2] = ["orders", "flights"];

fn repair(folder: &TempDir, more: &[&str]) -> Done {
    let mut command = sapwood();
    command
        .args(["storage", "repair", "--data-dir"])
        .arg(folder.path().join("data"))
        .args(more);
    run(&mut command, b"")
}

fn record(number: usize) -> String {
    format!("record {number}\n")
}

/// A stopped broker's directory with two topics of the same records.
fn stopped(signal: i32) -> TempDir {
    let broker = Broker::start();
    for topic in TOPICS {
        broker.run(&["topic", "create", topic]).ok();
        for number in 0..RECORDS {
            let line = record(number);
            broker
                .run_with(&["topic", "produce", topic], line.as_bytes())
                .ok();
        }
    }
    broker.stop(signal).1
}

/// The first segment of a topic, and where each batch of it starts.
fn segment(folder: &TempDir, topic: &str) -> (PathBuf, Vec<usize>) {
    let path = folder
        .path()
        .join(format!("data/topics/{topic}-0/00000000000000000000.log"));
    let bytes = fs::read(&path).expect("it can be read");
    let mut starts = Vec::new();
    let mut at = 0;
    while at + 61 <= bytes.len() {
        let word = bytes[at + 8..at + 12].try_into().expect("4 bytes");
        let length = u32::from_be_bytes(word) as usize;
        if length == 0 {
            break;
        }
        starts.push(at);
        at += 12 + length;
    }
    (path, starts)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("it can be read");
    change(&mut bytes);
    fs::write(path, bytes).expect("it can be written");
}

/// Starts a broker on the folder, and demands the records of both topics but those that are lost, and
/// that the next one gets the next offset.
fn serves(folder: TempDir, lost: &[usize]) {
    let broker = Broker::start_in(folder, "127.0.0.1:0", &[]);
    for topic in TOPICS {
        let is_lost = |number: &usize| topic == "orders" && lost.contains(number);
        let expected: String = (0..RECORDS)
            .filter(|number| !is_lost(number))
            .map(record)
            .collect();
        assert_eq!(broker.values(topic), expected);
        broker
            .run_with(&["topic", "produce", topic], b"one more\n")
            .ok();
        let last = [
            "topic", "consume", topic, "-e", "--from", "-1", "-f", "%o %v\\n",
        ];
        assert_eq!(broker.run(&last).ok().out, format!("{RECORDS} one more\n"));
    }
    let (status, folder) = broker.stop(SIGTERM);
    assert!(status.success());
    verify(folder.path()).ok();
}

#[test]
fn a_damaged_record_is_named_then_given_up_and_all_others_are_served() {
    let folder = stopped(SIGTERM);
    let (path, starts) = segment(&folder, "orders");
    assert_eq!(starts.len(), RECORDS);
    change(&path, |bytes| bytes[starts[3] + 65] ^= 1);
    let damaged = fs::read(&path).expect("it can be read");
    assert_eq!(verify(folder.path()).code, Some(10));

    // Nobody can be asked, and nothing was said: a dry run.
    for flags in [&["--dry-run"][..], &["--dry-run", "--yes"], &[]] {
        let dry = repair(&folder, flags);
        assert_eq!(dry.code, Some(10), "{dry:?}");
        for words in [
            "orders/0  offsets 0 to 8 afterwards, 1 lost",
            "LOST       offsets 3 to 4 (1 offset, which were durable)",
            "rewrite    ",
            "1 partition, 1 offset lost; takes ",
            "Nothing was changed. To carry it out: sapwood storage repair --data-dir ",
            " --yes\n",
        ] {
            assert!(dry.out.contains(words), "no {words:?} in {}", dry.out);
        }
        assert!(!dry.out.contains("flights"), "{}", dry.out);
        assert_eq!(fs::read(&path).expect("it can be read"), damaged);
    }
    let json = repair(&folder, &["--dry-run", "-o", "json"]).json();
    let loss = &json["partitions"][0]["losses"][0];
    assert_eq!(loss["offsets"], serde_json::json!({ "start": 3, "end": 4 }));
    assert_eq!(loss["durable"], true);
    assert_eq!(json["repaired"], serde_json::Value::Null);

    let done = repair(&folder, &["--yes", "-o", "json"]).ok().json();
    let copies = PathBuf::from(done["repaired"]["copies"].as_str().expect("a path"));
    let copy = copies.join("old/topics/orders-0/00000000000000000000.log");
    assert_eq!(fs::read(copy).expect("it was copied"), damaged);
    let manifest = fs::read_to_string(copies.join("manifest.txt")).expect("there is one");
    assert!(manifest.contains("topics/orders-0/00000000000000000000.log: copied, "));
    verify(folder.path()).ok();
    let again = repair(&folder, &["--yes"]).ok();
    assert_eq!(again.out, "nothing to repair\n");
    serves(folder, &[3]);
}

#[test]
fn a_lost_checkpoint_after_a_kill_costs_nothing() {
    let folder = stopped(SIGKILL);
    let checkpoint = folder.path().join("data/checkpoint");
    change(&checkpoint, |bytes| bytes.truncate(30));
    let mut start = sapwood();
    let data = folder.path().join("data");
    start.args([
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    run(start.arg(&data), b"").fails(10, "SW5011", &["sapwood storage repair"]);
    let one_topic = repair(&folder, &["--yes", "--topic", "orders"]);
    assert_eq!(one_topic.code, Some(10), "{one_topic:?}");
    assert!(one_topic.out.contains("without --topic"), "{one_topic:?}");
    let done = repair(&folder, &["--yes"]).ok();
    assert!(done.err.contains("0 offsets lost"), "{done:?}");
    assert!(done.out.contains("repaired: "), "{done:?}");
    serves(folder, &[]);
}

#[test]
fn a_missing_segment_and_metadata_come_back_as_far_as_the_catalog_knows_them() {
    let folder = stopped(SIGTERM);
    let (path, _) = segment(&folder, "orders");
    fs::remove_file(path).expect("it can be removed");
    let metadata = folder
        .path()
        .join("data/topics/flights-0/partition.metadata");
    fs::write(metadata, "rubbish").expect("it can be written");
    let done = repair(&folder, &["--yes"]).ok();
    assert!(
        done.err
            .contains("orders/0  offsets 0 to 8 afterwards, 8 lost"),
        "{done:?}"
    );
    assert!(
        done.err
            .contains("flights/0  offsets 0 to 8 afterwards, 0 lost"),
        "{done:?}"
    );
    serves(folder, &(0..RECORDS).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_repaired_is_said_and_left_alone() {
    let folder = stopped(SIGTERM);
    let data = folder.path().join("data");
    let (path, starts) = segment(&folder, "orders");
    change(&path, |bytes| bytes[starts[3] + 65] ^= 1);
    change(&data.join("catalog/catalog.log"), |bytes| bytes[60] ^= 1);
    let done = repair(&folder, &["--yes"]);
    assert_eq!(done.code, Some(8), "{done:?}");
    assert!(
        done.err
            .contains("restore catalog/catalog.log from a backup"),
        "{done:?}"
    );
    // The partition was repaired all the same.
    verify(folder.path()).ok();
    let done = repair(&folder, &["--yes"]);
    assert_eq!(done.code, Some(10), "{done:?}");
    assert!(
        done.out
            .contains("restore catalog/catalog.log from a backup"),
        "{done:?}"
    );

    let missing = repair(&folder, &["--topic", "nobody"]);
    missing.fails(3, "SW3001", &["\"nobody\""]);
    let foreign = TempDir::new().expect("a folder");
    fs::create_dir(foreign.path().join("data")).expect("a folder");
    repair(&foreign, &["--yes"]).fails(1, "SW5006", &["is not a sapwood data directory"]);
    let broker = Broker::start();
    let mut command = sapwood();
    command.args(["storage", "repair", "--yes", "--data-dir"]);
    run(command.arg(broker.data_dir()), b"").fails(6, "SW5004", &["in use"]);
}
