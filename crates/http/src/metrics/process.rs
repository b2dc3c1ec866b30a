//! What the kernel says about this process, under the names that Prometheus' own clients use.

use std::fmt;
use std::fs;

use prometheus_client::registry::Unit;

use super::families::Families;

/// One reading of `/proc/self`. What cannot be read is left out.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    threads: Option<u64>,
    resident_bytes: Option<u64>,
    anonymous_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    descriptors: Option<u64>,
    descriptors_max: Option<u64>,
}

impl Process {
    /// Reads `/proc/self`: a few small files and one directory.
    pub(super) fn read() -> Self {
        let text = |name: &str| fs::read_to_string(name).unwrap_or_default();
        let mut process = Self::default();
        process.take_stat(&text("/proc/self/stat"), &text("/proc/stat"));
        process.take_status(&text("/proc/self/status"));
        // The directory's own descriptor is among the entries.
        let open = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        process.descriptors = open.and_then(|open| u64::try_from(open.saturating_sub(1)).ok());
        process.descriptors_max =
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        process
    }

    /// The numbers of proc(5)'s `stat`, counted behind the name, which may hold anything.
    fn take_stat(&mut self, stat: &str, system: &str) {
        let Some((_, numbers)) = stat.rsplit_once(')') else {
            return;
        };
        let fields: Vec<&str> = numbers.split_whitespace().collect();
        // The first of them is field 3 of the manual page.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        if let (Some(user), Some(kernel)) = (field(14), field(15)) {
            self.cpu_seconds = Some((user + kernel) as f64 / ticks_per_second);
        }
        self.threads = field(20);
        let booted = system.lines().find_map(|line| line.strip_prefix("btime "));
        let booted = booted.and_then(|seconds| seconds.trim().parse::<u64>().ok());
        if let (Some(booted), Some(started)) = (booted, field(22)) {
            self.start_seconds = Some(booted as f64 + started as f64 / ticks_per_second);
        }
    }

    fn take_status(&mut self, status: &str) {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line
                .trim_start_matches(':')
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()?;
            Some(kib * 1024)
        };
        self.resident_bytes = bytes("VmRSS");
        self.anonymous_bytes = bytes("RssAnon");
        self.virtual_bytes = bytes("VmSize");
    }

    pub(super) fn encode(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            families.counter_seconds("process_cpu", "CPU time, user and kernel.", seconds)?;
        }
        if let Some(seconds) = self.start_seconds {
            let help = "When the process started, since the epoch.";
            families.gauge_seconds("process_start_time", help, seconds)?;
        }
        let sizes = [
            (
                "process_resident_memory",
                "Memory in RAM, file pages included.",
                self.resident_bytes,
            ),
            (
                "process_resident_anonymous_memory",
                "Memory in RAM that is the process's own.",
                self.anonymous_bytes,
            ),
            (
                "process_virtual_memory",
                "Address space.",
                self.virtual_bytes,
            ),
        ];
        for (name, help, bytes) in sizes {
            let series = bytes.map(|bytes| (Vec::new(), bytes));
            families.gauges(name, Some(Unit::Bytes), help, series)?;
        }
        let numbers = [
            (
                "process_open_fds",
                "Open file descriptors.",
                self.descriptors,
            ),
            (
                "process_max_fds",
                "The limit of open file descriptors.",
                self.descriptors_max,
            ),
            ("process_threads", "Threads.", self.threads),
        ];
        for (name, help, number) in numbers {
            families.gauges(name, None, help, number.map(|number| (Vec::new(), number)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_spaces_and_brackets() {
        let mut process = Process::default();
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 9 0 1000 4096 3";
        process.take_stat(stat, "cpu 1 2\nbtime 1700000000\n");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(process.cpu_seconds, Some(300.0 / ticks));
        assert_eq!(process.threads, Some(9));
        assert_eq!(
            process.start_seconds,
            Some(1_700_000_000.0 + 1000.0 / ticks)
        );
    }

    #[test]
    fn what_is_missing_is_left_out() {
        let mut process = Process::default();
        process.take_stat("", "");
        process.take_stat("7 (a) S 1", "btime x");
        process.take_status("VmRSS:\t many kB\n");
        assert_eq!(process, Process::default());
    }

    #[test]
    fn this_process_is_there() {
        let process = Process::read();
        assert!(
            process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20),
            "{process:?}"
        );
        assert!(
            process.descriptors.is_some_and(|open| open >= 3),
            "{process:?}"
        );
        assert!(
            process.threads.is_some_and(|threads| threads >= 1),
            "{process:?}"
        );
    }
}
