//! The catalog: which topics there are, their ids, partitions, configurations and log starts.
//!
//! A state machine fed by a log of commands. A command is decided against the state, written and
//! synced, and only then applied; so what anybody has seen is on the disk. The log is a file of its
//! own, `catalog/catalog.log` in the data directory, and not in the journal, whose entries it judges.
//! The file is replaced by a fresh one that begins with a snapshot when it has grown.
//!
//! Everything here blocks.

mod codec;
mod command;
mod frame;
mod state;
mod stopped;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use sapwood_log::io::{Environment, File, OpenMode};
use sapwood_model::{Code, DirectoryId};
use tracing::{error, info, warn};

use self::frame::{Contents, FrameError};
pub use self::stopped::read_stopped_catalog;
pub(crate) use self::{
    command::{Applied, Command, NewTopicRecord, Rejected},
    state::{State, TopicRecord},
};

const FOLDER: &str = "catalog";
const FILE: &str = "catalog.log";
const TEMPORARY_FILE: &str = "catalog.log.tmp";
/// Space is allocated in such steps, so that few commands have to lengthen the file.
const ALLOCATION_BYTES: u64 = 64 << 10;
/// The log is not compacted below this length.
const COMPACTION_BYTES_MIN: u64 = 1 << 20;

/// The data directory that the catalog's file lies in: the store, which is opened after the catalog.
pub(crate) trait Host: Send + Sync + fmt::Debug {
    /// Runs `operation`; when the disk is full, releases the ballast and runs it once more.
    fn with_ballast(&self, operation: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// A write or a sync of the catalog has failed: nothing may be written to the directory any more.
    fn failed(&self, reason: &str);

    /// Why nothing may be written to the directory any more, once that is so. Does not block.
    fn read_only(&self) -> Option<Arc<str>>;
}

/// The catalog of one data directory. Every method blocks for its file.
#[derive(Debug)]
pub(crate) struct Catalog {
    environment: Environment,
    folder: PathBuf,
    directory: DirectoryId,
    inner: Mutex<Inner>,
    /// Proposals that wait for their turn.
    proposed: Mutex<Vec<Proposal>>,
    /// Why nothing can be proposed any more: after a failed write or sync nobody knows what the file
    /// holds. The first reason is kept.
    failed: OnceLock<Arc<str>>,
    host: OnceLock<Arc<dyn Host>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    file: Arc<dyn File>,
    salt: u64,
    next_number: u64,
    /// Where the next frame goes.
    end: u64,
    allocated: u64,
    compact_at: u64,
}

/// One command, and where its answer goes.
#[derive(Debug)]
struct Proposal {
    command: Command,
    answer: Arc<Mutex<Option<Result<Applied, ProposeError>>>>,
}

/// Why the catalog could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CatalogOpenError {
    /// The file is gone, and there are partitions.
    #[error("the catalog {} is missing, though the data directory has {evidence}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What shows that there was one.
        evidence: String,
    },
    /// The file fails its checks.
    #[error("the catalog {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Position and finding.
        what: String,
    },
    /// A newer version of Sapwood wrote it.
    #[error("the catalog {} has version {found}; this program knows version {}", path.display(), frame::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
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

impl CatalogOpenError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } => Code::CatalogDamaged,
            Self::Newer { .. } => Code::DirectoryNewer,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Code::NoPermission,
                io::ErrorKind::StorageFull => Code::StorageFull,
                _ => Code::IoFailed,
            },
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Why a change of the catalog was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// There is no space for it, the ballast included. The catalog is as it was; try again when
    /// there is space.
    #[error("the disk is full: no space for the catalog")]
    NoSpace,
    /// The catalog takes no changes until a restart.
    #[error("the catalog is read-only: {reason}")]
    ReadOnly {
        /// What failed first.
        reason: Arc<str>,
    },
}

impl CatalogError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSpace => Code::StorageFull,
            Self::ReadOnly { .. } => Code::ReadOnly,
        }
    }
}

