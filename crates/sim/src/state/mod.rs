//! The whole disk behind its one lock: its inodes, its life and death, and what interrupts a step.

mod content;
mod names;
mod syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sapwood_log::io::TailKind;

use crate::Rng;
use crate::directory::{DirNode, InodeId};
use crate::disk::off;
use crate::faults::{Capture, Faults, StepKind, Stop, TailSwitch, WriteFault};
use crate::image::PAGE_BYTES;
use crate::inode::{FileNode, Mood};
use crate::tally::Counters;

const ROOT: InodeId = 0;

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
    pub(crate) reads: u64,
    pub(crate) is_off: bool,
    pub(crate) faults: Faults,
    pub(crate) rng: Rng,
    pub(crate) tail_kind: TailKind,
    pub(crate) tail_switch: TailSwitch,
    /// Before one of so many steps the kernel writes some of what is dirty; 0 for never.
    pub(crate) write_back: u64,
    /// The kind of every step since it was asked for.
    pub(crate) kinds: Option<Vec<(u64, StepKind)>>,
    /// What could not be read because a test asked for it.
    pub(crate) failed_places: Vec<PathBuf>,
    /// Shared with all copies of this disk.
    pub(crate) counts: Arc<Counters>,
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
    /// It can neither be opened nor listed.
    unreadable: bool,
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

impl State {
    pub(crate) fn new(seed: u64) -> State {
        let root = Inode {
            node: Node::Dir(DirNode::default()),
            names: 1,
            handles: 0,
            label: "/".to_owned(),
            cut_from_outside: false,
            unreadable: false,
        };
        State {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: ROOT + 1,
            locks: BTreeSet::new(),
            life: 0,
            boots: 0,
            steps: 0,
            syncs: 0,
            reads: 0,
            is_off: false,
            faults: Faults::default(),
            rng: Rng::new(seed),
            tail_kind: TailKind::Mmap,
            tail_switch: TailSwitch::default(),
            write_back: 0,
            kinds: None,
            failed_places: Vec::new(),
            counts: Arc::default(),
            history: None,
            capture: None,
            captured: Vec::new(),
        }
    }

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
        kind: StepKind,
        describe: impl FnOnce() -> String,
    ) -> io::Result<Option<Interrupt>> {
        self.check_alive(life)?;
        if self.write_back > 0 && self.rng.chance(1, self.write_back) {
            self.write_back();
        }
        let is_sync = kind == StepKind::Sync;
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
        if let Some(kinds) = &mut self.kinds {
            kinds.push((step, kind));
        }
        if let Some((at, pages)) = self.faults.filling
            && step >= at
        {
            self.faults.filling = None;
            self.faults.capacity_bytes = Some((self.used_blocks() + pages) * PAGE_BYTES);
        }
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
        let fault = self.faults.failing_steps.remove(&step);
        match fault {
            Some(WriteFault::NoSpace) => self.counts.full.add(1),
            Some(WriteFault::Io) => self.counts.failed_writes.add(1),
            None => {}
        }
        Ok(fault.map(Interrupt::Fault))
    }

    /// As [`State::begin`], for steps that happen as a whole or not at all.
    fn begin_whole(
        &mut self,
        life: u64,
        kind: StepKind,
        describe: impl FnOnce() -> String,
    ) -> io::Result<()> {
        self.begin(life, kind, describe)?
            .map_or(Ok(()), |interrupt| Err(interrupt.error()))
    }

    pub(crate) fn kill(&mut self) {
        self.life += 1;
        self.is_off = false;
        self.faults = Faults {
            capacity_bytes: self.faults.capacity_bytes,
            reserved_bytes: self.faults.reserved_bytes,
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
        self.counts.power_cuts.add(1);
        for inode in self.inodes.values_mut() {
            let mood = Mood::draw(rng);
            match &mut inode.node {
                Node::File(file) => file.power_cut(mood, rng, &self.counts),
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
}
