//! What happens over time: throughput and latency by the second, and the CPU time and memory of the broker.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{clock::Clock, latency::Latencies};

/// Threads hand their seconds over at their next record; after so many seconds one is taken for complete.
const SETTLED_S: u64 = 30;
/// How often the broker's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// One second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The seconds since the run began.
    pub second: u64,
    /// Records acknowledged or read.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Half of the latencies are at or below, in microseconds; 0 when none was measured.
    pub p50_us: f64,
    /// 99 % of the latencies are at or below, in microseconds.
    pub p99_us: f64,
    /// The longest latency, in microseconds.
    pub max_us: f64,
    /// CPU time that the broker used, in seconds.
    pub broker_cpu_seconds: Option<f64>,
    /// The broker's resident memory, in bytes.
    pub broker_memory_bytes: Option<u64>,
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What comes earlier is warm-up.
    measured_from_ns: AtomicU64,
    series: Mutex<Series>,
}

#[derive(Debug, Default)]
struct Series {
    points: BTreeMap<u64, Point>,
    latencies: BTreeMap<u64, Latencies>,
}

impl Watch {
    /// Everything is warm-up until [`Watch::measure_from`] says otherwise.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            measured_from_ns: AtomicU64::new(u64::MAX),
            series: Mutex::default(),
        })
    }

    pub(crate) fn measure_from(&self, ns: u64) {
        self.measured_from_ns.store(ns, Ordering::Relaxed);
    }

    pub(crate) fn measured_from_ns(&self) -> u64 {
        self.measured_from_ns.load(Ordering::Relaxed)
    }

    /// Adds what one thread counted in a second.
    pub(crate) fn add(&self, second: u64, records: u64, bytes: u64, latencies: &Latencies) {
        let mut series = self.lock();
        let point = series.point(second);
        point.records += records;
        point.bytes += bytes;
        if latencies.count() > 0 {
            let all = series.latencies.entry(second);
            all.or_insert_with(Latencies::coarse).add(latencies);
        }
    }

    /// How many records were counted in the seconds that are complete.
    pub(crate) fn records(&self) -> u64 {
        let series = self.lock();
        series.points.values().map(|point| point.records).sum()
    }

    /// The seconds of the run so far; the last and the first may be cut short.
    pub(crate) fn points(&self) -> Vec<Point> {
        let mut series = self.lock();
        series.settle(u64::MAX);
        series.points.values().copied().collect()
    }

    fn sample(&self, second: u64, usage: Usage, cpu_seconds: f64) {
        let mut series = self.lock();
        let point = series.point(second);
        *point.broker_cpu_seconds.get_or_insert(0.0) += cpu_seconds;
        point.broker_memory_bytes = Some(usage.memory_bytes);
        series.settle(second.saturating_sub(SETTLED_S));
    }

    /// A thread that panicked while it held the lock has ended the run anyway.
    fn lock(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn point(&mut self, second: u64) -> &mut Point {
        self.points.entry(second).or_insert(Point {
            second,
            records: 0,
            bytes: 0,
            p50_us: 0.0,
            p99_us: 0.0,
            max_us: 0.0,
            broker_cpu_seconds: None,
            broker_memory_bytes: None,
        })
    }

    /// Makes figures of the histograms of all seconds before this one, which are large.
    fn settle(&mut self, before: u64) {
        while let Some(entry) = self.latencies.first_entry() {
            if *entry.key() >= before {
                return;
            }
            let (second, latencies) = entry.remove_entry();
            let point = self.point(second);
            if let Some(summary) = latencies.summary() {
                point.p50_us = summary.p50;
                point.p99_us = summary.p99;
                point.max_us = summary.max;
            }
        }
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all threads and of children that have ended.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, the mapped pages of files included.
    pub(crate) memory_bytes: u64,
    /// Of it what is not pages of files.
    pub(crate) anonymous_bytes: u64,
}

impl Usage {
    /// Of a process of this machine; `None` where there is none, or no `/proc`.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces. User and system time are the 12th and 13th fields after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let number: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(number * 1024)
        };
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64,
            memory_bytes: kib("VmRSS:")?,
            anonymous_bytes: kib("RssAnon:")?,
        })
    }

    /// Of the generator itself.
    pub(crate) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }
}

/// The process that listens on a port of this machine; `None` when it is not this user's, or not here.
pub(crate) fn listener(address: &str) -> Option<u32> {
    let (host, port) = address.rsplit_once(':')?;
    if !matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
        return None;
    }
    let port: u16 = port.parse().ok()?;
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| {
            let rows = table.lines().skip(1).filter_map(|row| {
                let fields: Vec<&str> = row.split_whitespace().collect();
                let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
                // State 0A is LISTEN; the tenth field is the inode of the socket.
                (local == port && *fields.get(3)? == "0A")
                    .then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
            });
            rows.collect::<Vec<_>>()
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        descriptors.filter_map(Result::ok).any(|descriptor| {
            let target = fs::read_link(descriptor.path());
            target.is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        })
    })
}

/// A thread that looks at the broker's process until it is stopped.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Used>>,
}

/// What the broker used in a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes_max: u64,
    pub(crate) anonymous_bytes_max: u64,
}

impl Sampler {
    /// Begins at once; what is used before the end of the warm-up does not count.
    pub(crate) fn start(pid: Option<u32>, clock: Clock, watch: &Arc<Watch>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, watch) = (Arc::clone(&stop), Arc::clone(watch));
        let thread = std::thread::spawn(move || sample(pid?, clock, &watch, &stopped));
        Self { stop, thread }
    }

    /// What was used; `None` when the process is not known or has gone.
    pub(crate) fn stop(self) -> Option<Used> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default()
    }
}

fn sample(pid: u32, clock: Clock, watch: &Watch, stop: &AtomicBool) -> Option<Used> {
    let from_ns = watch.measured_from_ns();
    let mut wait_ns = from_ns.saturating_sub(clock.now_ns());
    while wait_ns > 0 && !stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_nanos(wait_ns));
        wait_ns = from_ns.saturating_sub(clock.now_ns());
    }
    let first = Usage::of(pid)?;
    let mut last = first;
    let mut used = Used {
        cpu_seconds: 0.0,
        memory_bytes_max: first.memory_bytes,
        anonymous_bytes_max: first.anonymous_bytes,
    };
    loop {
        let is_over = stop.load(Ordering::Relaxed);
        let usage = Usage::of(pid)?;
        let second = clock.now_ns() / 1_000_000_000;
        watch.sample(second, usage, usage.cpu_seconds - last.cpu_seconds);
        last = usage;
        used.cpu_seconds = usage.cpu_seconds - first.cpu_seconds;
        used.memory_bytes_max = used.memory_bytes_max.max(usage.memory_bytes);
        used.anonymous_bytes_max = used.anonymous_bytes_max.max(usage.anonymous_bytes);
        if is_over {
            return Some(used);
        }
        std::thread::park_timeout(SAMPLE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            super::listener(&address.to_string()),
            Some(std::process::id())
        );
        assert_eq!(super::listener("192.0.2.1:9092"), None);
    }

    #[test]
    fn seconds_of_several_threads_are_added_up() {
        let watch = Watch::new();
        let mut latencies = Latencies::new();
        latencies.record(1_000_000);
        watch.add(3, 10, 100, &latencies);
        watch.add(3, 5, 50, &Latencies::new());
        let points = watch.points();
        assert_eq!(
            (points[0].second, points[0].records, points[0].bytes),
            (3, 15, 150)
        );
        assert!((990.0..1010.0).contains(&points[0].p99_us));
    }
}
