//! Segments that were read lately: their open files and indexes, bounded for all partitions together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use sapwood_model::{Offset, PartitionId, TopicId};

use super::Passage;
use crate::{index::SegmentIndex, io::File, sums::Noted};

/// Memory for the indexes of sealed segments. A segment of 1 GiB with an entry for each 4 KiB takes
/// about 5 MiB, one of large batches a hundredth of that.
const INDEX_BYTES_MAX: usize = 32 << 20;

/// Which segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SegmentKey {
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) base_offset: Offset,
}

/// Which file of a segment: compaction gives it another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) segment: SegmentKey,
    pub(crate) generation: u32,
}

/// What it takes to read from a segment that has no mapping.
#[derive(Debug)]
pub(crate) struct SegmentHandle {
    pub(crate) file: Arc<dyn File>,
    /// `None` for an open segment, whose index is with the segment.
    pub(crate) index: Option<SegmentIndex>,
    /// Its sums, of which it is known here which were checked since it was opened.
    pub(crate) noted: Arc<Noted>,
    /// How far it was read from the disk since it was opened.
    pub(crate) passage: Arc<Passage>,
}

impl SegmentHandle {
    pub(crate) fn new(file: Arc<dyn File>, index: Option<SegmentIndex>) -> Arc<Self> {
        let noted = index.as_ref().map(|index| Noted::new(index.sums()));
        Arc::new(Self {
            file,
            index,
            noted: Arc::new(noted.unwrap_or_default()),
            passage: Arc::default(),
        })
    }
}

/// Least recently used out first. Whoever holds a handle goes on reading from it. Only segments
/// without unsynced writes are in here: closing a file must not lose the failure of a write.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    files_max: usize,
    lru: Mutex<Lru>,
}

#[derive(Debug, Default)]
struct Lru {
    slots: HashMap<FileKey, Slot>,
    /// The same keys by the time of their last use.
    by_use: BTreeMap<u64, FileKey>,
    uses: u64,
    index_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    handle: Arc<SegmentHandle>,
    last_use: u64,
}

impl OpenFiles {
    /// Keeps at most `files_max` files open, at least 1.
    pub(crate) fn new(files_max: usize) -> Self {
        Self {
            files_max: files_max.max(1),
            lru: Mutex::default(),
        }
    }

    /// The segment's handle, if it is open.
    pub(crate) fn get(&self, key: &FileKey) -> Option<Arc<SegmentHandle>> {
        let mut lru = self.lru.lock();
        let lru = &mut *lru;
        let slot = lru.slots.get_mut(key)?;
        lru.by_use.remove(&slot.last_use);
        lru.uses += 1;
        slot.last_use = lru.uses;
        lru.by_use.insert(lru.uses, *key);
        Some(Arc::clone(&slot.handle))
    }

    /// Keeps a handle, in place of another one of the same segment.
    pub(crate) fn insert(&self, key: FileKey, handle: Arc<SegmentHandle>) {
        let mut closed = Vec::new();
        let mut lru = self.lru.lock();
        closed.extend(lru.remove(&key));
        lru.uses += 1;
        let last_use = lru.uses;
        lru.index_bytes += index_bytes(&handle);
        lru.by_use.insert(last_use, key);
        lru.slots.insert(key, Slot { handle, last_use });
        // The newest stays, whatever its size.
        while lru.slots.len() > 1
            && (lru.slots.len() > self.files_max || lru.index_bytes > INDEX_BYTES_MAX)
        {
            let (_, &oldest) = lru.by_use.first_key_value().expect("as many uses as slots");
            closed.extend(lru.remove(&oldest));
        }
        drop(lru);
        drop(closed); // closing a file is no work to do under the lock
    }

    /// Closes the segment's file, once its readers are done.
    pub(crate) fn forget(&self, key: &FileKey) {
        let closed = self.lru.lock().remove(key);
        drop(closed);
    }
}

impl Lru {
    fn remove(&mut self, key: &FileKey) -> Option<Arc<SegmentHandle>> {
        let slot = self.slots.remove(key)?;
        self.by_use.remove(&slot.last_use);
        self.index_bytes -= index_bytes(&slot.handle);
        Some(slot.handle)
    }
}

fn index_bytes(handle: &SegmentHandle) -> usize {
    // The sums are there twice.
    handle.index.as_ref().map_or(0, |index| {
        index.memory_bytes() + index.sums().memory_bytes()
    })
}
