//! The batches at hand, taken apart record by record as they are asked for.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use sapwood_model::{Code, Offset, PartitionId};
use sapwood_record::{BatchError, Batches, Records, batches};

use crate::{Error, Message};

/// What one batch may unfold to. Brokers and producers have limits far below it.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// A run of batches of one partition.
pub(super) struct Current {
    pub(super) tag: u64,
    /// Their size: the credit that they took.
    pub(super) bytes: usize,
    /// The next offset that is wanted.
    pub(super) position: Offset,
    topic: Arc<str>,
    partition: PartitionId,
    /// The first offset that is not wanted.
    end: Offset,
    batches: Batches,
    records: Option<Records>,
}

impl Current {
    /// The records of `batches` with offsets in `wanted`.
    pub(super) fn new(
        tag: u64,
        topic: Arc<str>,
        partition: PartitionId,
        wanted: Range<Offset>,
        run: Bytes,
    ) -> Self {
        Self {
            tag,
            bytes: run.len(),
            position: wanted.start,
            topic,
            partition,
            end: wanted.end,
            batches: batches(run),
            records: None,
        }
    }

    /// The next message; `None` at the end, where `position` is the end. Nothing comes behind an
    /// error.
    pub(super) fn next(&mut self) -> Option<Result<Message, Error>> {
        match self.advance() {
            Ok(Some(message)) => Some(Ok(message)),
            Ok(None) => {
                self.position = self.position.max(self.end);
                None
            }
            Err(error) => {
                let code = error.code();
                let message = format!(
                    "{}/{} at {}: {error}",
                    self.topic, self.partition, self.position
                );
                let code = if code == Code::Internal {
                    code
                } else {
                    Code::CorruptBatch
                };
                Some(Err(
                    Error::local(code, message).about(&self.topic, self.partition.0)
                ))
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Message>, BatchError> {
        loop {
            if let Some(records) = &mut self.records {
                for record in records {
                    let record = record?;
                    if record.offset < self.position {
                        continue;
                    }
                    if record.offset >= self.end {
                        return Ok(None);
                    }
                    self.position = record.offset.add(1);
                    return Ok(Some(Message {
                        topic: Arc::clone(&self.topic),
                        partition: self.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                self.records = None;
            }
            let Some(batch) = self.batches.next() else {
                return Ok(None);
            };
            let batch = batch?;
            if batch.header().is_control() || batch.header().next_offset() <= self.position {
                continue;
            }
            batch.verify_crc()?;
            self.records = Some(batch.records(DECOMPRESSED_BYTES_MAX)?);
        }
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sapwood_model::Timestamp;
    use sapwood_record::{BatchBuilder, Codec, RecordInput};

    use super::*;

    /// Batches of 3 records each from offset 10 on.
    fn run(count: u64, codec: Codec) -> Bytes {
        let mut bytes = Vec::new();
        for n in 0..count {
            let mut builder = BatchBuilder::new(codec);
            for value in [b"a", b"b", b"c"] {
                let input = RecordInput {
                    timestamp: Timestamp(5),
                    key: None,
                    value: Some(value),
                    headers: &[],
                };
                builder.push(input).unwrap();
            }
            let mut batch = builder.build().unwrap();
            batch.header_mut().set_base_offset(Offset(10 + 3 * n));
            bytes.extend_from_slice(&batch.to_bytes());
        }
        bytes.into()
    }

    fn current(wanted: Range<u64>, run: Bytes) -> Current {
        let wanted = Offset(wanted.start)..Offset(wanted.end);
        Current::new(0, "t".into(), PartitionId(2), wanted, run)
    }

    fn offsets(current: &mut Current) -> Vec<u64> {
        std::iter::from_fn(|| current.next())
            .map(|next| next.unwrap().offset.0)
            .collect()
    }

    #[test]
    fn only_wanted_offsets_come_out_and_the_position_follows() {
        for codec in [Codec::None, Codec::Zstd] {
            let mut current = current(11..18, run(3, codec));
            assert_eq!(current.next().unwrap().unwrap().offset, Offset(11));
            assert_eq!(current.position, Offset(12));
            assert_eq!(offsets(&mut current), [12, 13, 14, 15, 16, 17]);
            assert_eq!(current.position, Offset(18));
        }
    }

    #[test]
    fn the_position_passes_offsets_that_no_record_has() {
        // As after compaction: the run ends at 20, its last record is 18.
        let mut current = current(10..20, run(3, Codec::None));
        assert_eq!(offsets(&mut current).len(), 9);
        assert_eq!(current.position, Offset(20));
    }

    #[test]
    fn a_damaged_batch_is_an_error_that_names_the_partition_and_keeps_the_position() {
        let mut bytes = run(2, Codec::None).to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let mut current = current(10..16, bytes.into());
        let mut seen = 0;
        let error = loop {
            match current.next().unwrap() {
                Ok(_) => seen += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((seen, error.code()), (3, Code::CorruptBatch));
        assert_eq!(error.field("partition"), Some("2"));
        assert_eq!(current.position, Offset(13));
    }
}
