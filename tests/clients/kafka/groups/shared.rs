//! A topic that members share: who writes it, where it ends, what was read of it and committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read, Write},
    net::TcpStream,
    ops::Range,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sapwood_kafka_wire::{
    decode_response, encode_request,
    messages::{OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchResponse},
};

use super::members::{PATIENCE, Place, Said};
use crate::harness::{Settings, binary};

/// Offsets by partition: ends of logs, or what a group has committed.
pub(super) type Offsets = BTreeMap<Place, u64>;

/// Creates a topic.
pub(super) fn create(settings: &Settings, topic: &str, partitions: u32) {
    let partitions = partitions.to_string();
    settings
        .cli(&["topic", "create", topic, "-p", &partitions], b"")
        .ok();
}

/// Writes this many keyed records to a topic, and waits for them.
pub(super) fn write(settings: &Settings, topic: &str, count: u64) {
    let mut lines = String::new();
    for number in 0..count {
        let _ = writeln!(lines, "key-{number}\tvalue {number}");
    }
    let produce = ["topic", "produce", topic, "-k", "\\t"];
    settings.cli(&produce, lines.as_bytes()).ok();
}

/// Where the partitions of a topic end.
pub(super) fn ends(settings: &Settings, topic: &str) -> Offsets {
    let describe = ["topic", "describe", topic, "-o", "json"];
    let described = settings.cli(&describe, b"").ok().text();
    let described: serde_json::Value = serde_json::from_str(&described).expect("it is JSON");
    let partitions = described["partitions"]
        .as_array()
        .expect("there are partitions");
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let end = |partition: &serde_json::Value| {
        let index = u32::try_from(number(&partition["partition"])).expect("a small number");
        (
            (topic.to_owned(), index),
            number(&partition["log_end_offset"]),
        )
    };
    partitions.iter().map(end).collect()
}

/// Writes keyed records until it is told to stop, about 400 a second, also while the broker dies and
/// comes back.
#[derive(Debug)]
pub(super) struct Feed {
    stop: Arc<AtomicBool>,
    /// `None` when it has stopped.
    writing: Option<JoinHandle<Child>>,
}

impl Feed {
    pub(super) fn start(settings: &Settings, topic: &str) -> Self {
        let mut child = Command::new(binary())
            .args([
                "-b",
                &settings.address(),
                "topic",
                "produce",
                topic,
                "-k",
                "\\t",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let stop = Arc::new(AtomicBool::new(false));
        let writing = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut stdin = child.stdin.take().expect("standard input is a pipe");
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let mut lines = String::new();
                    for _ in 0..20 {
                        let _ = writeln!(lines, "key-{number}\tvalue {number}");
                        number += 1;
                    }
                    if stdin.write_all(lines.as_bytes()).is_err() {
                        // It has ended; how, is said when it is waited for.
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                child
            }
        });
        Self {
            stop,
            writing: Some(writing),
        }
    }

    /// Writes no more, and waits until everything is acknowledged.
    ///
    /// # Panics
    /// When something was not.
    pub(super) fn stop(mut self) {
        let child = self.end().expect("it stops once");
        let output = child.wait_with_output().expect("the process is ours");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the producer: {}: {stderr}",
            output.status
        );
    }

    fn end(&mut self) -> Option<Child> {
        self.stop.store(true, Ordering::Relaxed);
        // Its standard input is closed with the thread.
        self.writing.take().and_then(|writing| writing.join().ok())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(mut child) = self.end() {
            // The test has failed; nobody asks how it ends.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a group has committed, from the broker itself. Waits while the broker loads its groups.
///
/// # Panics
/// When the broker does not say it in time.
pub(super) fn committed(settings: &Settings, group: &str) -> Offsets {
    const VERSION: i16 = 8;
    /// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
    const LATER: [i16; 3] = [14, 15, 16];
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let frame = encode_request(1, VERSION, None, &request).expect("the request is valid");
    let started = Instant::now();
    loop {
        let answer = exchange(settings, &frame.concat()).expect("the broker answers");
        let (_, response): (_, OffsetFetchResponse) =
            decode_response(answer.into(), VERSION).expect("it is an answer");
        let group = response.groups.into_iter().next().expect("the group");
        if !LATER.contains(&group.error_code) {
            assert_eq!(group.error_code, 0, "the group's error");
            let topics = group.topics.into_iter().flat_map(|topic| {
                let name = topic.name;
                topic.partitions.into_iter().map(move |partition| {
                    let index = u32::try_from(partition.partition_index).expect("an index");
                    let offset = u64::try_from(partition.committed_offset).expect("an offset");
                    ((name.clone(), index), offset)
                })
            });
            return topics.collect();
        }
        assert!(
            started.elapsed() < PATIENCE,
            "the groups are loaded in time"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// One request on a connection of its own; the answer without its length.
fn exchange(settings: &Settings, frame: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(settings.address())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).expect("a small answer");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// What members have read together of each partition.
#[derive(Debug, Default)]
pub(super) struct Account {
    read: BTreeMap<Place, Vec<Range<u64>>>,
}

impl Account {
    pub(super) fn of(all: &[Said]) -> Self {
        let mut account = Self::default();
        for (place, run) in all.iter().flat_map(|said| &said.runs) {
            account
                .read
                .entry(place.clone())
                .or_default()
                .push(run.clone());
        }
        account
    }

    /// Whether everything below these offsets was read.
    pub(super) fn covers(&self, ends: &Offsets) -> bool {
        ends.iter().all(|(place, end)| self.gap(place) >= *end)
    }

    /// The first offset of a partition that nobody has read.
    fn gap(&self, place: &Place) -> u64 {
        let mut runs = self.read.get(place).cloned().unwrap_or_default();
        runs.sort_by_key(|run| run.start);
        let reach = |gap: u64, run: Range<u64>| {
            if run.start <= gap {
                gap.max(run.end)
            } else {
                gap
            }
        };
        runs.into_iter().fold(0, reach)
    }

    /// How many records came, each time that they did.
    pub(super) fn deliveries(&self) -> u64 {
        self.read
            .values()
            .flatten()
            .map(|run| run.end - run.start)
            .sum()
    }

    /// Fails if somebody has read what is not there.
    pub(super) fn check_bounds(&self, ends: &Offsets) {
        let known: BTreeSet<&Place> = ends.keys().collect();
        for (place, runs) in &self.read {
            assert!(known.contains(place), "{place:?} was read and is not there");
            let last = runs.iter().map(|run| run.end).max();
            assert!(
                last <= ends.get(place).copied(),
                "{place:?} was read past its end"
            );
        }
    }
}
