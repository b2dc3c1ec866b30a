//! Produce, in two stages.
//!
//! [`Broker::produce`] checks a batch and appends it: when it returns, the batch has its place in
//! the order of the partition, and the next request of the same connection may be produced. The
//! [`Pending`] that it returns resolves when the batch is as durable as was asked for. So a
//! connection has many batches in flight, and one sync serves them all.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use sapwood_log::{AppendError, AppendOptions, OfflineReason, PartitionState};
use sapwood_model::{Acks, Code, Offset, PartitionId, Timestamp, TopicName};
use sapwood_record::{Batch, BatchError, Rules, TimestampRule, validate};
use tokio::sync::oneshot;

use crate::{
    Broker, CreateTopicError, NewTopic,
    broker::Core,
    registry::{LookupError, Partition, Topic, TopicRef},
    topic_config::TopicConfig,
    waiters::Outcome,
};

/// One batch for one partition.
#[derive(Debug, Clone)]
pub struct Produce<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition.
    pub partition: PartitionId,
    /// Exactly one record batch, as the producer built it.
    pub batch: Bytes,
    /// What the producer waits for.
    pub acks: Acks,
    /// Append only if the log ends here.
    pub expected_end: Option<Offset>,
    /// Create the topic if it is not there and the broker's settings allow it. Needs a name.
    pub auto_create: bool,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record (inclusive).
    pub last_offset: Offset,
    /// The time that the broker gave its records, where the topic wants the broker's.
    pub log_append_time: Option<Timestamp>,
    /// The partition's log start at the time of the append.
    pub log_start: Offset,
    /// An earlier try of the same producer had appended it; these are the offsets of that time.
    pub duplicate: bool,
}

/// Why a batch was not appended, or is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The topic or the partition is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The topic was not there and could not be created.
    #[error("topic {topic:?} cannot be created: {source}")]
    AutoCreate {
        /// The name that was asked for.
        topic: String,
        /// Why not.
        source: Box<CreateTopicError>,
    },
    /// The topic is one of the broker's own.
    #[error("topic {topic:?} belongs to the broker itself and cannot be written to")]
    Internal {
        /// The topic.
        topic: TopicName,
    },
    /// The batch breaks a rule.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The log refused the batch. Nothing of it is there.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The batch was appended, and then the partition failed. It may be there after a restart, or
    /// not; an idempotent producer finds out by sending it again.
    #[error("{topic}/{partition} went offline before the batch was durable: {reason}")]
    NotDurable {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
    /// The batch was appended, and then the data directory became read-only. As with `NotDurable`,
    /// it may be there after a restart.
    #[error("the data directory became read-only before the batch was durable: {reason}")]
    ReadOnly {
        /// The first thing that went wrong.
        reason: Arc<str>,
    },
    /// The broker is shutting down and takes nothing new.
    #[error("the broker is shutting down")]
    Draining,
}

impl ProduceError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(e) => e.code(),
            Self::AutoCreate { source, .. } => source.code(),
            Self::Internal { .. } => Code::InvalidTopicName,
            Self::Batch(e) => e.code(),
            Self::Append(e) => e.code(),
            Self::NotDurable { .. } => Code::PartitionOffline,
            Self::ReadOnly { .. } => Code::ReadOnly,
            Self::Draining => Code::Draining,
        }
    }
}

/// The second stage: resolves when the batch is as durable as was asked for.
///
/// It needs no polling to make progress, and dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "without awaiting it, nothing is known about the batch's durability"]
pub struct Pending {
    state: State,
}

#[derive(Debug)]
enum State {
    Done(Produced),
    Waiting(Box<Waiting>),
    Taken,
}

#[derive(Debug)]
struct Waiting {
    receiver: oneshot::Receiver<Outcome>,
    produced: Produced,
    core: Arc<Core>,
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    since: Duration,
}

impl Pending {
    /// Where the batch is in the log. It may not be durable yet.
    ///
    /// # Panics
    /// After the future has resolved.
    pub fn produced(&self) -> &Produced {
        match &self.state {
            State::Done(produced) => produced,
            State::Waiting(waiting) => &waiting.produced,
            State::Taken => panic!("the result was taken already"),
        }
    }
}

impl Future for Pending {
    type Output = Result<Produced, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            State::Done(_) => None,
            State::Waiting(waiting) => {
                match Pin::new(&mut waiting.receiver).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    // Waiters tell everybody before they go; a lost sender means that they are gone.
                    Poll::Ready(outcome) => Some(outcome.unwrap_or(Outcome::Failed)),
                }
            }
            State::Taken => panic!("polled after it has resolved"),
        };
        match (std::mem::replace(&mut self.state, State::Taken), outcome) {
            (State::Done(produced), _) => Poll::Ready(Ok(produced)),
            (State::Waiting(waiting), Some(outcome)) => Poll::Ready(waiting.end(outcome)),
            _ => unreachable!("the state was looked at above"),
        }
    }
}

impl Waiting {
    fn end(self, outcome: Outcome) -> Result<Produced, ProduceError> {
        let took = self
            .core
            .environment
            .clock
            .elapsed()
            .saturating_sub(self.since);
        self.core.metrics.produce_durable.record(took);
        let error = match outcome {
            Outcome::Durable => return Ok(self.produced),
            Outcome::Deleted => {
                LookupError::unknown_topic(TopicRef::Name(self.topic.name.as_str())).into()
            }
            Outcome::Failed => self.failure(),
        };
        self.core.metrics.produce.count(Some(error.code()));
        Err(error)
    }

