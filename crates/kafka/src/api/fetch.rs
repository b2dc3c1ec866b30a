//! Fetch: batches by offset, waiting for them when there are too few.
//!
//! Everything happens in the second stage, when the requests before it are answered: a fetch that
//! waits, or whose client does not read, holds no records and nothing of its frame.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_broker::{
    Bounds, Fetch, FetchError, FetchPartition, Fetched, FetchedPartition, PartitionLeader, TopicRef,
};
use sapwood_kafka_wire::{
    Reader, Uuid,
    messages::{
        FetchRequest, FetchRequestTopic, FetchResponse, FetchResponseEpochEndOffset,
        FetchResponsePartition, FetchResponseTopic,
    },
};
use sapwood_model::{LeaderEpoch, Offset, PartitionId, TopicId};

use super::lookup::{self, Refusal};
use crate::{
    connection::Disconnect,
    context::Context,
    convert::{leader_epoch, partition_id, wire_epoch, wire_offset},
    dispatch::{Answer, Reply},
    errors::{AsKafka, ErrorCode},
    sessions::{Answers, Entry, Lease, PartitionKey, Plan, Request, Told, TopicKey, Wanted},
};

/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// A fetch that found records within this time found them at once.
const BUSY: Duration = Duration::from_millis(10);
/// `isolation_level` of readers that want committed records only.
const READ_COMMITTED: i8 = 1;

/// The first stage: nothing but taking the request apart.
pub(crate) async fn handle(context: Context, body: Reader) -> Result<Reply, Disconnect> {
    let request_bytes = body.remaining();
    let request: FetchRequest = context.decode(body)?;
    Ok(Reply::Later {
        answer: Box::pin(answer(context, request)),
        request_bytes,
    })
}

/// How to read, as the request says it.
struct How {
    wait: Duration,
    bytes_min: usize,
    bytes_max: usize,
    is_committed: bool,
}

async fn answer(context: Context, request: FetchRequest) -> Result<Answer, Disconnect> {
    let shared = context.shared();
    let how = How {
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0),
        is_committed: request.isolation_level == READ_COMMITTED,
    };
    let machine = context.broker().environment().clone();
    let request = session_request(request, context.version());
    let (id, epoch) = (request.session_id, request.epoch);
    let begun = shared
        .sessions
        .begin(request, machine.clock.elapsed(), || machine.entropy.u64());
    let mut lease = None;
    let (partitions, results) = match begun {
        Ok(Plan::Full(partitions)) => {
            let results = read(&context, &partitions, &how).await;
            (partitions, results)
        }
        Ok(Plan::Session(session, answers)) => {
            let (session, answers) = lease.insert((session, answers));
            read_session(&context, session, *answers, &how).await
        }
        Err(code) => {
            let reason = format_args!("fetch session {id} has no request {epoch} now");
            let response = FetchResponse {
                error_code: context.refuse(code, &reason),
                ..FetchResponse::default()
            };
            return Ok(Answer::from(context.encode(&response)?));
        }
    };
    let bytes = bytes_of(&results);
    let held = shared.fetched.hold(bytes);

    let mut response = Builder::new(context.version());
    for ((key, _), outcome) in partitions.iter().zip(results) {
        let is_new = match &mut lease {
            Some((lease, answers)) => outcome.is_new(lease, key) || *answers == Answers::All,
            None => true,
        };
        if is_new {
            response.push(
                key,
                outcome.describe(&context, key.partition, how.is_committed),
            );
        }
    }
    let mut response = response.response;
    if let Some((lease, _)) = lease {
        response.session_id = lease.id();
        lease.give_back(machine.clock.elapsed());
    }
    let parts = context.encode(&response)?;
    Ok(Answer {
        parts,
        held: Some(held),
    })
}

/// The request in the words of sessions.
fn session_request(request: FetchRequest, version: i16) -> Request {
    let by_id = version >= TOPIC_IDS_FROM;
    let key = |name: &str, id: Uuid| match by_id {
        true => TopicKey::Id(TopicId(id.0)),
        false => TopicKey::Name(Arc::from(name)),
    };
    let mut partitions = Vec::new();
    for FetchRequestTopic {
        topic,
        topic_id,
        partitions: asked,
    } in request.topics
    {
        let topic = key(&topic, topic_id);
        partitions.extend(asked.into_iter().map(|asked| {
            let wanted = Wanted {
                offset: asked.fetch_offset,
                bytes_max: asked.partition_max_bytes,
                leader_epoch: asked.current_leader_epoch,
                fetched_epoch: asked.last_fetched_epoch,
            };
            let key = PartitionKey {
                topic: topic.clone(),
                partition: asked.partition,
            };
            (key, wanted)
        }));
    }
    let mut forgotten = Vec::new();
    for topic in request.forgotten_topics_data {
        let key = key(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.into_iter().map(|partition| PartitionKey {
            topic: key.clone(),
            partition,
        }));
    }
    Request {
        session_id: request.session_id,
        epoch: request.session_epoch,
        by_id,
        partitions,
        forgotten,
    }
}

