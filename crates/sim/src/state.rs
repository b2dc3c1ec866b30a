//! The whole disk behind its one lock: inodes, names, handles, counters, faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};

use sapwood_log::io::TailKind;

use crate::Rng;
use crate::directory::{DirNode, InodeId, NameChange};
use crate::disk::off;
use crate::faults::{Capture, Faults, Stop, WriteFault, device_error, no_space};
use crate::image::PAGE_BYTES;
use crate::inode::{FileNode, Mood};

const ROOT: InodeId = 0;

/// A length word.
const WORD_BYTES: u64 = 4;

#[derive(Debug, Clone)]
pub(crate) struct State {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    locks: BTreeSet<InodeId>,
    /// Counts the processes: whatever an earlier one still holds is dead.
    pub(crate) life: u64,
    pub(crate) boots: u64,
    pub(crate) steps: u64,
    pub(crate) syncs: u64,
    pub(crate) is_off: bool,
    pub(crate) faults: Faults,
    pub(crate) rng: Rng,
    pub(crate) tail_kind: TailKind,
    /// Every step in words, for tests that failed.
    pub(crate) history: Option<Vec<String>>,
    pub(crate) capture: Option<Capture>,
    pub(crate) captured: Vec<Copied>,
}

/// The disk just before an event.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    pub(crate) step: u64,
    pub(crate) sync: Option<u64>,
    pub(crate) state: State,
}

#[derive(Debug, Clone)]
struct Inode {
    node: Node,
    /// Names that the process sees.
    names: u64,
    handles: u64,
    /// The path it was made under; only for people.
    label: String,
    /// The file was cut behind the back of its mapping.
    cut_from_outside: bool,
}

#[derive(Debug, Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// What a step runs into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The machine stops in the middle of it.
    Stop,
    Fault(WriteFault),
}

impl Interrupt {
    fn error(self) -> io::Error {
        match self {
            Interrupt::Stop => off(),
            Interrupt::Fault(fault) => fault.error(),
        }
    }
}

/// A path split into its directory and its last name.
struct Place {
    dir: InodeId,
    name: String,
}

impl State {
    pub(crate) fn new(seed: u64) -> State {
        let root = Inode {
            node: Node::Dir(DirNode::default()),
            names: 1,
            handles: 0,
            label: "/".to_owned(),
            cut_from_outside: false,
        };
        State {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: ROOT + 1,
            locks: BTreeSet::new(),
            life: 0,
            boots: 0,
            steps: 0,
            syncs: 0,
            is_off: false,
            faults: Faults::default(),
            rng: Rng::new(seed),
            tail_kind: TailKind::Mmap,
            history: None,
            capture: None,
            captured: Vec::new(),
        }
    }

    // --- life and death ---

    pub(crate) fn check_alive(&self, life: u64) -> io::Result<()> {
        if self.is_off || life != self.life {
            Err(off())
        } else {
            Ok(())
        }
    }

    /// Counts a step that changes the disk and says what it runs into.
    fn begin(
        &mut self,
        life: u64,
        is_sync: bool,
        describe: impl FnOnce() -> String,
    ) -> io::Result<Option<Interrupt>> {
        self.check_alive(life)?;
        let (step, sync) = (self.steps, self.syncs);
        if self.capture == Some(Capture::Steps) || self.capture == Some(Capture::Syncs) && is_sync {
            let captured = std::mem::take(&mut self.captured);
            let state = self.clone();
            self.captured = captured;
            self.captured.push(Copied {
                step,
                sync: is_sync.then_some(sync),
                state,
            });
        }
        self.steps += 1;
        self.syncs += u64::from(is_sync);
        if let Some(history) = &mut self.history {
            let sync = if is_sync {
                format!(" (sync {sync})")
            } else {
                String::new()
            };
            history.push(format!("step {step}{sync}: {}", describe()));
        }
        let stops = match self.faults.stop {
            Some(Stop::Sync(at)) => is_sync && sync >= at,
            Some(Stop::Step(at)) => step >= at,
            None => false,
        };
        if stops {
            self.is_off = true;
            return Ok(Some(Interrupt::Stop));
        }
        Ok(self
            .faults
            .failing_steps
            .remove(&step)
            .map(Interrupt::Fault))
    }

