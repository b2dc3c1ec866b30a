//! From bytes to records. Whatever is kept is copied: a slice would keep the whole batch in memory.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use sapwood_group::{
    ClassicMemberMetadata, ClassicMetadata, CommittedOffset, ConsumerMetadata, CurrentAssignment,
    Epoch, Generation, GroupId, InstanceId, MemberId, MemberMetadata, MemberState, Partitions,
    Record, ResolvedRegex,
};
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

use super::{
    CLASSIC, CONSUMER, CURRENT, DecodeError, MEMBER, METADATA_HASH, NONE, OFFSET, OFFSET_OLD,
    PARTITION_METADATA, PAUSED, REGEX, TARGET, TARGET_MEMBER, TOPIC_ID,
    bytes::{Form, Reader},
};
use crate::coordinator::Decoded;

type Read<T> = Result<T, DecodeError>;

/// Reads a record that was written at a time. A value of `None` is a tombstone. Never allocates more
/// than the bytes justify.
///
/// # Errors
/// The bytes are not what their type and version say. A key of a type that is not known is no error.
pub(crate) fn decode(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    at: Timestamp,
) -> Read<Decoded<Record>> {
    let (kind, rest) = Reader::version(key.ok_or(DecodeError::NoKey)?)?;
    let mut key = Reader::new(rest, Form::Fixed);
    let record = match kind {
        OFFSET_OLD | OFFSET => Record::Offset {
            group: group(&mut key)?,
            topic: topic(&mut key)?,
            partition: PartitionId(key.u31("the partition")?),
            value: versioned(kind, value, 0..4, 4, offset)?,
        },
        CLASSIC => Record::Classic {
            group: group(&mut key)?,
            value: versioned(kind, value, 0..4, 4, classic)?,
        },
        CONSUMER => Record::Consumer {
            group: group(&mut key)?,
            value: versioned(kind, value, 0..0, 0, |reader, _| consumer(reader, at))?,
        },
        PARTITION_METADATA => return Ok(Decoded::Obsolete),
        MEMBER => Record::Member {
            group: group(&mut key)?,
            member: key.text("the member id")?.into(),
            value: flexible(kind, value, member)?,
        },
        TARGET => Record::Target {
            group: group(&mut key)?,
            value: flexible(kind, value, target)?,
        },
        TARGET_MEMBER => Record::TargetMember {
            group: group(&mut key)?,
            member: key.text("the member id")?.into(),
            value: flexible(kind, value, partitions)?,
        },
        CURRENT => Record::Current {
            group: group(&mut key)?,
            member: key.text("the member id")?.into(),
            value: flexible(kind, value, current)?,
        },
        REGEX => Record::Regex {
            group: group(&mut key)?,
            regex: key.text("the regular expression")?.into(),
            value: flexible(kind, value, regex)?,
        },
        key => return Ok(Decoded::Unknown { key }),
    };
    key.finish()?;
    Ok(Decoded::Record(record))
}

/// A value whose only version is flexible.
fn flexible<T>(
    kind: i16,
    value: Option<&[u8]>,
    read: fn(&mut Reader<'_>) -> Read<T>,
) -> Read<Option<T>> {
    versioned(kind, value, 0..0, 0, |reader, _| read(reader))
}

/// A value of one of the fixed versions, or of the flexible one. What follows its fields are the tags
/// of the outermost struct.
fn versioned<T>(
    key: i16,
    value: Option<&[u8]>,
    fixed: std::ops::Range<i16>,
    flexible: i16,
    read: impl FnOnce(&mut Reader<'_>, i16) -> Read<T>,
) -> Read<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    let (version, rest) = Reader::version(value)?;
    let form = match version {
        version if fixed.contains(&version) => Form::Fixed,
        version if version == flexible => Form::Flexible,
        version => return Err(DecodeError::Version { key, version }),
    };
    let mut reader = Reader::new(rest, form);
    let value = read(&mut reader, version)?;
    reader.finish()?;
    Ok(Some(value))
}

fn group(reader: &mut Reader<'_>) -> Read<GroupId> {
    Ok(reader.text("the group id")?.into())
}

fn topic(reader: &mut Reader<'_>) -> Read<TopicName> {
    Ok(TopicName::new(reader.text("the topic's name")?)?)
}

/// A number that is -1 when it is not there.
fn optional(reader: &mut Reader<'_>, field: &'static str) -> Read<Option<u32>> {
    match reader.i32()? {
        NONE => Ok(None),
        value => u32::try_from(value).map(Some).map_err(|_| {
            let value = value.into();
            DecodeError::Negative { field, value }
        }),
    }
}

/// A time that is -1 when it is not there.
fn optional_time(reader: &mut Reader<'_>) -> Read<Option<Timestamp>> {
    let at = Timestamp(reader.i64()?);
    Ok((at != Timestamp::NONE).then_some(at))
}

fn offset(reader: &mut Reader<'_>, version: i16) -> Read<CommittedOffset> {
    let offset = Offset(reader.u63("the offset")?);
    let leader_epoch = match version >= 3 {
        true => optional(reader, "the leader epoch")?.map(LeaderEpoch),
        false => None,
    };
    let metadata = reader.text("the offset's metadata")?;
    let commit_timestamp = Timestamp(reader.i64()?);
    let expire_timestamp = match version == 1 {
        true => optional_time(reader)?,
        false => None,
    };
    let mut topic_id = None;
    reader.tags(|tag, field| {
        if tag == TOPIC_ID {
            // As Kafka writes "none".
            topic_id = Some(TopicId(field.uuid()?)).filter(|id| id.0 != 0);
        }
        Ok(())
    })?;
    Ok(CommittedOffset {
        topic_id,
        offset,
        leader_epoch,
        metadata: shared(metadata),
        commit_timestamp,
        expire_timestamp,
    })
}

fn classic(reader: &mut Reader<'_>, version: i16) -> Read<ClassicMetadata> {
    let protocol_type = shared(reader.text("the protocol type")?);
    let generation = Generation(reader.u31("the generation")?);
    let protocol = reader.nullable_text("the protocol")?.map(shared);
    let leader = reader.nullable_text("the leader")?.map(MemberId::from);
    let current_state_timestamp = match version >= 2 {
        true => optional_time(reader)?,
        false => None,
    };
    let count = reader.count("the members")?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(classic_member(reader, version)?);
    }
    reader.skip_tags()?;
    Ok(ClassicMetadata {
        protocol_type,
        generation,
        protocol,
        leader,
        current_state_timestamp,
        members,
    })
}