/// What came of one partition.
enum Outcome {
    Read(Fetched),
    /// The reader has records that this log does not have any more: `epoch` is the last that both have,
    /// and ends here at `end`. It cuts its own log there, or looks for its place anew.
    Diverged {
        epoch: LeaderEpoch,
        end: Offset,
        bounds: Bounds,
    },
    Refused(Refusal),
    OutOfRange(String),
    Failed(ErrorCode, FetchError),
}

impl Outcome {
    fn bytes(&self) -> usize {
        match self {
            Self::Read(fetched) => fetched.batches.len(),
            _ => 0,
        }
    }

    /// Whether the client does not know this yet. Notes that it does now.
    fn is_new(&self, lease: &mut Lease, key: &PartitionKey) -> bool {
        let (ends, has_records) = match self {
            Self::Read(fetched) => {
                let ends = (fetched.bounds.log_start, fetched.bounds.high_watermark);
                (Some(ends), !fetched.batches.is_empty())
            }
            // Told again each time, and when it is over.
            _ => (None, false),
        };
        let told = Told { ends };
        let before = lease.tell(key, told, has_records);
        has_records || ends.is_none() || before != told
    }

    fn describe(
        self,
        context: &Context,
        partition_index: i32,
        is_committed: bool,
    ) -> FetchResponsePartition {
        let failed = |error_code| FetchResponsePartition {
            partition_index,
            error_code,
            high_watermark: -1,
            records: Some(Bytes::new()),
            ..FetchResponsePartition::default()
        };
        let found = |bounds: Bounds, records| {
            let high_watermark = wire_offset(bounds.high_watermark);
            FetchResponsePartition {
                partition_index,
                high_watermark,
                // There are no transactions that could hold it back.
                last_stable_offset: high_watermark,
                log_start_offset: wire_offset(bounds.log_start),
                aborted_transactions: is_committed.then(Vec::new),
                records: Some(records),
                ..FetchResponsePartition::default()
            }
        };
        match self {
            Self::Read(fetched) => found(fetched.bounds, fetched.batches),
            Self::Refused(refusal) => failed(context.refuse(refusal.code(), &refusal)),
            Self::Diverged { epoch, end, bounds } => FetchResponsePartition {
                diverging_epoch: FetchResponseEpochEndOffset {
                    epoch: wire_epoch(epoch),
                    end_offset: wire_offset(end),
                },
                ..found(bounds, Bytes::new())
            },
            Self::OutOfRange(reason) => {
                failed(context.refuse(ErrorCode::OffsetOutOfRange, &reason))
            }
            Self::Failed(code, error) => failed(context.refuse(code, &error)),
        }
    }
}

fn bytes_of(outcomes: &[Outcome]) -> usize {
    outcomes.iter().map(Outcome::bytes).sum()
}

/// Reads what a session has. While its client is behind, partitions at whose end it is are passed over
/// with a look at their ends; when it has caught up, all have to be waited for anyway.
async fn read_session(
    context: &Context,
    lease: &mut Lease,
    answers: Answers,
    how: &How,
) -> (Vec<(PartitionKey, Wanted)>, Vec<Outcome>) {
    if answers == Answers::Changes && lease.is_busy() {
        let at_once = How {
            wait: Duration::ZERO,
            ..*how
        };
        let news = lease.partitions_with_news(|entry| is_idle(context, entry));
        let outcomes = read(context, &news, &at_once).await;
        if bytes_of(&outcomes) >= how.bytes_min.max(1) {
            return (news, outcomes);
        }
    }
    let began = context.broker().environment().clock.elapsed();
    let partitions = lease.partitions();
    let outcomes = read(context, &partitions, how).await;
    let took = context
        .broker()
        .environment()
        .clock
        .elapsed()
        .saturating_sub(began);
    lease.set_busy(took < BUSY && bytes_of(&outcomes) > 0);
    (partitions, outcomes)
}

/// Whether there is nothing to tell about a partition: nothing to read, and the ends that were told.
fn is_idle(context: &Context, entry: &Entry) -> bool {
    let (Some(ends), Some(partition)) = (entry.told.ends, partition_id(entry.key.partition)) else {
        return false;
    };
    let (broker, topic) = (context.broker(), topic_ref(&entry.key));
    let is_same = |bounds: Bounds| {
        ends == (bounds.log_start, bounds.high_watermark)
            && entry.wanted.offset == wire_offset(bounds.high_watermark)
    };
    let is_ours = |leader: PartitionLeader| {
        let known = leader_epoch(entry.wanted.leader_epoch);
        leader.online && known.is_none_or(|known| known == leader.leader_epoch)
    };
    entry.wanted.fetched_epoch < 0
        && broker.bounds(topic, partition).is_ok_and(is_same)
        && broker.leader(topic, partition).is_ok_and(is_ours)
}

