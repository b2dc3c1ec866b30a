//! The checkpoint: how far each partition is safe in its own segments, and which round of the
//! journal is the first that is still needed. docs/format.md has the byte table.

use std::{collections::BTreeMap, path::Path};

use sapwood_model::{LeaderEpoch, Offset, PartitionId, TopicId};

use crate::{
    framed::{self, FramedError},
    io::Disk,
    store::OpenError,
};

pub(crate) const KIND: framed::Kind = framed::Kind {
    magic: *b"SWCP",
    version: 1,
};

/// Which partition, for everything that outlives a topic's name.
pub(crate) type PartitionKey = (TopicId, PartitionId);

/// What recovery starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The boot in which it was written. A partition without an entry was created in this boot.
    pub(crate) boot_id: String,
    /// The first round that is needed. Taken before the partitions' ends were.
    pub(crate) first_round: u64,
    /// A journal file of this generation or a later one exists.
    pub(crate) generation: u64,
    pub(crate) partitions: BTreeMap<PartitionKey, PartitionCheckpoint>,
}

/// One partition's part of a [`Checkpoint`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartitionCheckpoint {
    /// The boot in which this part was taken; older than the checkpoint's for a partition that has
    /// been offline since.
    pub(crate) boot_id: String,
    /// Everything below is synced in its segments.
    pub(crate) end: Offset,
    /// Where `end` is: the base offset of its segment, and the position in its file.
    pub(crate) segment: Offset,
    pub(crate) position: u64,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Entries of that segment's indexes that are synced.
    pub(crate) index_entries: u64,
    pub(crate) time_index_entries: u64,
    /// `ProducerTable::encode` and `EpochList::encode` as of `end`.
    pub(crate) producers: Vec<u8>,
    pub(crate) epochs: Vec<u8>,
    /// Files of journal entries that were copied aside while the partition was offline, oldest first.
    pub(crate) aside: Vec<String>,
}

impl Checkpoint {
    /// Reads and checks it. `None` when there is none.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, OpenError> {
        let payload = match framed::read(disk, path, KIND) {
            Ok(payload) => payload,
            Err(FramedError::Missing) => return Ok(None),
            Err(FramedError::Io(e)) => return Err(OpenError::io(path)(e)),
            Err(e) => return Err(OpenError::damaged(path, e)),
        };
        match Self::decode(&payload) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(OpenError::damaged(path, "its entries are cut")),
        }
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.boot_id.as_bytes());
        put_u64(&mut out, self.first_round);
        put_u64(&mut out, self.generation);
        put_u64(&mut out, self.partitions.len() as u64);
        for ((topic, partition), entry) in &self.partitions {
            out.extend_from_slice(&topic.0.to_be_bytes());
            put_u64(&mut out, u64::from(partition.0));
            put_bytes(&mut out, entry.boot_id.as_bytes());
            put_u64(&mut out, entry.end.0);
            put_u64(&mut out, entry.segment.0);
            put_u64(&mut out, entry.position);
            put_u64(&mut out, u64::from(entry.leader_epoch.0));
            put_u64(&mut out, entry.index_entries);
            put_u64(&mut out, entry.time_index_entries);
            put_bytes(&mut out, &entry.producers);
            put_bytes(&mut out, &entry.epochs);
            put_u64(&mut out, entry.aside.len() as u64);
            for name in &entry.aside {
                put_bytes(&mut out, name.as_bytes());
            }
        }
        framed::encode(KIND, &out)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut from = Reader(payload);
        let mut checkpoint = Self {
            boot_id: from.string()?,
            first_round: from.u64()?,
            generation: from.u64()?,
            partitions: BTreeMap::new(),
        };
        for _ in 0..from.u64()? {
            let topic = TopicId(u128::from_be_bytes(from.take(16)?.try_into().ok()?));
            let partition = PartitionId(from.u32()?);
            let mut entry = PartitionCheckpoint {
                boot_id: from.string()?,
                end: Offset(from.u64()?),
                segment: Offset(from.u64()?),
                position: from.u64()?,
                leader_epoch: LeaderEpoch(from.u32()?),
                index_entries: from.u64()?,
                time_index_entries: from.u64()?,
                producers: from.bytes()?.to_vec(),
                epochs: from.bytes()?.to_vec(),
                aside: Vec::new(),
            };
            for _ in 0..from.u64()? {
                entry.aside.push(from.string()?);
            }
            checkpoint.partitions.insert((topic, partition), entry);
        }
        from.0.is_empty().then_some(checkpoint)
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.take(length)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_back_and_a_cut_one_is_refused() {
        let entry = PartitionCheckpoint {
            boot_id: "boot".into(),
            end: Offset(9),
            segment: Offset(4),
            position: 100,
            leader_epoch: LeaderEpoch(2),
            index_entries: 3,
            time_index_entries: 1,
            producers: vec![1, 2],
            epochs: vec![3],
            aside: vec!["a".into(), "b".into()],
        };
        let checkpoint = Checkpoint {
            boot_id: "boot".into(),
            first_round: 7,
            generation: 5,
            partitions: [((TopicId(1), PartitionId(0)), entry)].into(),
        };
        let bytes = checkpoint.encode();
        let payload = framed::decode(KIND, &bytes).unwrap();
        assert_eq!(Checkpoint::decode(payload), Some(checkpoint));
        for cut in 0..payload.len() {
            assert_eq!(Checkpoint::decode(&payload[..cut]), None);
        }
    }
}
