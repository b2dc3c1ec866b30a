//! A disk that cannot be written to, whatever asks for it.

use std::{io, path::Path, sync::Arc};

use crate::io::{DirEntry, Disk, File, OpenMode, Space, TailKind};

/// Passes reading on and refuses everything else. Opening for writing opens for reading: recovery's
/// code, which an inspection shares, asks for more than it needs here.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) Arc<dyn Disk>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        match how {
            OpenMode::Read | OpenMode::Write => self.0.open(path, OpenMode::Read),
            OpenMode::Create | OpenMode::CreateNew => refused(),
        }
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_filesystem(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        refused()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }

    fn tail_kind(&self, path: &Path) -> TailKind {
        self.0.tail_kind(path)
    }
}
