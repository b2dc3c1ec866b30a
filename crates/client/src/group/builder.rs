//! Settings of a group consumer.

use std::{sync::Arc, time::Duration};

use sapwood_model::Code;
use sapwood_rpc::v1;
use tokio::{sync::mpsc, time::timeout};

use super::{
    GroupConsumer,
    commits::Speaker,
    link::{Event, Link},
    task::{Settings, Task},
};
use crate::{Admin, ConsumerBuilder, Error, Position, connection::Connections};

/// How a group spreads partitions over its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Evenly over all topics together, moving as few partitions as possible.
    Uniform,
    /// Topic by topic, runs of partitions: members get the same numbers of topics that are partitioned
    /// alike.
    Range,
}

/// Settings of a [`GroupConsumer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct GroupConsumerBuilder {
    connections: Arc<Connections>,
    group: Arc<str>,
    topics: Vec<String>,
    topic_regex: Option<String>,
    instance_id: Option<String>,
    client_id: String,
    assignor: Option<Assignor>,
    from: Position,
    commit_interval: Option<Duration>,
    rebalance_timeout: Duration,
    prefetch_bytes: usize,
}

impl GroupConsumerBuilder {
    pub(crate) fn new(connections: Arc<Connections>, group: Arc<str>) -> Self {
        Self {
            connections,
            group,
            topics: Vec::new(),
            topic_regex: None,
            instance_id: None,
            client_id: "sapwood-client".to_owned(),
            assignor: None,
            from: Position::Start,
            commit_interval: Some(Duration::from_secs(1)),
            rebalance_timeout: Duration::from_secs(45),
            prefetch_bytes: 8 << 20,
        }
    }

    /// Reads a topic; may be called for several. One that does not exist is read once it does.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Reads all topics whose whole names match a regular expression (RE2's syntax, up to 1,024
    /// bytes), those included that are created later; internal ones not.
    pub fn topic_regex(mut self, pattern: impl Into<String>) -> Self {
        self.topic_regex = Some(pattern.into());
        self
    }

    /// Makes the consumer a static member under this name (1 to 255 bytes), which no other process of
    /// the group may have: when it goes, and when it is killed, its partitions are kept for it until its
    /// session is over, so that a quick restart moves none. If two processes have it, the last one gets
    /// in, and the consumer of the other ends with [`Code::InstanceFenced`].
    pub fn instance_id(mut self, name: impl Into<String>) -> Self {
        self.instance_id = Some(name.into());
        self
    }

    /// What `sapwood group describe` shows people for this consumer, up to 255 bytes. `sapwood-client`
    /// by default.
    pub fn client_id(mut self, name: impl Into<String>) -> Self {
        self.client_id = name.into();
        self
    }

    /// Which assignor this member prefers; the group goes by what most members do. By default none in
    /// particular, which is [`Assignor::Uniform`] if nobody has a wish.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// Where to begin with a partition that the group has committed nothing for, or whose committed
    /// offset is not there any more. [`Position::Start`] by default, so that a new group misses nothing,
    /// nor does one whose topic gets partitions; for what comes from now on only, [`Position::End`].
    pub fn from(mut self, from: Position) -> Self {
        self.from = from;
        self
    }

