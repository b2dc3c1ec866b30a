//! Names: finding, making, renaming and removing them; handles and locks on what they lead to.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Inode, Node, ROOT, State};
use crate::directory::{DirNode, InodeId, NameChange};
use crate::faults::StepKind;
use crate::inode::FileNode;

/// A path split into its directory and its last name.
pub(super) struct Place {
    dir: InodeId,
    name: String,
}

impl State {
    pub(super) fn walk(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for component in path.components() {
            at = match component {
                Component::RootDir | Component::CurDir => at,
                Component::Normal(name) => {
                    let name = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
                    *self
                        .dir(at)?
                        .names
                        .get(name)
                        .ok_or(io::ErrorKind::NotFound)?
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            };
        }
        Ok(at)
    }

    /// A path that leads to an inode now; empty without one.
    pub(super) fn path_of(&self, wanted: InodeId) -> PathBuf {
        let mut path = PathBuf::new();
        let mut at = wanted;
        while at != ROOT {
            let parent = self
                .inodes
                .iter()
                .find_map(|(id, inode)| match &inode.node {
                    Node::Dir(dir) => {
                        let name = dir.names.iter().find(|(_, child)| **child == at)?.0;
                        Some((*id, name))
                    }
                    Node::File(_) => None,
                });
            let Some((parent, name)) = parent else {
                return PathBuf::new();
            };
            path = if path.as_os_str().is_empty() {
                PathBuf::from(name)
            } else {
                Path::new(name).join(path)
            };
            at = parent;
        }
        Path::new("/").join(path)
    }

    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = self.walk(parent)?;
        self.dir(dir)?;
        let name = name
            .to_str()
            .ok_or(io::ErrorKind::InvalidFilename)?
            .to_owned();
        Ok(Place { dir, name })
    }

    pub(super) fn look_up(&self, place: &Place) -> io::Result<Option<InodeId>> {
        Ok(self.dir(place.dir)?.names.get(&place.name).copied())
    }

    pub(super) fn dir(&self, id: InodeId) -> io::Result<&DirNode> {
        match self.inodes.get(&id).map(|inode| &inode.node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, id: InodeId) -> io::Result<&mut DirNode> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn is_dir(&self, id: InodeId) -> bool {
        matches!(
            self.inodes.get(&id),
            Some(Inode {
                node: Node::Dir(_),
                ..
            })
        )
    }

    pub(super) fn make(&mut self, place: Place, node: Node, path: &Path) -> io::Result<InodeId> {
        let id = self.next_inode;
        self.next_inode += 1;
        let label = path.display().to_string();
        let inode = Inode {
            node,
            names: 1,
            handles: 0,
            label,
            cut_from_outside: false,
            unreadable: false,
        };
        self.inodes.insert(id, inode);
        self.dir_mut(place.dir)?.change(NameChange::Link {
            name: place.name,
            inode: id,
        });
        Ok(id)
    }

    pub(super) fn lose_name(&mut self, id: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.names -= 1;
        }
    }

