//! Committed offsets: saying, asking and forgetting how far a group has read.

use std::collections::HashMap;

use sapwood_model::{PartitionId, TopicName, TopicPartition};

use crate::{
    CallId, Commit, CommitOffset, CommittedOffset, Committer, Context, Decision, DeleteOffsets,
    Effect, Epoch, FetchOffsets, Generation, GroupError, GroupId, Record, Reply, Settings, Topic,
    Topics,
    decision::Soft,
    group::{Group, Kind},
};

/// How far a group has read a partition; no offset if it never said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// How far.
    pub committed: Option<CommittedOffset>,
}

/// Takes the offsets that somebody may commit. A partition that cannot be committed does not hold up
/// the others.
///
/// # Errors
/// Why none of them may be committed.
pub(crate) fn commit(
    group: Option<&Group>,
    settings: &Settings,
    context: &Context<'_>,
    call: CallId,
    commit: Commit,
) -> Result<Decision, GroupError> {
    let mut out = Decision::default();
    out.effects
        .extend(check_committer(group, context, &commit)?);
    let mut results = Vec::with_capacity(commit.offsets.len());
    for offset in commit.offsets {
        let checked = check_offset(settings, context, &offset);
        if let Ok(topic) = checked {
            out.records.push(Record::Offset {
                group: commit.group.clone(),
                topic: offset.partition.topic,
                partition: offset.partition.partition,
                value: Some(CommittedOffset {
                    // Kafka's schemas have no room for both.
                    topic_id: offset.expire_timestamp.is_none().then_some(topic.id),
                    offset: offset.offset,
                    leader_epoch: offset.leader_epoch,
                    metadata: offset.metadata,
                    commit_timestamp: context.now,
                    expire_timestamp: offset.expire_timestamp,
                }),
            });
        }
        results.push(checked.map(|_| ()));
    }
    out.replies.push((call, Reply::Commit(Ok(results))));
    Ok(out)
}

/// Whether somebody may commit for a group; a classic member's session goes on by that.
fn check_committer(
    group: Option<&Group>,
    context: &Context<'_>,
    commit: &Commit,
) -> Result<Option<Effect>, GroupError> {
    let Committer::Member {
        member_id,
        instance_id,
        generation_or_epoch,
    } = &commit.by
    else {
        return match group.map(|group| &group.kind) {
            None | Some(Kind::Plain) => Ok(None),
            Some(Kind::Classic { live, .. }) if live.takes_commits_of_strangers() => Ok(None),
            Some(Kind::Consumer(group)) if group.members.is_empty() => Ok(None),
            Some(Kind::Classic { .. } | Kind::Consumer(_)) => Err(GroupError::UnknownMember),
        };
    };
    let given = *generation_or_epoch;
    match group.map(|group| &group.kind) {
        None if given.is_some() => Err(GroupError::GroupNotFound),
        Some(Kind::Plain) if given.is_some() => Err(GroupError::UnknownMember),
        None | Some(Kind::Plain) => Ok(None),
        Some(Kind::Classic { live, .. }) => {
            if given.is_none() && live.takes_commits_of_strangers() {
                return Ok(None);
            }
            let generation = Generation(given.unwrap_or_default());
            let instance = instance_id.as_ref();
            let deadline = live.check_commit(member_id, instance, generation, context.now)?;
            Ok(Some(Effect(Soft::ClassicSession {
                group: commit.group.clone(),
                member: member_id.clone(),
                deadline,
            })))
        }
        Some(Kind::Consumer(group)) => {
            if given.is_none() && group.members.is_empty() {
                return Ok(None);
            }
            let epoch = Epoch(given.unwrap_or_default());
            group.check_offsets(member_id, instance_id.as_ref(), epoch)?;
            Ok(None)
        }
    }
}

fn check_offset(
    settings: &Settings,
    context: &Context<'_>,
    offset: &CommitOffset,
) -> Result<Topic, GroupError> {
    let TopicPartition { topic, partition } = &offset.partition;
    let known = context.topics.named(topic);
    let Some(known) = known.filter(|known| partition.0 < known.partitions) else {
        return Err(GroupError::UnknownPartition {
            topic: topic.clone(),
            partition: *partition,
        });
    };
    let (length, limit) = (offset.metadata.len(), settings.offset_metadata_bytes_max);
    if length > limit {
        return Err(GroupError::MetadataTooLarge { length, limit });
    }
    Ok(known)
}

