//! What retention sees of a partition, and what it asks of it.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sapwood_model::{Offset, Timestamp};

use super::{AppendError, LogConfig, Partition, ReadError, Upkeep, View, Waiting, Writer, times};
use crate::{
    index::{IndexCounts, SegmentIndex},
    io::OpenMode,
    retention::{Latest, LogSummary, SegmentSummary},
    segment::{ActiveSegment, OpenSegment, SealedSegment, Segment, WalkError},
};

impl Partition {
    /// What [`retention::plan`](crate::retention::plan) decides on; `None` while the partition does not
    /// serve. Takes the writer's lock for a moment, and reads no file.
    pub fn retention_summary(&self) -> Option<LogSummary> {
        if self.closed.load(Ordering::Acquire) || self.offline.get().is_some() {
            return None;
        }
        // Of one moment: another segment must not begin between the look at the view and that at the
        // log's end. What is looked at afterwards may only be younger.
        let (view, bounds, roll_at) = {
            let writer = self.writer.lock();
            (self.view.load_full(), self.bounds(), self.roll_at(&writer))
        };
        let ends = view.segments.iter().skip(1).map(Segment::base_offset);
        let ends = ends.chain([bounds.log_end]);
        let segments = view.segments.iter().zip(ends);
        let segments = segments.map(|(segment, end)| SegmentSummary {
            offsets: segment.base_offset()..end,
            bytes: segment.bytes(),
            latest: latest(segment),
        });
        Some(LogSummary {
            segments: segments.collect(),
            log_start: bounds.log_start,
            high_watermark: bounds.high_watermark,
            roll_at,
        })
    }

    /// Looks up from when on retention counts the age of the sealed segment at `base`, and keeps it in
    /// memory. One that is not sealed, or not there, is passed over. Blocks on the disk: reads the
    /// segment's time index and the batches behind its last entry.
    ///
    /// # Errors
    /// As [`Partition::find_timestamp`].
    pub fn look_up_age(&self, base: Offset) -> Result<(), ReadError> {
        self.check_readable(self.bounds().log_start)?;
        let view = self.view.load_full();
        let Some((segment @ Segment::Sealed(sealed), _)) = view.floor(base) else {
            return Ok(());
        };
        let found = self.latest_of(segment).and_then(|latest| match latest {
            times::Latest::Is(Some(entry)) => Ok(entry.timestamp),
            // Kafka's rule for records without timestamps.
            times::Latest::Is(None) | times::Latest::Unknown => self.modified(sealed),
        });
        match found {
            Ok(at) => {
                let _ = sealed.aged_from.set(at); // somebody else found the same
                Ok(())
            }
            // Removed or compacted meanwhile.
            Err(_) if sealed.end_offset <= self.bounds().log_start => Ok(()),
            Err(_) if self.was_replaced(segment) => Ok(()),
            Err(error) => Err(self.read_failed(segment, sealed.end_offset, base, error)),
        }
    }

    /// Ends the active segment, if the log still ends at `end`: what is appended next begins another
    /// one. An empty one stays. Says whether it was rolled. Waits for appends; opens the segment's file
    /// if nothing was appended to it since the start.
    ///
    /// # Errors
    /// [`AppendError::Offline`] and [`AppendError::Closed`]; [`AppendError::Exhausted`] leaves everything
    /// as it was.
    pub fn roll(&self, end: Offset, now: Timestamp) -> Result<bool, AppendError> {
        let outcome = self.roll_locked(end, now);
        if matches!(outcome, Ok(true)) {
            self.want_maintenance();
        }
        self.tell_failure();
        outcome
    }

    fn roll_locked(&self, end: Offset, now: Timestamp) -> Result<bool, AppendError> {
        let config = self.config.load();
        let mut writer = self.writer.lock();
        self.check_appendable()?;
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        if log_end != end || writer.active.position() == 0 {
            return Ok(false);
        }
        if writer.active.file().is_none() {
            // Sealing cuts and syncs it.
            self.reopen(&mut writer, &config, 0)?;
        }
        let index = SegmentIndex::new(self.key(end), config.index_interval_bytes);
        let shared = OpenSegment::new(index, end, 0);
        let mut segments = self.view.load().segments.clone();
        segments.push(Segment::Open(Arc::clone(&shared)));
        self.view.store(Arc::new(View { segments }));
        // It gets its file from the append that comes next, if one comes.
        let active = ActiveSegment::found(shared, 0, now);
        let before = std::mem::replace(&mut writer.active, active);
        writer.checkpointed.index = IndexCounts::default();
        let producers = writer.producers.encode().into();
        writer.waiting.push_back(Waiting {
            segment: Arc::clone(before.shared()),
            end_offset: end,
            bytes: before.position(),
            producers,
            sealed: false,
        });
        self.durability.metrics().segments_rolled.add(1);
        Ok(true)
    }

