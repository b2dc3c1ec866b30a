//! Putting the folders of partitions in order before anything in them is read.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use sapwood_model::LeaderEpoch;
use tracing::{error, info};

use crate::{
    checkpoint::PartitionKey,
    framed::TEMPORARY_SUFFIX,
    io::{Disk, Environment, OpenMode, is_of_the_device},
    names,
    partition::PartitionSpec,
    store::{Known, OpenError, QUARANTINE, TOPICS},
};

/// A folder that is being made; nothing in it is needed yet.
pub(crate) const NEW_SUFFIX: &str = ".new";
/// A folder that is being removed.
pub(crate) const DELETE_SUFFIX: &str = "-delete";
const METADATA_BYTES_MAX: usize = 4096;

/// What the folders say about known partitions.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// What is wrong with a folder, by its name.
    pub(super) problems: HashMap<String, String>,
    /// The leader epoch that a partition began with, by the folder's name.
    pub(super) epochs: HashMap<String, LeaderEpoch>,
    /// The device did not say whose a folder is that no known partition has: it was left where it is, and
    /// may be that of a deleted topic.
    pub(super) has_unread: bool,
}

/// Finishes deletions, removes what was left half made, and sets folders aside that no topic
/// accounts for. Nothing with a known partition's name is ever removed.
pub(super) fn sweep(
    environment: &Environment,
    root: &Path,
    known: &Known,
) -> Result<Swept, OpenError> {
    let disk = &*environment.disk;
    let topics = root.join(TOPICS);
    let expected: HashMap<String, PartitionKey> = known
        .partitions
        .iter()
        .map(|spec| (folder_of(spec), (spec.topic_id, spec.partition)))
        .collect();
    let mut problems = HashMap::new();
    let mut epochs = HashMap::new();
    let mut has_unread = false;
    let mut deleted = Vec::new();
    for entry in disk.read_dir(&topics).map_err(OpenError::io(&topics))? {
        let path = topics.join(&entry.name);
        let half = entry.name.ends_with(DELETE_SUFFIX) || entry.name.ends_with(NEW_SUFFIX);
        // A topic may be called x-delete: its folder is x-delete-0, so a suffix is never a topic's.
        if half {
            deleted.push(path);
            continue;
        }
        let metadata = match read_metadata(disk, &path) {
            // One bad sector must not stop the others. Nobody's folder is set aside, as ever.
            Err(e) if is_of_the_device(&e) && expected.contains_key(&entry.name) => {
                problems.insert(entry.name, format!("{}: {e}", names::METADATA_FILE));
                continue;
            }
            Err(e) if is_of_the_device(&e) => {
                error!(folder = %entry.name, error = %e,
                    "cannot read whose folder this is; left for the next start");
                has_unread = true;
                continue;
            }
            found => found.map_err(OpenError::io(&path))?,
        };
        let found = metadata.map(|metadata| metadata.topic_id);
        let number = metadata.and_then(|metadata| metadata.partition);
        match (found, expected.get(&entry.name)) {
            (Some(found), Some((id, expected))) if found == *id => {
                if let Some(number) = number.filter(|number| number != expected) {
                    let problem = format!("it is the folder of partition {number}");
                    problems.insert(entry.name, problem);
                } else if let Some(epoch) = metadata.and_then(|metadata| metadata.epoch) {
                    epochs.insert(entry.name, epoch);
                }
            }
            (Some(found), _) if known.deleted.contains(&found) => {
                let marked = topics.join(format!("{}.{found}{DELETE_SUFFIX}", entry.name));
                remove_tree(disk, &marked).map_err(OpenError::io(&marked))?;
                disk.rename(&path, &marked).map_err(OpenError::io(&path))?;
                deleted.push(marked);
                info!(folder = %entry.name, "finished a deletion");
            }
            (None, Some(_)) => {
                let problem = format!("{} is missing or unreadable", names::METADATA_FILE);
                problems.insert(entry.name, problem);
            }
            (Some(found), Some((id, _))) => {
                let problem = format!("its topic id is {found}; the catalog says {id}");
                problems.insert(entry.name, problem);
            }
            (_, None) => {
                let to = free_name(disk, &root.join(QUARANTINE), &entry.name)
                    .map_err(OpenError::io(&path))?;
                disk.rename(&path, &to).map_err(OpenError::io(&path))?;
                error!(folder = %entry.name, moved_to = %to.display(),
                    "no topic accounts for this folder; set aside");
            }
        }
    }
    if !deleted.is_empty() {
        // The names first: a power cut must not bring an old name back after its files are gone.
        disk.sync_dir(&topics).map_err(OpenError::io(&topics))?;
    }
    for folder in &deleted {
        remove_tree(disk, folder).map_err(OpenError::io(folder))?;
    }
    Ok(Swept {
        problems,
        epochs,
        has_unread,
    })
}

