//! The member of a group of ../../README.md with the rdkafka crate.
//!
//!     rdkafka-checks group HOST:PORT GROUP TOPIC PROTOCOL [--instance ID] [--regex] [--commit-every N]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::KafkaResult,
};
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(100);
/// How long the last commit is tried.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Records that are taken at a time, before a line tells of them.
const RECORDS_MAX: usize = 500;

/// A topic's partition.
type Place = (String, i32);

struct Options {
    broker: String,
    group: String,
    topic: String,
    protocol: String,
    instance: Option<String>,
    commit_every: usize,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let [broker, group, topic, protocol, rest @ ..] = arguments else {
            panic!("usage: rdkafka-checks group HOST:PORT GROUP TOPIC PROTOCOL [FLAGS]");
        };
        let mut options = Self {
            broker: broker.clone(),
            group: group.clone(),
            topic: topic.clone(),
            protocol: protocol.clone(),
            instance: None,
            commit_every: 1,
        };
        let mut rest = rest.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().expect("the flag has a value").clone();
            match &**flag {
                "--instance" => options.instance = Some(value()),
                "--commit-every" => options.commit_every = value().parse().expect("a number"),
                // A topic that begins with ^ is a pattern to librdkafka.
                "--regex" => {}
                _ => panic!("unknown argument {flag}"),
            }
        }
        options
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.broker)
            .set("client.id", "group")
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", "500")
            .set("reconnect.backoff.max.ms", "1000");
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        let assignor = match &*self.protocol {
            "consumer" => {
                // The broker sets the timeouts, and chooses among its assignors.
                config.set("group.protocol", "consumer");
                return config;
            }
            "cooperative" => "cooperative-sticky",
            _ => "range",
        };
        config
            .set("partition.assignment.strategy", assignor)
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500");
        config
    }
}

/// What the member holds and how far it is.
#[derive(Default)]
struct Progress {
    held: BTreeSet<Place>,
    /// The offset after the last one that was read, where that is not committed.
    read: BTreeMap<Place, i64>,
    uncommitted: usize,
    /// Runs of offsets that no line has told of.
    runs: Vec<(Place, i64, i64)>,
}

impl Progress {
    fn add(&mut self, place: Place, offset: i64) {
        self.read.insert(place.clone(), offset + 1);
        self.uncommitted += 1;
        match self.runs.iter_mut().rfind(|(of, ..)| *of == place) {
            Some((_, _, to)) if *to == offset => *to += 1,
            _ => self.runs.push((place, offset, offset + 1)),
        }
    }

    fn tell(&mut self) {
        for ((topic, partition), from, to) in self.runs.drain(..) {
            print(&json!({
                "event": "records", "topic": topic, "partition": partition, "from": from, "to": to,
            }));
        }
    }

    fn tell_assigned(&self) {
        print(&json!({"event": "assigned", "partitions": self.held}));
    }
}

/// Its callbacks run within polls, on the only thread.
struct Member {
    progress: Mutex<Progress>,
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            // What is lost already belongs to somebody else.
            if !consumer.assignment_lost() {
                let _ = self.commit(consumer);
            }
            let mut progress = self.progress();
            progress.tell();
            for place in places(partitions) {
                progress.held.remove(&place);
                progress.read.remove(&place);
            }
            progress.tell_assigned();
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let mut progress = self.progress();
            progress.held.extend(places(partitions));
            progress.tell_assigned();
        }
    }
}

impl Member {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("nobody panics with it")
    }

    /// Commits what was read; where that fails, the next commit takes it along.
    fn commit(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let mut progress = self.progress();
        progress.tell();
        let read = progress.read.clone();
        drop(progress);
        if read.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in &read {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.commit(&offsets, CommitMode::Sync)?;
        let mut progress = self.progress();
        progress.read.clear();
        progress.uncommitted = 0;
        for ((topic, partition), offset) in read {
            print(&json!({
                "event": "committed", "topic": topic, "partition": partition, "offset": offset,
            }));
        }
        Ok(())
    }
}

/// Runs the member until standard input says `close` or ends.
pub fn run(arguments: &[String]) {
    let options = Options::parse(arguments);
    if let Err(error) = consume(&options) {
        print(&json!({"event": "error", "detail": error}));
        std::process::exit(1);
    }
    print(&json!({"event": "closed"}));
}

fn consume(options: &Options) -> Result<(), String> {
    let closing = Arc::new(AtomicBool::new(false));
    let listener = Arc::clone(&closing);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines();
        let _ = lines.map_while(Result::ok).find(|line| line == "close");
        listener.store(true, Ordering::Relaxed);
    });
    let member = Member {
        progress: Mutex::default(),
    };
    let consumer: BaseConsumer<Member> = options
        .config()
        .create_with_context(member)
        .map_err(|e| e.to_string())?;
    consumer
        .subscribe(&[&options.topic])
        .map_err(|e| e.to_string())?;
    while !closing.load(Ordering::Relaxed) {
        take(&consumer);
        let uncommitted = consumer.context().progress().uncommitted;
        if uncommitted >= options.commit_every {
            // It fails while the broker is away and within a rebalance.
            let _ = consumer.context().commit(&consumer);
        }
        if let Some((_, text)) = consumer.client().fatal_error() {
            return Err(text);
        }
    }
    let asked = Instant::now();
    while let Err(error) = consumer.context().commit(&consumer) {
        if asked.elapsed() > CLOSE_MAX {
            return Err(error.to_string());
        }
        take(&consumer);
    }
    Ok(())
    // Dropping the consumer closes it, which is when it leaves.
}

/// Takes what has come, and tells of it.
fn take(consumer: &BaseConsumer<Member>) {
    let mut wait = POLL;
    for _ in 0..RECORDS_MAX {
        // Errors are of brokers that are away, or else fatal, which is asked for.
        let Some(Ok(message)) = consumer.poll(wait) else {
            break;
        };
        let place = (message.topic().to_owned(), message.partition());
        consumer.context().progress().add(place, message.offset());
        wait = Duration::ZERO;
    }
    consumer.context().progress().tell();
}

fn places(partitions: &TopicPartitionList) -> Vec<Place> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}

fn print(event: &Value) {
    let mut stdout = std::io::stdout().lock();
    // Nobody reads any more when this fails.
    let _ = writeln!(stdout, "{event}").and_then(|()| stdout.flush());
}
