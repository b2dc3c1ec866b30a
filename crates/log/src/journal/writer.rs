//! Writing rounds, and turning the journal's files over.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use sapwood_model::DirectoryId;

use super::{
    PAGE_BYTES, file_name,
    frame::{Entry, FILE_HEADER_BYTES, FileHeader, ROUND_HEADER_BYTES, RoundHeader, salted},
    reader::Scan,
};
use crate::io::{Entropy, Environment, File, OpenMode, is_of_the_device};

/// Marks the last page of a file that was written from end to end once: from then on, a sync of a
/// round need not change the file's block map.
const PREWRITTEN: [u8; 4] = *b"SWJP";
const PREWRITE_STEP_BYTES: u64 = 1 << 20;
/// The next file is written ahead so many times as fast as the current one fills. At once it would hold the
/// disk, and with it every sync of a round, for 20 to 30 ms.
const PREWRITE_PACE: u64 = 4;

/// The journal's writing end. One round at a time: it is kept behind a lock.
#[derive(Debug)]
pub(crate) struct Journal {
    environment: Environment,
    directory: DirectoryId,
    slots: Vec<Slot>,
    current: Option<Current>,
    prewriting: Option<Prewriting>,
    /// It is not tried again before the next turn.
    prewrite_has_failed: bool,
    generation_max: u64,
    next_round: u64,
    last_crc: u32,
}

/// How far a file has been written ahead.
#[derive(Debug)]
struct Prewriting {
    slot: usize,
    upto: u64,
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    file: Arc<dyn File>,
    bytes: u64,
    state: SlotState,
}

/// Free -> Prewriting -> Free; Free -> Current -> Used -> Free, the last step by a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free {
        prewritten: bool,
    },
    Prewriting,
    Current,
    /// Needed as long as a checkpoint asks for `last_round` or an earlier one.
    Used {
        last_round: u64,
    },
}

#[derive(Debug)]
struct Current {
    slot: usize,
    header: FileHeader,
    position: u64,
}