fn classic_member(reader: &mut Reader<'_>, version: i16) -> Read<ClassicMemberMetadata> {
    let member_id = reader.text("the member id")?.into();
    let instance_id = match version >= 3 {
        true => reader
            .nullable_text("the instance id")?
            .map(InstanceId::from),
        false => None,
    };
    let client_id = shared(reader.text("the client id")?);
    let client_host = shared(reader.text("the client's host")?);
    let rebalance_timeout_ms = match version >= 1 {
        true => Some(reader.u31("the rebalance timeout")?),
        false => None,
    };
    let session_timeout_ms = reader.u31("the session timeout")?;
    let subscription = Bytes::copy_from_slice(reader.blob("the subscription")?);
    let assignment = Bytes::copy_from_slice(reader.blob("the assignment")?);
    reader.skip_tags()?;
    Ok(ClassicMemberMetadata {
        member_id,
        instance_id,
        client_id,
        client_host,
        // As long as the session, before there was a timeout for rebalances.
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

fn consumer(reader: &mut Reader<'_>, changed_at: Timestamp) -> Read<ConsumerMetadata> {
    let epoch = Epoch(reader.u31("the group's epoch")?);
    let mut metadata_hash = 0;
    reader.tags(|tag, field| {
        if tag == METADATA_HASH {
            metadata_hash = field.i64()?.cast_unsigned();
        }
        Ok(())
    })?;
    Ok(ConsumerMetadata {
        epoch,
        metadata_hash,
        changed_at,
    })
}

fn member(reader: &mut Reader<'_>) -> Read<MemberMetadata> {
    let member = MemberMetadata {
        instance_id: reader
            .nullable_text("the instance id")?
            .map(InstanceId::from),
        rack_id: reader.nullable_text("the rack")?.map(shared),
        client_id: shared(reader.text("the client id")?),
        client_host: shared(reader.text("the client's host")?),
        subscribed_topic_names: topics(reader)?,
        subscribed_topic_regex: reader.nullable_text("the regular expression")?.map(shared),
        rebalance_timeout_ms: reader.u31("the rebalance timeout")?,
        server_assignor: reader.nullable_text("the assignor")?.map(shared),
    };
    // One tag says what a classic member said that joined a group of the newer kind; groups do not
    // change their kind here while they have members.
    reader.skip_tags()?;
    Ok(member)
}

fn topics(reader: &mut Reader<'_>) -> Read<BTreeSet<TopicName>> {
    let count = reader.count("the topics")?;
    (0..count).map(|_| topic(reader)).collect()
}

fn target(reader: &mut Reader<'_>) -> Read<Epoch> {
    let epoch = Epoch(reader.u31("the assignment's epoch")?);
    reader.skip_tags()?;
    Ok(epoch)
}

/// Partitions, and the tags of the struct that ends with them.
fn partitions(reader: &mut Reader<'_>) -> Read<Partitions> {
    let partitions = some_partitions(reader)?;
    reader.skip_tags()?;
    Ok(partitions)
}

fn some_partitions(reader: &mut Reader<'_>) -> Read<Partitions> {
    let mut partitions = Partitions::new();
    for _ in 0..reader.count("the topics")? {
        let topic = TopicId(reader.uuid()?);
        for _ in 0..reader.count("the partitions")? {
            partitions.insert(topic, PartitionId(reader.u31("the partition")?));
        }
        reader.skip_tags()?;
    }
    Ok(partitions)
}

fn current(reader: &mut Reader<'_>) -> Read<CurrentAssignment> {
    let member_epoch = match reader.i32()? {
        PAUSED => None,
        epoch => Some(Epoch(u32::try_from(epoch).map_err(|_| {
            let (field, value) = ("the member's epoch", epoch.into());
            DecodeError::Negative { field, value }
        })?)),
    };
    let previous = optional(reader, "the member's previous epoch")?;
    let state = match reader.i8()? {
        0 => MemberState::Stable,
        1 => MemberState::UnrevokedPartitions,
        2 => MemberState::UnreleasedPartitions,
        state => return Err(DecodeError::State { state }),
    };
    let assigned = some_partitions(reader)?;
    let pending_revocation = some_partitions(reader)?;
    reader.skip_tags()?;
    Ok(CurrentAssignment {
        member_epoch,
        previous_member_epoch: previous.map_or(Epoch::ZERO, Epoch),
        state,
        assigned,
        pending_revocation,
    })
}

fn regex(reader: &mut Reader<'_>) -> Read<ResolvedRegex> {
    let resolved = ResolvedRegex {
        topics: topics(reader)?,
        version: reader.u63("the version of the topics")?,
        timestamp: Timestamp(reader.i64()?),
    };
    reader.skip_tags()?;
    Ok(resolved)
}

fn shared(text: &str) -> Arc<str> {
    text.into()
}
