//! What a checkpoint takes from a partition.

use std::{io, sync::Arc};

use sapwood_model::{LeaderEpoch, Offset};

use crate::{epochs::EpochList, io::File, partition::Partition};

/// A partition as it was at one moment, for a checkpoint. Nothing in it is durable yet.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The log's end.
    pub(crate) end: Offset,
    /// The base offset of the active segment.
    pub(crate) segment: Offset,
    /// Where its last batch ends.
    pub(crate) position: u64,
    pub(crate) leader_epoch: LeaderEpoch,
    /// `ProducerTable::encode`.
    pub(crate) producers: Vec<u8>,
    pub(crate) epochs: EpochList,
    /// Entries of the active segment's `.index` file that belong to the cut.
    pub(crate) index_entries: u64,
    /// The same for its `.timeindex` file.
    pub(crate) time_index_entries: u64,
    files: Vec<Arc<dyn File>>,
    partition: Arc<Partition>,
}

impl Cut {
    /// Seals what waits for it below the cut, and writes the active segment's index entries.
    pub(crate) fn write_indexes(&mut self) -> io::Result<()> {
        todo!()
    }

    /// The files to sync before the checkpoint that holds this cut is written.
    pub(crate) fn files(&self) -> &[Arc<dyn File>] {
        &self.files
    }
}
