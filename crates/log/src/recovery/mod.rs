//! Opening what a process left behind, whether it stopped cleanly or not.
//!
//! After a clean stop nothing is scanned. Otherwise each partition starts from its checkpoint; every
//! journal entry above it is written to its segment again; then the log is walked to its end, the
//! rest is cut off, the leader epoch rises. Nothing is served, and the checkpoint does not carry the
//! current boot id, before all of that is synced: a crash in here leaves the same input for the next
//! try. What does not fit takes its partition offline and is left as it is.

mod finish;
mod folders;
mod prefix;
mod rebuild;
mod renew;
mod replay;
mod swap;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use sapwood_model::{DirectoryId, LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

pub(crate) use folders::{DELETE_SUFFIX, NEW_SUFFIX, folder_of, make, publish, remove_tree};
use replay::{Circumstances, Replay, Settled};

use crate::{
    checkpoint::{Checkpoint, PartitionKey},
    framed,
    io::{Environment, is_of_the_device},
    journal::{self, Scan},
    partition::OfflineReason,
    partition::PartitionParts,
    store::{ASIDE, JOURNAL, Known, OpenError, Progress, StoreOptions, TOPICS, TouchedFile, aside},
};

/// What recovery works on.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) root: &'a Path,
    pub(crate) directory: DirectoryId,
    pub(crate) options: &'a StoreOptions,
    pub(crate) known: &'a Known,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) clean: bool,
    pub(crate) progress: &'a Progress,
}

/// What it leaves.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) partitions: Vec<Recovered>,
    pub(crate) scan: Scan,
    /// No partition has this leader epoch or a higher one.
    pub(crate) next_epoch: LeaderEpoch,
    /// A folder of a deleted topic may still be there.
    pub(crate) has_unread: bool,
    pub(crate) report: RecoveryReport,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) parts: PartitionParts,
    pub(crate) offline: Option<OfflineReason>,
    pub(crate) touched: Vec<TouchedFile>,
    /// Names were removed from its folder.
    pub(crate) has_removed: bool,
}

/// What recovery found and did.
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport {
    /// The last process stopped cleanly: nothing was scanned.
    pub clean: bool,
    /// Rounds of the journal that were replayed.
    pub rounds: u64,
    /// Bytes of batches that were written to their segments again.
    pub replayed_bytes: u64,
    /// Partitions whose log was cut, with the offset it now ends at and why.
    pub cut: Vec<CutLog>,
    /// Places where the journal is damaged, in words.
    pub journal_damage: Vec<String>,
    /// How many partitions are offline.
    pub offline: usize,
}

/// A log whose end was cut off by recovery, because it was not durable.
#[derive(Debug, Clone)]
pub struct CutLog {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Where the log ends now.
    pub log_end: Offset,
    /// What stood there.
    pub reason: String,
}

