//! What the journal takes from a partition, and the switch between fsync and os.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use sapwood_model::{Durability as Kept, LeaderEpoch, Offset};

use super::{LogConfig, Partition, ReadMode, Writer};
use crate::segment::{ActiveSegment, Expected, OpenSegment, Source, WalkError, Walker};

/// Bytes that nobody waits for are announced to the store at least this often.
const UNTOLD_BYTES_MAX: u64 = 64 << 10;

/// A run of whole batches for the journal, of one segment and one leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalPiece {
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    /// Exclusive.
    pub(crate) end_offset: Offset,
    /// The base offset of the segment.
    pub(crate) segment: Offset,
    /// Where the run starts in the segment's file.
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
    /// What lies before it is not in the journal: the topic was not durable by fsync then.
    pub(crate) starts_run: bool,
}

/// How far the journal has taken the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// The first offset that was not taken.
    pub(super) offset: Offset,
    /// Its segment and its place there. At a segment's end the next one may have begun.
    segment: Offset,
    position: u64,
    starts_run: bool,
}

impl Cursor {
    /// At the end of a log that was just found: what is before it is in a checkpoint.
    pub(super) fn found(active: &ActiveSegment, log_end: Offset) -> Self {
        Self {
            offset: log_end,
            segment: active.base_offset(),
            position: active.position(),
            starts_run: false,
        }
    }
}

/// Whether the store has the partition among those that the journal takes from next.
/// `No` -> `Lazily` or `Urgently` by an append, `Lazily` -> `Urgently` by one that somebody waits
/// for, back to `No` when the journal takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Queued {
    No,
    Lazily,
    Urgently,
}

/// A call of `Durability::appended`.
#[derive(Debug, Clone, Copy)]
pub(super) struct JournalNews {
    pub(super) bytes: u64,
    pub(super) urgent: bool,
}

impl Writer {
    /// Notes appended bytes. Says what the store has to be told of them, if anything.
    pub(super) fn note_for_journal(&mut self, bytes: u64, urgent: bool) -> Option<JournalNews> {
        self.untold_bytes += bytes;
        let queued = if urgent {
            Queued::Urgently
        } else {
            Queued::Lazily
        };
        if queued <= self.queued && self.untold_bytes < UNTOLD_BYTES_MAX {
            return None;
        }
        self.queued = self.queued.max(queued);
        Some(JournalNews {
            bytes: mem::take(&mut self.untold_bytes),
            urgent,
        })
    }

    /// Somebody waits for something that was appended before.
    pub(super) fn hurry_journal(&mut self) -> Option<JournalNews> {
        // With `No` it was taken already, and is in a round or durable.
        (self.queued == Queued::Lazily).then(|| {
            self.queued = Queued::Urgently;
            JournalNews {
                bytes: mem::take(&mut self.untold_bytes),
                urgent: true,
            }
        })
    }
}

/// A part of a segment that the journal has not taken.
struct Untaken {
    segment: Arc<OpenSegment>,
    start: u64,
    end: u64,
    base_offset: Offset,
    end_offset: Offset,
}

impl Partition {
    /// What was appended since the last call, in log order, about `bytes_max` of it but at least one
    /// batch; empty when there is nothing, or the partition is not journaled or offline. If something
    /// is left, the partition hands itself over again.
    pub(crate) fn take_unjournaled(self: &Arc<Self>, bytes_max: u64) -> Vec<JournalPiece> {
        let mut cursor_guard = self.cursor.lock();
        let Some(cursor) = cursor_guard.as_mut() else {
            return Vec::new();
        };
        let untaken = self.untaken(cursor);
        let mut pieces = Vec::with_capacity(untaken.len());
        let mut room = bytes_max;
        let mut left_bytes: u64 = untaken.iter().map(|part| part.end - part.start).sum();
        for part in untaken {
            if self.offline.get().is_some() || (room == 0 && !pieces.is_empty()) {
                break;
            }
            let Some((bytes, end_offset)) = self.clip(&part, room, pieces.is_empty()) else {
                break;
            };
            if bytes.is_empty() {
                break;
            }
            let taken = bytes.len() as u64;
            let piece = JournalPiece {
                leader_epoch: self.leader_epoch,
                base_offset: part.base_offset,
                end_offset,
                segment: part.segment.base_offset,
                position: part.start,
                bytes,
                starts_run: mem::take(&mut cursor.starts_run),
            };
            *cursor = Cursor {
                offset: end_offset,
                segment: piece.segment,
                position: part.start + taken,
                starts_run: false,
            };
            pieces.push(piece);
            left_bytes -= taken;
            room = room.saturating_sub(taken);
            if end_offset < part.end_offset {
                break;
            }
        }
        drop(cursor_guard);
        self.tell_failure();
        if left_bytes > 0 && self.offline.get().is_none() {
            self.hand_over_again(left_bytes);
        }
        pieces
    }

