//! Counting what was tried.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    account::Counts,
    cache::{Cut, Survival},
    found::Found,
};

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The line of the last cut, as far as it is known.
    line: String,
    cuts: BTreeMap<&'static str, u64>,
    while_written_out: u64,
    volatile: Vec<u64>,
    flushes: u64,
    told: Counts,
    survivors: BTreeMap<&'static str, u64>,
    in_recovery: u64,
    killed: u64,
    stopped: u64,
    recovered: Vec<Duration>,
    found_records: u64,
}

impl Tally {
    /// A cut was made.
    pub(crate) fn cut(
        &mut self,
        number: u32,
        moment: &'static str,
        writes_out: bool,
        (loaded, flushes): (Duration, u64),
        cut: &Cut,
        told: Counts,
    ) {
        *self.cuts.entry(moment).or_default() += 1;
        self.while_written_out += u64::from(writes_out);
        self.volatile.push(cut.volatile() as u64);
        self.flushes += flushes;
        self.told.acknowledged += told.acknowledged;
        self.told.read += told.read;
        self.told.commits += told.commits;
        self.told.trims += told.trims;
        self.told.topics += told.topics;
        self.told.switches += told.switches;
        self.line = format!(
            "cut {number:>3} at {moment:<6} after {:>5} ms and {flushes:>3} flushes: {:>5} volatile writes ({} KiB); \
             told: {} acks, {} reads, {} commits, {} trims, {} topics made or deleted, {} switches; recovered",
            loaded.as_millis(),
            cut.volatile(),
            cut.volatile() * 4,
            told.acknowledged,
            told.read,
            told.commits,
            told.trims,
            told.topics,
            told.switches,
        );
    }

    /// A survivor kept every promise.
    pub(crate) fn survivor(
        &mut self,
        survival: Survival,
        took: Duration,
        in_recovery: u32,
        found: &Found,
    ) {
        let kind = match survival {
            Survival::Nothing => "nothing",
            Survival::Everything => "everything",
            Survival::Subset(_) => "a subset",
            Survival::First(_) => "the first",
            Survival::Last(_) => "the last",
        };
        *self.survivors.entry(kind).or_default() += 1;
        self.in_recovery += u64::from(in_recovery);
        self.recovered.push(took);
        let partitions = found.topics.values().flat_map(|topic| &topic.partitions);
        let records: usize = partitions.map(|partition| partition.records.len()).sum();
        self.found_records += records as u64;
        let again = match in_recovery {
            0 => String::new(),
            cuts => format!(" after {cuts} more cuts"),
        };
        let _ = write!(
            self.line,
            "; {survival}{again}: {records} records in {} ms",
            took.as_millis()
        );
    }

    /// A broker was started again after a clean stop, or after kill -9, and nothing was lost.
    pub(crate) fn restart(&mut self, is_stopped: bool) {
        self.stopped += u64::from(is_stopped);
        self.killed += u64::from(!is_stopped);
    }

    /// What there is to say about the last cut.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut volatile = self.volatile.clone();
        volatile.sort_unstable();
        let mut recovered: Vec<u128> = self.recovered.iter().map(Duration::as_millis).collect();
        recovered.sort_unstable();
        let cuts: u64 = self.cuts.values().sum();
        let survivors: u64 = self.survivors.values().sum();
        writeln!(f, "\n| | |\n|---|---|")?;
        writeln!(f, "| cuts under load | {cuts} |")?;
        for (moment, count) in &self.cuts {
            let moment = match *moment {
                "any" => "at any moment",
                "flush" => "when a flush was asked for",
                _ => "after a number of writes",
            };
            writeln!(f, "| ... {moment} | {count} |")?;
        }
        writeln!(
            f,
            "| ... while the file system was written out | {} |",
            self.while_written_out
        )?;
        writeln!(f, "| survivors that kept every promise | {survivors} |")?;
        for (kind, count) in &self.survivors {
            writeln!(f, "| ... with {kind} of the volatile writes | {count} |")?;
        }
        writeln!(
            f,
            "| more cuts while they recovered | {} |",
            self.in_recovery
        )?;
        writeln!(
            f,
            "| restarts after them: kill -9, clean stop | {}, {} |",
            self.killed, self.stopped
        )?;
        writeln!(
            f,
            "| volatile blocks at a cut: sum, median, most | {}, {}, {} |",
            volatile.iter().sum::<u64>(),
            middle(&volatile),
            volatile.last().unwrap_or(&0)
        )?;
        writeln!(f, "| flushes of the disks under load | {} |", self.flushes)?;
        writeln!(f, "| records acknowledged | {} |", self.told.acknowledged)?;
        writeln!(f, "| records read before a cut | {} |", self.told.read)?;
        writeln!(f, "| offsets committed | {} |", self.told.commits)?;
        writeln!(f, "| log starts moved | {} |", self.told.trims)?;
        writeln!(f, "| topics created or deleted | {} |", self.told.topics)?;
        writeln!(
            f,
            "| topics switched between fsync and os | {} |",
            self.told.switches
        )?;
        writeln!(
            f,
            "| records read and compared on survivors | {} |",
            self.found_records
        )?;
        writeln!(
            f,
            "| start to ready in ms: median, longest | {}, {} |",
            middle(&recovered),
            recovered.last().unwrap_or(&0)
        )
    }
}

fn middle<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