/// A round that is on the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// With its padding.
    pub(crate) bytes: u64,
    /// Whether a file was begun for it: time to think of a checkpoint.
    pub(crate) turned: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Every file is still needed. Nothing was written; a checkpoint makes room.
    #[error("every journal file is still needed by the last checkpoint")]
    Full,
    /// What is on the disk is not known any more.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Journal {
    /// Takes over the files that `scan` found and makes those that are missing. Existing rounds are
    /// kept until [`Self::recycle`]; none of them is continued.
    pub(crate) fn open(
        environment: Environment,
        folder: &Path,
        directory: DirectoryId,
        files: u32,
        file_bytes: u64,
        scan: &Scan,
    ) -> io::Result<Self> {
        let mut slots = Vec::new();
        for found in &scan.files {
            let last = scan
                .rounds
                .iter()
                .rev()
                .find(|round| scan.files[round.file].name == found.name);
            let state = match last {
                Some(round) => SlotState::Used {
                    last_round: round.header.round,
                },
                None => SlotState::Free {
                    prewritten: is_prewritten(&*found.file, found.bytes)?,
                },
            };
            let (path, file) = (found.path.clone(), Arc::clone(&found.file));
            slots.push(Slot {
                path,
                file,
                bytes: found.bytes,
                state,
            });
        }
        let mut made = false;
        for number in 0..files {
            let path = folder.join(file_name(number));
            if slots.iter().any(|slot| slot.path == path) {
                continue;
            }
            let file = environment.disk.open(&path, OpenMode::Create)?;
            slots.push(Slot {
                path,
                file,
                bytes: 0,
                state: SlotState::Free { prewritten: false },
            });
            made = true;
        }
        for slot in slots.iter_mut().filter(|slot| slot.bytes < file_bytes) {
            slot.file.allocate(slot.bytes..file_bytes)?;
            slot.file.sync_data()?;
            slot.bytes = file_bytes;
        }
        if made {
            environment.disk.sync_dir(folder)?;
        }
        Ok(Self {
            environment,
            directory,
            slots,
            current: None,
            prewriting: None,
            prewrite_has_failed: false,
            generation_max: scan.generation_max,
            next_round: scan.next_round,
            last_crc: scan.last_crc,
        })
    }

    /// The number of the next round; all lower ones are written and synced.
    pub(crate) fn next_round(&self) -> u64 {
        self.next_round
    }

    /// The generation of the file that is being written; 0 before the first round. A file that the last
    /// process began does not count: its header may be in the page cache and nowhere else.
    pub(crate) fn generation(&self) -> u64 {
        let current = self.current.as_ref();
        current.map_or(0, |current| current.header.generation)
    }

    /// Whether half of the files or more are in use: a checkpoint is due.
    pub(crate) fn is_half_full(&self) -> bool {
        let used = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, SlotState::Used { .. }));
        2 * used.count() >= self.slots.len()
    }

    /// Writes one round and syncs it. Durable when it returns. Blocks.
    ///
    /// # Errors
    /// After [`JournalError::Io`] the journal must not be written again.
    pub(crate) fn write(&mut self, entries: &[Entry]) -> Result<Written, JournalError> {
        let mut heads = vec![0; ROUND_HEADER_BYTES];
        for entry in entries {
            heads.extend_from_slice(&entry.encode_header());
        }
        let length: usize = entries.iter().map(|entry| entry.bytes.len()).sum::<usize>()
            + (heads.len() - ROUND_HEADER_BYTES);
        let mut parts = Vec::with_capacity(2 * entries.len() + 2);
        let (round_head, entry_heads) = heads.split_at_mut(ROUND_HEADER_BYTES);
        let entry_heads = entry_heads.chunks(super::frame::ENTRY_HEADER_BYTES);
        for (head, entry) in entry_heads.zip(entries) {
            parts.push(head);
            parts.push(&entry.bytes[..]);
        }
        let mut round = RoundHeader {
            round: self.next_round,
            length: u32::try_from(length).expect("a round is smaller than its file"),
            entries: u32::try_from(entries.len()).expect("a round is smaller than its file"),
            previous_crc: self.last_crc,
            body_crc: 0,
        };
        let turned = self.make_room(round.size_bytes())?;
        let current = self
            .current
            .as_mut()
            .expect("there is room in the current file");
        round.body_crc = salted(current.header.salt, &parts);
        round_head.copy_from_slice(&round.encode(&current.header));
        // Whole pages: a page that is written in part would have to be read first.
        let padding = [0; PAGE_BYTES as usize];
        let padding_bytes = round.size_bytes() as usize - ROUND_HEADER_BYTES - length;
        parts.insert(0, round_head);
        parts.push(&padding[..padding_bytes]);

        let slot = &self.slots[current.slot];
        let failed = |source| JournalError::Io {
            path: slot.path.clone(),
            source,
        };
        slot.file
            .write_at(&parts, current.position)
            .map_err(failed)?;
        slot.file.sync_data().map_err(failed)?;
        current.position += round.size_bytes();
        self.next_round += 1;
        self.last_crc = round.body_crc;
        Ok(Written {
            bytes: round.size_bytes(),
            turned,
        })
    }

    /// Gives the files back whose rounds are all below `first_round`.
    pub(crate) fn recycle(&mut self, first_round: u64) {
        for slot in &mut self.slots {
            if let SlotState::Used { last_round } = slot.state
                && last_round < first_round
            {
                // It was used to its end, or the mark on its last page says that it once was.
                let prewritten = is_prewritten(&*slot.file, slot.bytes).unwrap_or(false);
                slot.state = SlotState::Free { prewritten };
            }
        }
    }

    /// The next step of writing a free file from end to end, if one is due: in step with the current file,
    /// or at once before there is one. For one thread, which gives it back before it asks again.
    pub(crate) fn begin_prewrite(&mut self) -> Option<Prewrite> {
        if self.prewriting.is_none() && !self.prewrite_has_failed {
            // One file ahead is enough.
            let ready = SlotState::Free { prewritten: true };
            if self.slots.iter().any(|slot| slot.state == ready) {
                return None;
            }
            let fresh = SlotState::Free { prewritten: false };
            let slot = self.slots.iter().position(|slot| slot.state == fresh)?;
            self.slots[slot].state = SlotState::Prewriting;
            self.prewriting = Some(Prewriting {
                slot,
                upto: FILE_HEADER_BYTES,
            });
        }
        if !self.is_prewrite_due() {
            return None;
        }
        let Prewriting { slot, upto } = *self.prewriting.as_ref()?;
        let Slot { file, bytes, .. } = &self.slots[slot];
        let end = (upto + PREWRITE_STEP_BYTES).min(*bytes);
        Some(Prewrite {
            file: Arc::clone(file),
            range: upto..end,
            is_last: end == *bytes,
        })
    }

    /// Whether the file that is being written ahead is behind the current one.
    pub(crate) fn is_prewrite_due(&self) -> bool {
        let pace = match &self.current {
            Some(current) => current.position.saturating_mul(PREWRITE_PACE),
            None => u64::MAX,
        };
        let prewriting = self.prewriting.as_ref();
        prewriting.is_some_and(|file| file.upto < pace)
    }

    /// A step is over.
    pub(crate) fn end_prewrite(&mut self, prewrite: &Prewrite, done: bool) {
        let Some(prewriting) = &mut self.prewriting else {
            return;
        };
        prewriting.upto = prewrite.range.end;
        if !done || prewrite.is_last {
            self.slots[prewriting.slot].state = SlotState::Free { prewritten: done };
            self.prewriting = None;
            self.prewrite_has_failed = !done;
        }
    }

    /// Begins another file when the round does not fit the current one.
    fn make_room(&mut self, round_bytes: u64) -> Result<bool, JournalError> {
        if let Some(current) = &self.current
            && current.position + round_bytes <= self.slots[current.slot].bytes
        {
            return Ok(false);
        }
        let free = |prewritten| SlotState::Free { prewritten };
        let slot = [free(true), free(false)]
            .into_iter()
            .find_map(|state| self.slots.iter().position(|slot| slot.state == state))
            .ok_or(JournalError::Full)?;
        let header = FileHeader {
            directory: self.directory,
            generation: self.generation_max + 1,
            salt: Entropy::u64(&*self.environment.entropy),
        };
        let page = header.encode();
        let Slot {
            path, file, bytes, ..
        } = &self.slots[slot];
        assert!(
            FILE_HEADER_BYTES + round_bytes <= *bytes,
            "a round fits an empty file"
        );
        file.write_at(&[&page, &page], 0)
            .and_then(|()| file.sync_data())
            .map_err(|source| JournalError::Io {
                path: path.clone(),
                source,
            })?;
        if let Some(full) = self.current.replace(Current {
            slot,
            header,
            position: FILE_HEADER_BYTES,
        }) {
            let last_round = self.next_round - 1;
            self.slots[full.slot].state = SlotState::Used { last_round };
        }
        self.slots[slot].state = SlotState::Current;
        self.generation_max = header.generation;
        self.prewrite_has_failed = false;
        Ok(true)
    }
}

