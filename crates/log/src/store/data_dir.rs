//! The data directory: its lock, its identity, its format version.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use sapwood_model::{Code, DirectoryId};

use crate::{
    framed::{self, FramedError, TEMPORARY_SUFFIX},
    io::{Environment, OpenMode, is_of_the_device},
    repair,
};

/// The newest format of a data directory that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const META: framed::Kind = framed::Kind {
    magic: *b"SWDD",
    version: FORMAT_VERSION,
};
const META_FILE: &str = "sapwood.meta";
/// The name of the lock's file in a data directory. Whoever empties the directory leaves it there:
/// others may be waiting for it.
pub const LOCK_FILE: &str = "sapwood.lock";

/// Folder of the partitions' folders.
pub(crate) const TOPICS: &str = "topics";
/// Folder of the journal's files.
pub(crate) const JOURNAL: &str = "journal";
/// Folder of the journal entries that were copied aside for partitions that are offline.
pub(crate) const ASIDE: &str = "aside";
/// Folder of the partition folders that no topic of the catalog accounts for.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The checkpoint file.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// The marker of a clean stop.
pub(crate) const CLEAN: &str = "clean";
/// The file whose space is given up when the disk is full.
pub(crate) const BALLAST: &str = "ballast";
/// Folder of the catalog, which the broker keeps.
pub(crate) const CATALOG: &str = "catalog";

/// A data directory that this process holds. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataDir {
    environment: Environment,
    path: PathBuf,
    id: DirectoryId,
    _lock: Lock,
}

/// Held for its drop alone.
struct Lock(#[expect(dead_code, reason = "dropping it releases the lock")] Box<dyn Send + Sync>);

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// Why a data directory, or what is in it, could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer version of Sapwood wrote it.
    #[error(
        "the data directory {} has format {found}; this program knows formats up to {FORMAT_VERSION}",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It holds files, and they are not a data directory's.
    #[error("{} is not a sapwood data directory: {what}", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What speaks against it.
        what: String,
    },
    /// A file that must be whole is not. Nothing was changed.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An option is outside its bounds.
    #[error("{what}")]
    Option {
        /// Which, and its bounds.
        what: String,
    },
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl OpenError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::DirectoryInUse,
            Self::Newer { .. } => Code::DirectoryNewer,
            Self::NotOurs { .. } => Code::NotADirectory,
            Self::Damaged { .. } => Code::FileDamaged,
            Self::Option { .. } => Code::InvalidConfig,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Code::NoPermission,
                io::ErrorKind::StorageFull => Code::StorageFull,
                io::ErrorKind::NotADirectory => Code::NotADirectory,
                _ => Code::IoFailed,
            },
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.to_string(),
        }
    }
}

