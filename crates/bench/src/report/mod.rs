//! What came out of a run.

mod compare;
mod page;
mod table;

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    latency::{Latencies, LatencyUs},
    ledger::Findings,
    plan::{Plan, Rate},
    producer::{Errors, Produced, Tally},
    watch::{Point, Used, Watch},
};

pub use compare::{Change, Comparison, Verdict};

/// The result of a run. As JSON it is stable: fields are added, none change their meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `produce`, `consume` or `e2e`.
    pub command: String,
    /// The version of `sapwood` that measured.
    pub version: String,
    /// When the run ended, in RFC 3339.
    pub ended: String,
    /// What was asked for.
    pub settings: Plan,
    /// How many partitions the topic has.
    pub partitions: u32,
    /// The broker's process, if it is known.
    pub broker: Option<Process>,
    /// Where it ran.
    pub machine: Machine,
    /// From the end of the warm-up to the last record.
    pub seconds: f64,
    /// Acknowledged, or read.
    pub records: u64,
    /// Of their keys and values.
    pub bytes: u64,
    /// Records a second.
    pub records_per_second: f64,
    /// Megabytes (10^6 bytes) of keys and values a second.
    pub megabytes_per_second: f64,
    /// From when a record was due until it was acknowledged (produce) or read (e2e).
    pub latency_us: Option<LatencyUs>,
    /// Share of all in percent, and the latency in microseconds that it stays at or below.
    pub latency_percentiles: Vec<(f64, f64)>,
    /// From when a record was due until it was acknowledged, of an e2e run.
    pub produce_latency_us: Option<LatencyUs>,
    /// From when a record was due until the generator had made it: its own lateness, and waiting for room.
    pub send_delay_us: Option<LatencyUs>,
    /// Requests of the generator's connections; 0 where the client does not tell.
    pub requests: u64,
    /// CPU time of the broker's process.
    pub server_cpu_seconds: Option<f64>,
    /// The same for a million records.
    pub server_cpu_seconds_per_million_records: Option<f64>,
    /// The most resident memory of the broker, mapped pages of files included.
    pub server_memory_bytes_max: Option<u64>,
    /// The most memory of the broker that is not pages of files.
    pub server_anonymous_bytes_max: Option<u64>,
    /// CPU time of the generator for a million records.
    pub client_cpu_seconds_per_million_records: f64,
    /// Records that the broker did not take.
    pub errors: u64,
    /// Why, and how many each.
    pub error_kinds: BTreeMap<String, u64>,
    /// Acknowledged records that are not there; `None` when nobody looked.
    pub lost: Option<u64>,
    /// Records that are there more than once, each further time counted.
    pub duplicated: Option<u64>,
    /// Records that came after a later one of their producer and partition.
    pub disordered: Option<u64>,
    /// Records whose bytes are not those that were sent.
    pub corrupt: Option<u64>,
    /// Second by second.
    pub timeline: Vec<Point>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it calls itself.
    pub name: String,
}

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that the generator may use.
    pub cpus: usize,
    /// Their model.
    pub cpu_model: String,
    /// All memory.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
}

impl Machine {
    /// This one. What cannot be found out is empty or 0.
    fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let memory = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = memory.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu_model: model.map_or(String::new(), |(_, model)| model.trim().to_owned()),
            memory_bytes: kib.unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What the threads of a run counted.
#[derive(Debug)]
pub(crate) struct Measured {
    command: &'static str,
    latencies: Latencies,
    produce_latencies: Option<Latencies>,
    delays: Latencies,
    records: u64,
    bytes: u64,
    requests: u64,
    errors: Errors,
    last_ns: u64,
    pub(crate) found: Option<Findings>,
}

impl Measured {
    pub(crate) fn new(command: &'static str) -> Self {
        Self {
            command,
            latencies: Latencies::new(),
            produce_latencies: None,
            delays: Latencies::new(),
            records: 0,
            bytes: 0,
            requests: 0,
            errors: Errors::default(),
            last_ns: 0,
            found: None,
        }
    }

    pub(crate) fn of_producers(command: &'static str, produced: Vec<Produced>) -> Self {
        let mut measured = Self::new(command);
        for produced in produced {
            measured.delays.add(&produced.delays);
            measured.add(produced.tally);
        }
        measured
    }

