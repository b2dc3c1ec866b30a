//! What clients ask a broker for. Each notes what it asks and what it is told, as it happens.

use std::fmt;

use bytes::Bytes;
use sapwood_broker::group::{Commit, CommitOffset, Committer, DeleteOffsets, GroupId};
use sapwood_broker::{Broker, ConfigChange, NewTopic, Produce, TopicRef};
use sapwood_model::{
    Acks, Code, Durability, Offset, PartitionId, TopicId, TopicName, TopicPartition,
};

use crate::found;
use crate::log::body_of;
use crate::model::{At, Change, Committed, Key, Note, Settings};
use crate::world::Notes;

/// One batch of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) acks: Acks,
    /// It was never sent before.
    pub(crate) is_first: bool,
    /// It is known to be at this offset, which the answer has to be.
    pub(crate) duplicate_of: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Change(String, Change),
    /// One after the other, none waiting for the answer to the one before.
    Produce(At, Vec<Batch>),
    Read(At, TopicId, u64),
    Trim(At, u64),
    Commit(String, Vec<(Key, Option<Committed>)>),
    ForgetOffsets(String, Vec<Key>),
    /// With everything that is committed.
    DeleteGroup(String, Vec<Key>),
    ReadOffsets(String),
    ProducerId,
}

/// A request that was not answered as it was to be.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) request: String,
    /// Whose topic.
    pub(crate) topic: Option<At>,
    /// None: the answer itself is wrong.
    pub(crate) code: Option<Code>,
    pub(crate) told: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.request, self.code, self.told)
    }
}

fn failure(request: &str, code: Code, told: &dyn fmt::Display) -> Failure {
    Failure {
        request: request.to_owned(),
        topic: None,
        code: Some(code),
        told: told.to_string(),
    }
}

fn wrong(request: &str, told: String) -> Failure {
    Failure {
        request: request.to_owned(),
        topic: None,
        code: None,
        told,
    }
}

/// Asks for one thing and waits for the answer.
pub(crate) async fn ask(broker: Broker, notes: Notes, request: Request) -> Result<(), Failure> {
    let topic = match &request {
        Request::Change(name, _) => Some((name.clone(), 0)),
        Request::Produce(at, _) | Request::Read(at, _, _) | Request::Trim(at, _) => {
            Some(at.clone())
        }
        _ => None,
    };
    let done = answer(&broker, &notes, request).await;
    done.map_err(|failure| Failure {
        topic: failure.topic.clone().or(topic),
        ..failure
    })
}

async fn answer(broker: &Broker, notes: &Notes, request: Request) -> Result<(), Failure> {
    match request {
        Request::Change(name, change) => self::change(broker, notes, name, change).await,
        Request::Produce(at, batches) => produce(broker, notes, at, batches).await,
        Request::Read(at, id, from) => {
            let start = || {
                let bounds = broker.bounds(id, PartitionId(at.1));
                bounds.map_or(0, |bounds| bounds.log_start.0)
            };
            let from = from.max(start());
            let found = found::read(broker, id, at.1, from).await;
            match found {
                Ok(found) => notes.add(Note::Read(at, id, found)),
                // Retention has come past it meanwhile.
                Err(_) if start() > from => {}
                Err(told) => return Err(failure("read", Code::OffsetOutOfRange, &told)),
            }
            Ok(())
        }
        Request::Trim(at, to) => {
            notes.add(Note::TrimAsked(at.clone(), to));
            let (topic, partition) = (at.0.as_str(), PartitionId(at.1));
            let trimmed = broker.trim(topic, partition, Some(Offset(to))).await;
            let start = trimmed.map_err(|error| failure("trim", error.code(), &error))?;
            if start.0 < to {
                return Err(wrong("trim", format!("the log start is {start}, not {to}")));
            }
            notes.add(Note::Trimmed(at, start.0));
            Ok(())
        }
        Request::Commit(group, values) => commit(broker, notes, &group, values).await,
        Request::ForgetOffsets(group, keys) => {
            let values: Vec<(Key, Option<Committed>)> =
                keys.into_iter().map(|key| (key, None)).collect();
            notes.add(Note::CommitAsked(values.clone()));
            let partitions = values
                .iter()
                .map(|(key, _)| (topic_name(&key.1), PartitionId(key.2)));
            let request = DeleteOffsets {
                group: GroupId::from(group.as_str()),
                partitions: partitions.collect(),
            };
            let results = broker.groups().delete_offsets(request).await;
            let results =
                results.map_err(|error| failure("delete offsets", error.code(), &error))?;
            settle(notes, values, results.into_iter())
        }
        Request::DeleteGroup(group, keys) => {
            let values: Vec<(Key, Option<Committed>)> =
                keys.into_iter().map(|key| (key, None)).collect();
            notes.add(Note::CommitAsked(values.clone()));
            let deleted = broker.groups().delete(GroupId::from(group.as_str())).await;
            deleted.map_err(|error| failure("delete group", error.code(), &error))?;
            notes.add(Note::Committed(values));
            Ok(())
        }
        Request::ReadOffsets(group) => {
            let offsets = found::offsets(broker, &group).await;
            let offsets = offsets.map_err(|told| failure("offsets", Code::Internal, &told))?;
            notes.add(Note::OffsetsRead(group, offsets));
            Ok(())
        }
        Request::ProducerId => {
            let allocated = broker.allocate_producer_id().await;
            let (id, _) =
                allocated.map_err(|error| failure("producer id", error.code(), &error))?;
            notes.add(Note::ProducerId(id.0));
            Ok(())
        }
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).expect("the names of these tests are valid")
}