/// Why one proposal changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Catalog {
    /// Opens the catalog of a data directory, or makes an empty one where there was never anything.
    ///
    /// What is read is written again, in place, and synced before anything is done on the strength of
    /// it: after a failed sync and a kill, pages may look written and not be. An unfinished frame at
    /// the end is overwritten with zeros in the same step.
    pub(crate) fn open(
        environment: Environment,
        data_dir: &Path,
        directory: DirectoryId,
    ) -> Result<Self, CatalogOpenError> {
        let folder = data_dir.join(FOLDER);
        let path = folder.join(FILE);
        let disk = &environment.disk;
        remove_if_there(&environment, &folder.join(TEMPORARY_FILE))?;
        let inner = match disk.open(&path, OpenMode::Write) {
            Ok(file) => reopen(file, &path, directory)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(evidence) = evidence_of_data(&environment, data_dir)? {
                    return Err(CatalogOpenError::Missing { path, evidence });
                }
                create(&environment, data_dir, &folder, directory)?
            }
            Err(source) => return Err(CatalogOpenError::Io { path, source }),
        };
        // The names too: a crash may have come between the rename and its sync.
        disk.sync_dir(&folder)
            .map_err(CatalogOpenError::io(&folder))?;
        disk.sync_dir(data_dir)
            .map_err(CatalogOpenError::io(data_dir))?;
        Ok(Self {
            environment,
            folder,
            directory,
            inner: Mutex::new(inner),
            proposed: Mutex::default(),
            failed: OnceLock::new(),
            host: OnceLock::new(),
        })
    }

    /// Where reserved space comes from on a full disk, once it is there.
    pub(crate) fn set_host(&self, host: Arc<dyn Host>) {
        if self.host.set(host).is_err() {
            unreachable!("the host is set once, when the store is open");
        }
    }

    /// Looks at the state. What is seen is durable.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.lock().state)
    }

    /// The number that the next frame gets: how many were written since the directory was made.
    pub(crate) fn next_number(&self) -> u64 {
        self.inner.lock().next_number
    }

    /// Why nothing can be proposed any more: the catalog's own failure or another one in its data
    /// directory. Does not block.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        let own = self.failed.get().cloned();
        own.or_else(|| self.host.get()?.read_only())
    }

    /// Decides, writes, syncs and applies one command. Durable when it returns. Commands that are
    /// proposed while another one is being synced share the next sync.
    pub(crate) fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let answer = self.propose_all(vec![command]).pop();
        answer.expect("one answer for one command")
    }

    /// As [`Catalog::propose`], for commands that share one sync. Each has an answer of its own: one that
    /// is rejected does not hinder the others.
    pub(crate) fn propose_all(&self, commands: Vec<Command>) -> Vec<Result<Applied, ProposeError>> {
        let propose = |command| Proposal {
            command,
            answer: Arc::default(),
        };
        let proposals: Vec<_> = commands.into_iter().map(propose).collect();
        let own: Vec<_> = proposals.iter().map(|one| one.answer.clone()).collect();
        // All at once, so that whoever takes one takes all.
        self.proposed.lock().extend(proposals);
        let mut inner = self.inner.lock();
        let is_answered = own.first().is_none_or(|answer| answer.lock().is_some());
        if !is_answered {
            // Nobody took them along, so they are still there: this is the one who takes all.
            let (commands, answers): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.proposed.lock())
                .into_iter()
                .map(|proposal| (proposal.command, proposal.answer))
                .unzip();
            for (to, result) in answers.iter().zip(self.commit(&mut inner, commands)) {
                *to.lock() = Some(result);
            }
        }
        let answers = own.iter().map(|answer| answer.lock().take());
        let answered = answers.map(|answer| answer.expect("every proposal is answered"));
        answered.collect()
    }

    /// One answer for each command. A rejected one does not hinder the others.
    fn commit(
        &self,
        inner: &mut Inner,
        commands: Vec<Command>,
    ) -> Vec<Result<Applied, ProposeError>> {
        if let Some(reason) = self.failed() {
            let refused = ProposeError::Catalog(CatalogError::ReadOnly { reason });
            return commands.iter().map(|_| Err(refused.clone())).collect();
        }
        // Each is decided on what the ones before it would leave; nobody sees that before it is
        // durable.
        let mut next = (commands.len() > 1).then(|| inner.state.clone());
        let mut accepted = Vec::new();
        let mut answers = Vec::new();
        for command in commands {
            let decided = next.as_ref().unwrap_or(&inner.state).decide(&command);
            if decided.is_ok() {
                if let Some(next) = &mut next {
                    next.apply(&command);
                }
                accepted.push(command);
            }
            answers.push(decided.map_err(ProposeError::Rejected));
        }
        if accepted.is_empty() {
            return answers;
        }
        if let Err(e) = self.append(inner, &accepted) {
            let failed = |answer: Result<_, _>| answer.and(Err(ProposeError::Catalog(e.clone())));
            return answers.into_iter().map(failed).collect();
        }
        match next {
            Some(next) => inner.state = next,
            None => accepted
                .iter()
                .for_each(|command| inner.state.apply(command)),
        }
        self.compact_when_due(inner);
        answers
    }

    /// Appends a frame and syncs it.
    fn append(&self, inner: &mut Inner, commands: &[Command]) -> Result<(), CatalogError> {
        let bytes = frame::group_frame(inner.salt, inner.next_number, commands);
        let end = inner.end + bytes.len() as u64;
        if end > inner.allocated {
            // The blocks first: a full disk is found out before anything is written.
            let allocated = end.next_multiple_of(ALLOCATION_BYTES);
            let (file, range) = (inner.file.clone(), inner.allocated..allocated);
            match self.with_ballast(&mut || file.allocate(range.clone())) {
                Ok(()) => inner.allocated = allocated,
                Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                    return Err(CatalogError::NoSpace);
                }
                Err(e) => return Err(self.fail("allocating", &e)),
            }
        }
        if let Err(e) = inner.file.write_at(&[&bytes], inner.end) {
            // Some file systems find no space even for blocks that are there. What was written of
            // the frame must not stand behind a shorter one that comes next.
            let zeros = vec![0; bytes.len()];
            let is_full = e.kind() == io::ErrorKind::StorageFull;
            if is_full && inner.file.write_at(&[&zeros], inner.end).is_ok() {
                return Err(CatalogError::NoSpace);
            }
            return Err(self.fail("writing", &e));
        }
        let synced = inner.file.sync_data();
        synced.map_err(|e| self.fail("syncing", &e))?;
        inner.end = end;
        inner.next_number += 1;
        Ok(())
    }

    fn fail(&self, doing: &str, error: &io::Error) -> CatalogError {
        let reason = self.failed.get_or_init(|| {
            let reason: Arc<str> = format!("{doing} {FILE} failed: {error}").into();
            error!(%reason, "the catalog is read-only until a restart");
            reason
        });
        if let Some(host) = self.host.get() {
            host.failed(reason);
        }
        CatalogError::ReadOnly {
            reason: reason.clone(),
        }
    }

    fn with_ballast(&self, operation: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match self.host.get() {
            Some(host) => host.with_ballast(operation),
            None => operation(),
        }
    }

    /// Replaces the file by a snapshot when the log has grown to several times the snapshot's size.
    fn compact_when_due(&self, inner: &mut Inner) {
        if inner.end < inner.compact_at {
            return;
        }
        let path = self.folder.join(TEMPORARY_FILE);
        let number = inner.next_number - 1;
        match write_new(
            &self.environment,
            &self.folder,
            self.directory,
            number,
            &inner.state,
        ) {
            Ok(new) => {
                info!(
                    bytes_before = inner.end,
                    bytes = new.end,
                    "compacted the catalog"
                );
                *inner = new;
            }
            Err(Replacement::NotMade(e)) => {
                // The old file is as good as it was.
                inner.compact_at = inner.end * 2;
                warn!(error = %e, "could not compact the catalog; its log goes on growing");
                if let Err(e) = remove_if_there(&self.environment, &path) {
                    warn!(error = %e, "could not remove the catalog's temporary file");
                }
            }
            Err(Replacement::Unknown(e)) => {
                // Which of the two files has the name after a power cut is not known, so neither
                // may be appended to.
                self.fail("replacing", &e);
            }
        }
    }
}

