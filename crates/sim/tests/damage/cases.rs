//! What is done to a data directory, one thing at a time.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use sapwood_log::io::{Disk, OpenMode};
use sapwood_model::Durability;
use sapwood_sim::{Rng, SimDisk};

use crate::scene::{ROOT, Scene, files, read_file, write_file};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// A file up to this size is cut at each of its lengths.
const CUT_EVERYWHERE_BYTES: usize = 8 << 10;
/// In larger ones, and in long runs of zeros, one place in so many is tried; a prime, so that all
/// places in a sector are.
const STRIDE: usize = 61;
/// A run of zeros of at least this length is taken as space that nothing is written in.
const EMPTY_BYTES: usize = 256;

/// What there is to damage.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The row of the table.
    pub(crate) kind: &'static str,
    /// Of a file; a folder has none.
    pub(crate) bytes: Option<Vec<u8>>,
    older: Vec<Vec<u8>>,
}

/// Files and folders are numbers in [`Cases::places`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Flip {
        file: usize,
        at: usize,
        mask: u8,
    },
    Cut {
        file: usize,
        len: usize,
    },
    ZeroSector {
        file: usize,
        at: usize,
    },
    ZeroPage {
        file: usize,
        at: usize,
    },
    /// A sector's content is also written elsewhere, over what belongs there.
    Misdirect {
        from: (usize, usize),
        to: (usize, usize),
    },
    Swap {
        one: usize,
        two: usize,
    },
    Remove {
        place: usize,
    },
    /// The writes since an earlier moment are lost.
    Older {
        file: usize,
        version: usize,
    },
    Unreadable {
        file: usize,
        page: usize,
    },
}

/// The columns by which cases are grouped.
pub(crate) const DAMAGES: [&str; 9] = [
    "bit flipped",
    "cut",
    "sector zeroed",
    "page zeroed",
    "sector misdirected",
    "swapped",
    "removed",
    "older version",
    "page unreadable",
];

impl Damage {
    pub(crate) fn name(self) -> &'static str {
        DAMAGES[match self {
            Damage::Flip { .. } => 0,
            Damage::Cut { .. } => 1,
            Damage::ZeroSector { .. } => 2,
            Damage::ZeroPage { .. } => 3,
            Damage::Misdirect { .. } => 4,
            Damage::Swap { .. } => 5,
            Damage::Remove { .. } => 6,
            Damage::Older { .. } => 7,
            Damage::Unreadable { .. } => 8,
        }]
    }

    /// The places that are not as they were.
    pub(crate) fn places(self) -> Vec<usize> {
        match self {
            Damage::Flip { file, .. }
            | Damage::Cut { file, .. }
            | Damage::ZeroSector { file, .. }
            | Damage::ZeroPage { file, .. }
            | Damage::Older { file, .. }
            | Damage::Unreadable { file, .. } => vec![file],
            Damage::Misdirect { to, .. } => vec![to.0],
            Damage::Swap { one, two } => vec![one, two],
            Damage::Remove { place } => vec![place],
        }
    }
}

/// Everything that is done to one scene.
#[derive(Debug)]
pub(crate) struct Cases {
    pub(crate) places: Vec<Place>,
    pub(crate) damages: Vec<Damage>,
}

impl Cases {
    pub(crate) fn of(scene: &Scene, seed: u64) -> Self {
        let mut cases = Self {
            places: places(scene),
            damages: Vec::new(),
        };
        let mut rng = Rng::new(seed);
        for place in 0..cases.places.len() {
            cases.add(place, &mut rng);
        }
        cases.swaps();
        cases
    }

    fn add(&mut self, place: usize, rng: &mut Rng) {
        let file = place;
        let removable = self.places[place].path != Path::new(ROOT);
        self.damages
            .extend(removable.then_some(Damage::Remove { place }));
        let Some(bytes) = self.places[place].bytes.clone() else {
            return;
        };
        let empty = empty_runs(&bytes);
        let is_empty = |at: usize| empty.iter().any(|run| run.contains(&at));
        for at in 0..bytes.len() {
            if !is_empty(at) {
                let flips = (0..8).map(|bit| Damage::Flip {
                    file,
                    at,
                    mask: 1 << bit,
                });
                self.damages.extend(flips);
            } else if at % STRIDE == 0 {
                let mask = 1 << (at / STRIDE % 8);
                self.damages.push(Damage::Flip { file, at, mask });
            }
        }
        for len in 0..bytes.len() {
            let whole = bytes.len() <= CUT_EVERYWHERE_BYTES;
            let at_boundary = (len + 1) % SECTOR_BYTES <= 2;
            let inside = !is_empty(len) && len % 7 == 0;
            if whole || at_boundary || inside || len % STRIDE == 0 {
                self.damages.push(Damage::Cut { file, len });
            }
        }
        let holds_something = |at: usize, size: usize| {
            let end = bytes.len().min(at + size);
            bytes[at..end].iter().any(|byte| *byte != 0)
        };
        for at in (0..bytes.len()).step_by(SECTOR_BYTES) {
            if holds_something(at, SECTOR_BYTES) {
                self.damages.push(Damage::ZeroSector { file, at });
                self.misdirect((file, at), rng);
            }
        }
        for at in (0..bytes.len()).step_by(PAGE_BYTES) {
            if holds_something(at, PAGE_BYTES) {
                self.damages.push(Damage::ZeroPage { file, at });
            }
            let page = at / PAGE_BYTES;
            self.damages.push(Damage::Unreadable { file, page });
        }
        for version in 0..self.places[file].older.len() {
            self.damages.push(Damage::Older { file, version });
        }
    }

