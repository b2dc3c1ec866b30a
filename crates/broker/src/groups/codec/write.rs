//! From records to bytes.

use sapwood_group::{
    ClassicMetadata, CommittedOffset, ConsumerMetadata, CurrentAssignment, Epoch, GroupId,
    MemberMetadata, MemberState, Partitions, Record, ResolvedRegex,
};

use super::{
    CLASSIC, CONSUMER, CURRENT, EncodeError, MEMBER, METADATA_HASH, NONE, OFFSET, PAUSED, REGEX,
    TARGET, TARGET_MEMBER, TOPIC_ID,
    bytes::{Form, Writer},
};

/// A key, and a value unless it is a tombstone.
pub(crate) type Encoded = (Vec<u8>, Option<Vec<u8>>);

type Written = Result<Vec<u8>, EncodeError>;

/// Writes a record as Kafka 4 does.
///
/// An offset with an expiry is written in version 1, the only one that has room for it, and none for
/// the topic's id or a leader epoch.
///
/// # Errors
/// A text or a number is beyond what Kafka's schemas can say.
pub(crate) fn encode(record: &Record) -> Result<Encoded, EncodeError> {
    let group = record.group();
    let (key, value) = match record {
        Record::Offset {
            topic,
            partition,
            value,
            ..
        } => {
            let mut key = group_key(OFFSET, group)?;
            key.text("the topic's name", topic.as_str())?;
            key.u31("the partition", partition.0)?;
            (key, value.as_ref().map(offset))
        }
        Record::Classic { value, .. } => (group_key(CLASSIC, group)?, value.as_ref().map(classic)),
        Record::Consumer { value, .. } => {
            (group_key(CONSUMER, group)?, value.as_ref().map(consumer))
        }
        Record::Member {
            member: id, value, ..
        } => (
            long_key(MEMBER, group, "the member id", id.as_str())?,
            value.as_ref().map(member),
        ),
        Record::Target { value, .. } => (group_key(TARGET, group)?, value.map(target)),
        Record::TargetMember { member, value, .. } => (
            long_key(TARGET_MEMBER, group, "the member id", member.as_str())?,
            value.as_ref().map(target_member),
        ),
        Record::Current { member, value, .. } => (
            long_key(CURRENT, group, "the member id", member.as_str())?,
            value.as_ref().map(current),
        ),
        Record::Regex {
            regex: text, value, ..
        } => (
            long_key(REGEX, group, "the regular expression", text)?,
            value.as_ref().map(regex),
        ),
    };
    Ok((key.finish(), value.transpose()?))
}

fn group_key(kind: i16, group: &GroupId) -> Result<Writer, EncodeError> {
    let mut key = Writer::new(kind, Form::Fixed);
    key.text("the group id", group.as_str())?;
    Ok(key)
}

fn long_key(
    kind: i16,
    group: &GroupId,
    field: &'static str,
    text: &str,
) -> Result<Writer, EncodeError> {
    let mut key = group_key(kind, group)?;
    key.text(field, text)?;
    Ok(key)
}

fn offset(value: &CommittedOffset) -> Written {
    if let Some(expiry) = value.expire_timestamp {
        let mut out = Writer::new(1, Form::Fixed);
        out.u63("the offset", value.offset.0)?;
        out.text("the offset's metadata", &value.metadata)?;
        out.i64(value.commit_timestamp.0);
        out.i64(expiry.0);
        return Ok(out.finish());
    }
    let mut out = Writer::new(4, Form::Flexible);
    out.u63("the offset", value.offset.0)?;
    match value.leader_epoch {
        Some(epoch) => out.u31("the leader epoch", epoch.0)?,
        None => out.i32(NONE),
    }
    out.text("the offset's metadata", &value.metadata)?;
    out.i64(value.commit_timestamp.0);
    match value.topic_id {
        None => out.no_tags(),
        Some(id) => out.one_tag(TOPIC_ID, &id.0.to_be_bytes())?,
    }
    Ok(out.finish())
}

