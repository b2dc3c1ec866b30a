//! Replay of a partition, from its log start, in bounded memory.

use std::sync::Arc;

use sapwood_log::{Partition, Read, ReadError, ReadLimits, ReadMode};
use sapwood_model::{Offset, PartitionId, TopicName};
use sapwood_record::{Batch, BatchError, batches};
use tracing::warn;

use super::{Decoded, Fault, Machine, host::Shared};

/// How much is read at once; a larger batch is read whole.
const READ_BYTES: usize = 1 << 20;

/// Why a partition was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The broker closes.
    #[error("the broker is shutting down")]
    Stopped,
    /// What was appended before is not durable, and will not be.
    #[error("what is below offset {offset} did not become durable")]
    Lost {
        /// The log end.
        offset: Offset,
    },
    /// The log could not be read.
    #[error("could not read at offset {offset}: {source}")]
    Read {
        /// Where.
        offset: Offset,
        /// Why not.
        source: ReadError,
    },
    /// A batch is damaged.
    #[error("the batch at offset {offset} is damaged: {source}")]
    Batch {
        /// Its first offset.
        offset: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A record is damaged.
    #[error("the record at offset {offset} is damaged: {source}")]
    Record {
        /// Its offset.
        offset: Offset,
        /// What is wrong with it.
        source: Fault,
    },
}

/// What is replayed.
pub(super) struct Replay {
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
    pub(super) log: Arc<Partition>,
    pub(super) decompressed_bytes_max: usize,
    pub(super) shared: Arc<Shared>,
}

impl Replay {
    /// Applies every record from the log start to `end`, which is durable, and gives the machine
    /// back. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub(super) fn run<M: Machine>(&self, mut machine: M, end: Offset) -> Result<M, LoadError> {
        let mut from = self.log.bounds().log_start;
        self.shared.replaying(from, end);
        let mut unknown = Unknown::default();
        while from < end {
            if self.shared.is_stopped() {
                return Err(LoadError::Stopped);
            }
            let limits = ReadLimits {
                bytes_max: READ_BYTES,
                upto: end,
            };
            let read = self.log.read(from, limits, ReadMode::Blocking);
            let (bytes, next) = match read {
                Ok(Read::Batches { bytes, next }) => (bytes, next),
                Ok(Read::Cold) => unreachable!("a read that may wait is never cold"),
                Err(ReadError::Closed) => return Err(LoadError::Stopped),
                Err(source) => {
                    let offset = from;
                    return Err(LoadError::Read { offset, source });
                }
            };
            for batch in batches(bytes) {
                let offset = from;
                let batch = batch.map_err(|source| LoadError::Batch { offset, source })?;
                self.apply(&batch, &mut machine, &mut unknown)?;
            }
            assert!(next > from, "a read below the high watermark goes on");
            from = next;
            self.shared.replayed(from);
        }
        unknown.warn(self);
        Ok(machine)
    }

    fn apply<M: Machine>(
        &self,
        batch: &Batch,
        machine: &mut M,
        unknown: &mut Unknown,
    ) -> Result<(), LoadError> {
        let header = batch.header();
        if header.is_control() {
            return Ok(());
        }
        let damaged = |source| LoadError::Batch {
            offset: header.base_offset(),
            source,
        };
        batch.verify_crc().map_err(damaged)?;
        for record in batch
            .records(self.decompressed_bytes_max)
            .map_err(damaged)?
        {
            let record = record.map_err(damaged)?;
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            match M::decode(key, value, record.timestamp) {
                Ok(Decoded::Record(record)) => machine.apply(record),
                Ok(Decoded::Obsolete) => {}
                Ok(Decoded::Unknown { key }) => unknown.note(key, record.offset),
                Err(source) => {
                    let offset = record.offset;
                    return Err(LoadError::Record { offset, source });
                }
            }
        }
        Ok(())
    }
}

/// Records that only a newer version understands.
#[derive(Debug, Default)]
struct Unknown {
    count: u64,
    first: Option<(i16, Offset)>,
}

impl Unknown {
    fn note(&mut self, key: i16, offset: Offset) {
        self.count += 1;
        self.first.get_or_insert((key, offset));
    }

    fn warn(&self, replay: &Replay) {
        if let Some((key, offset)) = self.first {
            warn!(
                topic = %replay.topic, partition = %replay.partition, %offset, key,
                count = self.count, "passed over records of kinds that are not known"
            );
        }
    }
}
