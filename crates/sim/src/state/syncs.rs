//! Making things durable, and failing to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Node, State};
use crate::directory::InodeId;
use crate::faults::{StepKind, device_error};

impl State {
    /// Counts a durability event; true if it has to fail.
    pub(super) fn begin_sync(&mut self, life: u64, what: &str, of: &str) -> io::Result<bool> {
        let number = self.syncs;
        self.begin_whole(life, StepKind::Sync, || format!("{what} {of}"))?;
        let fails = self.faults.failing_syncs.remove(&number);
        self.counts.failed_syncs.add(u64::from(fails));
        Ok(fails)
    }

    pub(crate) fn sync_data(&mut self, life: u64, id: InodeId, told: &mut u64) -> io::Result<()> {
        let label = self.label(id);
        let fails = self.begin_sync(life, "sync", &label)?;
        let mut rng = self.rng.split();
        let counts = Arc::clone(&self.counts);
        let file = self.file_mut(life, id)?;
        if fails {
            file.fail_sync(&mut rng, true, &counts);
        } else {
            file.sync();
        }
        if file.tell_error(told) || fails {
            Err(device_error())
        } else {
            Ok(())
        }
    }

    pub(crate) fn sync_dir(&mut self, life: u64, path: &Path) -> io::Result<()> {
        self.check_alive(life)?;
        let id = self.walk(path)?;
        self.dir(id)?;
        let fails = self.begin_sync(life, "sync directory", &path.display().to_string())?;
        let mut rng = self.rng.split();
        let dir = self.dir_mut(id)?;
        if fails {
            dir.fail_sync(&mut rng);
            return Err(device_error());
        }
        dir.sync();
        self.collect_garbage();
        Ok(())
    }

    pub(crate) fn sync_filesystem(&mut self, life: u64, path: &Path) -> io::Result<()> {
        self.check_alive(life)?;
        self.walk(path)?;
        let fails = self.begin_sync(life, "sync file system of", &path.display().to_string())?;
        let mut rng = self.rng.split();
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                // A failure hits some of the files; the others are written or still dirty.
                Node::File(file) if fails && file.is_dirty() => match rng.below(3) {
                    0 => {
                        file.fail_sync(&mut rng, false, &self.counts);
                        if inode.handles == 0 {
                            file.forget_error();
                        }
                    }
                    1 => file.sync(),
                    _ => {}
                },
                Node::File(file) => file.sync(),
                Node::Dir(dir) if !fails || rng.chance(1, 2) => dir.sync(),
                Node::Dir(_) => {}
            }
        }
        if fails {
            return Err(device_error());
        }
        self.collect_garbage();
        Ok(())
    }

    /// The kernel writes a file out on its own, and that fails: the next sync of each handle says so.
    pub(crate) fn fail_write_out(&mut self, path: &Path) -> io::Result<()> {
        let mut rng = self.rng.split();
        let id = self.walk(path)?;
        let inode = self.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        if let Node::File(file) = &mut inode.node {
            self.counts.failed_write_outs.add(1);
            file.fail_sync(&mut rng, false, &self.counts);
            if inode.handles == 0 {
                file.forget_error();
            }
        }
        Ok(())
    }

    /// The kernel writes some of what is dirty on its own, pages and names in any order.
    pub(super) fn write_back(&mut self) {
        let mut rng = self.rng.split();
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                Node::File(file) => file.write_back(&mut rng, &self.counts),
                Node::Dir(dir) if rng.chance(1, 2) => dir.write_back(&mut rng),
                Node::Dir(_) => {}
            }
        }
    }

    pub(crate) fn make_readable(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.unreadable = false;
            if let Node::File(file) = &mut inode.node {
                file.make_readable();
            }
        }
    }

    pub(crate) fn drop_caches(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Node::File(file) = &mut inode.node {
                file.drop_clean_pages();
            }
        }
    }
}