    pub(crate) fn find_or_make(
        &mut self,
        life: u64,
        path: &Path,
        make: bool,
        must_make: bool,
    ) -> io::Result<InodeId> {
        self.check_alive(life)?;
        let place = self.place(path)?;
        match self.look_up(&place)? {
            Some(_) if must_make => Err(io::ErrorKind::AlreadyExists.into()),
            Some(id) if self.is_dir(id) => Err(io::ErrorKind::IsADirectory.into()),
            Some(id) => {
                self.begin_read(id, None)?;
                Ok(id)
            }
            None if make => {
                self.begin_whole(life, StepKind::Make, || {
                    format!("create {}", path.display())
                })?;
                self.make(place, Node::File(FileNode::default()), path)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn create_dir(&mut self, life: u64, path: &Path) -> io::Result<()> {
        self.check_alive(life)?;
        let place = self.place(path)?;
        if self.look_up(&place)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.begin_whole(life, StepKind::Make, || {
            format!("create directory {}", path.display())
        })?;
        self.make(place, Node::Dir(DirNode::default()), path)?;
        Ok(())
    }

    pub(crate) fn names(&mut self, life: u64, path: &Path) -> io::Result<Vec<(String, bool)>> {
        self.check_alive(life)?;
        let id = self.walk(path)?;
        self.dir(id)?;
        self.begin_read(id, None)?;
        let dir = self.dir(id)?;
        Ok(dir
            .names
            .iter()
            .map(|(name, id)| (name.clone(), self.is_dir(*id)))
            .collect())
    }

    pub(crate) fn rename(&mut self, life: u64, from: &Path, to: &Path) -> io::Result<()> {
        self.check_alive(life)?;
        let (source, target) = (self.place(from)?, self.place(to)?);
        let inode = self.look_up(&source)?.ok_or(io::ErrorKind::NotFound)?;
        let replaced = self.look_up(&target)?;
        match replaced {
            Some(replaced) if replaced == inode => return Ok(()),
            Some(replaced) => self.check_replace(inode, replaced)?,
            None => {}
        }
        self.begin_whole(life, StepKind::Rename, || {
            format!("rename {} to {}", from.display(), to.display())
        })?;
        if let Some(replaced) = replaced {
            self.lose_name(replaced);
        }
        if source.dir == target.dir {
            let change = NameChange::Rename {
                from: source.name,
                to: target.name,
                inode,
            };
            self.dir_mut(source.dir)?.change(change);
        } else {
            // Two directories, synced one by one: nothing may count on the two halves being one.
            self.dir_mut(target.dir)?.change(NameChange::Link {
                name: target.name,
                inode,
            });
            self.dir_mut(source.dir)?
                .change(NameChange::Unlink { name: source.name });
        }
        Ok(())
    }

    pub(super) fn check_replace(&self, inode: InodeId, replaced: InodeId) -> io::Result<()> {
        match (self.is_dir(inode), self.is_dir(replaced)) {
            (false, false) => Ok(()),
            (false, true) => Err(io::ErrorKind::IsADirectory.into()),
            (true, false) => Err(io::ErrorKind::NotADirectory.into()),
            (true, true) if self.dir(replaced)?.names.is_empty() => Ok(()),
            (true, true) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    pub(crate) fn remove(&mut self, life: u64, path: &Path, want_dir: bool) -> io::Result<()> {
        self.check_alive(life)?;
        let place = self.place(path)?;
        let id = self.look_up(&place)?.ok_or(io::ErrorKind::NotFound)?;
        match (want_dir, self.is_dir(id)) {
            (true, false) => return Err(io::ErrorKind::NotADirectory.into()),
            (false, true) => return Err(io::ErrorKind::IsADirectory.into()),
            (true, true) if !self.dir(id)?.names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.begin_whole(life, StepKind::Remove, || {
            format!("remove {}", path.display())
        })?;
        self.lose_name(id);
        self.dir_mut(place.dir)?
            .change(NameChange::Unlink { name: place.name });
        Ok(())
    }

    /// Counts a handle and says which write-out errors it need not be told.
    pub(crate) fn open(&mut self, id: InodeId) -> u64 {
        let Some(inode) = self.inodes.get_mut(&id) else {
            return 0;
        };
        inode.handles += 1;
        match &inode.node {
            Node::File(file) => file.errors_at_open(),
            Node::Dir(_) => 0,
        }
    }

    pub(crate) fn close(&mut self, life: u64, id: InodeId) {
        if life != self.life {
            return; // the kill closed it
        }
        let Some(inode) = self.inodes.get_mut(&id) else {
            return;
        };
        inode.handles -= 1;
        if inode.handles == 0
            && let Node::File(file) = &mut inode.node
        {
            // Linux may drop the inode from memory now, and an unreported error with it.
            file.forget_error();
        }
    }

    pub(crate) fn lock(&mut self, life: u64, path: &Path) -> io::Result<InodeId> {
        let id = self.find_or_make(life, path, true, false)?;
        if !self.locks.insert(id) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(id)
    }

    pub(crate) fn unlock(&mut self, life: u64, id: InodeId) {
        if life == self.life {
            self.locks.remove(&id);
        }
    }
}