pub(crate) fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
    }
}

fn configs(settings: Settings) -> [(&'static str, String); 2] {
    [
        (
            "durability",
            durability_name(settings.durability).to_owned(),
        ),
        ("retention.ms", settings.retention_ms.to_string()),
    ]
}

async fn change(
    broker: &Broker,
    notes: &Notes,
    name: String,
    change: Change,
) -> Result<(), Failure> {
    notes.add(Note::ChangeAsked(name.clone(), change.clone()));
    let topic = TopicRef::Name(&name);
    let id = match change {
        Change::Create {
            partitions,
            settings,
        } => {
            let configs = configs(settings).map(|(key, value)| (key.to_owned(), value));
            let new = NewTopic {
                partitions: Some(partitions),
                configs: configs.into(),
                ..NewTopic::named(&name)
            };
            let created = broker.create_topic(new).await;
            let created = created.map_err(|error| failure("create", error.code(), &error))?;
            Some(created.id)
        }
        Change::Delete => {
            let deleted = broker.delete_topic(topic).await;
            deleted.map_err(|error| failure("delete", error.code(), &error))?;
            None
        }
        Change::Alter(settings) => {
            let changes = configs(settings).map(|(key, value)| ConfigChange::Set {
                key: key.to_owned(),
                value,
            });
            let altered = broker.alter_topic(topic, changes.into(), false).await;
            altered.map_err(|error| failure("alter", error.code(), &error))?;
            None
        }
        Change::AddPartitions(total) => {
            let added = broker.add_partitions(topic, total, false).await;
            added.map_err(|error| failure("add partitions", error.code(), &error))?;
            None
        }
    };
    notes.add(Note::Changed(name, id));
    Ok(())
}

async fn produce(
    broker: &Broker,
    notes: &Notes,
    at: At,
    batches: Vec<Batch>,
) -> Result<(), Failure> {
    let mut pending = Vec::new();
    let mut failed = None;
    for batch in batches {
        notes.add(Note::Sent(at.clone(), batch.bytes.clone()));
        let body = body_of(&batch.bytes);
        let request = Produce {
            topic: TopicRef::Name(&at.0),
            partition: PartitionId(at.1),
            batch: batch.bytes.clone(),
            acks: batch.acks,
            expected_end: None,
            auto_create: false,
        };
        match broker.produce(request).await {
            Ok(second) => pending.push((batch, body, second)),
            Err(error) => {
                // Of others it is not known whether a part of them was written.
                if batch.is_first && error.code() == Code::StorageFull {
                    notes.add(Note::Refused(at.clone(), body));
                }
                failed = Some(failure("produce", error.code(), &error));
                break;
            }
        }
    }
    for (batch, body, second) in pending {
        let produced = match second.await {
            Ok(produced) => produced,
            Err(error) => {
                failed.get_or_insert_with(|| failure("produce", error.code(), &error));
                continue;
            }
        };
        let (base, next) = (produced.base_offset.0, produced.last_offset.0 + 1);
        if let Some(was) = batch.duplicate_of
            && (!produced.duplicate || base != was)
        {
            let told = format!("a retry of the batch at {was} was answered with {produced:?}");
            return Err(wrong("retry", told));
        }
        notes.add(match batch.acks {
            Acks::All => Note::Acknowledged(at.clone(), body, base, next),
            _ => Note::Placed(at.clone(), body, base, next),
        });
    }
    failed.map_or(Ok(()), Err)
}

async fn commit(
    broker: &Broker,
    notes: &Notes,
    group: &str,
    values: Vec<(Key, Option<Committed>)>,
) -> Result<(), Failure> {
    notes.add(Note::CommitAsked(values.clone()));
    let offsets = values.iter().map(|(key, value)| CommitOffset {
        partition: TopicPartition {
            topic: topic_name(&key.1),
            partition: PartitionId(key.2),
        },
        offset: Offset(value.map_or(0, |(_, offset)| offset)),
        leader_epoch: None,
        metadata: "".into(),
        expire_timestamp: None,
    });
    let commit = Commit {
        group: GroupId::from(group),
        by: Committer::Alone,
        offsets: offsets.collect(),
    };
    let results = broker.groups().commit(commit).await;
    let results = results.map_err(|error| failure("commit", error.code(), &error))?;
    settle(notes, values, results.into_iter())
}

/// What became of each key.
fn settle(
    notes: &Notes,
    values: Vec<(Key, Option<Committed>)>,
    results: impl Iterator<Item = Result<(), sapwood_broker::group::GroupError>>,
) -> Result<(), Failure> {
    let mut failed = None;
    for (value, result) in values.into_iter().zip(results) {
        match result {
            Ok(()) => notes.add(Note::Committed(vec![value])),
            Err(error) => {
                let key = value.0;
                let of = format!("offset of {key:?}");
                failed = Some(Failure {
                    topic: Some((key.1, key.2)),
                    ..failure(&of, error.code(), &error)
                });
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
