//! What an inspection found.

use std::{fmt, ops::Range, path::PathBuf};

use sapwood_model::{DirectoryId, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};

/// A data directory as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The data directory.
    pub path: PathBuf,
    /// Its identity.
    pub id: DirectoryId,
    /// The last process stopped cleanly: everything is in the segments, and nothing will be
    /// recovered.
    pub clean_stop: bool,
    /// The length of the catalog's file in bytes; `None` when it is missing.
    pub catalog_bytes: Option<u64>,
    /// The length of the ballast file in bytes; `None` when it is missing.
    pub ballast_bytes: Option<u64>,
    /// The checkpoint; `None` when there is none or it cannot be read.
    pub checkpoint: Option<CheckpointSummary>,
    /// The journal.
    pub journal: JournalSummary,
    /// The partitions that have a folder, by topic and number.
    pub partitions: Vec<PartitionSummary>,
    /// Names in the folder of partition folders that no topic accounted for.
    pub quarantined: Vec<String>,
    /// Everything that is not as it should be, in the order in which it was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is damaged and nothing has to be rebuilt. What an unclean stop leaves for the
    /// next start to settle does not speak against it.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Unsettled)
    }

    /// How many findings there are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// The file or folder.
    pub file: PathBuf,
    /// Where in the file, in bytes; `None` when it is the file as a whole.
    pub position: Option<u64>,
    /// The offsets that it concerns, the end exclusive; `None` when it concerns none, or all.
    pub offsets: Option<Range<Offset>>,
    /// What is wrong, in words.
    pub problem: String,
}

/// `damage: FILE at byte 4096, offsets 10 to 20: what is wrong`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.file.display())?;
        if let Some(position) = self.position {
            write!(f, " at byte {position}")?;
        }
        if let Some(Range { start, end }) = self.offsets {
            write!(f, ", offsets {start} to {end}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// What a [`Finding`] means, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something that must be right is not: records cannot be read, or the directory not be opened.
    Damage,
    /// An index or another file that is made anew from the log is missing or wrong. No record is
    /// concerned.
    Rebuildable,
    /// An unclean stop left it, and the next start settles it: it replays the journal and cuts off
    /// what was never durable.
    Unsettled,
}

/// `damage`, `rebuildable`, `unsettled`.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damage => "damage",
            Self::Rebuildable => "rebuildable",
            Self::Unsettled => "unsettled",
        })
    }
}

/// The checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// The boot of the kernel in which it was written.
    pub boot_id: String,
    /// The first round of the journal that is needed.
    pub first_round: u64,
    /// A journal file of this generation or a later one must be there.
    pub journal_generation: u64,
    /// How many partitions it knows.
    pub partitions: usize,
}

/// The journal's files and what of them is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalSummary {
    /// The files, by name.
    pub files: Vec<JournalFileSummary>,
    /// The rounds that the next start reads, the end exclusive; empty when it needs none.
    pub rounds: Range<u64>,
    /// The entries in these rounds.
    pub entries: u64,
    /// The bytes of batches in them.
    pub batch_bytes: u64,
}

/// One file of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFileSummary {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Which turn of its use this is; `None` when it was never begun.
    pub generation: Option<u64>,
    /// How many of its rounds are needed.
    pub rounds_needed: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSummary {
    /// The topic's name, from the folder's.
    pub topic: String,
    /// The partition's number, from the folder's name.
    pub partition: PartitionId,
    /// The topic's id; `None` when it cannot be read.
    pub topic_id: Option<TopicId>,
    /// Its folder.
    pub folder: PathBuf,
    /// The first offset that is on disk. The log's start, which the catalog keeps, is here or above.
    pub first_offset: Offset,
    /// Where the batches in its segments end.
    pub end_offset: Offset,
    /// Where the journal's entries for it end; `None` when it has none above the checkpoint.
    pub journal_end: Option<Offset>,
    /// Everything below is synced in the segments; `None` when the checkpoint does not know it.
    pub checkpoint_end: Option<Offset>,
    /// The leader epoch of its last batch; `None` without one.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Its segments, ascending.
    pub segments: Vec<SegmentSummary>,
}

impl PartitionSummary {
    /// The batches of all segments.
    pub fn batches(&self) -> u64 {
        self.segments.iter().map(|segment| segment.batches).sum()
    }

    /// The records of all segments.
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// The bytes of the batches of all segments.
    pub fn batch_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.batch_bytes)
            .sum()
    }
}

/// One segment, up to the first place where no batch follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The offset in its name.
    pub base_offset: Offset,
    /// The offset behind its last batch.
    pub end_offset: Offset,
    /// Its batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub batch_bytes: u64,
    /// The file's length in bytes; what lies behind the batches was allocated ahead.
    pub file_bytes: u64,
    /// The largest timestamp; `None` when no record has one.
    pub max_timestamp: Option<Timestamp>,
    /// The entries in its `.index` file.
    pub index_entries: u64,
    /// The entries in its `.timeindex` file.
    pub time_index_entries: u64,
}
