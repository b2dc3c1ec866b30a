//! What compaction sees of a partition, and how it changes it.

use std::{
    io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sapwood_model::{Offset, Timestamp};
use tracing::{info, warn};

use super::{Partition, ReadError, ReadMode, View};
use crate::{
    compaction::{CompactError, CompactableLog, CompactableSegment},
    durability::Space,
    index::{IndexCounts, record_time},
    io::{Disk, OpenMode},
    names,
    retention::Latest,
    segment::{SealedSegment, Segment, SegmentHandle, SegmentKey, WalkError, Walker},
};

/// What compaction reads at a time.
const WINDOW_BYTES: u64 = 1 << 20;
/// The file with the end of the clean part is a line of numbers and the topic's name.
const CLEANER_BYTES_MAX: usize = 1024;

impl Partition {
    /// What [`compaction::plan`](crate::compaction::plan) decides on; `None` while the partition does not
    /// serve. Reads one small file the first time.
    ///
    /// # Errors
    /// As [`Partition::read`].
    pub fn compactable(&self) -> Result<Option<CompactableLog>, ReadError> {
        if self.closed.load(Ordering::Acquire) || self.offline.get().is_some() {
            return Ok(None);
        }
        let segments = self.compactable_segments();
        let segments = segments.iter().map(|segment| CompactableSegment {
            offsets: segment.base_offset..segment.end_offset,
            bytes: segment.bytes,
            first: segment.first.get().copied(),
            latest: match segment.aged_from.get() {
                Some(at) => Latest::Known(*at),
                None => Latest::Unknown,
            },
        });
        Ok(Some(CompactableLog {
            segments: segments.collect(),
            log_start: self.bounds().log_start,
            cleaned: self.cleaned()?,
        }))
    }

    /// Looks up the timestamp of the first batch of the sealed segment at `base`, and keeps it in memory. One
    /// that is not sealed, or not there, is passed over. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Partition::read`].
    pub fn look_up_first(&self, base: Offset) -> Result<(), ReadError> {
        let view = self.view.load_full();
        let Some((Segment::Sealed(sealed), _)) = view.floor(base) else {
            return Ok(());
        };
        let found = self.with_batches(sealed, sealed.base_offset, |mut walker| {
            let header = walker.peek()?;
            Ok(Some(record_time(&header)).filter(|at| at.0 >= 0))
        });
        match found {
            Ok(first) => {
                let _ = sealed.first.set(first); // somebody else found the same
                Ok(())
            }
            Err(CompactError::Read(error)) => Err(error),
            Err(_) => Ok(()), // compacted or removed meanwhile
        }
    }

    /// The sealed segments, from the first on, that everybody can read and that recovery does not begin with:
    /// it writes journal entries again from where its checkpoint says.
    pub(crate) fn compactable_segments(&self) -> Vec<Arc<SealedSegment>> {
        let end = {
            let writer = self.writer.lock();
            writer.checkpointed.segment
        };
        let end = end.min(self.bounds().high_watermark);
        let view = self.view.load();
        let sealed = view.segments.iter().map_while(|segment| match segment {
            Segment::Sealed(sealed) => Some(Arc::clone(sealed)),
            Segment::Open(_) => None,
        });
        sealed.take_while(|one| one.end_offset <= end).collect()
    }

    /// Up to where the log was compacted.
    pub(crate) fn cleaned(&self) -> Result<Offset, ReadError> {
        let mut cleaned = self.cleaned.lock();
        if let Some(cleaned) = *cleaned {
            return Ok(cleaned);
        }
        let path = self.folder.join(names::CLEANER_FILE);
        let text = read_small(&*self.environment.disk, &path).unwrap_or_else(|error| {
            // Then everything is looked at once more.
            warn!(path = %path.display(), %error, "could not read how far a log was compacted");
            String::new()
        });
        let found = self.parse_cleaned(&text).unwrap_or(Offset::ZERO);
        let found = found.min(self.bounds().log_end);
        *cleaned = Some(found);
        Ok(found)
    }

    /// Kafka's form: a version, a count, and a line for each partition.
    fn parse_cleaned(&self, text: &str) -> Option<Offset> {
        let mut lines = text.lines();
        let is_known = lines.next()? == "0" && lines.next()? == "1";
        let mut fields = lines.next()?.split(' ');
        let is_ours = fields.next()? == self.spec.topic.as_str()
            && fields.next()? == self.spec.partition.to_string();
        let offset = fields.next()?.parse().ok().map(Offset)?;
        (is_known && is_ours).then_some(offset)
    }

    /// Everything below was compacted.
    pub(crate) fn set_cleaned(&self, end: Offset) -> Result<(), CompactError> {
        let disk = &*self.environment.disk;
        let path = self.folder.join(names::CLEANER_FILE);
        let temporary = self.folder.join(format!("{}.tmp", names::CLEANER_FILE));
        let (topic, partition) = (&self.spec.topic, self.spec.partition);
        let text = format!("0\n1\n{topic} {partition} {end}\n");
        let written = self.durability.with_ballast(&mut || {
            let file = disk.open(&temporary, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&[text.as_bytes()], 0)?;
            file.sync_data()
        });
        let _upkeep = self.upkeep.lock();
        if self.is_abandoned() {
            return Err(CompactError::Changed);
        }
        let named = written.and_then(|()| {
            self.durability
                .with_ballast(&mut || disk.rename(&temporary, &path))
        });
        self.names_have_changed();
        *self.cleaned.lock() = Some(end);
        named.map_err(|error| CompactError::Io { path, error })
    }

    /// Walks the batches of a segment from the one that holds `from` on.
    pub(crate) fn with_batches<T>(
        &self,
        segment: &Arc<SealedSegment>,
        from: Offset,
        walk: impl Fn(Walker<'_>) -> Result<T, WalkError>,
    ) -> Result<T, CompactError> {
        let log_start = self.bounds().log_start;
        match self.check_readable(from.max(log_start)) {
            Err(ReadError::Closed | ReadError::OutOfRange { .. }) => {
                return Err(CompactError::Changed);
            }
            checked => checked?,
        };
        let segment = Segment::Sealed(Arc::clone(segment));
        let mode = ReadMode::Blocking;
        let walked = self.with_start(&segment, from, mode, |source, at, expected| {
            walk(Walker::new(source, at, expected, WINDOW_BYTES, mode))
        });
        walked.map_err(|error| {
            let Segment::Sealed(sealed) = &segment else {
                return CompactError::Changed;
            };
            if self.was_replaced(&segment) || sealed.base_offset < self.bounds().log_start {
                return CompactError::Changed;
            }
            self.read_failed(&segment, sealed.end_offset, from, error)
                .into()
        })
    }

    /// A compacted segment, written and synced under its temporary name, takes the place of its sources.
    ///
    /// Its second name says which offsets it is for, and is made durable: from then on it counts, also after
    /// a crash. Only then do the sources go, and only when that is durable it gets the name of a
    /// segment: of two segments with the same offsets nobody could tell which one counts. No lock is held
    /// over a sync. Readers wait while names change, and those that have a file open go on with it.
    pub(crate) fn swap_in(
        &self,
        sources: &[Arc<SealedSegment>],
        output: crate::compaction::Output,
    ) -> Result<(), CompactError> {
        let me = self
            .me
            .upgrade()
            .expect("whoever calls holds the partition");
        let (first, last) = (&sources[0], &sources[sources.len() - 1]);
        let offsets = first.base_offset..last.end_offset;
        let disk = &*self.environment.disk;
        let swap = self.folder.join(names::swap_file_name(&offsets));
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => CompactError::Changed, // the topic was deleted
            io::ErrorKind::StorageFull => CompactError::NoSpace { path: swap.clone() },
            _ => CompactError::Io {
                path: swap.clone(),
                error,
            },
        };
        self.durability
            .with_ballast(&mut || disk.rename(&output.path, &swap))
            .map_err(failed)?;
        if let Err(reason) = self.durability.sync_folder(&me) {
            return Err(CompactError::ReadOnly { reason });
        }
        let generation = sources.iter().map(|one| one.generation).max().unwrap_or(0) + 1;
        let latest = output.index.latest();
        let ages = sources.iter().map(|one| one.aged_from.get().copied());
        let aged_from = match latest {
            Some(entry) => Some(entry.timestamp),
            // As long as its sources would have been there.
            None => ages
                .collect::<Option<Vec<_>>>()
                .and_then(|ages| ages.into_iter().max()),
        };
        let sealed = Arc::new(SealedSegment {
            base_offset: offsets.start,
            end_offset: offsets.end,
            bytes: output.bytes(),
            latest: OnceLock::from(latest),
            aged_from: aged_from.map(OnceLock::from).unwrap_or_default(),
            generation,
            is_swap: AtomicBool::new(true),
            first: OnceLock::new(),
            mapping: std::sync::Weak::<()>::new(),
        });
        let indexes;
        let mut is_alone = true;
        {
            let _upkeep = self.upkeep.lock();
            let _files = self.files.write();
            let is_there = !self.closed.load(Ordering::Acquire)
                && self.offline.get().is_none()
                && self.holds_all(sources);
            if !is_there {
                self.remove_path(&swap);
                return Err(CompactError::Changed);
            }
            for source in sources {
                is_alone &= self.remove_source(source, source.base_offset == offsets.start);
            }
            let encoded = output.index.encode_from(IndexCounts::default());
            indexes = encoded.write(disk, &self.folder, offsets.start);
            let handle = SegmentHandle::new(Arc::clone(&output.file), Some(output.index));
            let segment = Segment::Sealed(Arc::clone(&sealed));
            let key = self.file_key(&segment);
            {
                let _writer = self.writer.lock();
                let view = self.view.load();
                let around = view.segments.iter();
                let before = around
                    .clone()
                    .filter(|one| one.base_offset() < offsets.start);
                let after = around.filter(|one| one.base_offset() >= offsets.end);
                let segments = before.cloned().chain([segment]).chain(after.cloned());
                let segments = segments.collect();
                self.view.store(Arc::new(View { segments }));
            }
            self.open_files.insert(key, handle);
        }
        let synced = indexes.and_then(|files| files.iter().try_for_each(|file| file.sync_data()));
        if let Err(error) = synced {
            // They are made anew when they are needed.
            warn!(path = %swap.display(), %error, "could not write the indexes of a segment");
        }
        info!(
            event = "segment.compacted",
            topic = %self.spec.topic,
            partition = %self.spec.partition,
            segments = sources.len(),
            bytes_before = sources.iter().map(|one| one.bytes).sum::<u64>(),
            bytes_after = sealed.bytes,
            base_offset = %offsets.start,
            end_offset = %offsets.end,
            "compacted segments"
        );
        if let Err(reason) = self.durability.sync_folder(&me) {
            return Err(CompactError::ReadOnly { reason });
        }
        if !is_alone {
            return Ok(()); // the next start removes the others, and gives it its name
        }
        let _upkeep = self.upkeep.lock();
        let _files = self.files.write();
        if self.is_abandoned() || !self.holds_all(std::slice::from_ref(&sealed)) {
            return Ok(());
        }
        let named = self
            .durability
            .with_ballast(&mut || disk.rename(&swap, &self.segment_path(offsets.start)));
        match named {
            Ok(()) => {
                sealed.is_swap.store(false, Ordering::Release);
                self.names_have_changed();
            }
            // The next start gives it its name.
            Err(error) => warn!(path = %swap.display(), %error, "could not rename a segment"),
        }
        Ok(())
    }

    /// Says whether nothing of it is left.
    fn remove_source(&self, source: &Arc<SealedSegment>, is_first: bool) -> bool {
        let base = source.base_offset;
        let segment = Segment::Sealed(Arc::clone(source));
        self.open_files.forget(&self.file_key(&segment));
        let mut names = vec![
            names::index_file_name(base),
            names::time_index_file_name(base),
            names::sums_file_name(base),
        ];
        if !is_first {
            names.push(names::snapshot_file_name(base));
        }
        let is_gone = names.iter().all(|name| self.remove(name));
        self.remove_segment(base, &segment) && is_gone
    }

    fn holds_all(&self, segments: &[Arc<SealedSegment>]) -> bool {
        let view = self.view.load();
        segments.iter().all(|wanted| {
            let found = view.floor(wanted.base_offset);
            found.is_some_and(|(found, _)| match found {
                Segment::Sealed(found) => Arc::ptr_eq(found, wanted),
                Segment::Open(_) => false,
            })
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.environment.clock.now()
    }

    pub(crate) fn random(&self) -> u64 {
        self.environment.entropy.u64()
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.environment.disk
    }

    pub(crate) fn segment_key(&self, base: Offset) -> SegmentKey {
        self.key(base)
    }

    pub(crate) fn index_interval_bytes(&self) -> u64 {
        self.config.load().index_interval_bytes
    }

    pub(crate) fn bytes_of(&self, space: Space) -> u64 {
        self.durability.bytes_of(space)
    }
}

/// A small text file; empty if it is not there.
fn read_small(disk: &dyn Disk, path: &Path) -> io::Result<String> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let mut bytes = vec![0; CLEANER_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    String::from_utf8(bytes).map_err(io::Error::other)
}
