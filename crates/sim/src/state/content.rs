//! The content of files: reads, writes, stores, lengths and space.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::{Inode, Node, State};
use crate::directory::InodeId;
use crate::faults::{ReadFault, StepKind, device_error, no_space};
use crate::image::PAGE_BYTES;
use crate::inode::FileNode;

/// A length word.
const WORD_BYTES: u64 = 4;

impl State {
    pub(crate) fn file(&self, life: u64, id: InodeId) -> io::Result<&FileNode> {
        self.check_alive(life)?;
        match self.inodes.get(&id).map(|inode| &inode.node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn file_mut(&mut self, life: u64, id: InodeId) -> io::Result<&mut FileNode> {
        self.check_alive(life)?;
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn file_at(&mut self, path: &Path) -> io::Result<&mut FileNode> {
        let id = self.walk(path)?;
        let life = self.life;
        self.file_mut(life, id)
    }

    pub(crate) fn cut_from_outside(&mut self, path: &Path, len: u64) -> io::Result<()> {
        let id = self.walk(path)?;
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.cut_from_outside = true;
        }
        self.file_at(path)?.set_len(len);
        Ok(())
    }

    pub(super) fn label(&self, id: InodeId) -> String {
        self.inodes
            .get(&id)
            .map_or_else(String::new, |inode| inode.label.clone())
    }

    pub(crate) fn write(
        &mut self,
        life: u64,
        id: InodeId,
        bytes: &[u8],
        position: u64,
    ) -> io::Result<()> {
        let label = self.label(id);
        let interrupt = self.begin(life, StepKind::Write, || {
            format!("write {} bytes at {position} of {label}", bytes.len())
        })?;
        self.in_copy(|copy| copy.write_part(id, bytes, position));
        if let Some(interrupt) = interrupt {
            self.write_part(id, bytes, position);
            return Err(interrupt.error());
        }
        self.file(life, id)?;
        let fitting = self.fitting(id, bytes, position);
        self.put(id, fitting, position);
        if fitting.len() < bytes.len() {
            self.counts.full.add(1);
            Err(no_space())
        } else {
            Ok(())
        }
    }

    /// Counts a read, of the file or directory itself or of a range of it, and says whether it fails.
    pub(crate) fn begin_read(&mut self, id: InodeId, range: Option<Range<u64>>) -> io::Result<()> {
        let number = self.reads;
        self.reads += 1;
        let Some(inode) = self.inodes.get_mut(&id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let fault = self.faults.failing_reads.remove(&number);
        if fault == Some(ReadFault::Sticky) {
            match (&mut inode.node, range) {
                (Node::File(file), Some(range)) => {
                    file.make_unreadable(&(range.start..range.start + 1));
                }
                _ => inode.unreadable = true,
            }
        }
        let fails = fault.is_some() || inode.unreadable;
        if fault.is_some() {
            let path = self.path_of(id);
            self.failed_places.push(path);
        }
        if fails {
            self.counts.failed_reads.add(1);
            return Err(device_error());
        }
        Ok(())
    }

    /// Reads, and counts it. The count is short at the end of the file.
    pub(crate) fn read(
        &mut self,
        life: u64,
        id: InodeId,
        buf: &mut [u8],
        position: u64,
    ) -> io::Result<usize> {
        self.file(life, id)?;
        self.begin_read(id, Some(position..position + buf.len() as u64))?;
        let read = self.file_mut(life, id)?.read(buf, position);
        read.ok_or_else(|| {
            self.counts.failed_reads.add(1);
            device_error()
        })
    }

    /// A positional write through a mapped tail. A file that was cut would grow again.
    pub(crate) fn write_tail(
        &mut self,
        life: u64,
        id: InodeId,
        bytes: &[u8],
        position: u64,
    ) -> io::Result<()> {
        let cut = self
            .inodes
            .get(&id)
            .is_some_and(|inode| inode.cut_from_outside);
        if cut && self.file(life, id)?.len() < position + bytes.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.write(life, id, bytes, position)
    }

    /// Does to the copy that was taken of this very step what the step would have come to.
    pub(super) fn in_copy(&mut self, act: impl FnOnce(&mut State)) {
        let step = self.steps - 1;
        if let Some(copied) = self
            .captured
            .last_mut()
            .filter(|copied| copied.step == step)
        {
            act(&mut copied.state);
        }
    }

    /// What an interrupted write has done: the kernel stops between two pages.
    pub(super) fn write_part(&mut self, id: InodeId, bytes: &[u8], position: u64) {
        let end = position + bytes.len() as u64;
        let stop = position + self.rng.below(bytes.len() as u64 + 1);
        let stop = if stop == end {
            end
        } else {
            stop / PAGE_BYTES * PAGE_BYTES
        };
        let part = &bytes[..stop.saturating_sub(position) as usize];
        let fitting = self.fitting(id, part, position);
        self.put(id, fitting, position);
    }

    /// What an interrupted store has done: any number of bytes, except that a length word is one
    /// instruction.
    pub(super) fn store_part(&mut self, id: InodeId, bytes: &[u8], position: u64) {
        let size = bytes.len() as u64;
        let count = if size == WORD_BYTES {
            self.rng.below(2) * size
        } else {
            self.rng.below(size + 1)
        };
        self.put(id, &bytes[..count as usize], position);
    }

    /// A store through a mapping.
    ///
    /// # Panics
    ///
    /// Where the real one would be a SIGBUS or takes a block that may not be there.
    pub(crate) fn store(
        &mut self,
        life: u64,
        id: InodeId,
        bytes: &[u8],
        position: u64,
    ) -> io::Result<()> {
        let label = self.label(id);
        let interrupt = self.begin(life, StepKind::Store, || {
            format!("store {} bytes at {position} of {label}", bytes.len())
        })?;
        let range = position..position + bytes.len() as u64;
        let cut = self
            .inodes
            .get(&id)
            .is_some_and(|inode| inode.cut_from_outside);
        let file = self.file_unchecked(id)?;
        if range.end > file.len() && cut {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(
            range.end <= file.len(),
            "SIGBUS: store to {range:?} of {label}, which ends at {}",
            file.len()
        );
        assert_eq!(
            file.cache().missing_blocks(&range),
            0,
            "store into a hole: {range:?} of {label}"
        );
        self.in_copy(|copy| copy.store_part(id, bytes, position));
        if let Some(interrupt) = interrupt {
            self.store_part(id, bytes, position);
            return Err(interrupt.error());
        }
        self.put(id, bytes, position);
        Ok(())
    }

    pub(super) fn file_unchecked(&mut self, id: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn put(&mut self, id: InodeId, bytes: &[u8], position: u64) {
        if let Some(Inode {
            node: Node::File(file),
            ..
        }) = self.inodes.get_mut(&id)
        {
            file.write(bytes, position);
        }
    }

    /// The beginning of a write for which there is room.
    pub(super) fn fitting<'a>(&self, id: InodeId, bytes: &'a [u8], position: u64) -> &'a [u8] {
        let Some(free) = self.free_blocks() else {
            return bytes;
        };
        let Some(Inode {
            node: Node::File(file),
            ..
        }) = self.inodes.get(&id)
        else {
            return bytes;
        };
        let end = position + bytes.len() as u64;
        if file.cache().missing_blocks(&(position..end)) <= free {
            return bytes;
        }
        let mut left = free;
        let mut upto = position;
        while upto < end {
            if !file.cache().is_allocated(upto / PAGE_BYTES) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            upto = ((upto / PAGE_BYTES + 1) * PAGE_BYTES).min(end);
        }
        &bytes[..(upto - position) as usize]
    }

    /// `None` without a limit.
    pub(super) fn free_blocks(&self) -> Option<u64> {
        let capacity = self.faults.capacity_bytes? / PAGE_BYTES;
        Some(capacity.saturating_sub(self.used_blocks()))
    }

    pub(super) fn used_blocks(&self) -> u64 {
        let used = self
            .inodes
            .values()
            .filter(|inode| inode.names > 0 || inode.handles > 0);
        used.map(|inode| match &inode.node {
            Node::File(file) => file.cache().blocks(),
            Node::Dir(_) => 0,
        })
        .sum()
    }

    /// Free and total bytes.
    pub(crate) fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        const UNLIMITED_BYTES: u64 = 1 << 50;
        self.walk(path)?;
        let total = self.faults.capacity_bytes.unwrap_or(UNLIMITED_BYTES);
        let taken = self.used_blocks() * PAGE_BYTES + self.faults.reserved_bytes;
        Ok((total.saturating_sub(taken), total))
    }

    pub(crate) fn set_len(&mut self, life: u64, id: InodeId, len: u64) -> io::Result<()> {
        let label = self.label(id);
        self.begin_whole(life, StepKind::SetLen, || {
            format!("set length of {label} to {len}")
        })?;
        self.file_mut(life, id)?.set_len(len);
        Ok(())
    }

    pub(crate) fn allocate(&mut self, life: u64, id: InodeId, range: Range<u64>) -> io::Result<()> {
        let label = self.label(id);
        self.begin_whole(life, StepKind::Allocate, || {
            format!("allocate {range:?} of {label}")
        })?;
        let free = self.free_blocks();
        let file = self.file_mut(life, id)?;
        if free.is_some_and(|free| file.cache().missing_blocks(&range) > free) {
            self.counts.full.add(1);
            return Err(no_space());
        }
        if !range.is_empty() {
            file.allocate(range);
        }
        Ok(())
    }
}
