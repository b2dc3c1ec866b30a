//! Records in and out: formats, positions, keys.

use std::{collections::HashMap, process::Stdio, thread, time::Duration};

use crate::broker::{Broker, SIGINT, read_all, send_signal, until, wait};

#[test]
fn the_first_minute_works_as_printed() {
    let broker = Broker::start();
    broker
        .run_with(&["topic", "produce", "demo"], b"{\"id\":1}\n")
        .ok();
    let done = broker
        .run(&["topic", "consume", "demo", "-o", "jsonl", "-e"])
        .ok();
    let record: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(record["value"], "{\"id\":1}");
    assert_eq!(record["offset"], 0);
    assert_eq!(record["key"], serde_json::Value::Null);
}

/// 3,000 lines with a key column; some keys empty, some fields quoted with newlines inside.
fn table() -> Vec<String> {
    (0..3_000)
        .map(|n| match n % 7 {
            0 => format!("{n},,plain"),
            1 => format!("{n},\"K,{}\",\"two\nlines\"", n % 13),
            _ => format!("{n},K{},\"say \"\"hi\"\"\"", n % 29),
        })
        .collect()
}

#[test]
fn csv_comes_back_byte_for_byte_and_in_order_within_each_partition() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "rows", "-p", "6"]).ok();
    let rows = table();
    let input = format!("n,tail,text\n{}\n", rows.join("\n"));
    let produce = [
        "topic",
        "produce",
        "rows",
        "--format",
        "csv",
        "--key-column",
        "tail",
    ];
    let done = broker.run_with(&produce, input.as_bytes()).ok();
    assert!(
        done.err
            .starts_with("3,000 records acknowledged by rows in "),
        "{}",
        done.err
    );
    assert_eq!(done.out, "");

    // A byte that no row holds ends each record.
    let format = ["topic", "consume", "rows", "-e", "-f", "%p\\t%k\\t%v\\x1e"];
    let done = broker.run(&format).ok();
    let mut values = Vec::new();
    let mut partition_of_key = HashMap::new();
    let mut last_of_partition: HashMap<String, u32> = HashMap::new();
    for record in done.out.split_terminator('\x1e') {
        let (partition, rest) = record.split_once('\t').unwrap();
        let (key, value) = rest.split_once('\t').unwrap();
        values.push(value.to_owned());
        if !key.is_empty() {
            let known = partition_of_key
                .entry(key.to_owned())
                .or_insert(partition.to_owned());
            assert_eq!(known, partition, "key {key} is in one partition");
        }
        let number: u32 = value.split(',').next().unwrap().parse().unwrap();
        let last = last_of_partition.insert(partition.to_owned(), number);
        assert!(
            last.is_none_or(|last| last < number),
            "{last:?} before {number}"
        );
    }
    assert!(
        last_of_partition.len() > 3,
        "keys are spread: {last_of_partition:?}"
    );
    assert!(
        partition_of_key.contains_key("K,1"),
        "quotes are no part of a key"
    );
    values.sort();
    let mut expected = rows;
    expected.sort();
    assert_eq!(values, expected);
}