    fn failure(&self) -> ProduceError {
        if let PartitionState::Offline { reason } = self.partition.log.state() {
            let topic = self.topic.name.clone();
            return ProduceError::NotDurable {
                topic,
                partition: self.partition.partition,
                reason,
            };
        }
        match self.core.store.read_only() {
            Some(reason) => ProduceError::ReadOnly { reason },
            None => ProduceError::Draining,
        }
    }
}

impl Broker {
    /// Checks a batch and appends it. When this returns, the batch is sequenced; it is durable when
    /// the [`Pending`] resolves. Waits for nothing but the creation of a topic that is not there and
    /// the decompression of batches that must be opened; never for a sync.
    ///
    /// # Errors
    /// Nothing was appended: [`ProduceError`] says why. [`ProduceError::NotDurable`] and
    /// [`ProduceError::ReadOnly`] come from the [`Pending`] only.
    pub async fn produce(&self, request: Produce<'_>) -> Result<Pending, ProduceError> {
        let result = self.sequence(request).await;
        if let Err(e) = &result {
            self.core.metrics.produce.count(Some(e.code()));
        }
        result
    }

    async fn sequence(&self, request: Produce<'_>) -> Result<Pending, ProduceError> {
        let core = &self.core;
        let accepted = core.gate.accept().ok_or(ProduceError::Draining)?;
        let topic = self.topic_to_write(&request).await?;
        if topic.is_internal() {
            let topic = topic.name.clone();
            return Err(ProduceError::Internal { topic });
        }
        let partition = topic.partition(request.partition)?;
        let began = core.environment.clock.elapsed();
        let now = core.environment.clock.now();
        let config = topic.config.load_full();
        let batch = self.check(request.batch, &config, now).await?;

        let header = *batch.header();
        let options = AppendOptions {
            expected_end: request.expected_end,
            urgent: request.acks == Acks::All,
        };
        let appended = match partition.log.append(&batch, options, now) {
            Ok(appended) => appended,
            // The only way to be closed while the gate is open.
            Err(AppendError::Closed) => {
                return Err(LookupError::unknown_topic(request.topic).into());
            }
            Err(e) => return Err(e.into()),
        };
        let bytes = match appended.duplicate {
            true => 0,
            false => batch.size_bytes() as u64,
        };
        if !appended.duplicate {
            topic.counters.batches_in.add(1);
            topic.counters.bytes_in.add(bytes);
            topic
                .counters
                .records_in
                .add(u64::from(header.records_count()));
        }
        if header.producer().is_some() {
            core.background.producer_seen();
        }
        let sequenced = core.environment.clock.elapsed();
        core.metrics
            .produce_append
            .record(sequenced.saturating_sub(began));
        let produced = Produced {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            log_append_time: match config.timestamps {
                TimestampRule::LogAppend => Some(now),
                TimestampRule::Create { .. } => None,
            },
            log_start: appended.log_start,
            duplicate: appended.duplicate,
        };
        let waits = request.acks == Acks::All;
        let receiver = partition.waiters.appended(
            appended.durable_at,
            bytes,
            waits.then_some(accepted),
            || partition.log.bounds().high_watermark,
        );
        let state = match receiver {
            None => State::Done(produced),
            Some(mut receiver) => match receiver.try_recv() {
                Ok(Outcome::Durable) => State::Done(produced),
                Ok(outcome) => {
                    let (sender, again) = oneshot::channel();
                    let _ = sender.send(outcome);
                    receiver = again;
                    self.waiting(receiver, produced, topic, partition, sequenced)
                }
                Err(_) => self.waiting(receiver, produced, topic, partition, sequenced),
            },
        };
        core.metrics.produce.count(None);
        Ok(Pending { state })
    }

    fn waiting(
        &self,
        receiver: oneshot::Receiver<Outcome>,
        produced: Produced,
        topic: Arc<Topic>,
        partition: Arc<Partition>,
        since: Duration,
    ) -> State {
        let core = self.core.clone();
        State::Waiting(Box::new(Waiting {
            receiver,
            produced,
            core,
            topic,
            partition,
            since,
        }))
    }

    /// The topic of a request, created if need be.
    async fn topic_to_write(&self, request: &Produce<'_>) -> Result<Arc<Topic>, ProduceError> {
        let missing = match self.core.registry.find(request.topic) {
            Ok(topic) => return Ok(topic),
            Err(e) => e,
        };
        let TopicRef::Name(name) = request.topic else {
            return Err(missing.into());
        };
        if !request.auto_create || !self.core.options.auto_create {
            return Err(missing.into());
        }
        match self.create_topic(NewTopic::named(name)).await {
            // Somebody else may have been first.
            Ok(_) | Err(CreateTopicError::Exists { .. }) => {
                Ok(self.core.registry.find(request.topic)?)
            }
            Err(e) => Err(ProduceError::AutoCreate {
                topic: name.to_owned(),
                source: Box::new(e),
            }),
        }
    }

    /// Checks everything that needs no partition state. Batches that have to be decompressed or
    /// compressed are checked on a thread that may take its time.
    async fn check(
        &self,
        bytes: Bytes,
        config: &Arc<TopicConfig>,
        now: Timestamp,
    ) -> Result<Batch, BatchError> {
        let options = &self.core.options;
        let rules = Rules {
            batch_bytes_max: config.batch_bytes_max,
            decompressed_bytes_max: options.decompressed_bytes_max,
            keys_required: config.compaction.is_some(),
            timestamps: config.timestamps,
            check_compressed: options.check_compressed,
            compression: config.compression,
        };
        let codec = sapwood_record::Header::read(&bytes).and_then(|header| header.codec().ok());
        if codec.is_some_and(|codec| rules.is_costly(codec)) {
            let check = move || validate(bytes, &rules, now);
            return self.core.blocking_cpu(check).await;
        }
        validate(bytes, &rules, now)
    }
}