    pub(crate) fn add(&mut self, tally: Tally) {
        self.latencies.add(&tally.latencies);
        self.records += tally.records;
        self.bytes += tally.bytes;
        self.requests += tally.requests;
        self.last_ns = self.last_ns.max(tally.last_ns);
        for (error, records) in tally.errors.kinds {
            self.errors.add(error, records);
        }
    }

    /// What was counted so far are acknowledgements; what counts is what consumers read.
    pub(crate) fn turn_to_consumers(&mut self) {
        let latencies = std::mem::replace(&mut self.latencies, Latencies::new());
        self.produce_latencies = Some(latencies);
        (self.records, self.bytes, self.last_ns) = (0, 0, 0);
    }
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        partitions: u32,
        pid: Option<u32>,
        watch: &Watch,
        measured: Measured,
        used: Option<Used>,
        own_cpu_seconds: f64,
    ) -> Self {
        let from_ns = watch.measured_from_ns();
        let seconds = measured.last_ns.saturating_sub(from_ns) as f64 / 1e9;
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let millions = measured.records as f64 / 1e6;
        let per_million = |seconds: f64| {
            if millions > 0.0 {
                seconds / millions
            } else {
                0.0
            }
        };
        let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let found = measured.found;
        Self {
            command: measured.command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ended: jiff::Timestamp::now().to_string(),
            settings: plan.clone(),
            partitions,
            broker: pid.map(|pid| Process {
                pid,
                name: name(pid).trim().to_owned(),
            }),
            machine: Machine::this(),
            seconds,
            records: measured.records,
            bytes: measured.bytes,
            records_per_second: per_second(measured.records as f64),
            megabytes_per_second: per_second(measured.bytes as f64 / 1e6),
            latency_us: measured.latencies.summary(),
            latency_percentiles: measured.latencies.percentiles(),
            produce_latency_us: measured.produce_latencies.and_then(|all| all.summary()),
            send_delay_us: measured.delays.summary(),
            requests: measured.requests,
            server_cpu_seconds: used.map(|used| used.cpu_seconds),
            server_cpu_seconds_per_million_records: used.map(|used| per_million(used.cpu_seconds)),
            server_memory_bytes_max: used.map(|used| used.memory_bytes_max),
            server_anonymous_bytes_max: used.map(|used| used.anonymous_bytes_max),
            client_cpu_seconds_per_million_records: per_million(own_cpu_seconds),
            errors: measured.errors.records,
            error_kinds: measured.errors.kinds,
            lost: found.map(|found| found.lost),
            duplicated: found.map(|found| found.duplicated),
            disordered: found.map(|found| found.disordered),
            corrupt: found.map(|found| found.corrupt),
            timeline: watch.points(),
        }
    }

    /// Reads a report that was printed as JSON.
    ///
    /// # Errors
    /// When the text is no such report.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map_err(|error| Error::Report(format!("this is no report of a benchmark: {error}")))
    }

    /// Whether every record was taken, and is there once, in order and unchanged, as far as somebody looked.
    pub fn is_sound(&self) -> bool {
        let counts = [self.lost, self.duplicated, self.disordered, self.corrupt];
        self.errors == 0 && counts.iter().all(|count| count.unwrap_or(0) == 0)
    }

    /// The share of the records that were due that the run kept up with; `None` without a rate.
    pub fn share_of_rate(&self) -> Option<f64> {
        match self.settings.load.rate {
            Rate::PerSecond(rate) if self.command != "consume" => {
                Some(self.records_per_second / rate)
            }
            _ => None,
        }
    }

    /// For people: a few lines of text.
    pub fn to_text(&self) -> String {
        table::text(self)
    }

    /// A page with plots that needs nothing else: throughput, latency, the broker's CPU and memory over time, and
    /// the distribution of latencies.
    ///
    /// # Errors
    /// When a plot cannot be drawn.
    pub fn to_html(&self) -> Result<String, Error> {
        page::html(self)
    }

    /// How `other` differs from this one.
    pub fn compare(&self, other: &Self) -> Comparison {
        compare::compare(self, other)
    }
}