/// Brings every known partition back. Writes segments and indexes, syncs nothing. Blocks.
pub(crate) fn recover(input: &Input<'_>) -> Result<Outcome, OpenError> {
    let disk = &*input.environment.disk;
    let journal_folder = input.root.join(JOURNAL);
    let mut unlisted = HashMap::new();
    if !input.clean {
        // First of all: the marker may still be on the disk, and after a power cut in here the next
        // start would trust it.
        marker::remove(input.environment, input.root).map_err(OpenError::io(input.root))?;
        unlisted = renew::renew(input)?;
    }
    let mut swept = folders::sweep(input.environment, input.root, input.known)?;
    swept.problems.extend(unlisted);
    let has_unread = swept.has_unread;
    let mut next_epoch = next_epoch(input.checkpoint, &swept);
    let mut replays = begin(input, swept)?;
    let from = (!input.clean).then_some(input.checkpoint.first_round);
    let generation = input.checkpoint.generation;
    let mut scan = journal::scan(disk, &journal_folder, input.directory, from, generation)
        .map_err(OpenError::io(&journal_folder))?;
    let mut report = RecoveryReport {
        clean: input.clean,
        ..RecoveryReport::default()
    };
    if input.clean {
        scan.next_round = input.checkpoint.first_round;
    } else {
        replay(input, &scan, &mut replays, &mut report)?;
    }
    report.journal_damage = scan.damage.iter().map(ToString::to_string).collect();
    let damaged_below = scan
        .damage
        .iter()
        .map(|damage| damage.rounds.end)
        .max()
        .unwrap_or(0);
    let mut partitions = Vec::with_capacity(replays.len());
    for (key, replay) in replays {
        let entry = input.checkpoint.partitions.get(&key);
        let boot_id = entry.map_or(&input.checkpoint.boot_id, |entry| &entry.boot_id);
        let now = Circumstances {
            same_boot: *boot_id == input.options.boot_id,
            batch_bytes_max: input.options.fsync_batch_bytes_max().max(1 << 20),
            damaged_below,
            next_epoch,
        };
        next_epoch.0 += 1;
        let folder = input.root.join(TOPICS).join(folder_of(&replay.spec));
        let outline = replay.outline();
        let settled = match input.clean {
            true => replay.open_clean(disk),
            false => replay.settle(disk, &now),
        };
        let settled = match settled {
            // What was changed so far is what a crash would leave: the next recovery begins again.
            Err(e) if is_of_the_device(&e) => Ok(outline.fail("recover", e)),
            settled => settled,
        };
        let Settled {
            parts,
            offline,
            touched,
            has_removed,
            cut,
        } = settled.map_err(OpenError::io(&folder))?;
        if let Some((log_end, reason)) = cut {
            let (topic, partition) = (parts.spec.topic.clone(), parts.spec.partition);
            report.cut.push(CutLog {
                topic,
                partition,
                log_end,
                reason,
            });
        }
        report.offline += usize::from(offline.is_some());
        partitions.push(Recovered {
            parts,
            offline,
            touched,
            has_removed,
        });
        input.progress.done.fetch_add(1, Relaxed);
    }
    Ok(Outcome {
        partitions,
        scan,
        next_epoch,
        has_unread,
        report,
    })
}

/// No two partitions ever share a leader epoch, and none gets one again: so a batch behind the
/// checkpoint, where nothing else tells whose it is, can only be of the log whose epoch it carries.
fn next_epoch(checkpoint: &Checkpoint, swept: &folders::Swept) -> LeaderEpoch {
    let entries = checkpoint.partitions.values();
    let checkpointed = entries.map(|entry| entry.leader_epoch);
    let last = checkpointed.chain(swept.epochs.values().copied()).max();
    last.map_or(LeaderEpoch(0), |last| LeaderEpoch(last.0 + 1))
}

fn begin(
    input: &Input<'_>,
    mut swept: folders::Swept,
) -> Result<BTreeMap<PartitionKey, Replay>, OpenError> {
    let disk = &*input.environment.disk;
    let topics = input.root.join(TOPICS);
    let there: BTreeSet<String> = disk
        .read_dir(&topics)
        .map_err(OpenError::io(&topics))?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    input
        .progress
        .total
        .store(input.known.partitions.len() as u64, Relaxed);
    let mut replays = BTreeMap::new();
    for spec in &input.known.partitions {
        let name = folder_of(spec);
        let folder = topics.join(&name);
        if !there.contains(&name) {
            // A crash came between the catalog's record and the folder, or took the folder's name.
            // Nothing was appended to it.
            make(disk, &topics, spec, LeaderEpoch(0), true)
                .and_then(|()| publish(disk, input.root, spec))
                .map_err(OpenError::io(&folder))?;
        }
        let key = (spec.topic_id, spec.partition);
        let checkpoint = input.checkpoint.partitions.get(&key).cloned();
        let mut checkpoint = checkpoint.unwrap_or_default();
        // No checkpoint has seen it yet, or none of its batches.
        let first_epoch = swept.epochs.get(&name).copied().unwrap_or_default();
        checkpoint.leader_epoch = checkpoint.leader_epoch.max(first_epoch);
        let problem = swept.problems.remove(&name);
        let begin = |problem| {
            let (spec, folder, checkpoint) = (spec.clone(), folder.clone(), checkpoint.clone());
            Replay::begin(disk, spec, folder, checkpoint, problem)
        };
        let begun = match begin(problem) {
            Err(e) if is_of_the_device(&e) => begin(Some(e.to_string())),
            begun => begun,
        };
        let replay = begun.map_err(OpenError::io(&folder))?;
        replays.insert(key, replay);
    }
    Ok(replays)
}

