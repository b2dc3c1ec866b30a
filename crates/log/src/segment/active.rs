//! The writer's side of the active segment, and the one that is prepared to follow it.

use std::{io, ops::Range, path::Path, sync::Arc};

use sapwood_model::{Offset, Timestamp};
use sapwood_record::{Batch, HEADER_BYTES, Header, LENGTH_POSITION};

use super::{OpenSegment, SEGMENT_BYTES_MAX, SharedTail};
use crate::{
    index::SegmentIndex,
    io::{Disk, File, OpenMode, TailKind, TailReader, TailWriter},
    names,
};

/// The first allocation of a segment.
const ALLOCATION_BYTES_MIN: u64 = 64 << 10;
/// Write-out is started for whole steps of this: the largest folio of the page cache. Starting it for a
/// part of one makes the kernel write-protect and write the whole folio, again and again.
const WRITE_OUT_BYTES: u64 = 2 << 20;
/// Steps are gathered for this long: each start costs a wake-up, and what the disk takes meanwhile slows
/// the stores down. Often enough for a checkpoint to find little to sync.
const WRITE_OUT_INTERVAL_MS: i64 = 100;
/// Each allocation makes the blocks so many times as many: a fast writer has few of them, and a slow one
/// no more than this times what it wrote.
const ALLOCATION_FACTOR: u64 = 8;
/// Until they grow by this.
const ALLOCATION_BYTES_MAX: u64 = 32 << 20;

/// How segments are laid out on the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) folder: &'a Path,
    pub(crate) tail: TailKind,
    pub(crate) segment_bytes: u64,
}

/// An empty segment under its temporary name.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The temporary name.
    name: &'static str,
    file: Arc<dyn File>,
    writer: Box<dyn TailWriter>,
    reader: Arc<dyn TailReader>,
    allocated: u64,
    capacity: u64,
}

impl Prepared {
    /// Makes the file, allocates its first step, and maps it. `batch_bytes` must fit. `ahead` allocates
    /// a step for a partition that has just filled a segment, not for one that may never write again.
    ///
    /// # Errors
    /// `StorageFull` leaves no file behind.
    pub(crate) fn new(
        layout: &Layout<'_>,
        name: &'static str,
        batch_bytes: u64,
        ahead: bool,
    ) -> io::Result<Self> {
        let path = layout.folder.join(name);
        match layout.disk.remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = layout.disk.open(&path, OpenMode::CreateNew)?;
        let made = Self::lay_out(layout, name, &file, batch_bytes, ahead);
        if made.is_err() {
            let _ = layout.disk.remove_file(&path); // the next attempt removes it otherwise
        }
        made
    }

    fn lay_out(
        layout: &Layout<'_>,
        name: &'static str,
        file: &Arc<dyn File>,
        batch_bytes: u64,
        ahead: bool,
    ) -> io::Result<Self> {
        let capacity = layout
            .segment_bytes
            .clamp(batch_bytes.max(1), SEGMENT_BYTES_MAX.max(batch_bytes));
        let step = if ahead {
            ALLOCATION_BYTES_MAX
        } else {
            ALLOCATION_BYTES_MIN
        };
        let allocated = step.min(capacity).max(batch_bytes);
        file.allocate(0..allocated)?;
        let (writer, reader) = file.tail(layout.tail, capacity, 0)?;
        Ok(Self {
            name,
            file: Arc::clone(file),
            writer,
            reader,
            allocated,
            capacity,
        })
    }

    /// What one that is not made ahead takes for a first batch of so many bytes.
    pub(crate) fn first_step_bytes(batch_bytes: u64) -> u64 {
        ALLOCATION_BYTES_MIN.max(batch_bytes)
    }

    /// What one that is made ahead takes.
    pub(crate) fn step_ahead_bytes(segment_bytes: u64) -> u64 {
        ALLOCATION_BYTES_MAX.min(segment_bytes)
    }

    /// The largest batch that it can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
}

/// Whether a batch fits where the segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It does, and blocks are allocated for it.
    Enough,
    /// The file has to be opened or made first.
    Closed,
    /// Blocks have to be allocated first.
    Unallocated,
}

/// The segment that is appended to, as its one writer holds it.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    shared: Arc<OpenSegment>,
    /// Where the next batch goes.
    position: u64,
    /// The largest timestamp of the first batch, which time-based rolling counts from.
    first_timestamp: Option<Timestamp>,
    /// When the segment got its first batch since the start; counts for batches without timestamps.
    pub(crate) opened_at: Timestamp,
    open: Option<OpenTail>,
}

#[derive(Debug)]
struct OpenTail {
    file: Arc<dyn File>,
    writer: Box<dyn TailWriter>,
    /// The file has blocks below it, and reads as zeros from `position` to it.
    allocated: u64,
    capacity: u64,
    /// Below it write-out was started.
    written_out: u64,
    written_out_at: Timestamp,
}