fn classic(value: &ClassicMetadata) -> Written {
    let mut out = Writer::new(3, Form::Fixed);
    out.text("the protocol type", &value.protocol_type)?;
    out.u31("the generation", value.generation.0)?;
    out.nullable_text("the protocol", value.protocol.as_deref())?;
    let leader = value.leader.as_ref().map(|leader| leader.as_str());
    out.nullable_text("the leader", leader)?;
    out.i64(value.current_state_timestamp.map_or(NONE.into(), |at| at.0));
    out.count("the members", value.members.len())?;
    for member in &value.members {
        out.text("the member id", member.member_id.as_str())?;
        let instance = member.instance_id.as_ref().map(|id| id.as_str());
        out.nullable_text("the instance id", instance)?;
        out.text("the client id", &member.client_id)?;
        out.text("the client's host", &member.client_host)?;
        out.u31("the rebalance timeout", member.rebalance_timeout_ms)?;
        out.u31("the session timeout", member.session_timeout_ms)?;
        out.blob("the subscription", &member.subscription)?;
        out.blob("the assignment", &member.assignment)?;
    }
    Ok(out.finish())
}

fn consumer(value: &ConsumerMetadata) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    out.u31("the group's epoch", value.epoch.0)?;
    match value.metadata_hash {
        0 => out.no_tags(),
        hash => out.one_tag(METADATA_HASH, &hash.to_be_bytes())?,
    }
    Ok(out.finish())
}

fn member(value: &MemberMetadata) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    let instance = value.instance_id.as_ref().map(|id| id.as_str());
    out.nullable_text("the instance id", instance)?;
    out.nullable_text("the rack", value.rack_id.as_deref())?;
    out.text("the client id", &value.client_id)?;
    out.text("the client's host", &value.client_host)?;
    out.count("the subscribed topics", value.subscribed_topic_names.len())?;
    for topic in &value.subscribed_topic_names {
        out.text("the topic's name", topic.as_str())?;
    }
    let regex = value.subscribed_topic_regex.as_deref();
    out.nullable_text("the regular expression", regex)?;
    out.u31("the rebalance timeout", value.rebalance_timeout_ms)?;
    out.nullable_text("the assignor", value.server_assignor.as_deref())?;
    out.no_tags();
    Ok(out.finish())
}

fn target(value: Epoch) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    out.u31("the assignment's epoch", value.0)?;
    out.no_tags();
    Ok(out.finish())
}

fn target_member(value: &Partitions) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    partitions(&mut out, value)?;
    out.no_tags();
    Ok(out.finish())
}

fn current(value: &CurrentAssignment) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    match value.member_epoch {
        Some(epoch) => out.u31("the member's epoch", epoch.0)?,
        None => out.i32(PAUSED),
    }
    out.u31("the member's previous epoch", value.previous_member_epoch.0)?;
    out.i8(match value.state {
        MemberState::Stable => 0,
        MemberState::UnrevokedPartitions => 1,
        MemberState::UnreleasedPartitions => 2,
    });
    partitions(&mut out, &value.assigned)?;
    partitions(&mut out, &value.pending_revocation)?;
    out.no_tags();
    Ok(out.finish())
}

fn partitions(out: &mut Writer, partitions: &Partitions) -> Result<(), EncodeError> {
    out.count("the topics", partitions.topics().count())?;
    for (topic, numbers) in partitions.topics() {
        out.uuid(topic.0);
        out.count("the partitions", numbers.len())?;
        for number in numbers {
            out.u31("the partition", number.0)?;
        }
        out.no_tags();
    }
    Ok(())
}

fn regex(value: &ResolvedRegex) -> Written {
    let mut out = Writer::new(0, Form::Flexible);
    out.count("the topics", value.topics.len())?;
    for topic in &value.topics {
        out.text("the topic's name", topic.as_str())?;
    }
    out.u63("the version of the topics", value.version)?;
    out.i64(value.timestamp.0);
    out.no_tags();
    Ok(out.finish())
}
