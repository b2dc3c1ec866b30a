//! The checks of ../README.md with the rdkafka crate, which is librdkafka with a Rust interface.
//!
//!     rdkafka-checks HOST:PORT PREFIX
//!
//! With `group` it is the member of a group in group.rs instead.

mod client;
mod group;

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use client::{Client, Error, Record};
use rdkafka::Offset;
use serde_json::json;

const RECORDS: usize = 10_000;
const PARTITIONS: i32 = 3;
const UNKNOWN: &str = "UNKNOWN_TOPIC_OR_PARTITION";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|mode| mode == "group") {
        return group::run(&arguments[2..]);
    }
    let [_, broker, prefix] = &arguments[..] else {
        panic!("usage: rdkafka-checks HOST:PORT PREFIX");
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later than 1970");
    let mut checks = Checks {
        broker: broker.clone(),
        prefix: prefix.clone(),
        base: i64::try_from(now.as_secs()).expect("a small number") * 1000 - 3_600_000,
        client: Client::new(broker),
        full: String::new(),
    };
    println!(
        "{}",
        json!({"client": format!("rdkafka {}", client::version())})
    );
    report("describe-cluster", || checks.describe_cluster());
    report("create-topic", || checks.create_topic());
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        report(&format!("round-trip-{codec}"), || checks.round_trip(codec));
    }
    report("idempotence", || checks.idempotence());
    report("acks", || checks.acks());
    report("null-and-empty", || checks.null_and_empty());
    report("own-partitions", || checks.own_partitions());
    report("seek-by-timestamp", || checks.seek_by_timestamp());
    report("seek-by-offset", || checks.seek_by_offset());
    report("watermarks", || checks.watermarks());
    report("read-configs", || checks.read_configs());
    report("alter-configs", || checks.alter_configs());
    report("add-partitions", || checks.add_partitions());
    report("delete-records", || checks.delete_records());
    report("recreate-topic", || checks.recreate_topic());
    report("auto-creation", || checks.auto_creation());
    report("record-too-large", || checks.record_too_large());
    report("unknown-topic", || checks.unknown_topic());
    report("invalid-topic", || checks.invalid_topic());
    report("transactions-refused", || checks.transactions_refused());
}

/// Runs one check and prints its line.
fn report(name: &str, check: impl FnOnce() -> String) {
    let started = Instant::now();
    let (ok, detail) = match catch_unwind(AssertUnwindSafe(check)) {
        Ok(detail) => (true, detail),
        Err(cause) => {
            let text = cause.downcast_ref::<String>().cloned();
            (false, text.unwrap_or_else(|| "it panicked".to_owned()))
        }
    };
    let seconds = (started.elapsed().as_secs_f64() * 100.0).round() / 100.0;
    println!(
        "{}",
        json!({"check": name, "ok": ok, "detail": detail, "seconds": seconds})
    );
}

#[track_caller]
fn equal<T: PartialEq + Debug>(actual: T, expected: T, what: &str) {
    assert!(
        actual == expected,
        "{what} is {actual:?}, expected {expected:?}"
    );
}

#[track_caller]
fn refused<T: Debug>(result: Result<T, Error>, name: &str, what: &str) {
    let error = result.map_or_else(
        |error| error.name,
        |value| format!("no error but {value:?}"),
    );
    equal(&*error, name, &format!("the error of {what}"));
}