    /// From os to fsync: what is appended from the returned offset on enters the journal, and is
    /// readable and acknowledged only when it is durable.
    pub(crate) fn begin_journaling(&self) -> Offset {
        let mut cursor = self.cursor.lock();
        let mut writer = self.writer.lock();
        let end = Offset(self.log_end.load(Ordering::Acquire));
        if !writer.journaled {
            writer.journaled = true;
            *cursor = Some(Cursor {
                starts_run: true,
                ..Cursor::found(&writer.active, end)
            });
        }
        self.set_durability(Kept::Fsync);
        end
    }

    /// From fsync to os: everything that was appended is readable and acknowledged, and nothing
    /// enters the journal any more. The store has waited for the rounds that are under way.
    pub(crate) fn end_journaling(&self) {
        let mut cursor = self.cursor.lock();
        let mut writer = self.writer.lock();
        *cursor = None;
        writer.journaled = false;
        writer.queued = Queued::No;
        writer.untold_bytes = 0;
        self.set_durability(Kept::Os);
        let end = self.log_end.load(Ordering::Acquire);
        let moved = self.high_watermark.fetch_max(end, Ordering::AcqRel) < end;
        drop(writer);
        drop(cursor);
        if moved {
            self.tell_high_watermark(Offset(end));
            self.want_maintenance();
        }
    }

    fn set_durability(&self, durability: Kept) {
        self.config.rcu(|now| LogConfig {
            durability,
            ..LogConfig::clone(now)
        });
    }

    /// The parts of segments from the cursor to the end, as of now; the store is told anew of what
    /// comes after.
    fn untaken(&self, cursor: &Cursor) -> Vec<Untaken> {
        let mut writer = self.writer.lock();
        writer.queued = Queued::No;
        writer.untold_bytes = 0;
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        let active = &writer.active;
        let waiting = writer.waiting.iter();
        let segments = waiting
            .map(|waiting| (&waiting.segment, waiting.bytes, waiting.end_offset))
            .chain([(active.shared(), active.position(), log_end)]);
        segments
            .filter(|(segment, _, end_offset)| *end_offset > cursor.offset.max(segment.base_offset))
            .map(|(segment, end, end_offset)| Untaken {
                segment: Arc::clone(segment),
                start: if segment.base_offset == cursor.segment {
                    cursor.position
                } else {
                    0
                },
                end,
                base_offset: segment.base_offset.max(cursor.offset),
                end_offset,
            })
            .collect()
    }

    /// The batches of a part that fit `room`, and the first one in any case if `at_least_one`; then
    /// where they end. `None` when they cannot be read: the partition is offline.
    fn clip(&self, part: &Untaken, room: u64, at_least_one: bool) -> Option<(Bytes, Offset)> {
        let tail = part
            .segment
            .tail()
            .expect("what was appended was appended to a file");
        let source = self.tail_source(tail);
        let outcome = clip(&source, part, room, at_least_one);
        outcome
            .map_err(|error| self.walk_failed(&part.segment, part.end_offset, error))
            .ok()
    }

    fn hand_over_again(self: &Arc<Self>, left_bytes: u64) {
        let mut writer = self.writer.lock();
        if !writer.journaled {
            return;
        }
        // Whether somebody waits for it is not known here; a round that was full is followed at once.
        writer.queued = Queued::Urgently;
        drop(writer);
        self.durability.appended(self, left_bytes, true);
    }
}

fn clip(
    source: &Source,
    part: &Untaken,
    room: u64,
    at_least_one: bool,
) -> Result<(Bytes, Offset), WalkError> {
    let expected = Expected::Base(part.base_offset);
    let mut walker = Walker::new(source, part.start, expected, room, ReadMode::Blocking);
    if part.end - part.start <= room {
        return Ok((walker.bytes(part.start..part.end)?, part.end_offset));
    }
    let mut end_offset = part.base_offset;
    while walker.position() < part.end {
        let header = walker.peek()?;
        let taken = walker.position() - part.start + header.size_bytes() as u64;
        let is_first = end_offset == part.base_offset;
        if taken > room && !(is_first && at_least_one) {
            break;
        }
        walker.skip(&header);
        end_offset = header.next_offset();
    }
    let end = walker.position();
    Ok((walker.bytes(part.start..end)?, end_offset))
}
