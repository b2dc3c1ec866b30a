//! The way in: one batch under the writer's lock.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use sapwood_model::{Offset, Timestamp};
use sapwood_record::{Batch, Header};

use super::{
    AppendError, AppendOptions, Appended, LogConfig, Partition, Waiting, Writer, is_exhaustion,
    journaling::JournalNews,
};
use crate::{
    durability::Space,
    index::{IndexCounts, SegmentIndex},
    names,
    producers::{Refused, Sequenced},
    segment::{ActiveSegment, Prepared, Room, SEGMENT_BYTES_MAX, Segment, View},
};

/// What is to be told once the lock is released.
#[derive(Debug, Default)]
struct News {
    maintenance: bool,
    rolled: bool,
    high_watermark: Option<Offset>,
    journal: Option<JournalNews>,
    /// For the checkpoints of os topics.
    dirtied_bytes: Option<u64>,
}

impl Partition {
    /// Appends one batch, which gets the next offsets and the leader epoch of now. The batch was
    /// validated before. When this returns, the batch is in the page cache; it is durable, and can be
    /// read, once the high watermark is at [`Appended::durable_at`].
    ///
    /// Takes microseconds: it waits for other appends, and for the disk only if allocation ahead has
    /// not kept up. A batch that the same producer appended before is not appended again.
    ///
    /// # Errors
    /// Nothing of the batch is in the log. All but [`AppendError::Offline`] leave the partition usable.
    pub fn append(
        &self,
        batch: &Batch,
        options: AppendOptions,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        self.append_with(batch, options, now, Space::Spare)
    }

    /// As [`Partition::append`], and may take the space that the ballast gave up: for records that
    /// make room for others, such as the offsets of a group.
    ///
    /// # Errors
    /// As [`Partition::append`].
    pub fn append_from_ballast(
        &self,
        batch: &Batch,
        options: AppendOptions,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        self.append_with(batch, options, now, Space::Ballast)
    }

    fn append_with(
        &self,
        batch: &Batch,
        options: AppendOptions,
        now: Timestamp,
        space: Space,
    ) -> Result<Appended, AppendError> {
        let mut news = News::default();
        if let Some(reason) = self.durability.read_only() {
            return Err(AppendError::ReadOnly { reason });
        }
        let outcome = self.append_locked(batch, options, now, space, &mut news);
        self.tell(&news);
        self.tell_failure();
        outcome
    }

    fn append_locked(
        &self,
        batch: &Batch,
        options: AppendOptions,
        now: Timestamp,
        space: Space,
        news: &mut News,
    ) -> Result<Appended, AppendError> {
        let config = self.config.load();
        let mut writer = self.writer.lock();
        self.check_appendable()?;
        let base_offset = Offset(self.log_end.load(Ordering::Acquire));

        // Before the expected end: the retry of a batch that was appended finds the end behind it.
        if let Some(stamp) = batch.header().producer() {
            match writer.producers.check(&stamp) {
                Ok(Sequenced::Next) => {}
                Ok(Sequenced::Duplicate {
                    base_offset,
                    last_offset,
                }) => {
                    if options.urgent {
                        news.journal = writer.hurry_journal();
                    }
                    return Ok(self.appended(base_offset, last_offset, true));
                }
                Err(Refused::Fenced { current }) => {
                    let (producer, epoch) = (stamp.id, stamp.epoch);
                    return Err(AppendError::Fenced {
                        producer,
                        epoch,
                        current,
                    });
                }
                Err(Refused::OutOfSequence { expected }) => {
                    let (producer, sequence) = (stamp.id, stamp.base_sequence);
                    return Err(AppendError::OutOfSequence {
                        producer,
                        sequence,
                        expected,
                    });
                }
            }
        }
        if let Some(expected) = options.expected_end
            && expected != base_offset
        {
            return Err(AppendError::ExpectedEnd {
                expected,
                actual: base_offset,
            });
        }

        let mut header = *batch.header();
        header.set_base_offset(base_offset);
        header.set_leader_epoch(self.leader_epoch);
        self.make_room(&mut writer, &header, &config, now, space, news)?;
        self.write(&mut writer, &header, batch, now, options.urgent, news)?;
        Ok(self.appended(base_offset, header.last_offset(), false))
    }

