//! Disks as files of a FUSE file system, for loop devices to stand on.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::cache::Cache;

/// Nothing is remembered by the kernel: disks come and go.
const TTL: Duration = Duration::ZERO;
/// The first inode of a disk; 1 is the folder.
const FIRST_DISK: u64 = 2;

/// One disk. Reads, writes and flushes come one after the other, from the file system's one thread.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Cache>>);

impl Disk {
    /// The disk with its cache, for this long nothing is read, written or flushed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Disks = Arc<Mutex<BTreeMap<u64, Disk>>>;

/// A mounted folder whose files are disks. Unmounted when dropped.
pub(crate) struct Shelf {
    folder: PathBuf,
    disks: Disks,
    next: AtomicU64,
    session: Option<BackgroundSession>,
}

impl Shelf {
    /// Mounts an empty one over an existing folder. Needs root and `/dev/fuse`.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub(crate) fn mount(folder: &Path) -> io::Result<Self> {
        let disks = Disks::default();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("sapwood-power-cut".to_owned()),
            MountOption::NoAtime,
        ];
        let session = fuser::spawn_mount(Files(disks.clone()), folder, &config)?;
        Ok(Self {
            folder: folder.to_owned(),
            disks,
            next: AtomicU64::new(FIRST_DISK),
            session: Some(session),
        })
    }

    /// Makes a disk appear, and says where.
    pub(crate) fn put(&self, cache: Cache) -> (PathBuf, Disk) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let disk = Disk(Arc::new(Mutex::new(cache)));
        locked(&self.disks).insert(number, disk.clone());
        (self.folder.join(number.to_string()), disk)
    }

    /// Takes a disk away that no loop device stands on any more.
    pub(crate) fn remove(&self, path: &Path) {
        if let Some(number) = path.file_name().and_then(number_of) {
            locked(&self.disks).remove(&number);
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("{} cannot be unmounted: {error}", self.folder.display());
        }
    }
}

fn locked(disks: &Disks) -> MutexGuard<'_, BTreeMap<u64, Disk>> {
    disks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.parse().ok()
}

/// The file system. What it does not implement, hole punching above all, is refused with ENOSYS.
struct Files(Disks);

impl Files {
    fn disk(&self, inode: INodeNo) -> Result<Disk, Errno> {
        locked(&self.0).get(&inode.0).cloned().ok_or(Errno::ENOENT)
    }
}

fn attributes(inode: INodeNo, kind: FileType, bytes: u64) -> FileAttr {
    FileAttr {
        ino: inode,
        size: bytes,
        blocks: bytes / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = INodeNo(number_of(name).unwrap_or_default());
        match self.disk(inode) {
            Ok(disk) => {
                let found = attributes(inode, FileType::RegularFile, disk.lock().bytes());
                reply.entry(&TTL, &found, Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if inode == INodeNo::ROOT {
            return reply.attr(&TTL, &attributes(inode, FileType::Directory, 0));
        }
        match self.disk(inode) {
            Ok(disk) => {
                let bytes = disk.lock().bytes();
                reply.attr(&TTL, &attributes(inode, FileType::RegularFile, bytes));
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: a write is here when its issuer has its answer.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk(inode) {
            Ok(disk) => {
                let data = disk.lock().read(position, bytes as usize);
                reply.data(&data);
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        position: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.disk(inode).and_then(|disk| {
            let written = disk.lock().write(position, data);
            written.map_err(|_| Errno::ENOSPC)
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.disk(inode) {
            Ok(disk) => {
                disk.lock().flush();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A descriptor was closed. Nothing is durable by that.
        reply.ok();
    }
}