/// Reads the partitions, waiting as the request says; one outcome for each.
async fn read(context: &Context, partitions: &[(PartitionKey, Wanted)], how: &How) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(partitions.len());
    let mut wanted = Vec::with_capacity(partitions.len());
    let mut at = Vec::with_capacity(partitions.len());
    let mut is_urgent = false;
    for (index, (key, want)) in partitions.iter().enumerate() {
        let refused = match place(context, key, want) {
            Ok(place) => {
                wanted.push(place);
                at.push(index);
                None
            }
            Err(refused) => {
                // As in Kafka, a reader that is out of date is told at once; one that asks for what
                // is not there waits with the others, lest it asks again and again.
                is_urgent |= !matches!(refused, Outcome::Refused(Refusal::Unknown(..)));
                Some(refused)
            }
        };
        outcomes.push(refused);
    }
    if !wanted.is_empty() {
        let fetch = Fetch {
            partitions: wanted,
            bytes_min: how.bytes_min,
            bytes_max: context.shared().fetched.allowed(how.bytes_max),
            wait: match is_urgent {
                true => Duration::ZERO,
                false => how.wait,
            },
        };
        let fetched = context.broker().fetch(fetch).await;
        for (index, fetched) in at.into_iter().zip(fetched) {
            outcomes[index] = Some(outcome(&partitions[index].0, fetched));
        }
    }
    let outcomes = outcomes.into_iter();
    outcomes
        .map(|outcome| outcome.expect("each partition was refused or read"))
        .collect()
}

fn topic_ref(key: &PartitionKey) -> TopicRef<'_> {
    match &key.topic {
        TopicKey::Name(name) => TopicRef::Name(name),
        TopicKey::Id(id) => TopicRef::Id(*id),
    }
}

fn place<'a>(
    context: &Context,
    key: &'a PartitionKey,
    wanted: &Wanted,
) -> Result<FetchPartition<'a>, Outcome> {
    let topic = topic_ref(key);
    let leader = lookup::leader(context, topic, key.partition, wanted.leader_epoch);
    let leader = leader.map_err(Outcome::Refused)?;
    let from = u64::try_from(wanted.offset)
        .map_err(|_| Outcome::OutOfRange(format!("offset {} is below 0", wanted.offset)))?;
    let from = Offset(from);
    if let Some(epoch) = leader_epoch(wanted.fetched_epoch) {
        compare(context, topic, leader.partition, from, epoch)?;
    }
    Ok(FetchPartition {
        topic,
        partition: leader.partition,
        from,
        bytes_max: usize::try_from(wanted.bytes_max).unwrap_or(0),
    })
}

/// Holds what a reader has, records up to `from` of which the last has this epoch, against the log.
/// The rules are those of Kafka's leaders (KIP-595).
fn compare(
    context: &Context,
    topic: TopicRef<'_>,
    partition: PartitionId,
    from: Offset,
    fetched: LeaderEpoch,
) -> Result<(), Outcome> {
    let lost = |error| {
        let code = lookup::unknown(topic, &error);
        Outcome::Failed(code, FetchError::Lookup(error))
    };
    let broker = context.broker();
    // Before the end of the epoch, which may be that of the log and grow meanwhile.
    let bounds = broker.bounds(topic, partition).map_err(lost)?;
    let end = broker.leader_epoch_end(topic, partition, fetched);
    let Some((epoch, end)) = end.map_err(lost)? else {
        let reason =
            format!("the reader's last record has leader epoch {fetched}, which never was");
        return Err(Outcome::OutOfRange(reason));
    };
    // Below the log start the read says that it is out of range.
    if from >= bounds.log_start && (epoch < fetched || end < from) {
        return Err(Outcome::Diverged { epoch, end, bounds });
    }
    Ok(())
}

fn outcome(key: &PartitionKey, fetched: FetchedPartition) -> Outcome {
    debug_assert_eq!(Some(fetched.partition), partition_id(key.partition));
    match fetched.result {
        Ok(fetched) => Outcome::Read(fetched),
        Err(error) => {
            let code = match &error {
                FetchError::Lookup(lookup) => lookup::unknown(topic_ref(key), lookup),
                other => other.kafka(),
            };
            Outcome::Failed(code, error)
        }
    }
}

/// A response that grows by partitions; those of one topic stand together.
struct Builder {
    version: i16,
    response: FetchResponse,
    topics: HashMap<TopicKey, usize>,
}

impl Builder {
    fn new(version: i16) -> Self {
        Self {
            version,
            response: FetchResponse::default(),
            topics: HashMap::new(),
        }
    }

    fn push(&mut self, key: &PartitionKey, partition: FetchResponsePartition) {
        let topics = &mut self.response.responses;
        let at = *self.topics.entry(key.topic.clone()).or_insert_with(|| {
            let (topic, topic_id) = match &key.topic {
                TopicKey::Name(name) => (name.to_string(), Uuid::ZERO),
                TopicKey::Id(id) => (String::new(), Uuid(id.0)),
            };
            topics.push(FetchResponseTopic {
                topic,
                topic_id,
                partitions: Vec::new(),
            });
            topics.len() - 1
        });
        debug_assert_eq!(
            self.version >= TOPIC_IDS_FROM,
            matches!(key.topic, TopicKey::Id(_))
        );
        topics[at].partitions.push(partition);
    }
}
