//! Between the protocol's messages and this crate's types.

use std::sync::Arc;

use sapwood_model::{Acks, Code, Durability, LeaderEpoch, Offset, PartitionId, Timestamp};
use sapwood_record::{Codec, RecordHeader};
use sapwood_rpc::v1;

use super::{
    Appended, ConfigEntry, Partition, Topic,
    storage::{compaction_from, next_removal_from},
};
use crate::{Error, Message, Record};

pub(super) fn empty_answer() -> Error {
    Error::local(
        Code::Internal,
        "the broker's answer lacks a field that this client needs",
    )
}

pub(super) fn topic_from(topic: Option<v1::Topic>) -> Topic {
    let topic = topic.unwrap_or_default();
    Topic {
        name: topic.name,
        id: topic.id,
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        durability: match topic.durability.as_str() {
            "os" => Durability::Os,
            _ => Durability::Fsync,
        },
        created_at: Timestamp(topic.created_at_ms),
    }
}

pub(super) fn partition_from(partition: v1::Partition) -> Partition {
    Partition {
        partition: PartitionId(partition.partition),
        bounds: partition.bounds.unwrap_or_default().into(),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        size_bytes: partition.size_bytes,
        segments: partition.segments,
        offline: partition.offline.map(Error::from),
        next_removal: partition.next_removal.map(next_removal_from),
        compaction: partition.compaction.map(compaction_from),
    }
}

pub(super) fn config_from(entry: v1::ConfigEntry) -> ConfigEntry {
    ConfigEntry {
        key: entry.key,
        value: entry.value,
        default_value: entry.default_value,
        source: entry.source,
        read_only: entry.read_only,
    }
}

pub(super) fn appended_from(produced: v1::Produced) -> Appended {
    Appended {
        base_offset: Offset(produced.base_offset),
        last_offset: Offset(produced.last_offset),
        log_start: Offset(produced.log_start_offset),
    }
}

pub(super) fn message_from(
    topic: &Arc<str>,
    partition: PartitionId,
    record: v1::Record,
) -> Message {
    Message {
        topic: Arc::clone(topic),
        partition,
        offset: Offset(record.offset),
        timestamp: record.timestamp_ms.map_or(Timestamp::NONE, Timestamp),
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| RecordHeader {
                key: header.name.into_bytes().into(),
                value: header.value,
            })
            .collect(),
    }
}

pub(super) fn record_into(record: Record) -> v1::Record {
    v1::Record {
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| v1::Header {
                name: String::from_utf8_lossy(&header.key).into_owned(),
                value: header.value,
            })
            .collect(),
        timestamp_ms: record.timestamp.map(|timestamp| timestamp.0),
        offset: 0,
    }
}

pub(crate) fn acks_into(acks: Acks) -> v1::Acks {
    match acks {
        Acks::None => v1::Acks::None,
        Acks::Leader => v1::Acks::Leader,
        Acks::All => v1::Acks::All,
    }
}

pub(super) fn compression_into(codec: Codec) -> v1::Compression {
    match codec {
        Codec::None => v1::Compression::None,
        Codec::Gzip => v1::Compression::Gzip,
        Codec::Snappy => v1::Compression::Snappy,
        Codec::Lz4 => v1::Compression::Lz4,
        Codec::Zstd => v1::Compression::Zstd,
    }
}