    /// Writes this sector over some others: of the same file, of files of its kind, of any file.
    fn misdirect(&mut self, from: (usize, usize), rng: &mut Rng) {
        let kind = self.places[from.0].kind;
        let files = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let all = 0..self.places.len();
            all.filter(|place| {
                self.places[*place]
                    .bytes
                    .as_ref()
                    .is_some_and(|b| !b.is_empty())
            })
            .filter(|place| wanted(*place))
            .collect()
        };
        let same = files(&|place| place == from.0);
        let alike = files(&|place| place != from.0 && self.places[place].kind == kind);
        let any = files(&|place| place != from.0);
        for targets in [&same, &same, &alike, &alike, &any, &any] {
            if targets.is_empty() {
                continue;
            }
            let file = *rng.pick(targets);
            let len = self.places[file].bytes.as_ref().map_or(0, Vec::len);
            // Where something is written; most of a large file is empty.
            let used = self.places[file].bytes.as_ref().map_or(0, |bytes| {
                bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(1, |at| at + 1)
            });
            let reach = if rng.chance(3, 4) { used } else { len };
            let at = rng.below(reach as u64) as usize / SECTOR_BYTES * SECTOR_BYTES;
            let to = (file, at);
            if to != from && self.sector(from) != self.sector(to) {
                self.damages.push(Damage::Misdirect { from, to });
            }
        }
    }

    fn sector(&self, (file, at): (usize, usize)) -> &[u8] {
        let bytes = self.places[file].bytes.as_deref().unwrap_or_default();
        &bytes[at..bytes.len().min(at + SECTOR_BYTES)]
    }

    /// Each pair of files of a kind, and of partition folders.
    fn swaps(&mut self) {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, place) in self.places.iter().enumerate() {
            let in_topics = place.path.starts_with(Path::new(ROOT).join("topics"));
            let group = match (&place.bytes, place.path.extension()) {
                (None, _) if place.kind != "partition folder" => continue,
                (None, _) => place.kind.to_owned(),
                (_, Some(extension)) => extension.to_string_lossy().into_owned(),
                (_, None) if in_topics => place.kind.to_owned(),
                (_, None) => "small file".to_owned(),
            };
            groups.entry(group).or_default().push(index);
        }
        for group in groups.values() {
            for (index, one) in group.iter().enumerate() {
                for two in &group[index + 1..] {
                    let (one, two) = (*one, *two);
                    let (a, b) = (&self.places[one].bytes, &self.places[two].bytes);
                    if a.is_none() || a != b {
                        self.damages.push(Damage::Swap { one, two });
                    }
                }
            }
        }
    }

    /// The row of the table that a case belongs to.
    pub(crate) fn kind(&self, damage: Damage) -> &'static str {
        self.places[damage.places()[0]].kind
    }

    /// Does it to this disk.
    pub(crate) fn apply(&self, damage: Damage, on: &SimDisk) {
        let disk = on.process();
        let path = |place: usize| self.places[place].path.as_path();
        let put = |file: usize, at: usize, bytes: &[u8]| {
            let file = disk.open(path(file), OpenMode::Write).unwrap();
            file.write_at(&[bytes], at as u64).unwrap();
        };
        let len = |file: usize| self.places[file].bytes.as_ref().map_or(0, Vec::len);
        match damage {
            Damage::Flip { file, at, mask } => {
                on.corrupt(path(file), at as u64, mask).unwrap();
            }
            Damage::Cut { file, len } => {
                let file = disk.open(path(file), OpenMode::Write).unwrap();
                file.set_len(len as u64).unwrap();
            }
            Damage::ZeroSector { file, at } => {
                put(file, at, &vec![0; SECTOR_BYTES.min(len(file) - at)]);
            }
            Damage::ZeroPage { file, at } => {
                put(file, at, &vec![0; PAGE_BYTES.min(len(file) - at)]);
            }
            Damage::Misdirect { from, to } => {
                let sector = self.sector(from);
                put(to.0, to.1, &sector[..sector.len().min(len(to.0) - to.1)]);
            }
            Damage::Swap { one, two } => {
                let between = Path::new("/between");
                disk.rename(path(one), between).unwrap();
                disk.rename(path(two), path(one)).unwrap();
                disk.rename(between, path(two)).unwrap();
            }
            Damage::Remove { place } => remove(&disk, &self.places[place]),
            Damage::Older { file, version } => {
                write_file(&disk, path(file), &self.places[file].older[version]);
            }
            Damage::Unreadable { file, page } => {
                let at = (page * PAGE_BYTES) as u64;
                on.make_unreadable(path(file), at..at + PAGE_BYTES as u64)
                    .unwrap();
            }
        }
    }

    pub(crate) fn describe(&self, damage: Damage) -> String {
        struct Described<'a>(&'a Cases, Damage);
        impl fmt::Display for Described<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(cases, damage) = self;
                write!(f, "{damage:?}")?;
                for place in damage.places() {
                    write!(f, " {}", cases.places[place].path.display())?;
                }
                Ok(())
            }
        }
        Described(self, damage).to_string()
    }
}