fn remove_if_there(environment: &Environment, path: &Path) -> Result<(), CatalogOpenError> {
    match environment.disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CatalogOpenError::io(path)(e)),
        _ => Ok(()),
    }
}

/// What shows that this data directory had a catalog once: the store, which opens after it, makes
/// these.
fn evidence_of_data(
    environment: &Environment,
    data_dir: &Path,
) -> Result<Option<String>, CatalogOpenError> {
    for folder in ["topics", "journal"] {
        let path = data_dir.join(folder);
        match environment.disk.read_dir(&path) {
            Ok(entries) => {
                if let Some(entry) = entries.first() {
                    return Ok(Some(format!("{folder}/{}", entry.name)));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CatalogOpenError::Io { path, source }),
        }
    }
    let entries = environment
        .disk
        .read_dir(data_dir)
        .map_err(CatalogOpenError::io(data_dir))?;
    let known = ["checkpoint", "clean"];
    let found = entries
        .into_iter()
        .find(|entry| known.contains(&entry.name.as_str()));
    Ok(found.map(|entry| format!("a {}", entry.name)))
}

fn create(
    environment: &Environment,
    data_dir: &Path,
    folder: &Path,
    directory: DirectoryId,
) -> Result<Inner, CatalogOpenError> {
    match environment.disk.create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CatalogOpenError::io(folder)(e));
        }
        _ => {}
    }
    environment
        .disk
        .sync_dir(data_dir)
        .map_err(CatalogOpenError::io(data_dir))?;
    write_new(environment, folder, directory, 0, &State::default()).map_err(
        |(Replacement::NotMade(e) | Replacement::Unknown(e))| CatalogOpenError::io(folder)(e),
    )
}

