//! Carrying a plan out, so that a crash at any moment loses nothing.
//!
//! First a copy of every file that will change, synced. Then every new file, under a temporary name in the
//! same folder, synced: a rename between two folders may reach the disk by halves. Then a list of the
//! renames and removals that remain, `repair/pending`, written atomically. From here on the data directory
//! cannot be opened, and every further repair carries the list out before anything else; each item can be
//! done twice. At last the list is removed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    REPAIR, Repaired,
    raw::read_what_can_be,
    salvage::Part,
    steps::{Change, Step, length},
};
use crate::{
    framed::{self, FramedError},
    io::{Disk, Environment, File, OpenMode},
    recovery::{NEW_SUFFIX, remove_tree},
    store::{OpenError, Progress},
};

const PENDING: &str = "pending";
const MANIFEST: &str = "manifest.txt";
const COPIES: &str = "old";
/// What a new file's name carries until it gets its own. A start removes such files.
const STAGED_SUFFIX: &str = ".repair.tmp";
const KIND: framed::Kind = framed::Kind {
    magic: *b"SWRP",
    version: 1,
};
const COPY_BYTES: u64 = 1 << 20;
/// For the manifest, folders and what a file takes beyond its bytes.
const SPARE_BYTES_PER_FILE: u64 = 8 << 10;
/// What a name carries while it is given anew.
const AGAIN_SUFFIX: &str = ".again";

/// What remains to be done once everything that it needs is on the disk. Paths are relative to the data
/// directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Rename { from: String, to: String },
    Remove(String),
}

/// The list of a repair that was not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) number: u64,
    items: Vec<Item>,
}

/// Where a new file is written.
struct Staged {
    path: PathBuf,
    /// It gets its name together with its folder.
    in_new_folder: bool,
}

/// Where the list of an unfinished repair is.
pub(crate) fn pending_path(root: &Path) -> PathBuf {
    root.join(REPAIR).join(PENDING)
}

impl Pending {
    /// The unfinished repair, if there is one.
    pub(super) fn read(disk: &dyn Disk, root: &Path) -> Result<Option<Self>, OpenError> {
        let path = pending_path(root);
        let payload = match framed::read(disk, &path, KIND) {
            Ok(payload) => payload,
            Err(FramedError::Missing) => return Ok(None),
            Err(FramedError::Io(error)) => return Err(OpenError::io(&path)(error)),
            Err(error) => return Err(OpenError::damaged(&path, error)),
        };
        let pending = Self::decode(&payload);
        let pending = pending.ok_or_else(|| OpenError::damaged(&path, "its items are cut"))?;
        Ok(Some(pending))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.number.to_be_bytes().to_vec();
        for item in &self.items {
            let (kind, texts): (u8, Vec<&String>) = match item {
                Item::Rename { from, to } => (1, vec![from, to]),
                Item::Remove(path) => (2, vec![path]),
            };
            out.push(kind);
            for text in texts {
                out.extend_from_slice(&(text.len() as u64).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        framed::encode(KIND, &out)
    }

    fn decode(mut payload: &[u8]) -> Option<Self> {
        let number = u64::from_be_bytes(*payload.split_off(..8)?.first_chunk()?);
        let mut items = Vec::new();
        while let Some(kind) = payload.split_off_first() {
            let mut text = || {
                let length = u64::from_be_bytes(*payload.split_off(..8)?.first_chunk()?);
                let bytes = payload.split_off(..usize::try_from(length).ok()?)?;
                String::from_utf8(bytes.to_vec()).ok()
            };
            items.push(match kind {
                1 => Item::Rename {
                    from: text()?,
                    to: text()?,
                },
                2 => Item::Remove(text()?),
                _ => return None,
            });
        }
        Some(Self { number, items })
    }

    /// Does what remains, and then removes the list. `again`: an earlier try may have done some of it
    /// without syncing it. Durable when it returns.
    pub(super) fn finish(&self, disk: &dyn Disk, root: &Path, again: bool) -> io::Result<()> {
        let mut folders = BTreeSet::from([root.to_owned()]);
        for item in &self.items {
            match item {
                Item::Rename { from, to } => {
                    let (from, to) = (root.join(from), root.join(to));
                    rename(disk, &from, &to, again)?;
                    folders.extend(parent(&to));
                }
                Item::Remove(path) => {
                    let path = root.join(path);
                    if again {
                        // Seen as removed, it may still be on the disk.
                        disk.open(&path, OpenMode::Create)?;
                    }
                    match disk.remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(error);
                        }
                        _ => folders.extend(parent(&path)),
                    }
                }
            }
        }
        for folder in &folders {
            disk.sync_dir(folder)?;
        }
        disk.remove_file(&pending_path(root))?;
        disk.sync_dir(&root.join(REPAIR))
    }
}

/// Gives a staged file its name. Where that was done before, gives the name up and gives it again: one
/// whose sync failed can be seen, and may not be on the disk.
fn rename(disk: &dyn Disk, from: &Path, to: &Path, again: bool) -> io::Result<()> {
    let away = PathBuf::from(format!("{}{AGAIN_SUFFIX}", to.display()));
    match disk.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && again => {
            match disk.rename(to, &away) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            disk.rename(&away, to)
        }
        renamed => renamed,
    }
}