/// Reads offsets. A group that is not there has none; that is no error.
///
/// # Errors
/// [`GroupError::UnknownMember`] and [`GroupError::StaleMemberEpoch`] for a member of a group of the
/// newer kind; classic groups do not look at who asks.
pub(crate) fn fetch(
    group: Option<&Group>,
    topics: &dyn Topics,
    request: FetchOffsets,
) -> Result<Vec<FetchedOffset>, GroupError> {
    if let (Some(Kind::Consumer(members)), Some((id, epoch))) =
        (group.map(|group| &group.kind), &request.by)
    {
        members.check_offsets(id, None, *epoch)?;
    }
    let mut known: HashMap<TopicName, Option<Topic>> = HashMap::new();
    let mut counts = |name: &TopicName, offset: &CommittedOffset| {
        let topic = match known.get(name) {
            Some(topic) => *topic,
            None => *known
                .entry(name.clone())
                .insert_entry(topics.named(name))
                .get(),
        };
        topic.is_some_and(|topic| topic.is_of(offset))
    };
    let fetched = |partition: TopicPartition| FetchedOffset {
        committed: group
            .and_then(|group| group.offset(&partition.topic, partition.partition))
            .filter(|offset| counts(&partition.topic, offset))
            .cloned(),
        partition,
    };
    let Some(group) = group else {
        let none = request.partitions.unwrap_or_default();
        return Ok(none.into_iter().map(fetched).collect());
    };
    let Some(partitions) = request.partitions else {
        let all = group.offsets.iter().flat_map(|(topic, partitions)| {
            partitions.keys().map(|partition| TopicPartition {
                topic: topic.clone(),
                partition: *partition,
            })
        });
        let all = all.map(fetched);
        return Ok(all.filter(|fetched| fetched.committed.is_some()).collect());
    };
    Ok(partitions.into_iter().map(fetched).collect())
}

/// Forgets offsets of topics that no member reads.
///
/// # Errors
/// [`GroupError::GroupNotFound`]; [`GroupError::NonEmptyGroup`] when the group has members that are
/// not consumers, so that nobody can know what they read.
pub(crate) fn delete(
    group: Option<&Group>,
    call: CallId,
    request: DeleteOffsets,
) -> Result<Decision, GroupError> {
    let group = group.ok_or(GroupError::GroupNotFound)?;
    if let Kind::Classic { live, .. } = &group.kind
        && !group.is_empty()
        && !live.is_of_consumers()
    {
        return Err(GroupError::NonEmptyGroup);
    }
    let mut out = Decision::default();
    let mut results = Vec::with_capacity(request.partitions.len());
    for (topic, partition) in request.partitions {
        if group.may_read(&topic) {
            results.push(Err(GroupError::SubscribedToTopic { topic }));
            continue;
        }
        if group.offset(&topic, partition).is_some() {
            let group = request.group.clone();
            out.records.push(Record::Offset {
                group,
                topic,
                partition,
                value: None,
            });
        }
        results.push(Ok(()));
    }
    out.replies.push((call, Reply::DeleteOffsets(Ok(results))));
    Ok(out)
}

/// The records that remove all of a group's offsets.
pub(crate) fn tombstones(group: &Group, id: &GroupId) -> impl Iterator<Item = Record> {
    group.offsets.iter().flat_map(|(name, partitions)| {
        let partitions = partitions.keys();
        partitions.map(|partition| tombstone(id, name, *partition))
    })
}

/// The records that remove the offsets that were committed under a topic's name, but not for the topic
/// that has it now.
pub(crate) fn stale(
    group: &Group,
    id: &GroupId,
    name: &TopicName,
    now: Option<Topic>,
) -> impl Iterator<Item = Record> {
    let all = group.offsets.get(name).into_iter().flatten();
    let stale = all.filter(move |(_, offset)| now.is_none_or(|topic| !topic.is_of(offset)));
    stale.map(|(partition, _)| tombstone(id, name, *partition))
}

fn tombstone(id: &GroupId, name: &TopicName, partition: PartitionId) -> Record {
    Record::Offset {
        group: id.clone(),
        topic: name.clone(),
        partition,
        value: None,
    }
}
