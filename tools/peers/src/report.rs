//! What a run costs the server, and the numbers as JSON, under the names that `sapwood bench` gives them.

use std::{fs, io, thread, time::Duration};

use serde_json::{Value, json};

use crate::load::Seen;

/// Clock ticks of /proc a second: Linux shows all programs 100, whatever its own are.
const TICKS_A_SECOND: f64 = 100.0;
const SAMPLE_TURN: Duration = Duration::from_millis(100);

/// What the server used while something ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    cpu_seconds: f64,
    memory_max: Memory,
}

/// Runs, and looks at the server's process meanwhile, if it is named.
pub(crate) fn watch<T: Send>(
    pid: Option<u32>,
    run: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(T, Option<Cost>)> {
    let Some(pid) = pid else {
        return Ok((run()?, None));
    };
    let before = cpu_seconds(pid)?;
    let mut memory_max = Memory::default();
    let outcome = thread::scope(|scope| {
        let runner = scope.spawn(run);
        while !runner.is_finished() {
            memory_max.raise_to(memory(pid).unwrap_or_default());
            thread::sleep(SAMPLE_TURN);
        }
        runner.join().expect("the load does not panic")
    })?;
    let cpu_seconds = cpu_seconds(pid)? - before;
    Ok((
        outcome,
        Some(Cost {
            cpu_seconds,
            memory_max,
        }),
    ))
}

/// What the process used with all its threads, and its children, running or gone: Redis rewrites its log in
/// one.
fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold spaces. utime, stime, cutime and cstime are fields 14 to 17.
    let fields = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let running: f64 = children
        .split_whitespace()
        .filter_map(|child| cpu_seconds(child.parse().ok()?).ok())
        .sum();
    Ok(ticks as f64 / TICKS_A_SECOND + running)
}

/// Memory of a process in bytes: all that is resident, pages of files included, and without those.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    resident: u64,
    anonymous: u64,
}

impl Memory {
    fn raise_to(&mut self, other: Self) {
        self.resident = self.resident.max(other.resident);
        self.anonymous = self.anonymous.max(other.anonymous);
    }
}

fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Ok(Memory {
        resident: bytes("VmRSS:"),
        anonymous: bytes("RssAnon:"),
    })
}

pub(crate) fn json(
    seen: &Seen,
    record_bytes: usize,
    created: Duration,
    cost: Option<Cost>,
) -> Value {
    let seconds = seen.nanos as f64 / 1e9;
    let rate = if seconds > 0.0 {
        seen.records as f64 / seconds
    } else {
        0.0
    };
    let latency = (!seen.latency.is_empty()).then(|| {
        let part = |share| seen.latency.value_at_quantile(share) as f64 / 1e3;
        json!({
            "p50": part(0.5), "p90": part(0.9), "p99": part(0.99), "p999": part(0.999),
            "max": seen.latency.max() as f64 / 1e3, "mean": seen.latency.mean() / 1e3,
        })
    });
    let million = seen.records as f64 / 1e6;
    json!({
        "records": seen.records,
        "seconds": seconds,
        "records_per_second": rate,
        "megabytes_per_second": rate * record_bytes as f64 / 1e6,
        "latency_us": latency,
        "errors": seen.errors,
        "first_error": seen.complaint,
        "lost": seen.lost,
        "duplicated": seen.duplicated,
        "seconds_to_create": created.as_secs_f64(),
        "server_cpu_seconds_per_million_records":
            cost.filter(|_| million > 0.0).map(|cost| cost.cpu_seconds / million),
        "server_memory_bytes_max": cost.map(|cost| cost.memory_max.resident),
        "server_anonymous_bytes_max": cost.map(|cost| cost.memory_max.anonymous),
    })
}