    /// When the active segment has been written for as long as it may be. What was appended since the
    /// start counts by the clock. What was found counts by its timestamps, where they are earlier: it
    /// may have been quiet for long.
    fn roll_at(&self, writer: &Writer) -> Option<Timestamp> {
        let active = &writer.active;
        if active.position() == 0 {
            return None;
        }
        let config = self.config.load();
        let since = match active.file() {
            Some(_) => active.opened_at,
            None => {
                let latest = active.shared().index.read().latest();
                latest.map_or(active.opened_at, |e| e.timestamp.min(active.opened_at))
            }
        };
        let segment_ms = self.segment_ms(active.base_offset(), &config);
        let segment_ms = i64::try_from(segment_ms).unwrap_or(i64::MAX);
        Some(Timestamp(since.0.saturating_add(segment_ms)))
    }

    /// How long a segment is written at most.
    pub(super) fn segment_ms(&self, base: Offset, config: &LogConfig) -> u64 {
        let jitter_ms = match config.segment_jitter_ms {
            0 => 0,
            max => self.jitter(base) % max,
        };
        config.segment_ms.saturating_sub(jitter_ms)
    }

    /// A segment as it is sealed, with what is known of its times. A part of one that was found at the
    /// start came with an index that may be wrong, so that they are looked up in the batches.
    pub(super) fn sealed(&self, waiting: &Waiting) -> SealedSegment {
        let (latest, aged_from) = match waiting.segment.found_bytes() {
            0 => {
                let latest = waiting.segment.index.read().latest();
                let now = || self.environment.clock.now();
                let aged_from = latest.map_or_else(now, |entry| entry.timestamp);
                (OnceLock::from(latest), OnceLock::from(aged_from))
            }
            _ => Default::default(),
        };
        SealedSegment {
            base_offset: waiting.segment.base_offset,
            end_offset: waiting.end_offset,
            bytes: waiting.bytes,
            latest,
            aged_from,
            generation: 0,
            is_swap: AtomicBool::new(false),
            first: OnceLock::new(),
            mapping: waiting.segment.mapping(),
        }
    }

    /// An empty segment behind others gets a file, empty as well: by it a start finds out where the one
    /// before it ends. The append that comes next puts its own in the place. On a full disk it waits for
    /// the next pass.
    pub(super) fn name_empty_end(&self, upkeep: &mut Upkeep) -> io::Result<()> {
        let base = {
            let writer = self.writer.lock();
            let active = &writer.active;
            let is_named = upkeep.named_end == Some(active.base_offset());
            if is_named || active.position() > 0 || active.file().is_some() {
                return Ok(());
            }
            active.base_offset()
        };
        if self.view.load().segments.len() == 1 {
            return Ok(());
        }
        let path = self.segment_path(base);
        let disk = &self.environment.disk;
        self.durability
            .with_ballast(&mut || disk.open(&path, OpenMode::Create).map(drop))?;
        self.names_have_changed();
        upkeep.named_end = Some(base);
        Ok(())
    }

    fn modified(&self, segment: &SealedSegment) -> Result<Timestamp, WalkError> {
        let disk = &self.environment.disk;
        let path = self.folder.join(segment.file_name());
        let file = disk.open(&path, OpenMode::Read)?;
        let modified = file.modified()?;
        Ok(modified.unwrap_or_else(|| self.environment.clock.now()))
    }
}

fn latest(segment: &Segment) -> Latest {
    match segment {
        Segment::Sealed(sealed) => match sealed.aged_from.get() {
            Some(at) => Latest::Known(*at),
            None => Latest::Unknown,
        },
        Segment::Open(open) => match open.index.read().latest() {
            None => Latest::Untimed,
            Some(entry) if open.found_bytes() > 0 => Latest::Hint(entry.timestamp),
            Some(entry) => Latest::Known(entry.timestamp),
        },
    }
}