/// A step of writing a free file from end to end, outside the journal's lock.
#[derive(Debug)]
pub(crate) struct Prewrite {
    file: Arc<dyn File>,
    range: Range<u64>,
    is_last: bool,
}

impl Prewrite {
    /// Writes zeros; behind the last of them syncs, then marks the last page. Blocks.
    pub(crate) fn run(&self) -> io::Result<()> {
        static ZEROS: [u8; PREWRITE_STEP_BYTES as usize] = [0; PREWRITE_STEP_BYTES as usize];
        let Range { start, end } = self.range;
        self.file
            .write_at(&[&ZEROS[..(end - start) as usize]], start)?;
        self.file.start_write_out(start..end)?;
        if self.is_last {
            self.file.sync_data()?;
            self.file.write_at(&[&PREWRITTEN], end - PAGE_BYTES)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// A file was written to its end when its last page holds anything at all.
fn is_prewritten(file: &dyn File, bytes: u64) -> io::Result<bool> {
    let mut last = [0; 64];
    let read = match bytes.checked_sub(PAGE_BYTES) {
        Some(at) => match file.read_at(&mut last, at) {
            Err(error) if is_of_the_device(&error) => 0, // writing it from end to end may mend it
            read => read?,
        },
        None => 0,
    };
    Ok(last[..read].iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sapwood_model::{LeaderEpoch, Offset, PartitionId, TopicId};

    use super::*;
    use crate::journal::scan;

    const FILE_BYTES: u64 = 16 << 20;

    fn open(folder: &Path) -> Journal {
        let environment = Environment::real();
        let directory = DirectoryId(7);
        let scan = scan(&*environment.disk, folder, directory, None, 0).unwrap();
        Journal::open(environment, folder, directory, 3, FILE_BYTES, &scan).unwrap()
    }

    fn write(journal: &mut Journal, bytes: usize) -> Written {
        let entry = Entry {
            topic_id: TopicId(1),
            partition: PartitionId(0),
            leader_epoch: LeaderEpoch(0),
            base_offset: Offset(0),
            end_offset: Offset(1),
            segment: Offset(0),
            position: 0,
            starts_run: false,
            bytes: Bytes::from(vec![1; bytes]),
        };
        journal.write(&[entry]).unwrap()
    }

    /// Runs what is due; says how many bytes it wrote.
    fn prewrite(journal: &mut Journal) -> u64 {
        let mut bytes = 0;
        while let Some(step) = journal.begin_prewrite() {
            step.run().unwrap();
            journal.end_prewrite(&step, true);
            bytes += step.range.end - step.range.start;
        }
        bytes
    }

    #[test]
    fn the_next_file_is_written_ahead_in_step_with_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path());
        let whole = FILE_BYTES - FILE_HEADER_BYTES;
        assert_eq!(prewrite(&mut journal), whole, "nobody is held up");
        assert!(write(&mut journal, 1000).turned);
        let mut written = 0;
        let mut rounds = 0;
        while written < whole {
            let now = prewrite(&mut journal);
            assert!(
                now <= 2 * PREWRITE_STEP_BYTES,
                "{now} bytes behind one round"
            );
            written += now;
            let position = journal.current.as_ref().unwrap().position;
            assert!(written + FILE_HEADER_BYTES >= (PREWRITE_PACE * position).min(FILE_BYTES));
            assert!(!journal.is_prewrite_due());
            assert!(
                !write(&mut journal, 200_000).turned,
                "ready long before the turn"
            );
            rounds += 1;
        }
        assert!(rounds > 10, "{rounds}");
        assert_eq!(prewrite(&mut journal), 0, "one file ahead is enough");
    }

    #[test]
    fn a_file_that_cannot_be_written_ahead_is_used_and_tried_again_at_the_next_turn() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path());
        let step = journal.begin_prewrite().unwrap();
        journal.end_prewrite(&step, false);
        assert!(journal.begin_prewrite().is_none() && !journal.is_prewrite_due());
        assert!(write(&mut journal, 1000).turned);
        assert!(journal.begin_prewrite().is_some());
    }
}