#[test]
fn json_lines_of_one_topic_are_the_input_of_another() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "a", "-p", "2"]).ok();
    broker.run(&["topic", "create", "b", "-p", "2"]).ok();
    let lines = [
        r#"{"value":"text","key":"k","partition":1,"timestamp":1700000000000,"headers":[{"key":"h","value":"1"},{"key":"h","value":null}]}"#,
        r#"{"value":null,"key":"tomb","partition":0}"#,
        r#"{"value":"","key":null,"partition":0}"#,
        r#"{"value_base64":"//4AAQ==","key_base64":"/w==","partition":1}"#,
        r#"{"value":{"a": [1, 2]},"key":7,"partition":1}"#,
    ];
    let produce = ["topic", "produce", "a", "--format", "jsonl"];
    broker.run_with(&produce, lines.join("\n").as_bytes()).ok();
    let first = broker
        .run(&["topic", "consume", "a", "-e", "-o", "jsonl"])
        .ok()
        .out;
    assert_eq!(first.lines().count(), lines.len());
    assert!(first.contains(r#""key":"tomb","value":null"#), "{first}");
    assert!(
        first.contains(r#""timestamp":1700000000000,"key":"k""#),
        "{first}"
    );
    assert!(first.contains(r#""headers":[{"key":"h","value":"1"},{"key":"h","value":null}]"#));
    assert!(
        first.contains(r#""key_base64":"/w==","value_base64":"//4AAQ==""#),
        "{first}"
    );
    assert!(first.contains(r#""value":"{\"a\": [1, 2]}""#), "{first}");

    broker
        .run_with(&["topic", "produce", "b", "-F", "jsonl"], first.as_bytes())
        .ok();
    let second = broker
        .run(&["topic", "consume", "b", "-e", "-o", "jsonl"])
        .ok()
        .out;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.replace("\"topic\":\"b\"", "\"topic\":\"a\""))
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&first), sorted(&second));
}

#[test]
fn files_are_single_records_or_lines_one_after_the_other() {
    let broker = Broker::start();
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("one"), "1\n2\n").unwrap();
    std::fs::write(path("two"), "3").unwrap();
    let (one, two) = (path("one"), path("two"));
    broker
        .run(&["topic", "produce", "whole", &one, &two, "--format", "file"])
        .ok();
    let done = broker
        .run(&["topic", "consume", "whole", "-e", "-f", "[%v]"])
        .ok();
    assert_eq!(done.out, "[1\n2\n][3]");
    broker
        .run_with(&["topic", "produce", "lines", &one, "-", &two], b"stdin\n")
        .ok();
    assert_eq!(broker.values("lines"), "1\n2\nstdin\n3\n");
}

#[test]
fn keys_headers_partition_and_compression_are_taken_from_flags() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    // What is only at the leader is not to be read yet: the last one waits for the disk, and so for all of them.
    let acks = ["leader", "leader", "leader", "leader", "all"];
    for (codec, acks) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().zip(acks) {
        let produce = [
            "topic",
            "produce",
            "t",
            "-k",
            ":",
            "-H",
            "a=1",
            "--partition",
            "2",
            "-z",
            codec,
            "--acks",
            acks,
            "--linger",
            "0s",
        ];
        broker.run_with(&produce, b"k:v:w\n").ok();
    }
    let done = broker
        .run(&[
            "topic",
            "consume",
            "t",
            "-e",
            "-f",
            "%p %o %k %v %h %K %S\\n",
        ])
        .ok();
    let expected: String = (0..5).map(|n| format!("2 {n} k v:w a=1 1 3\n")).collect();
    assert_eq!(done.out, expected);
}

/// Ten records in each of two partitions, a second apart.
fn ten_each(broker: &Broker) {
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    let lines: String = (0..20)
        .map(|n| {
            let (partition, time) = (n % 2, 1_700_000_000_000_u64 + n / 2 * 1000);
            format!("{{\"value\":\"{n}\",\"partition\":{partition},\"timestamp\":{time}}}\n")
        })
        .collect();
    broker
        .run_with(&["topic", "produce", "t", "-F", "jsonl"], lines.as_bytes())
        .ok();
}

#[test]
fn every_kind_of_position_is_where_it_says() {
    let broker = Broker::start();
    ten_each(&broker);
    let offsets = |args: &[&str]| {
        let consume = ["topic", "consume", "t", "-e", "-f", "%p/%o "];
        let done = broker.run(&[&consume, args].concat()).ok();
        let mut offsets: Vec<String> = done.out.split_whitespace().map(str::to_owned).collect();
        offsets.sort();
        offsets.join(" ")
    };
    assert_eq!(offsets(&["--from", "-2"]), "0/8 0/9 1/8 1/9");
    assert_eq!(offsets(&["-o", "-1"]), "0/9 1/9");
    assert_eq!(offsets(&["--from", "8"]), "0/8 0/9 1/8 1/9");
    assert_eq!(offsets(&["--from", "7..9"]), "0/7 0/8 1/7 1/8");
    assert_eq!(offsets(&["--from", "..1"]), "0/0 1/0");
    assert_eq!(offsets(&["--from", "8..100"]), "0/8 0/9 1/8 1/9");
    assert_eq!(offsets(&["--from", "end"]), "");
    assert_eq!(offsets(&["-p", "1", "--from", "9"]), "1/9");
    assert_eq!(offsets(&["--from", "@1700000008000"]), "0/8 0/9 1/8 1/9");
    assert_eq!(offsets(&["--from", "@1700000008001"]), "0/9 1/9");
    assert_eq!(offsets(&["--from", "@2023-11-14T22:13:29Z"]), "0/9 1/9");
    assert_eq!(offsets(&["--from", "@-1h"]), "");
    assert_eq!(
        offsets(&["--from", "@1700000001000..@1700000002000"]),
        "0/1 1/1"
    );
    assert_eq!(
        offsets(&["--from", "-10", "-n", "3", "-p", "0"]),
        "0/0 0/1 0/2"
    );
}

#[test]
fn forms_of_output_are_what_their_names_say() {
    let broker = Broker::start();
    broker
        .run_with(&["topic", "produce", "t", "--key", "k"], b"a\nb\n")
        .ok();
    let form = |form: &str| {
        broker
            .run(&["topic", "consume", "t", "-e", "-o", form])
            .ok()
            .out
    };
    assert_eq!(form("name"), "t/0/0\nt/0/1\n");
    let array: serde_json::Value = serde_json::from_str(&form("json")).unwrap();
    assert_eq!(array.as_array().map(Vec::len), Some(2));
    assert!(form("table").starts_with("PARTITION\tOFFSET\tTIME\tKEY\tVALUE\n0\t0\t20"));
    assert_eq!(form("yaml").matches("---\n").count(), 2);
}

#[test]
fn a_reader_that_goes_away_ends_consume_quietly() {
    let broker = Broker::start();
    let lines = "0123456789abcdef\n".repeat(100_000);
    broker
        .run_with(&["topic", "produce", "t"], lines.as_bytes())
        .ok();
    let mut command = broker.command(&["topic", "consume", "t"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(read_all(child.stderr.take().unwrap()), "");
}

#[test]
fn consume_shows_records_as_they_come_and_ctrl_c_ends_it_cleanly() {
    let broker = Broker::start();
    broker.run_with(&["topic", "produce", "t"], b"one\n").ok();
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = broker.command(&["topic", "consume", "t"]);
    let file = out.reopen().unwrap();
    let mut child = command.stdout(file).stderr(Stdio::piped()).spawn().unwrap();
    let shows = |text: &'static str| {
        until(text, || {
            std::fs::read_to_string(out.path()).unwrap() == text
        });
    };
    shows("one\n");
    broker.run_with(&["topic", "produce", "t"], b"two\n").ok();
    shows("one\ntwo\n");
    send_signal(child.id(), SIGINT);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn lines_of_a_slow_pipe_are_sent_when_they_come() {
    use std::io::Write;
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]).ok();
    let mut command = broker.command(&["topic", "produce", "t"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"first\nhalf").unwrap();
    until("the first line is there", || {
        broker.values("t") == "first\n"
    });
    stdin.write_all(b" second\n").unwrap();
    until("the second line is there", || {
        broker.values("t") == "first\nhalf second\n"
    });
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_rate_is_kept() {
    let broker = Broker::start();
    let lines = "x\n".repeat(100);
    let done = broker
        .run_with(
            &["topic", "produce", "t", "--rate", "100/s", "-o", "json"],
            lines.as_bytes(),
        )
        .ok();
    let seconds = done.json()["seconds"].as_f64().unwrap();
    assert!((0.95..3.0).contains(&seconds), "{seconds}");
    assert_eq!(done.json()["acknowledged"], 100);
}

#[test]
fn ctrl_c_ends_produce_after_what_was_read() {
    let broker = Broker::start();
    let mut command = broker.command(&["topic", "produce", "t"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"a\n").unwrap();
    until("the line is there", || {
        broker.run(&["topic", "consume", "t", "-e"]).out == "a\n"
    });
    thread::sleep(Duration::from_millis(20));
    send_signal(child.id(), SIGINT);
    let code = wait(&mut child).code();
    let err = read_all(child.stderr.take().unwrap());
    assert_eq!(code, Some(8), "{err}");
    assert!(err.contains("1 record acknowledged"), "{err}");
    assert!(err.contains("interrupted"), "{err}");
}