    pub(super) fn check_appendable(&self) -> Result<(), AppendError> {
        if let Some(reason) = self.offline.get() {
            return Err(AppendError::Offline {
                reason: Arc::clone(reason),
            });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        Ok(())
    }

    fn appended(&self, base_offset: Offset, last_offset: Offset, duplicate: bool) -> Appended {
        Appended {
            base_offset,
            last_offset,
            log_start: self.bounds().log_start,
            durable_at: last_offset.add(1),
            duplicate,
        }
    }

    /// Sees to it that the active segment takes the batch next: rolls, opens, allocates.
    fn make_room(
        &self,
        writer: &mut Writer,
        header: &Header,
        config: &LogConfig,
        now: Timestamp,
        space: Space,
        news: &mut News,
    ) -> Result<(), AppendError> {
        let bytes = header.size_bytes() as u64;
        if bytes > SEGMENT_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes,
                limit: SEGMENT_BYTES_MAX,
            });
        }
        // The file of a found segment says how full its mapping is and when it began.
        let reopened = writer.active.room(bytes) == Room::Closed && writer.active.position() > 0;
        if reopened {
            self.reopen(writer, config, bytes)?;
        }
        if self.is_roll_due(writer, header, config, now) {
            self.begin_segment(writer, header, config, now, space)?;
            news.maintenance = true;
            news.rolled = true;
        } else if writer
            .active
            .capacity()
            .is_none_or(|capacity| capacity < bytes)
        {
            // Only an empty segment gets here: one without a file, or a mapping that is too small.
            self.begin_segment(writer, header, config, now, space)?;
        }
        if writer.active.room(bytes) == Room::Unallocated {
            if !reopened {
                self.durability.metrics().late_allocations.add(1);
            }
            if let Err(error) = writer
                .active
                .allocate(bytes, self.durability.bytes_of(space))
            {
                let path = self.segment_path(writer.active.base_offset());
                return Err(self.append_failed("allocate", &path, error, bytes));
            }
            self.durability.lacks(0);
        }
        Ok(())
    }

    pub(super) fn reopen(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        bytes: u64,
    ) -> Result<(), AppendError> {
        let layout = self.layout(config);
        writer.active.reopen(&layout).map_err(|error| {
            let path = self.segment_path(writer.active.base_offset());
            self.append_failed("open", &path, error, bytes)
        })
    }

    /// Kafka's rules: the segment would grow too large, its first batch is too old, its index is full,
    /// or an offset would not fit the index.
    fn is_roll_due(
        &self,
        writer: &Writer,
        header: &Header,
        config: &LogConfig,
        now: Timestamp,
    ) -> bool {
        let active = &writer.active;
        if active.position() == 0 {
            return false;
        }
        let base = active.base_offset();
        let limit = config
            .segment_bytes
            .min(active.capacity().unwrap_or(SEGMENT_BYTES_MAX));
        let waited_ms = match active.first_timestamp() {
            Some(first) if first.0 >= 0 => header.max_timestamp().0.saturating_sub(first.0),
            _ => now.0.saturating_sub(active.opened_at.0),
        };
        let segment_ms = self.segment_ms(base, config);
        active.position() + header.size_bytes() as u64 > limit
            || waited_ms > i64::try_from(segment_ms).unwrap_or(i64::MAX)
            || i32::try_from(header.last_offset().0 - base.0).is_err()
            || active.shared().index.read().is_full()
    }

    /// A number that is the same for a segment for all its life and different for the next one
    /// (SplitMix64's finaliser).
    pub(super) fn jitter(&self, base_offset: Offset) -> u64 {
        let id = self.spec.topic_id.0;
        let mut mixed =
            (id as u64) ^ ((id >> 64) as u64) ^ (u64::from(self.spec.partition.0) << 32);
        mixed = mixed.wrapping_add(base_offset.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Makes a new active segment at the log's end. An active segment with batches is rolled; one
    /// without has no file yet and gives way.
    fn begin_segment(
        &self,
        writer: &mut Writer,
        header: &Header,
        config: &LogConfig,
        now: Timestamp,
        space: Space,
    ) -> Result<(), AppendError> {
        let (bytes, base_offset) = (header.size_bytes() as u64, header.base_offset());
        let layout = self.layout(config);
        let path = self.segment_path(base_offset);
        let rolled = writer.active.position() > 0;
        let prepared = match writer.next.take() {
            Some(prepared) if prepared.capacity() >= bytes => prepared,
            _ if self.durability.bytes_of(space) < Prepared::first_step_bytes(bytes) => {
                let full = io::ErrorKind::StorageFull.into();
                return Err(self.append_failed("create", &path, full, bytes));
            }
            _ => Prepared::new(&layout, names::NEW_SEGMENT_FILE, bytes, false)
                .map_err(|error| self.append_failed("create", &path, error, bytes))?,
        };
        let index = SegmentIndex::new(self.key(base_offset), config.index_interval_bytes);
        let active = match ActiveSegment::begin(&layout, prepared, index, base_offset, now) {
            Ok(active) => active,
            Err((prepared, error)) => {
                writer.next = Some(prepared);
                return Err(self.append_failed("rename", &path, error, bytes));
            }
        };
        self.names_have_changed();
        let mut segments = self.view.load().segments.clone();
        if !rolled {
            segments.pop();
        }
        segments.push(Segment::Open(Arc::clone(active.shared())));
        self.view.store(Arc::new(View { segments }));
        let before = std::mem::replace(&mut writer.active, active);
        writer.checkpointed.index = IndexCounts::default();
        if rolled {
            self.durability.metrics().segments_rolled.add(1);
            writer.waiting.push_back(Waiting {
                segment: Arc::clone(before.shared()),
                end_offset: base_offset,
                bytes: before.position(),
                producers: writer.producers.encode().into(),
                sealed: false,
            });
        }
        Ok(())
    }

    /// The batch goes into the file, then into the index, the producers' state, and the log's end.
    fn write(
        &self,
        writer: &mut Writer,
        header: &Header,
        batch: &Batch,
        now: Timestamp,
        urgent: bool,
        news: &mut News,
    ) -> Result<(), AppendError> {
        let bytes = batch.size_bytes() as u64;
        let position = writer.active.append(header, batch).map_err(|error| {
            let path = self.segment_path(writer.active.base_offset());
            AppendError::Offline {
                reason: self.fail("write", &path, error),
            }
        })?;
        writer.active.shared().index.write().push(header, position);
        writer.producers.apply(header, now);
        let end = header.next_offset();
        self.log_end.store(end.0, Ordering::Release);

        writer.checkpointed.unflushed_bytes += bytes;
        if writer.journaled {
            news.journal = writer.note_for_journal(bytes, urgent);
        } else {
            self.high_watermark.store(end.0, Ordering::Release);
            news.high_watermark = Some(end);
            news.dirtied_bytes = Some(bytes);
        }
        news.maintenance |= writer.active.write_out_due(now).is_some()
            || writer.active.allocation_due().is_some()
            || (writer.next.is_none() && self.is_next_due(writer, &self.config.load()));
        let metrics = self.durability.metrics();
        metrics.appends.add(1);
        metrics.append_bytes.add(bytes);
        Ok(())
    }

    /// Whether the active segment is so full that the next one should be there.
    pub(super) fn is_next_due(&self, writer: &Writer, config: &LogConfig) -> bool {
        writer.active.position() >= config.segment_bytes / 4 * 3
    }

    /// Says what an operation on a file means for an append. Only running out of something leaves
    /// the partition as it was.
    fn append_failed(
        &self,
        operation: &'static str,
        path: &std::path::Path,
        error: io::Error,
        bytes: u64,
    ) -> AppendError {
        if error.kind() == io::ErrorKind::StorageFull {
            self.durability.metrics().no_space.add(1);
            self.durability.lacks(bytes);
            return AppendError::NoSpace { bytes };
        }
        if is_exhaustion(&error) {
            return AppendError::Exhausted {
                error: Arc::new(error),
            };
        }
        AppendError::Offline {
            reason: self.fail(operation, path, error),
        }
    }

    fn tell(&self, news: &News) {
        if (news.journal.is_some() || news.dirtied_bytes.is_some())
            && let Some(me) = self.me.upgrade()
        {
            if let Some(JournalNews { bytes, urgent }) = news.journal {
                self.durability.appended(&me, bytes, urgent);
            }
            if let Some(bytes) = news.dirtied_bytes {
                self.durability.dirtied(&me, bytes);
            }
        }
        if let Some(high_watermark) = news.high_watermark {
            self.tell_high_watermark(high_watermark);
        }
        if news.maintenance {
            self.want_maintenance();
        }
        if news.rolled
            && let Some(observer) = self.observer.get()
        {
            observer.segment_rolled();
        }
    }
}
