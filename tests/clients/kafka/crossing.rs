//! What is written through one door is read through the other.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
};

use sapwood_client::{Client, Codec, Message, NewTopic, Position, Record, RecordHeader, Timestamp};
use serde::{Deserialize, Serialize};

use super::program::{has_kcat, output, with_confluent_kafka};
use crate::harness::{Random, Settings, seed};

const CODECS: [(Codec, &str); 5] = [
    (Codec::None, "none"),
    (Codec::Gzip, "gzip"),
    (Codec::Snappy, "snappy"),
    (Codec::Lz4, "lz4"),
    (Codec::Zstd, "zstd"),
];
const RECORDS: u64 = 300;
const LINES: usize = 20_000;

/// A record as tests/python/kafka/cross.py says it: bytes in hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    timestamp: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_native_client_wrote_a_kafka_client_reads_with_headers_and_nulls() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let client = settings.client();
    for (codec, name) in CODECS {
        create(&client, name).await;
        let producer = client.producer().compression(codec).build().await;
        let producer = producer.expect("the broker runs");
        for number in 0..RECORDS {
            let sent = producer.send(record(name, number)).await;
            sent.expect("a record is taken");
        }
        producer.close().await.expect("everything is acknowledged");
        let Some(mut command) = with_confluent_kafka("cross.py") else {
            return;
        };
        command.args([&settings.address(), "read", name, &RECORDS.to_string()]);
        let (stdout, _) = output(command);
        let read: Vec<Said> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is a record"))
            .collect();
        assert_eq!(read, said(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kafka_client_wrote_the_native_client_reads_with_headers_and_nulls() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let client = settings.client();
    for (_, name) in CODECS {
        create(&client, name).await;
        let mut lines = String::new();
        for record in said(name) {
            let line = serde_json::to_string(&record).expect("a record is a line");
            let _ = writeln!(lines, "{line}");
        }
        let Some(mut command) = with_confluent_kafka("cross.py") else {
            return;
        };
        command.args([&settings.address(), "write", name, name]);
        feed(command, lines.as_bytes());
        let read: Vec<Said> = read_all(&client, name)
            .await
            .into_iter()
            .map(heard)
            .collect();
        assert_eq!(read, said(name), "{name}");
    }
}

#[test]
fn what_kcat_produces_the_command_line_consumes() {
    if !has_kcat() {
        return;
    }
    let input = lines();
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    settings
        .cli(&["topic", "create", "lines", "-p", "3"], b"")
        .ok();
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", &settings.address(), "-t", "lines", "-K", "\\t"]);
    kcat.args(["-z", "zstd", "-X", "enable.idempotence=true"]);
    feed(kcat, input.as_bytes());
    let consume = [
        "topic",
        "consume",
        "lines",
        "--exit-at-end",
        "-f",
        "%k\\t%v\\n",
    ];
    let consumed = settings.cli(&consume, b"").ok().text();
    assert!(by_key(&consumed) == by_key(&input), "the lines differ");
}

#[test]
fn what_the_command_line_produces_kcat_consumes() {
    if !has_kcat() {
        return;
    }
    let input = lines();
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    settings
        .cli(&["topic", "create", "lines", "-p", "3"], b"")
        .ok();
    let produce = [
        "topic",
        "produce",
        "lines",
        "-k",
        "\\t",
        "--compression",
        "lz4",
    ];
    settings.cli(&produce, input.as_bytes()).ok();
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", &settings.address(), "-t", "lines", "-e", "-q"]);
    kcat.args(["-o", "beginning", "-f", "%k\\t%s\\n"]);
    let (consumed, _) = output(kcat);
    assert!(by_key(&consumed) == by_key(&input), "the lines differ");
}

/// Lines with 500 keys, some of them empty, and text of every length.
fn lines() -> String {
    let mut random = Random::new(seed(), 1 << 44);
    let mut lines = String::new();
    for number in 0..LINES {
        let key = random.within(0..500);
        let filler =
            "größer, \"weiter\" ".repeat(usize::try_from(random.within(0..20)).expect("small"));
        let _ = writeln!(lines, "plane-{key}\t{number} {filler}");
    }
    lines
}

/// The lines in the order of their keys; those of one key stay in their order, which is the order of
/// their partition.
fn by_key(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| line.split('\t').next());
    lines
}

/// Runs a command with this standard input.
fn feed(mut command: Command, input: &[u8]) {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(input).expect("it reads its input");
    drop(stdin);
    let status = child.wait().expect("the process is ours");
    assert!(status.success(), "{command:?}: {status}");
}

async fn create(client: &Client, topic: &str) {
    let topic = NewTopic::new(topic).partitions(1);
    let created = client.admin().create_topic(&topic).await;
    created.expect("the topic can be created");
}

/// The record with this number: some have no key, some no value, some neither, some headers, some of
/// them without a value.
fn record(topic: &str, number: u64) -> Record {
    let ms = i64::try_from(number).expect("a small number");
    let mut record = Record::to(topic).timestamp(Timestamp(1_790_000_000_000 + 10 * ms));
    if !number.is_multiple_of(3) {
        record = record.key(format!("key {number}"));
    }
    if !number.is_multiple_of(5) {
        record = record.value(format!("größe {number} ").repeat(20));
    }
    if number.is_multiple_of(7) {
        record = record.key("").value("");
    }
    for header in 0..number % 4 {
        record = record.header(format!("name {header}"), format!("value {number}"));
    }
    if number.is_multiple_of(4) {
        record = record.header("empty", "");
        record.headers.push(RecordHeader {
            key: "null".into(),
            value: None,
        });
    }
    record
}

/// All records of a topic as cross.py says them.
fn said(topic: &str) -> Vec<Said> {
    let say = |number| {
        let record = record(topic, number);
        Said {
            key: record.key.as_deref().map(hex),
            value: record.value.as_deref().map(hex),
            headers: record.headers.iter().map(header).collect(),
            timestamp: record.timestamp.expect("it is set").0,
        }
    };
    (0..RECORDS).map(say).collect()
}

fn heard(message: Message) -> Said {
    Said {
        key: message.key.as_deref().map(hex),
        value: message.value.as_deref().map(hex),
        headers: message.headers.iter().map(header).collect(),
        timestamp: message.timestamp.0,
    }
}

fn header(header: &RecordHeader) -> (String, Option<String>) {
    let name = String::from_utf8(header.key.to_vec()).expect("names are text");
    (name, header.value.as_deref().map(hex))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn read_all(client: &Client, topic: &str) -> Vec<Message> {
    let consumer = client
        .consumer()
        .topic(topic, Position::Start, Some(Position::End));
    let mut consumer = consumer.build().await.expect("the broker runs");
    let mut messages = Vec::new();
    while let Some(message) = consumer.next().await {
        messages.push(message.expect("it can be read"));
    }
    messages
}