fn remove(disk: &dyn Disk, place: &Place) {
    if place.bytes.is_some() {
        return disk.remove_file(&place.path).unwrap();
    }
    for entry in disk.read_dir(&place.path).unwrap() {
        let inner = Place {
            path: place.path.join(entry.name),
            kind: "",
            bytes: (!entry.is_dir).then(Vec::new),
            older: Vec::new(),
        };
        remove(disk, &inner);
    }
    disk.remove_dir(&place.path).unwrap();
}

/// Long runs of zeros.
fn empty_runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for at in 0..=bytes.len() {
        if at == bytes.len() || bytes[at] != 0 {
            if at - start >= EMPTY_BYTES {
                runs.push(start..at);
            }
            start = at + 1;
        }
    }
    runs
}

fn places(scene: &Scene) -> Vec<Place> {
    let disk = scene.machine.fork().disk;
    let disk = disk.process();
    let mut folders: Vec<PathBuf> = ["topics", "journal", "aside", "quarantine"]
        .iter()
        .map(|name| Path::new(ROOT).join(name))
        .collect();
    for entry in disk.read_dir(&folders[0]).unwrap() {
        folders.push(folders[0].join(entry.name));
    }
    let folders = folders.into_iter().map(|path| Place {
        kind: if path.parent() == Some(Path::new(ROOT)) {
            "folder"
        } else {
            "partition folder"
        },
        path,
        bytes: None,
        older: Vec::new(),
    });
    let files = files(&disk).into_iter().map(|path| {
        let bytes = read_file(&disk, &path);
        let mut older: Vec<Vec<u8>> = scene
            .older
            .iter()
            .filter(|(old, content)| *old == path && *content != bytes)
            .map(|(_, content)| content.clone())
            .collect();
        older.dedup();
        Place {
            kind: kind(scene, &path),
            path,
            bytes: Some(bytes),
            older,
        }
    });
    // The broker's own tests damage the catalog.
    let files = files.filter(|place| !place.path.starts_with(Path::new(ROOT).join("catalog")));
    folders.chain(files).collect()
}

fn kind(scene: &Scene, path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap();
    let folder = path.parent().and_then(|folder| folder.file_name()).unwrap();
    let log = scene.logs.values().find(|log| {
        let spec = &log.spec;
        folder.to_str() == Some(&format!("{}-{}", spec.topic, spec.partition))
    });
    let base = name
        .split('.')
        .next()
        .and_then(|base| base.parse::<u64>().ok());
    match (name.rsplit_once('.').map(|(_, end)| end), log, base) {
        (Some("log"), Some(log), Some(base)) => {
            let below = base < log.checkpoint.0;
            match (log.spec.config.durability, below) {
                (Durability::Fsync, true) => "fsync segment, checkpointed",
                (Durability::Fsync, false) => "fsync segment, journaled",
                (Durability::Os, true) => "os segment, checkpointed",
                (Durability::Os, false) => "os segment, above",
            }
        }
        (Some("index"), ..) => ".index",
        (Some("timeindex"), ..) => ".timeindex",
        (Some("sums"), ..) => ".sums",
        (Some("snapshot"), ..) => ".snapshot",
        (Some("journal"), ..) => "journal file",
        (Some("entries"), ..) => "aside file",
        (Some("metadata"), ..) => "partition.metadata",
        (Some("tmp"), ..) => "next-segment.tmp",
        _ => match name {
            "sapwood.meta" => "sapwood.meta",
            "sapwood.lock" => "sapwood.lock",
            "clean" => "clean",
            "checkpoint" => "checkpoint",
            "ballast" => "ballast",
            "leader-epoch-checkpoint" => "leader-epoch-checkpoint",
            _ => "other file",
        },
    }
}