fn parent(path: &Path) -> Option<PathBuf> {
    path.parent().map(Path::to_owned)
}

/// Carries steps out; their paths are absolute.
pub(super) struct Apply<'a> {
    pub(super) environment: &'a Environment,
    pub(super) root: &'a Path,
    pub(super) progress: &'a Progress,
}

impl Apply<'_> {
    /// What the steps take on the disk: a copy of each file, and the new ones.
    pub(super) fn bytes_needed(&self, steps: &[Step]) -> u64 {
        let disk = &*self.environment.disk;
        let step = |step: &Step| {
            let written = match &step.change {
                Change::Write(parts) => parts.iter().map(Part::bytes).sum(),
                Change::Remove | Change::MakeFolder => 0,
            };
            length(disk, &step.path).unwrap_or(0) + written + 2 * SPARE_BYTES_PER_FILE
        };
        steps.iter().map(step).sum()
    }

    /// Copies, stages, commits. Nothing is changed when it fails before the list is written; afterwards
    /// a further repair goes on. Durable when it returns.
    pub(super) fn run(&self, steps: &[Step]) -> Result<Repaired, OpenError> {
        let (disk, root) = (&*self.environment.disk, self.root);
        let repair = root.join(REPAIR);
        let needed = self.bytes_needed(steps);
        let space = disk.space(root).map_err(OpenError::io(root))?;
        if needed > space.free_bytes {
            let free = space.free_bytes;
            let problem = format!("the repair needs {needed} bytes; {free} are free");
            let source = io::Error::new(io::ErrorKind::StorageFull, problem);
            return Err(OpenError::io(&repair)(source));
        }
        let number = self.next_number().map_err(OpenError::io(&repair))?;
        let folder = repair.join(folder_name(number));
        let mut done = Repaired {
            copies: folder.clone(),
            files_copied: 0,
            bytes_copied: 0,
            files_changed: steps.len() as u64,
        };
        let prepared = self.prepare(&folder, number, steps, &mut done);
        let pending = match prepared {
            Ok(pending) => pending,
            Err(error) => {
                // Best effort: what stays is in nobody's way.
                let _ = remove_tree(disk, &folder);
                for staged in self.staged(steps) {
                    let _ = disk.remove_file(&staged.path);
                }
                return Err(error);
            }
        };
        let path = pending_path(root);
        framed::replace(disk, &path, &pending.encode()).map_err(OpenError::io(&path))?;
        pending
            .finish(disk, root, false)
            .map_err(OpenError::io(&repair))?;
        Ok(done)
    }

    fn next_number(&self) -> io::Result<u64> {
        let disk = &*self.environment.disk;
        let repair = self.root.join(REPAIR);
        make_dir(disk, &repair)?;
        disk.sync_dir(self.root)?;
        let numbers = disk.read_dir(&repair)?;
        let numbers = numbers
            .iter()
            .filter_map(|entry| entry.name.parse::<u64>().ok());
        Ok(numbers.max().unwrap_or(0) + 1)
    }

    /// Where each step's new file, or folder, is until it gets its name.
    fn staged(&self, steps: &[Step]) -> Vec<Staged> {
        let is_made = |folder: &Path| {
            let makes = |step: &Step| matches!(step.change, Change::MakeFolder);
            steps.iter().any(|step| makes(step) && step.path == folder)
        };
        let staged = |step: &Step| {
            let path = step.path.display();
            if matches!(step.change, Change::MakeFolder) {
                return Staged {
                    path: format!("{path}{NEW_SUFFIX}").into(),
                    in_new_folder: false,
                };
            }
            match (step.path.parent(), step.path.file_name()) {
                (Some(folder), Some(name)) if is_made(folder) => Staged {
                    path: PathBuf::from(format!("{}{NEW_SUFFIX}", folder.display())).join(name),
                    in_new_folder: true,
                },
                _ => Staged {
                    path: format!("{path}{STAGED_SUFFIX}").into(),
                    in_new_folder: false,
                },
            }
        };
        steps.iter().map(staged).collect()
    }

    fn prepare(
        &self,
        folder: &Path,
        number: u64,
        steps: &[Step],
        done: &mut Repaired,
    ) -> Result<Pending, OpenError> {
        let (disk, root) = (&*self.environment.disk, self.root);
        let mut folders = BTreeSet::new();
        let make = |folders: &mut BTreeSet<PathBuf>, path: &Path| {
            folders.insert(path.to_owned());
            make_dir(disk, path).map_err(OpenError::io(path))
        };
        let copies = folder.join(COPIES);
        for path in [folder, &copies] {
            make(&mut folders, path)?;
        }
        let mut manifest = format!(
            "Files of this data directory as they were before repair {number}, under {COPIES}/, and what \
             was done to each.\n\n"
        );
        let mut items = Vec::new();
        for (step, staged) in steps.iter().zip(self.staged(steps)) {
            let name = relative(root, &step.path);
            let copy = copies.join(&name);
            let copied = match disk.open(&step.path, OpenMode::Read) {
                Ok(file) if !matches!(step.change, Change::MakeFolder) => {
                    let mut at = copies.clone();
                    for piece in Path::new(&name).parent().into_iter().flatten() {
                        at.push(piece);
                        make(&mut folders, &at)?;
                    }
                    let (bytes, whole) = self.copy(&*file, &copy).map_err(OpenError::io(&copy))?;
                    done.files_copied += 1;
                    done.bytes_copied += bytes;
                    match whole {
                        true => format!("copied, {bytes} bytes"),
                        false => format!(
                            "copied, {bytes} bytes, with zeros for what the disk cannot read"
                        ),
                    }
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    format!("not copied, it cannot be opened: {error}")
                }
                _ => "was not there".into(),
            };
            let what = match &step.change {
                Change::Write(parts) => {
                    let new = staged.path;
                    let bytes = self.write(parts, &new).map_err(OpenError::io(&new))?;
                    if !staged.in_new_folder {
                        items.push(Item::Rename {
                            from: relative(root, &new),
                            to: name.clone(),
                        });
                    }
                    folders.extend(parent(&new));
                    format!("written anew, {bytes} bytes")
                }
                Change::Remove => {
                    items.push(Item::Remove(name.clone()));
                    "removed".into()
                }
                Change::MakeFolder => {
                    let new = staged.path;
                    remove_tree(disk, &new)
                        .and_then(|()| disk.create_dir(&new))
                        .map_err(OpenError::io(&new))?;
                    items.push(Item::Rename {
                        from: relative(root, &new),
                        to: name.clone(),
                    });
                    folders.extend(parent(&new));
                    "made".into()
                }
            };
            manifest.push_str(&format!("{name}: {copied}; {what}: {}\n", step.why));
        }
        let path = folder.join(MANIFEST);
        let parts = [Part::Bytes(manifest.into())];
        self.write(&parts, &path).map_err(OpenError::io(&path))?;
        folders.insert(root.join(REPAIR));
        for folder in &folders {
            disk.sync_dir(folder).map_err(OpenError::io(folder))?;
        }
        Ok(Pending { number, items })
    }

    /// Copies a file as far as it can be read, and syncs the copy. Its bytes, and whether it is whole.
    fn copy(&self, from: &dyn File, to: &Path) -> io::Result<(u64, bool)> {
        let to = self.environment.disk.open(to, OpenMode::CreateNew)?;
        let bytes = from.len()?;
        let mut whole = true;
        let mut at = 0;
        let mut buffer = Vec::new();
        while at < bytes {
            let count = (bytes - at).min(COPY_BYTES);
            buffer.resize(usize::try_from(count).map_err(io::Error::other)?, 0);
            whole &= read_what_can_be(from, &mut buffer, at);
            to.write_at(&[&buffer], at)?;
            at += count;
        }
        to.sync_data()?;
        Ok((bytes, whole))
    }

    /// Writes and syncs a new file.
    fn write(&self, parts: &[Part], to: &Path) -> io::Result<u64> {
        let disk = &*self.environment.disk;
        let to = disk.open(to, OpenMode::Create)?;
        to.set_len(0)?; // of an earlier try
        let mut at = 0;
        let mut source: Option<(&Path, Arc<dyn File>)> = None;
        for part in parts {
            match part {
                Part::Bytes(bytes) => {
                    to.write_at(&[bytes], at)?;
                    at += bytes.len() as u64;
                }
                Part::File { path, range } => {
                    let file = match &source {
                        Some((open, file)) if open == path => Arc::clone(file),
                        _ => disk.open(path, OpenMode::Read)?,
                    };
                    at = self.append(&*file, range.clone(), &*to, at)?;
                    source = Some((path, file));
                }
            }
        }
        to.sync_data()?;
        Ok(at)
    }

    fn append(
        &self,
        from: &dyn File,
        range: std::ops::Range<u64>,
        to: &dyn File,
        mut at: u64,
    ) -> io::Result<u64> {
        let mut position = range.start;
        while position < range.end {
            let count = (range.end - position).min(COPY_BYTES);
            let mut buffer = vec![0; usize::try_from(count).map_err(io::Error::other)?];
            if from.read_at(&mut buffer, position)? < buffer.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_at(&[&buffer], at)?;
            position += count;
            at += count;
            self.progress.bytes.fetch_add(count, Relaxed);
        }
        Ok(at)
    }
}

fn make_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// `0001` for the first repair of a directory.
pub(super) fn folder_name(number: u64) -> String {
    format!("{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_read_back_and_a_cut_one_is_refused() {
        let pending = Pending {
            number: 3,
            items: vec![
                Item::Rename {
                    from: "checkpoint.repair.tmp".into(),
                    to: "checkpoint".into(),
                },
                Item::Remove("topics/a-0/x".into()),
            ],
        };
        let bytes = pending.encode();
        let payload = framed::decode(KIND, &bytes).unwrap();
        assert_eq!(Pending::decode(payload), Some(pending.clone()));
        for cut in 0..payload.len() {
            assert_ne!(Pending::decode(&payload[..cut]), Some(pending.clone()));
        }
    }
}