impl ActiveSegment {
    /// A segment that nothing was appended to since the start.
    pub(crate) fn found(shared: Arc<OpenSegment>, bytes: u64, now: Timestamp) -> Self {
        Self {
            shared,
            position: bytes,
            first_timestamp: None,
            opened_at: now,
            open: None,
        }
    }

    /// A prepared segment takes its place in the log: the file gets its name. The caller syncs the
    /// folder before anything in it counts as durable.
    ///
    /// # Errors
    /// The prepared segment comes back, unless its file is in an unknown state.
    pub(crate) fn begin(
        layout: &Layout<'_>,
        prepared: Prepared,
        index: SegmentIndex,
        base_offset: Offset,
        now: Timestamp,
    ) -> Result<Self, (Prepared, io::Error)> {
        let from = layout.folder.join(prepared.name);
        let to = layout.folder.join(names::segment_file_name(base_offset));
        if let Err(e) = layout.disk.rename(&from, &to) {
            return Err((prepared, e));
        }
        let shared = OpenSegment::new(index, base_offset, 0);
        let mut segment = Self::found(shared, 0, now);
        segment.attach(
            prepared.file,
            prepared.writer,
            prepared.reader,
            prepared.allocated,
            prepared.capacity,
        );
        Ok(segment)
    }

    /// Opens the file of a segment that was found with batches in it.
    ///
    /// # Errors
    /// `NotFound` or `UnexpectedEof` when the file is not what was found, and what the disk reports.
    pub(crate) fn reopen(&mut self, layout: &Layout<'_>) -> io::Result<()> {
        let name = names::segment_file_name(self.shared.base_offset);
        let file = layout
            .disk
            .open(&layout.folder.join(name), OpenMode::Write)?;
        self.adopt(layout, file)
    }

    /// Goes on in the file that a cut segment was written to, from where it was cut.
    ///
    /// # Errors
    /// As [`ActiveSegment::reopen`].
    pub(crate) fn adopt(&mut self, layout: &Layout<'_>, file: Arc<dyn File>) -> io::Result<()> {
        assert!(
            self.open.is_none() && self.position > 0,
            "only a found segment is opened again"
        );
        let mut header = [0; HEADER_BYTES];
        if file.len()? < self.position || file.read_at(&mut header, 0)? < HEADER_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.first_timestamp = Header::read(&header).map(|header| header.max_timestamp());
        let capacity = layout
            .segment_bytes
            .max(self.position)
            .min(SEGMENT_BYTES_MAX);
        let (writer, reader) = file.tail(layout.tail, capacity, self.position)?;
        // Not the file's length: where it was lengthened without blocks, a store would be a signal.
        let allocated = self.position;
        self.attach(file, writer, reader, allocated, capacity);
        Ok(())
    }

    fn attach(
        &mut self,
        file: Arc<dyn File>,
        writer: Box<dyn TailWriter>,
        reader: Arc<dyn TailReader>,
        allocated: u64,
        capacity: u64,
    ) {
        let tail = SharedTail {
            file: Arc::clone(&file),
            reader,
        };
        self.shared
            .tail
            .set(tail)
            .expect("a segment gets one tail in its life");
        let written_out = self.position;
        self.open = Some(OpenTail {
            file,
            writer,
            allocated,
            capacity,
            written_out,
            written_out_at: self.opened_at,
        });
    }

    /// What readers share.
    pub(crate) fn shared(&self) -> &Arc<OpenSegment> {
        &self.shared
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.shared.base_offset
    }