/// Makes a partition's folder under a temporary name, which [`publish`] changes into its own. `epoch`: the
/// leader epoch that it begins with.
pub(crate) fn make(
    disk: &dyn Disk,
    topics: &Path,
    spec: &PartitionSpec,
    epoch: LeaderEpoch,
    sync: bool,
) -> io::Result<()> {
    let temporary = topics.join(format!("{}{NEW_SUFFIX}", folder_of(spec)));
    match disk.create_dir(&temporary) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            remove_tree(disk, &temporary)?;
            disk.create_dir(&temporary)?;
        }
        made => made?,
    }
    let metadata = disk.open(&temporary.join(names::METADATA_FILE), OpenMode::CreateNew)?;
    let text = names::metadata_text(spec.topic_id, spec.partition, Some(epoch));
    metadata.write_at(&[text.as_bytes()], 0)?;
    if sync {
        metadata.sync_data()?;
        disk.sync_dir(&temporary)?;
    }
    Ok(())
}

/// Gives a folder made by [`make`] its name. Nothing of this store uses that name: what stands there
/// was left by a creation or a deletion that failed half-way.
pub(crate) fn publish(disk: &dyn Disk, root: &Path, spec: &PartitionSpec) -> io::Result<()> {
    let name = folder_of(spec);
    let folder = root.join(TOPICS).join(&name);
    let temporary = root.join(TOPICS).join(format!("{name}{NEW_SUFFIX}"));
    match disk.rename(&temporary, &folder) {
        Err(e) if is_taken(&e) => {}
        renamed => return renamed,
    }
    let found = read_metadata(disk, &folder)?;
    if found.is_some_and(|found| found.topic_id == spec.topic_id) {
        // An earlier try of this creation; nothing was appended to it.
        remove_tree(disk, &folder)?;
    } else {
        let to = free_name(disk, &root.join(QUARANTINE), &name)?;
        disk.rename(&folder, &to)?;
        error!(folder = %name, moved_to = %to.display(), "a folder stood in the way; set aside");
    }
    disk.rename(&temporary, &folder)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

/// The name of a partition's folder.
pub(crate) fn folder_of(spec: &PartitionSpec) -> String {
    names::folder_name(&spec.topic, spec.partition)
}

/// Removes a folder and everything in it. What is not there is removed already.
pub(crate) fn remove_tree(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let entries = match disk.read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let inner = path.join(&entry.name);
        match entry.is_dir {
            true => remove_tree(disk, &inner)?,
            false => disk.remove_file(&inner)?,
        }
    }
    disk.remove_dir(path)
}

/// Removes the temporary files that an interrupted write left in a partition's folder.
pub(super) fn remove_temporary(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for entry in disk.read_dir(folder)? {
        if entry.name.ends_with(TEMPORARY_SUFFIX) {
            disk.remove_file(&folder.join(entry.name))?;
        }
    }
    Ok(())
}

fn read_metadata(disk: &dyn Disk, folder: &Path) -> io::Result<Option<names::Metadata>> {
    let file = match disk.open(&folder.join(names::METADATA_FILE), OpenMode::Read) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        file => file?,
    };
    let mut text = vec![0; METADATA_BYTES_MAX];
    let read = file.read_at(&mut text, 0)?;
    Ok(std::str::from_utf8(&text[..read])
        .ok()
        .and_then(names::parse_metadata))
}

fn free_name(disk: &dyn Disk, folder: &Path, name: &str) -> io::Result<PathBuf> {
    let taken = disk.read_dir(folder)?;
    let is_free = |name: &String| taken.iter().all(|entry| entry.name != *name);
    let numbered = (1..).map(|number| format!("{name}.{number}"));
    let free = std::iter::once(name.to_owned())
        .chain(numbered)
        .find(is_free);
    Ok(folder.join(free.expect("a folder holds fewer names than there are numbers")))
}