impl DataDir {
    /// Opens a data directory, or makes one where there is nothing yet, and takes its lock.
    /// Blocks for a few syncs when it makes one; durable when it returns.
    ///
    /// # Errors
    /// [`OpenError::InUse`], [`OpenError::Newer`], [`OpenError::NotOurs`] when the folder holds
    /// other files, [`OpenError::Damaged`] when its identity cannot be read, [`OpenError::Io`].
    pub fn open(environment: Environment, path: &Path) -> Result<Self, OpenError> {
        let disk = &environment.disk;
        create_dirs(&environment, path)?;
        let names = disk.read_dir(path).map_err(OpenError::io(path))?;
        let is_ours = names.iter().any(|entry| entry.name == META_FILE);
        // These come after the identity, which was lost: a new one would make the journal a stranger's.
        if let Some(later) = names
            .iter()
            .find(|entry| !is_ours && [CHECKPOINT, CLEAN, BALLAST, CATALOG].contains(&&*entry.name))
        {
            let what = format!("it is missing, and {} is there", later.name);
            return Err(OpenError::damaged(&path.join(META_FILE), what));
        }
        if let Some(alien) = names
            .iter()
            .find(|entry| !is_ours && !is_known(&entry.name))
        {
            let what = format!("it holds {:?} and no {META_FILE}", alien.name);
            return Err(OpenError::NotOurs {
                path: path.to_owned(),
                what,
            });
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = disk
            .lock(&lock_path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => OpenError::InUse {
                    path: path.to_owned(),
                },
                _ => OpenError::Io {
                    path: lock_path.clone(),
                    source,
                },
            })?;
        // A start that came to an end has left a checkpoint. One that did not may have left names that are
        // not durable, the identity's among them: they are made again.
        let is_finished = is_ours && names.iter().any(|entry| entry.name == CHECKPOINT);
        let id = match is_ours {
            true => read_meta(&environment, path)?,
            false => DirectoryId(environment.entropy.u128()),
        };
        match is_finished {
            // Mostly empty, so copying tools may drop them. What should be in them is missed by name.
            true => {
                for folder in [ASIDE, QUARANTINE] {
                    create_dir_if_missing(&environment, &path.join(folder))?;
                }
            }
            false => make(&environment, path, id)?,
        }
        refuse_half_repaired(&environment, path)?;
        Ok(Self {
            environment,
            path: path.to_owned(),
            id,
            _lock: Lock(lock),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity, from its creation on.
    pub fn id(&self) -> DirectoryId {
        self.id
    }

    /// The disk, clock and randomness that it was opened with.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// A repair that was interrupted leaves files that do not belong together until it is finished.
fn refuse_half_repaired(environment: &Environment, path: &Path) -> Result<(), OpenError> {
    let pending = repair::pending_path(path);
    match environment.disk.open(&pending, OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(OpenError::io(&pending)(e)),
        Ok(_) => Err(OpenError::damaged(&pending, repair::INTERRUPTED)),
    }
}

/// Reads the identity of a directory without locking or changing anything.
pub(crate) fn read_meta(environment: &Environment, path: &Path) -> Result<DirectoryId, OpenError> {
    let meta = path.join(META_FILE);
    let payload = framed::read(&*environment.disk, &meta, META).map_err(|e| match e {
        FramedError::Newer { found, .. } => OpenError::Newer {
            path: path.to_owned(),
            found,
        },
        FramedError::Io(source) => OpenError::Io {
            path: meta.clone(),
            source,
        },
        FramedError::Missing => OpenError::NotOurs {
            path: path.to_owned(),
            what: format!("it has no {META_FILE}"),
        },
        FramedError::Damaged(what) => OpenError::damaged(&meta, what),
    })?;
    let id = payload
        .try_into()
        .map_err(|_| OpenError::damaged(&meta, "its identity is cut"))?;
    Ok(DirectoryId(u128::from_be_bytes(id)))
}

/// Makes the folders, then the identity: where that is, the rest is there.
fn make(environment: &Environment, path: &Path, id: DirectoryId) -> Result<(), OpenError> {
    let disk = &environment.disk;
    sync_ancestors(environment, path)?;
    for folder in [TOPICS, JOURNAL, ASIDE, QUARANTINE] {
        create_dir_if_missing(environment, &path.join(folder))?;
    }
    // Before the identity is there: a power cut may keep its name and lose theirs.
    disk.sync_dir(path).map_err(OpenError::io(path))?;
    let meta = framed::encode(META, &id.0.to_be_bytes());
    framed::replace(&**disk, &path.join(META_FILE), &meta).map_err(OpenError::io(path))
}

fn create_dirs(environment: &Environment, path: &Path) -> Result<(), OpenError> {
    match environment.disk.read_dir(path) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(OpenError::io(path)(e)),
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dirs(environment, parent)?;
    }
    create_dir_if_missing(environment, path)
}

/// Makes the names on the way to the directory durable, also of folders that were there: an earlier
/// start, killed before it came here, may have made them.
fn sync_ancestors(environment: &Environment, path: &Path) -> Result<(), OpenError> {
    for folder in path.ancestors().skip(1) {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        match environment.disk.sync_dir(folder) {
            // Not to be read, or on a file system that does not sync folders: nothing was made in there.
            Err(e) if Some(folder) != path.parent() && !is_of_the_device(&e) => {}
            synced => synced.map_err(OpenError::io(folder))?,
        }
    }
    Ok(())
}

pub(crate) fn create_dir_if_missing(
    environment: &Environment,
    path: &Path,
) -> Result<(), OpenError> {
    match environment.disk.create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(OpenError::io(path)(e)),
        _ => Ok(()),
    }
}

/// Names that an interrupted creation may have left.
fn is_known(name: &str) -> bool {
    let known = [LOCK_FILE, TOPICS, JOURNAL, ASIDE, QUARANTINE];
    known.contains(&name) || name.strip_suffix(TEMPORARY_SUFFIX) == Some(META_FILE)
}