/// How a new file failed to take the old one's place.
enum Replacement {
    /// The old one, if there was one, is untouched.
    NotMade(io::Error),
    /// Either may be there after a power cut.
    Unknown(io::Error),
}

/// Writes a file that begins with a snapshot and puts it in place.
fn write_new(
    environment: &Environment,
    folder: &Path,
    directory: DirectoryId,
    number: u64,
    state: &State,
) -> Result<Inner, Replacement> {
    let disk = &environment.disk;
    let temporary = folder.join(TEMPORARY_FILE);
    let header = frame::Header {
        directory,
        salt: environment.entropy.u64(),
    };
    let snapshot = frame::snapshot_frame(header.salt, number, state);
    let end = (frame::HEADER_BYTES + snapshot.len()) as u64;
    let allocated = end.next_multiple_of(ALLOCATION_BYTES);
    let write = || {
        // A crash may have left one, which counts for nothing.
        match disk.remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(&temporary, OpenMode::CreateNew)?;
        file.allocate(0..allocated)?;
        file.write_at(&[&frame::header(header), &snapshot], 0)?;
        file.sync_data()?;
        Ok(file)
    };
    let file = write().map_err(Replacement::NotMade)?;
    disk.rename(&temporary, &folder.join(FILE))
        .map_err(Replacement::Unknown)?;
    disk.sync_dir(folder).map_err(Replacement::Unknown)?;
    Ok(Inner {
        state: state.clone(),
        file,
        salt: header.salt,
        next_number: number + 1,
        end,
        allocated,
        compact_at: compaction_due(snapshot.len()),
    })
}

fn compaction_due(snapshot_bytes: usize) -> u64 {
    COMPACTION_BYTES_MIN.max(4 * snapshot_bytes as u64)
}

fn reopen(
    file: Arc<dyn File>,
    path: &Path,
    directory: DirectoryId,
) -> Result<Inner, CatalogOpenError> {
    let io = |e| CatalogOpenError::io(path)(e);
    let allocated = file.len().map_err(io)?;
    let length = usize::try_from(allocated).map_err(|e| io(io::Error::other(e)))?;
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, 0).map_err(io)?;
    bytes.truncate(read);
    let damaged = |what: String| CatalogOpenError::Damaged {
        path: path.to_owned(),
        what,
    };
    let contents = match frame::read(&bytes, directory) {
        Ok(contents) => contents,
        Err(FrameError::Newer { found }) => {
            return Err(CatalogOpenError::Newer {
                path: path.to_owned(),
                found,
            });
        }
        Err(e) => return Err(damaged(e.to_string())),
    };
    let Contents {
        header,
        state,
        next_number,
        end,
        snapshot_bytes,
        torn,
    } = contents;
    if let Some(torn) = torn {
        warn!(
            position = torn.start,
            bytes = torn.len(),
            "cut an unfinished record off the catalog; nobody was told that it was done"
        );
        bytes[torn].fill(0);
    }
    file.write_at(&[&bytes], 0).map_err(io)?;
    file.sync_data().map_err(io)?;
    Ok(Inner {
        state,
        file,
        salt: header.salt,
        next_number,
        end: end as u64,
        allocated,
        compact_at: compaction_due(snapshot_bytes),
    })
}