    /// How often what is acknowledged is committed; also when partitions are given up and at the end.
    /// Every second by default. What was acknowledged since is read once more after a crash. `None`
    /// commits only by [`GroupConsumer::commit`] and [`GroupConsumer::commit_offsets`].
    pub fn commit_interval(mut self, interval: Option<Duration>) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How long partitions that are to be another member's may be kept, for messages in flight to be
    /// done (four fifths of it at most) and to commit them. Past it the group goes on without this
    /// member. 1 ms to 1 day; 45 s by default.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.rebalance_timeout = timeout;
        self
    }

    /// How many bytes of batches may be read ahead, at least one batch. 8 MiB by default.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Connects and joins the group. Partitions are assigned after it returns.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when no broker answers (that is not retried here);
    /// [`Code::InvalidGroupId`], [`Code::InvalidTopicName`], [`Code::InvalidTopicRegex`];
    /// [`Code::OtherGroupKind`] when members of Kafka's classic protocol are in the group;
    /// [`Code::InstanceInUse`] when a member of Kafka's newer one has the instance id;
    /// [`Code::GroupFull`]; [`Code::InvalidArgument`] for settings outside their bounds, and when there
    /// is nothing to read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<GroupConsumer, Error> {
        if self
            .commit_interval
            .is_some_and(|interval| interval.is_zero())
        {
            let message = "commit_interval is 0; it must be more, or none at all";
            return Err(Error::local(Code::InvalidArgument, message));
        }
        let rebalance_timeout_ms = self.rebalance_timeout.as_millis();
        let rebalance_timeout_ms = match u32::try_from(rebalance_timeout_ms) {
            Ok(timeout @ 1..) => timeout,
            Ok(0) | Err(_) => {
                let message = format!(
                    "rebalance_timeout is {rebalance_timeout_ms} ms; it must be 1 ms to 1 day"
                );
                return Err(Error::local(Code::InvalidArgument, message));
            }
        };
        let consumer = ConsumerBuilder::new(Arc::clone(&self.connections))
            .prefetch_bytes(self.prefetch_bytes)
            .build()
            .await?;
        let member_id = match &self.instance_id {
            // The same after a restart: the group need not wait for the member that was before.
            Some(instance_id) => format!("static-{instance_id}"),
            None => member_id(),
        };
        let options = v1::JoinOptions {
            group: self.group.to_string(),
            member_id: member_id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id,
            subscription: Some(v1::MemberSubscription {
                topics: self.topics,
                topic_regex: self.topic_regex,
            }),
            assignor: self.assignor.map(|assignor| {
                let name = match assignor {
                    Assignor::Uniform => "uniform",
                    Assignor::Range => "range",
                };
                name.to_owned()
            }),
            rebalance_timeout_ms,
            ..v1::JoinOptions::default()
        };
        let request_timeout = self.connections.request_timeout;
        let mut link = Link::new(Arc::clone(&self.connections), options);
        let epoch = link.epoch();
        let assignment = match timeout(request_timeout, link.event()).await {
            Ok(Event::Answer(assignment)) => assignment,
            Ok(Event::Fenced(error) | Event::Failed(error)) => return Err(error),
            Ok(Event::Left) => unreachable!("nobody has said that it leaves"),
            Err(_) => {
                let seconds = request_timeout.as_secs_f64();
                let message = format!(
                    "the group {:?} did not answer within {seconds} s",
                    self.group
                );
                return Err(Error::local(Code::TimedOut, message));
            }
        };
        let speaker = Speaker {
            admin: Admin::new(self.connections),
            group: Arc::clone(&self.group),
            member_id: member_id.clone(),
            instance_id: self.instance_id,
            epoch,
        };
        let settings = Settings {
            from: self.from,
            commit_interval: self.commit_interval,
            rebalance_timeout: self.rebalance_timeout,
            request_timeout,
        };
        let (commands, received) = mpsc::unbounded_channel();
        let (sender, control) = mpsc::unbounded_channel();
        let wants_events = Arc::default();
        let task = Task::new(
            link,
            speaker,
            settings,
            received,
            sender,
            Arc::clone(&wants_events),
        );
        tokio::spawn(task.run(assignment));
        Ok(GroupConsumer::new(super::Parts {
            group: self.group,
            member_id,
            from: self.from,
            close_timeout: self.rebalance_timeout,
            consumer,
            commands,
            control,
            wants_events,
        }))
    }
}

/// A name that no other member has: 128 random bits, from the keys of two of std's hashers.
fn member_id() -> String {
    let half = crate::connection::seed;
    format!("{:016x}{:016x}", half(), half())
}