    /// As [`State::begin`], for steps that happen as a whole or not at all.
    fn begin_whole(
        &mut self,
        life: u64,
        is_sync: bool,
        describe: impl FnOnce() -> String,
    ) -> io::Result<()> {
        self.begin(life, is_sync, describe)?
            .map_or(Ok(()), |interrupt| Err(interrupt.error()))
    }

    pub(crate) fn kill(&mut self) {
        self.life += 1;
        self.is_off = false;
        self.faults = Faults {
            capacity_bytes: self.faults.capacity_bytes,
            ..Faults::default()
        };
        self.locks.clear();
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
            inode.cut_from_outside = false;
            if let Node::File(file) = &mut inode.node {
                file.forget_error();
            }
        }
        self.collect_garbage();
    }

    pub(crate) fn power_cut(&mut self, rng: &mut Rng) {
        self.boots += 1;
        for inode in self.inodes.values_mut() {
            let mood = Mood::draw(rng);
            match &mut inode.node {
                Node::File(file) => file.power_cut(mood, rng),
                Node::Dir(dir) => dir.power_cut(mood, rng),
            }
        }
        self.kill();
        self.count_names();
    }

    fn count_names(&mut self) {
        let mut counts: BTreeMap<InodeId, u64> = BTreeMap::from([(ROOT, 1)]);
        for inode in self.inodes.values() {
            if let Node::Dir(dir) = &inode.node {
                for child in dir.names.values() {
                    *counts.entry(*child).or_default() += 1;
                }
            }
        }
        for (id, inode) in &mut self.inodes {
            inode.names = counts.get(id).copied().unwrap_or(0);
        }
    }

    /// Forgets inodes that no name, durable or not, and no handle leads to.
    fn collect_garbage(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut open: Vec<InodeId> = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.handles > 0)
            .map(|(id, _)| *id)
            .collect();
        open.push(ROOT);
        while let Some(id) = open.pop() {
            if reachable.insert(id)
                && let Some(Inode {
                    node: Node::Dir(dir),
                    ..
                }) = self.inodes.get(&id)
            {
                open.extend(dir.referenced());
            }
        }
        self.inodes.retain(|id, _| reachable.contains(id));
    }

    // --- names ---

    fn walk(&self, path: &Path) -> io::Result<InodeId> {
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

    fn place(&self, path: &Path) -> io::Result<Place> {
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

    fn look_up(&self, place: &Place) -> io::Result<Option<InodeId>> {
        Ok(self.dir(place.dir)?.names.get(&place.name).copied())
    }

    fn dir(&self, id: InodeId) -> io::Result<&DirNode> {
        match self.inodes.get(&id).map(|inode| &inode.node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, id: InodeId) -> io::Result<&mut DirNode> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn is_dir(&self, id: InodeId) -> bool {
        matches!(
            self.inodes.get(&id),
            Some(Inode {
                node: Node::Dir(_),
                ..
            })
        )
    }

    fn make(&mut self, place: Place, node: Node, path: &Path) -> io::Result<InodeId> {
        let id = self.next_inode;
        self.next_inode += 1;
        let label = path.display().to_string();
        let inode = Inode {
            node,
            names: 1,
            handles: 0,
            label,
            cut_from_outside: false,
        };
        self.inodes.insert(id, inode);
        self.dir_mut(place.dir)?.change(NameChange::Link {
            name: place.name,
            inode: id,
        });
        Ok(id)
    }

    fn lose_name(&mut self, id: InodeId) {
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
            Some(id) => Ok(id),
            None if make => {
                self.begin_whole(life, false, || format!("create {}", path.display()))?;
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
        self.begin_whole(life, false, || {
            format!("create directory {}", path.display())
        })?;
        self.make(place, Node::Dir(DirNode::default()), path)?;
        Ok(())
    }

    pub(crate) fn names(&self, life: u64, path: &Path) -> io::Result<Vec<(String, bool)>> {
        self.check_alive(life)?;
        let dir = self.dir(self.walk(path)?)?;
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
        self.begin_whole(life, false, || {
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

    fn check_replace(&self, inode: InodeId, replaced: InodeId) -> io::Result<()> {
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
        self.begin_whole(life, false, || format!("remove {}", path.display()))?;
        self.lose_name(id);
        self.dir_mut(place.dir)?
            .change(NameChange::Unlink { name: place.name });
        Ok(())
    }

    // --- handles and locks ---

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

    // --- content ---

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

    fn label(&self, id: InodeId) -> String {
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
        let interrupt = self.begin(life, false, || {
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
            Err(no_space())
        } else {
            Ok(())
        }
    }

    /// Does to the copy that was taken of this very step what the step would have come to.
    fn in_copy(&mut self, act: impl FnOnce(&mut State)) {
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
    fn write_part(&mut self, id: InodeId, bytes: &[u8], position: u64) {
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
    fn store_part(&mut self, id: InodeId, bytes: &[u8], position: u64) {
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
        let interrupt = self.begin(life, false, || {
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

    fn file_unchecked(&mut self, id: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn put(&mut self, id: InodeId, bytes: &[u8], position: u64) {
        if let Some(Inode {
            node: Node::File(file),
            ..
        }) = self.inodes.get_mut(&id)
        {
            file.write(bytes, position);
        }
    }

    /// The beginning of a write for which there is room.
    fn fitting<'a>(&self, id: InodeId, bytes: &'a [u8], position: u64) -> &'a [u8] {
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
    fn free_blocks(&self) -> Option<u64> {
        let capacity = self.faults.capacity_bytes? / PAGE_BYTES;
        Some(capacity.saturating_sub(self.used_blocks()))
    }

    fn used_blocks(&self) -> u64 {
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
        Ok((total.saturating_sub(self.used_blocks() * PAGE_BYTES), total))
    }

    pub(crate) fn set_len(&mut self, life: u64, id: InodeId, len: u64) -> io::Result<()> {
        let label = self.label(id);
        self.begin_whole(life, false, || format!("set length of {label} to {len}"))?;
        self.file_mut(life, id)?.set_len(len);
        Ok(())
    }

    pub(crate) fn allocate(&mut self, life: u64, id: InodeId, range: Range<u64>) -> io::Result<()> {
        let label = self.label(id);
        self.begin_whole(life, false, || format!("allocate {range:?} of {label}"))?;
        let free = self.free_blocks();
        let file = self.file_mut(life, id)?;
        if free.is_some_and(|free| file.cache().missing_blocks(&range) > free) {
            return Err(no_space());
        }
        if !range.is_empty() {
            file.allocate(range);
        }
        Ok(())
    }

    // --- syncs ---

    /// Counts a durability event; true if it has to fail.
    fn begin_sync(&mut self, life: u64, what: &str, of: &str) -> io::Result<bool> {
        let number = self.syncs;
        self.begin_whole(life, true, || format!("{what} {of}"))?;
        Ok(self.faults.failing_syncs.remove(&number))
    }

    pub(crate) fn sync_data(&mut self, life: u64, id: InodeId, told: &mut u64) -> io::Result<()> {
        let label = self.label(id);
        let fails = self.begin_sync(life, "sync", &label)?;
        let mut rng = self.rng.split();
        let file = self.file_mut(life, id)?;
        if fails {
            file.fail_sync(&mut rng, true);
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
                        file.fail_sync(&mut rng, false);
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
            file.fail_sync(&mut rng, false);
            if inode.handles == 0 {
                file.forget_error();
            }
        }
        Ok(())
    }

    pub(crate) fn drop_caches(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Node::File(file) = &mut inode.node {
                file.drop_clean_pages();
            }
        }
    }
}
