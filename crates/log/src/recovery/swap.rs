//! Finishing what compaction had begun: a segment that was written, synced and given the name that says which
//! offsets it is for takes the place of those that are still there.

use std::{io, path::Path};

use tracing::info;

use crate::{io::Disk, names};

/// Durable when it returns. A crash in here leaves the same to do.
pub(super) fn finish(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let entries = disk.read_dir(folder)?;
    let swaps = entries
        .iter()
        .filter_map(|entry| Some((&entry.name, names::parse_swap_file_name(&entry.name)?)));
    for (name, offsets) in swaps {
        for entry in &entries {
            let is_first = entry.name == names::snapshot_file_name(offsets.start);
            if !is_first && names::base_of(&entry.name).is_some_and(|base| offsets.contains(&base))
            {
                disk.remove_file(&folder.join(&entry.name))?;
            }
        }
        // First of all: it must not stand beside one that it replaces.
        disk.sync_dir(folder)?;
        let segment = folder.join(names::segment_file_name(offsets.start));
        disk.rename(&folder.join(name), &segment)?;
        disk.sync_dir(folder)?;
        info!(path = %segment.display(), "finished a compaction");
    }
    Ok(())
}
