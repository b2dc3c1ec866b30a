//! An open simulated file and its tails.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sapwood_log::io::tail::{bytes_of, check_publish, check_read, check_tail, check_write};
use sapwood_log::io::{File, TailKind, TailReader, TailWriter};

use crate::directory::InodeId;
use crate::disk::SharedState;
use crate::faults::TailSwitch;
use crate::faults::device_error;

/// A descriptor. The file stays open while it or one of its tails lives.
#[derive(Debug)]
struct Handle {
    state: SharedState,
    life: u64,
    inode: InodeId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.lock().close(self.life, self.inode);
    }
}

#[derive(Debug)]
pub(crate) struct SimFile {
    handle: Arc<Handle>,
    writable: bool,
    /// Write-out errors that this descriptor was told.
    told: Mutex<u64>,
}

impl SimFile {
    pub(crate) fn new(
        state: SharedState,
        life: u64,
        inode: InodeId,
        writable: bool,
        told: u64,
    ) -> SimFile {
        SimFile {
            handle: Arc::new(Handle { state, life, inode }),
            writable,
            told: Mutex::new(told),
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the file was opened for reading",
        ))
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let Handle { state, life, inode } = &*self.handle;
        Ok(state.lock().file(*life, *inode)?.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let Handle { state, life, inode } = &*self.handle;
        state.lock().read(*life, *inode, buf, position)
    }

    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let Handle { state, life, inode } = &*self.handle;
        let mut state = state.lock();
        let file = state.file_mut(*life, *inode)?;
        let end = position.saturating_add(buf.len() as u64).min(file.len());
        if !file.probe(&(position..end)) {
            return Ok(None);
        }
        state.read(*life, *inode, buf, position).map(Some)
    }

    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.check_writable()?;
        let Handle { state, life, inode } = &*self.handle;
        state.lock().write(*life, *inode, &bufs.concat(), position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let Handle { state, life, inode } = &*self.handle;
        state.lock().set_len(*life, *inode, len)
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.check_writable()?;
        let Handle { state, life, inode } = &*self.handle;
        state.lock().allocate(*life, *inode, range)
    }

    fn sync_data(&self) -> io::Result<()> {
        let Handle { state, life, inode } = &*self.handle;
        let mut told = self.told.lock();
        state.lock().sync_data(*life, *inode, &mut told)
    }

    fn start_write_out(&self, _range: Range<u64>) -> io::Result<()> {
        // Any dirty page may reach the device at any time anyway.
        let Handle { state, life, inode } = &*self.handle;
        state.lock().file(*life, *inode).map(|_| ())
    }

    fn check_write_out(&self) -> io::Result<()> {
        let Handle { state, life, inode } = &*self.handle;
        let mut told = self.told.lock();
        let failed = state.lock().file_mut(*life, *inode)?.tell_error(&mut told);
        if failed { Err(device_error()) } else { Ok(()) }
    }

    fn tail(
        &self,
        kind: TailKind,
        capacity: u64,
        written: u64,
    ) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)> {
        self.check_writable()?;
        check_tail(capacity, written)?;
        let end = Arc::new(AtomicU64::new(written));
        let reader = SimReader {
            handle: Arc::clone(&self.handle),
            end: Arc::clone(&end),
        };
        let handle = Arc::clone(&self.handle);
        let switch = handle.state.lock().tail_switch;
        let writer = SimWriter {
            handle,
            kind,
            switch,
            capacity,
            published: written,
            end,
        };
        Ok((Box::new(writer), Arc::new(reader)))
    }
}

#[derive(Debug)]
struct SimWriter {
    handle: Arc<Handle>,
    kind: TailKind,
    switch: TailSwitch,
    capacity: u64,
    published: u64,
    end: Arc<AtomicU64>,
}

impl SimWriter {
    fn put(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let Handle { state, life, inode } = &*self.handle;
        match self.kind {
            TailKind::Mmap => state.lock().store(*life, *inode, bytes, position),
            TailKind::Pwrite => state.lock().write(*life, *inode, bytes, position),
        }
    }
}

impl TailWriter for SimWriter {
    fn write(&mut self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = bytes_of(parts);
        check_write(position, bytes, self.published, self.capacity)?;
        let Handle { state, life, inode } = &*self.handle;
        if self.kind == TailKind::Pwrite {
            return state.lock().write(*life, *inode, &parts.concat(), position);
        }
        if position < self.switch.below && bytes >= self.switch.bytes_min {
            let mut state = state.lock();
            return state.write_tail(*life, *inode, &parts.concat(), position);
        }
        let mut position = position;
        for part in parts {
            self.put(part, position)?;
            position += part.len() as u64;
        }
        Ok(())
    }

    fn publish(&mut self, word_position: u64, word: [u8; 4], end: u64) -> io::Result<()> {
        check_publish(word_position, end, self.published, self.capacity)?;
        self.put(&word, word_position)?;
        self.published = end;
        self.end.store(end, Ordering::Release);
        Ok(())
    }
}

#[derive(Debug)]
struct SimReader {
    handle: Arc<Handle>,
    end: Arc<AtomicU64>,
}

impl TailReader for SimReader {
    fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        check_read(&range, self.end())?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let Handle { state, life, inode } = &*self.handle;
        let count = state.lock().read(*life, *inode, &mut bytes, range.start);
        if !matches!(count, Ok(count) if count == bytes.len()) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut or became unreadable under its mapping",
            ));
        }
        Ok(Bytes::from(bytes))
    }
}