/// Waits until a question has this answer: changes reach a client's view a little later.
#[track_caller]
fn settles<T: PartialEq + Debug>(question: impl Fn() -> T, expected: T, what: &str) {
    let started = Instant::now();
    loop {
        let answer = question();
        if answer == expected {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{what} stays {answer:?}, expected {expected:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Checks {
    broker: String,
    prefix: String,
    base: i64,
    client: Client,
    full: String,
}

impl Checks {
    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn partitions(&self, topic: &str) -> usize {
        self.client.partitions(topic).unwrap_or(0)
    }

    fn make(&self, name: &str, partitions: i32) -> String {
        let topic = self.topic(name);
        self.client.create(&topic, partitions).unwrap();
        let expected = usize::try_from(partitions).expect("a small number");
        settles(|| self.partitions(&topic), expected, "its size");
        topic
    }

    fn record(&self, n: usize, partition: i32) -> Record {
        let text = |text: String| Some(text.into_bytes());
        Record {
            partition,
            key: text(format!("key-{n}")),
            value: text(format!("value {n} {}", "grün ".repeat(n % 20))),
            headers: vec![
                ("client".to_owned(), text("a b".to_owned())),
                ("number".to_owned(), text(n.to_string())),
            ],
            timestamp: self.base + 100 * i64::try_from(n).expect("a small number"),
        }
    }

    fn records(&self, count: usize) -> Vec<Record> {
        (0..PARTITIONS)
            .cycle()
            .zip(0..count)
            .map(|(partition, n)| self.record(n, partition))
            .collect()
    }

    fn in_one_partition(&self, numbers: std::ops::Range<usize>) -> Vec<Record> {
        numbers.map(|n| self.record(n, 0)).collect()
    }

    #[track_caller]
    fn check_read(&self, topic: &str, records: &[Record], first: i64) {
        for partition in 0..5 {
            let expected: Vec<_> = records
                .iter()
                .filter(|record| record.partition == partition)
                .collect();
            if expected.is_empty() {
                continue;
            }
            let start = Offset::Offset(first);
            let read = self
                .client
                .read(topic, partition, start, expected.len())
                .unwrap();
            for ((read, expected), offset) in read.iter().zip(expected).zip(first..) {
                let what = format!("the record at offset {offset} of partition {partition}");
                equal((&read.1, read.0), (expected, offset), &what);
            }
        }
    }

    #[track_caller]
    fn check_offsets(&self, offsets: &[i64], records: &[Record], first: [i64; 3]) {
        let mut following = first;
        equal(offsets.len(), records.len(), "the number of offsets");
        for (offset, record) in offsets.iter().zip(records) {
            let next = &mut following[usize::try_from(record.partition).expect("a small number")];
            equal(offset, next, "an acknowledged offset");
            *next += 1;
        }
    }

    fn describe_cluster(&self) -> String {
        equal(
            self.client.nodes().unwrap(),
            vec![self.broker.clone()],
            "the addresses of the nodes",
        );
        "Metadata".to_owned()
    }

    fn create_topic(&self) -> String {
        let topic = self.make("created", PARTITIONS);
        let again = self.client.create(&topic, PARTITIONS);
        refused(again, "TOPIC_ALREADY_EXISTS", "creating it again");
        String::new()
    }

    fn round_trip(&mut self, codec: &str) -> String {
        let topic = self.make(codec, PARTITIONS);
        let records = self.records(RECORDS);
        let started = Instant::now();
        let settings = [("compression.type", codec), ("enable.idempotence", "true")];
        let offsets = self.client.produce(&topic, &records, &settings).unwrap();
        let writing = started.elapsed();
        self.check_offsets(&offsets, &records, [0; 3]);
        self.check_read(&topic, &records, 0);
        self.full = topic;
        let reading = started.elapsed() - writing;
        format!(
            "written in {:.2} s, read in {:.2} s",
            writing.as_secs_f64(),
            reading.as_secs_f64()
        )
    }

    fn idempotence(&self) -> String {
        let topic = self.make("idempotent", PARTITIONS);
        let records = self.records(1000);
        for earlier in 0..3 {
            // Each producer gets an id of its own and begins its sequence anew.
            let settings = [("enable.idempotence", "true")];
            let offsets = self.client.produce(&topic, &records, &settings).unwrap();
            let first = [334, 333, 333].map(|count| earlier * count);
            self.check_offsets(&offsets, &records, first);
        }
        let watermarks = self.client.watermarks(&topic, 0).unwrap();
        equal(
            watermarks,
            (0, 1002),
            "the watermarks after three producers",
        );
        String::new()
    }

    fn acks(&self) -> String {
        let topic = self.make("acks", PARTITIONS);
        let records = self.in_one_partition(0..100);
        self.client
            .produce(&topic, &records[..50], &[("acks", "0")])
            .unwrap();
        settles(
            || self.client.watermarks(&topic, 0).unwrap(),
            (0, 50),
            "what acks=0 wrote",
        );
        let offsets = self
            .client
            .produce(&topic, &records[50..], &[("acks", "1")])
            .unwrap();
        self.check_offsets(&offsets, &records[50..], [50, 0, 0]);
        self.check_read(&topic, &records, 0);
        String::new()
    }

    fn null_and_empty(&self) -> String {
        let topic = self.make("nulls", 1);
        let bytes = |bytes: &[u8]| Some(bytes.to_vec());
        let record = |key, value| Record {
            partition: 0,
            key,
            value,
            headers: vec![],
            timestamp: self.base,
        };
        let mut with_headers = record(bytes(b"headers"), bytes(b""));
        with_headers.headers = vec![
            ("null".to_owned(), None),
            ("empty".to_owned(), bytes(b"")),
            (String::new(), bytes(b"x")),
            ("grün".to_owned(), bytes(b"\xff")),
            ("null".to_owned(), bytes(b"2")),
        ];
        let records = [
            record(None, bytes(b"no key")),
            record(bytes(b""), bytes(b"empty key")),
            record(bytes(b"no value"), None),
            record(bytes(b"empty value"), bytes(b"")),
            record(bytes(b"\x00\xff\xfe"), bytes(b"\xc3\x28")),
            with_headers,
            record(None, None),
        ];
        let offsets = self.client.produce(&topic, &records, &[]).unwrap();
        self.check_offsets(&offsets, &records, [0; 3]);
        self.check_read(&topic, &records, 0);
        String::new()
    }

    fn own_partitions(&self) -> String {
        for (partition, n) in (0..PARTITIONS).zip(0..) {
            let found = self
                .client
                .read(&self.full, partition, Offset::Beginning, 1)
                .unwrap();
            equal(found, vec![(0, self.record(n, partition))], "what is first");
        }
        String::new()
    }

    fn seek_by_timestamp(&self) -> String {
        // Record n has the time base + 100 n; partition 1 holds 1, 4, 7 ...
        let middle = 400 + 300 * 1234;
        for (time, expected, what) in [
            (-self.base, Offset::Offset(0), "time 0"),
            (100, Offset::Offset(0), "the first time"),
            (101, Offset::Offset(1), "just after it"),
            (middle, Offset::Offset(1235), "a time in the middle"),
            (1_000_000, Offset::End, "a time that has not come"),
        ] {
            let found = self.client.offset_for(&self.full, 1, self.base + time);
            equal(found.unwrap(), expected, &format!("the offset of {what}"));
        }
        let found = self
            .client
            .read(&self.full, 1, Offset::Offset(1235), 1)
            .unwrap();
        equal(
            found,
            vec![(1235, self.record(3 * 1235 + 1, 1))],
            "the record there",
        );
        String::new()
    }

    fn seek_by_offset(&self) -> String {
        for (offset, n) in [(0, 2), (1, 5), (1000, 3002), (2345, 7037), (3332, 9998)] {
            let found = self
                .client
                .read(&self.full, 2, Offset::Offset(offset), 1)
                .unwrap();
            equal(found, vec![(offset, self.record(n, 2))], "what is there");
        }
        let beyond = self.client.read(&self.full, 2, Offset::Offset(99_999), 1);
        refused(beyond, "OFFSET_OUT_OF_RANGE", "reading beyond the end");
        String::new()
    }

    fn watermarks(&self) -> String {
        for (partition, count) in (0..).zip([3334, 3333, 3333]) {
            let watermarks = self.client.watermarks(&self.full, partition).unwrap();
            equal(watermarks, (0, count), "the watermarks");
        }
        let empty = self.make("empty", 1);
        let watermarks = self.client.watermarks(&empty, 0).unwrap();
        equal(watermarks, (0, 0), "the watermarks of an empty partition");
        String::new()
    }

    fn read_configs(&self) -> String {
        let configs = self.client.configs(&self.make("configs", 1)).unwrap();
        for (key, value) in [
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "CreateTime"),
            ("retention.ms", "604800000"),
            ("segment.bytes", "1073741824"),
        ] {
            equal(configs.get(key), Some(&(value.to_owned(), true)), key);
        }
        format!("{} keys", configs.len())
    }

    fn alter_configs(&self) -> String {
        let topic = self.make("altered", 1);
        let settles_at = |key: &str, value: &str, is_default| {
            let read = || self.client.configs(&topic).unwrap().remove(key);
            settles(read, Some((value.to_owned(), is_default)), key);
        };
        let changes = [("retention.ms", "86400000"), ("cleanup.policy", "compact")];
        self.client.alter(&topic, &changes).unwrap();
        settles_at("retention.ms", "86400000", false);
        settles_at("cleanup.policy", "compact", false);
        self.client
            .alter(&topic, &[("cleanup.policy", "compact")])
            .unwrap();
        settles_at("retention.ms", "604800000", true);
        settles_at("cleanup.policy", "compact", false);
        // The crate does not pass on the error of a single resource, so that nothing changed has to do.
        for change in [("retention.ms", "soon"), ("no.such.key", "1")] {
            self.client.alter(&topic, &[change]).unwrap();
            settles_at("retention.ms", "604800000", true);
            settles_at("cleanup.policy", "compact", false);
        }
        "AlterConfigs, which replaces all".to_owned()
    }

    fn add_partitions(&self) -> String {
        let topic = self.make("grown", PARTITIONS);
        self.client.add_partitions(&topic, 5).unwrap();
        settles(|| self.partitions(&topic), 5, "the number of partitions");
        let records = [self.record(1, 4)];
        let offsets = self.client.produce(&topic, &records, &[]).unwrap();
        equal(offsets, vec![0], "the offset in the new partition");
        self.check_read(&topic, &records, 0);
        let fewer = self.client.add_partitions(&topic, 2);
        refused(fewer, "INVALID_PARTITIONS", "taking partitions away");
        String::new()
    }

    fn delete_records(&self) -> String {
        let topic = self.make("trimmed", 1);
        let records = self.in_one_partition(0..1000);
        self.client.produce(&topic, &records, &[]).unwrap();
        let start = self.client.delete_records(&topic, 400).unwrap();
        equal(start, Offset::Offset(400), "the new log start");
        let watermarks = self.client.watermarks(&topic, 0).unwrap();
        equal(watermarks, (400, 1000), "the watermarks");
        self.check_read(&topic, &records[400..], 400);
        let first = self.client.read(&topic, 0, Offset::Beginning, 1).unwrap();
        equal(first[0].0, 400, "the first offset");
        let below = self.client.read(&topic, 0, Offset::Offset(399), 1);
        refused(below, "OFFSET_OUT_OF_RANGE", "reading below the log start");
        let beyond = self.client.delete_records(&topic, 1001);
        refused(beyond, "OFFSET_OUT_OF_RANGE", "deleting beyond the end");
        String::new()
    }

    fn recreate_topic(&self) -> String {
        let topic = self.make("again", PARTITIONS);
        self.client.produce(&topic, &self.records(30), &[]).unwrap();
        self.client.delete(&topic).unwrap();
        settles(|| self.partitions(&topic), 0, "the number of partitions");
        self.client.create(&topic, 1).unwrap();
        settles(|| self.partitions(&topic), 1, "the number of partitions");
        let watermarks = self.client.watermarks(&topic, 0).unwrap();
        equal(watermarks, (0, 0), "the watermarks of the new one");
        let records = [self.record(7, 0)];
        let offsets = self.client.produce(&topic, &records, &[]).unwrap();
        equal(offsets, vec![0], "the first offset of the new one");
        self.check_read(&topic, &records, 0);
        String::new()
    }

    fn auto_creation(&self) -> String {
        let topic = self.topic("unannounced");
        let records = [self.record(1, 0)];
        let offsets = self.client.produce(&topic, &records, &[]).unwrap();
        equal(offsets, vec![0], "the first offset");
        self.check_read(&topic, &records, 0);
        String::new()
    }

    fn record_too_large(&self) -> String {
        let topic = self.make("large", 1);
        let mut large = self.record(1, 0);
        large.value = Some(vec![b'x'; 2 << 20]);
        let refusal = self.client.produce(&topic, &[large], &[]);
        refused(refusal, "MESSAGE_TOO_LARGE", "a large record");
        let records = [self.record(2, 0)];
        let offsets = self.client.produce(&topic, &records, &[]).unwrap();
        equal(offsets, vec![0], "the offset of the next record");
        self.check_read(&topic, &records, 0);
        String::new()
    }

    fn unknown_topic(&self) -> String {
        let topic = self.topic("nowhere");
        refused(self.client.partitions(&topic), UNKNOWN, "Metadata");
        refused(self.client.delete(&topic), UNKNOWN, "DeleteTopics");
        let grown = self.client.add_partitions(&topic, 5);
        refused(grown, UNKNOWN, "CreatePartitions");
        refused(self.client.partitions(&topic), UNKNOWN, "Metadata");
        "Metadata, DeleteTopics, CreatePartitions".to_owned()
    }

    fn invalid_topic(&self) -> String {
        for name in ["a b", "..", &"a".repeat(250), "grün"] {
            let created = self.client.create(name, 1);
            refused(created, "INVALID_TOPIC_EXCEPTION", name);
        }
        String::new()
    }

    fn transactions_refused(&self) -> String {
        let started = Instant::now();
        let error = self
            .client
            .begin_transaction()
            .expect_err("no transaction begins");
        let seconds = started.elapsed().as_secs_f64();
        assert!(
            error.name != "TIMED_OUT",
            "not refused but {error:?} after {seconds:.1} s"
        );
        format!("{}: {}, after {seconds:.1} s", error.name, error.text)
    }
}