/// Writes what was copied aside for partitions that were offline, then the journal, in log order.
fn replay(
    input: &Input<'_>,
    scan: &Scan,
    replays: &mut BTreeMap<PartitionKey, Replay>,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let disk = &*input.environment.disk;
    for (key, entry) in &input.checkpoint.partitions {
        let Some(replay) = replays.get_mut(key) else {
            continue;
        };
        for name in &entry.aside {
            let path = input.root.join(ASIDE).join(name);
            let aside = aside::read_all(disk, &path)?;
            for entry in &aside.entries {
                replay.write(disk, entry, 0).map_err(OpenError::io(&path))?;
            }
            replay.journal_was_damaged |= aside.journal_was_damaged;
        }
    }
    let deleted: BTreeSet<TopicId> = input.known.deleted.iter().copied().collect();
    for round in &scan.rounds {
        let path = &scan.files[round.file].path;
        for entry in journal::read_entries(scan, round).map_err(OpenError::io(path))? {
            let key = (entry.topic_id, entry.partition);
            match replays.get_mut(&key) {
                Some(replay) => {
                    replay
                        .write(disk, &entry, round.header.round)
                        .map_err(OpenError::io(path))?;
                    report.replayed_bytes += entry.bytes.len() as u64;
                    input
                        .progress
                        .bytes
                        .fetch_add(entry.bytes.len() as u64, Relaxed);
                }
                None if deleted.contains(&entry.topic_id) => {}
                None => {
                    let what = format!(
                        "round {} has records of topic {} partition {}, which the catalog does not \
                         know",
                        round.header.round, entry.topic_id, entry.partition
                    );
                    return Err(OpenError::damaged(path, what));
                }
            }
        }
        report.rounds += 1;
    }
    Ok(())
}

/// The marker of a clean stop: written last, removed before the first append.
pub(crate) mod marker {
    use super::{DirectoryId, Environment, OpenError, Path, framed};
    use crate::{
        framed::FramedError,
        io::OpenMode,
        store::{CHECKPOINT, CLEAN},
    };
    use std::io;

    const KIND: framed::Kind = framed::Kind {
        magic: *b"SWCL",
        version: 1,
    };

    /// Whether the last process stopped cleanly, after the checkpoint that is there.
    pub(crate) fn is_there(environment: &Environment, root: &Path) -> Result<bool, OpenError> {
        let path = root.join(CLEAN);
        match framed::read(&*environment.disk, &path, KIND) {
            // Of another checkpoint it says nothing either; where there is none, nothing is opened.
            Ok(payload) => {
                let stamp = framed::stamp(&*environment.disk, &root.join(CHECKPOINT));
                let stamp = stamp.map_err(OpenError::io(&path))?;
                Ok(stamp.is_none_or(|stamp| payload.get(16..) == Some(&stamp)))
            }
            // A marker that does not check says nothing; recovery finds out for itself.
            Err(FramedError::Missing | FramedError::Damaged(_)) => Ok(false),
            Err(FramedError::Io(e)) => Err(OpenError::io(&path)(e)),
            Err(e @ FramedError::Newer { .. }) => Err(OpenError::damaged(&path, e)),
        }
    }

    /// Durable when it returns.
    pub(crate) fn set(
        environment: &Environment,
        root: &Path,
        directory: DirectoryId,
    ) -> io::Result<()> {
        let mut payload = directory.0.to_be_bytes().to_vec();
        let stamp = framed::stamp(&*environment.disk, &root.join(CHECKPOINT))?;
        payload.extend_from_slice(&stamp.ok_or(io::ErrorKind::NotFound)?);
        let bytes = framed::encode(KIND, &payload);
        framed::replace(&*environment.disk, &root.join(CLEAN), &bytes)
    }

    /// Durable when it returns.
    pub(crate) fn remove(environment: &Environment, root: &Path) -> io::Result<()> {
        // Made first where it is not there: a removal whose sync failed can be seen, but a power cut
        // would bring the marker back.
        let (disk, path) = (&environment.disk, root.join(CLEAN));
        disk.open(&path, OpenMode::Create)?;
        disk.remove_file(&path)?;
        disk.sync_dir(root)
    }
}
