//! Disks that are full or damaged.

use std::path::{Path, PathBuf};

use sapwood_log::io::Disk;
use sapwood_log::{DataDir, PartitionState, Progress, Store};
use sapwood_sim::PAGE_BYTES;

use crate::model::{LogBatch, PartitionModel};
use crate::world::{DATA, Outcome, World, read_all_unchecked};

impl World {
    /// Leaves room for this many pages, and lets calls fail from now on as a full disk may make them.
    pub(crate) fn fill_disk(&mut self, pages: u64) -> Outcome {
        let space = self
            .machine
            .disk
            .space(Path::new(DATA))
            .map_err(|error| error.to_string())?;
        let used = space.total_bytes - space.free_bytes;
        self.machine
            .disk
            .set_capacity(Some(used + pages * PAGE_BYTES));
        self.faulty = true;
        self.refused = 0;
        Ok(())
    }

    /// A full disk takes nothing offline and nothing read-only, and a topic can be deleted. Returns how
    /// many appends it refused.
    pub(crate) fn check_full(&mut self) -> Outcome<u64> {
        if let Some(reason) = self.store()?.read_only() {
            return Err(format!(
                "a full disk made the data directory read-only: {reason}"
            ));
        }
        for (key, partition) in &self.partitions {
            if let PartitionState::Offline { reason } = partition.state() {
                return Err(format!("a full disk took {key:?} offline: {reason}"));
            }
        }
        let topic = self.model.names.keys().next().copied().ok_or("no topics")?;
        self.faulty = false;
        self.delete_topic(topic)?;
        Ok(self.refused)
    }

    /// Opens after a byte of this file was changed. `None` if the start is refused, which must not be
    /// for one partition's sake; else how many partitions are offline. What is online has everything.
    pub(crate) fn open_damaged(&mut self, path: &Path) -> Outcome<Option<usize>> {
        let in_topics = path.starts_with(Path::new(DATA).join("topics"));
        let dir = DataDir::open(self.machine.environment(), Path::new(DATA));
        let opened = dir.and_then(|dir| {
            Store::open(
                dir,
                self.options(),
                self.model.known(),
                &Progress::default(),
            )
        });
        let (store, report) = match opened {
            Ok(opened) => opened,
            Err(error) if in_topics => return Err(format!("the store does not open: {error}")),
            Err(_) => return Ok(None),
        };
        let mut offline = 0;
        for (key, model) in &self.model.partitions {
            let partition = store
                .partition(key.0, key.1)
                .ok_or_else(|| format!("{key:?} is not there"))?;
            let found = read_all_unchecked(&partition);
            let state = partition.state();
            let is_its_file = path.starts_with(partition_folder(model));
            match (found, state) {
                (_, PartitionState::Offline { reason }) if in_topics && !is_its_file => {
                    return Err(format!("{key:?} is offline too: {reason}"));
                }
                (_, PartitionState::Offline { reason }) => {
                    if !reason.to_string().contains(DATA) {
                        return Err(format!("{key:?} is offline and names no file: {reason}"));
                    }
                    offline += 1;
                }
                (Err(error), PartitionState::Online) => return Err(format!("{key:?}: {error}")),
                // The client sees from the checksum that a batch was changed where it lay.
                (Ok(found), _) if !found.iter().all(LogBatch::is_intact) => {}
                (Ok(found), PartitionState::Online) => {
                    let end = partition.bounds().log_end;
                    model
                        .check(&found, end)
                        .map_err(|error| format!("{key:?}: {error}; {report:?}"))?;
                }
            }
        }
        Ok(Some(offline))
    }
}

pub(crate) fn partition_folder(model: &PartitionModel) -> PathBuf {
    let name = format!("{}-{}", model.spec.topic, model.spec.partition);
    Path::new(DATA).join("topics").join(name)
}
