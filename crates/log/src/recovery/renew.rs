//! Making names anew that can be seen but may not be durable.
//!
//! A directory whose sync failed shows names that never reached the disk, and its next sync succeeds
//! without writing them. Nobody can tell these names from durable ones. So after every unclean stop
//! each name that no good checkpoint covers is given up and given again, and synced.

use std::{collections::HashMap, io, path::Path};

use sapwood_model::Offset;

use super::{DELETE_SUFFIX, Input, folder_of, folders::NEW_SUFFIX};
use crate::{
    framed::TEMPORARY_SUFFIX,
    io::{Disk, is_of_the_device},
    store::{ASIDE, JOURNAL, OpenError, TOPICS},
};

/// What a name carries for the moment in which it is given up.
const AGAIN_SUFFIX: &str = ".again";

/// Above this many folders, one sync of the file system replaces one of each.
const SINGLE_SYNCS_MAX: usize = 64;

/// Renews the names of journal files, copies aside, partition folders, and the files in those from the
/// checkpoint's segment on. Durable when it returns, but for partitions whose folders the device does
/// not give: what is wrong with these is returned, by folder name. Blocks.
pub(super) fn renew(input: &Input<'_>) -> Result<HashMap<String, String>, OpenError> {
    let mut problems = HashMap::new();
    let disk = &*input.environment.disk;
    let topics = input.root.join(TOPICS);
    let mut folders = vec![input.root.join(JOURNAL), input.root.join(ASIDE)];
    for folder in &folders {
        renew_in(disk, folder, |_| true).map_err(OpenError::io(folder))?;
    }
    let is_topic = |name: &str| !name.ends_with(NEW_SUFFIX) && !name.ends_with(DELETE_SUFFIX);
    renew_in(disk, &topics, is_topic).map_err(OpenError::io(&topics))?;
    for spec in &input.known.partitions {
        let name = folder_of(spec);
        let folder = topics.join(&name);
        let entry = input
            .checkpoint
            .partitions
            .get(&(spec.topic_id, spec.partition));
        if entry.is_none() {
            let made_as = topics.join(format!("{name}{NEW_SUFFIX}"));
            give_up(disk, &made_as).map_err(OpenError::io(&made_as))?;
        }
        let from = entry.map_or(Offset::ZERO, |entry| entry.segment);
        match renew_in(disk, &folder, |name| is_from(name, from)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // it will be made
            Err(e) if is_of_the_device(&e) => {
                problems.insert(name, e.to_string());
                continue;
            }
            renewed => renewed.map_err(OpenError::io(&folder))?,
        }
        folders.push(folder);
    }
    folders.push(topics);
    if folders.len() > SINGLE_SYNCS_MAX {
        let synced = disk.sync_filesystem(input.root);
        return synced.map(|()| problems).map_err(OpenError::io(input.root));
    }
    for folder in folders {
        disk.sync_dir(&folder).map_err(OpenError::io(&folder))?;
    }
    Ok(problems)
}

fn renew_in(disk: &dyn Disk, folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in disk.read_dir(folder)? {
        let path = folder.join(&entry.name);
        if let Some(name) = entry.name.strip_suffix(AGAIN_SUFFIX) {
            // A crash came between the two renames below.
            disk.rename(&path, &folder.join(name))?;
        } else if wanted(&entry.name) && !entry.name.ends_with(TEMPORARY_SUFFIX) {
            let away = folder.join(format!("{}{AGAIN_SUFFIX}", entry.name));
            disk.rename(&path, &away)?;
            disk.rename(&away, &path)?;
        }
    }
    Ok(())
}

/// Gives a name up that nobody can see any more. When the sync failed that was to make a rename durable,
/// the device may still hold the old name, and beside the one that is given anew it would be a second
/// name of the same folder: the sweep after the next power cut would empty it.
fn give_up(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.create_dir(path) {
        // It can be seen: the sweep deals with it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    disk.remove_dir(path)
}

/// Whether a file of a partition belongs to no segment below `from`.
fn is_from(name: &str, from: Offset) -> bool {
    let base = name
        .split_once('.')
        .and_then(|(base, _)| base.parse::<u64>().ok());
    base.is_none_or(|base| Offset(base) >= from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_earlier_segments_are_left_alone() {
        let from = Offset(100);
        assert!(is_from("00000000000000000100.log", from));
        assert!(is_from("00000000000000000250.timeindex", from));
        assert!(is_from("partition.metadata", from));
        assert!(is_from("leader-epoch-checkpoint", from));
        assert!(!is_from("00000000000000000099.index", from));
    }
}