    /// The bytes of its batches.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn first_timestamp(&self) -> Option<Timestamp> {
        self.first_timestamp
    }

    /// The file, once it is open.
    pub(crate) fn file(&self) -> Option<&Arc<dyn File>> {
        self.open.as_ref().map(|open| &open.file)
    }

    /// The position that batches must not go past; `None` before the file is open.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.capacity)
    }

    /// Whether `bytes` more can be written now.
    pub(crate) fn room(&self, bytes: u64) -> Room {
        match &self.open {
            None => Room::Closed,
            Some(open) if self.position + bytes > open.allocated => Room::Unallocated,
            Some(_) => Room::Enough,
        }
    }

    /// Allocates so that `bytes` more fit: a whole step, or when the disk has no room for that just
    /// what is needed. Takes at most `spare_bytes`.
    ///
    /// # Errors
    /// `StorageFull`: the segment is as it was.
    pub(crate) fn allocate(&mut self, bytes: u64, spare_bytes: u64) -> io::Result<()> {
        let needed = self.position + bytes;
        let open = self.open.as_mut().expect("the file is open");
        assert!(
            needed <= open.capacity,
            "the segment is rolled before it outgrows its capacity"
        );
        let step = next_allocation(open.allocated, open.capacity).max(needed);
        let spare_end = open.allocated.saturating_add(spare_bytes);
        if needed > spare_end {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let whole_step = match step > spare_end {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => open.file.allocate(open.allocated..step),
        };
        let allocated = match whole_step {
            Err(e) if e.kind() == io::ErrorKind::StorageFull && step > needed => {
                open.file.allocate(open.allocated..needed).map(|()| needed)
            }
            outcome => outcome.map(|()| step),
        }?;
        open.allocated = allocated;
        Ok(())
    }

    /// The next step to allocate, when less than half of what was allocated is left, or half a step.
    pub(crate) fn allocation_due(&self) -> Option<Range<u64>> {
        let open = self.open.as_ref()?;
        let step = next_allocation(open.allocated, open.capacity);
        let left = open.allocated - self.position;
        let enough = open.allocated.min(step - open.allocated) / 2;
        (step > open.allocated && left < enough).then_some(open.allocated..step)
    }

    /// A range from [`ActiveSegment::allocation_due`] has its blocks.
    pub(crate) fn allocated(&mut self, range: &Range<u64>) {
        if let Some(open) = &mut self.open
            && open.allocated >= range.start
        {
            open.allocated = open.allocated.max(range.end);
        }
    }

    /// Appends a batch with this header in place of its own: everything but the length word, then the
    /// length word. Returns where it starts.
    ///
    /// # Errors
    /// The file cannot be trusted any more.
    ///
    /// # Panics
    /// Without room for it.
    pub(crate) fn append(&mut self, header: &Header, batch: &Batch) -> io::Result<u64> {
        assert_eq!(
            self.room(batch.size_bytes() as u64),
            Room::Enough,
            "room was made before"
        );
        let open = self.open.as_mut().expect("a segment with room is open");
        let start = self.position;
        let mut head = *header.as_bytes();
        let length_word: [u8; 4] = head[LENGTH_POSITION..LENGTH_POSITION + 4]
            .try_into()
            .expect("4 bytes");
        head[LENGTH_POSITION..LENGTH_POSITION + 4].fill(0);
        open.writer.write(start, &[&head, batch.record_bytes()])?;
        let end = start + batch.size_bytes() as u64;
        open.writer
            .publish(start + LENGTH_POSITION as u64, length_word, end)?;
        if start == 0 {
            self.first_timestamp = Some(header.max_timestamp());
        }
        self.position = end;
        Ok(start)
    }

    /// What write-out should be started for now: whole steps, many at a time for a fast writer.
    pub(crate) fn write_out_due(&self, now: Timestamp) -> Option<Range<u64>> {
        let open = self.open.as_ref()?;
        let upto = self.position / WRITE_OUT_BYTES * WRITE_OUT_BYTES;
        let waits_ms = now.0.saturating_sub(open.written_out_at.0);
        // A clock that was set back does not hold it up.
        let due = upto > open.written_out && !(0..WRITE_OUT_INTERVAL_MS).contains(&waits_ms);
        due.then_some(open.written_out..upto)
    }

    /// Write-out of a range from [`ActiveSegment::write_out_due`] was started.
    pub(crate) fn written_out(&mut self, range: &Range<u64>, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.written_out = open.written_out.max(range.end);
            open.written_out_at = now;
        }
    }
}

/// Where the next allocation ends: 64 KiB, 512 KiB, 4 MiB, then steps of 32 MiB, never past `capacity`.
fn next_allocation(allocated: u64, capacity: u64) -> u64 {
    let mut end = ALLOCATION_BYTES_MIN;
    while end <= allocated && end < ALLOCATION_BYTES_MAX {
        end *= ALLOCATION_FACTOR;
    }
    // A cut segment goes on at an odd place: its steps end where the others' do.
    if end <= allocated {
        end = (allocated / ALLOCATION_BYTES_MAX + 1) * ALLOCATION_BYTES_MAX;
    }
    end.min(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_grow_eightfold_from_64_kib_to_steps_of_32_mib() {
        let mut ends = vec![0];
        while ends.len() < 7 {
            ends.push(next_allocation(ends[ends.len() - 1], 1 << 30));
        }
        let kib: Vec<u64> = ends.iter().map(|end| end >> 10).collect();
        let mib = 1 << 10;
        assert_eq!(kib, [0, 64, 512, 4 * mib, 32 * mib, 64 * mib, 96 * mib]);
        assert_eq!(next_allocation(1000, 1 << 30), 64 << 10);
        assert_eq!(next_allocation((64 << 10) - 1, 1 << 30), 64 << 10);
        assert_eq!(next_allocation((5 << 20) + 1, 1 << 30), 32 << 20);
        assert_eq!(next_allocation((33 << 20) + 1, 1 << 30), 64 << 20);
        assert_eq!(next_allocation(1000, 1500), 1500);
        assert_eq!(next_allocation(1500, 1500), 1500);
    }
}
