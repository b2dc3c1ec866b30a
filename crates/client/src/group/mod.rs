//! Reading topics together with others: a member of a group.

mod acks;
mod builder;
mod commits;
mod event;
mod holding;
mod link;
mod reading;
mod task;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use sapwood_model::{Code, Offset, PartitionId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;

use crate::{Consumer, Error, PartitionOffset, Position, TopicPartition};
use acks::Acks;
use commits::Waiter;
use reading::Reading;

pub use builder::{Assignor, GroupConsumerBuilder};
pub use event::{GroupEvent, GroupMessage, Revocation};

/// What the consumer says to its task.
#[derive(Debug)]
enum Command {
    /// Commit what is acknowledged.
    Commit(Waiter),
    /// Commit these.
    CommitOffsets(Vec<PartitionOffset>, Waiter),
    /// Give everything up and leave.
    Close {
        for_good: bool,
        /// How long messages in flight are waited for.
        timeout: Duration,
        reply: Waiter,
    },
}

/// What the task says to the consumer.
#[derive(Debug)]
enum Control {
    Assign(Vec<Placed>),
    Revoke(Revocation),
    Lost {
        partitions: Vec<TopicPartition>,
        error: Error,
    },
    /// Something that does not mend itself.
    Problem(Error),
    /// Nothing more comes.
    Failed(Error),
}

/// A partition and where to begin.
#[derive(Debug)]
struct Placed {
    partition: TopicPartition,
    acks: Arc<Acks>,
    from: Position,
}

/// A member of a group that reads topics together with the other members: each partition is read by one
/// of them at a time, and what they have acknowledged is remembered when they come and go.
///
/// It is a [`Stream`] of [`GroupMessage`]s. Within a partition they come in the order of their offsets.
/// Each is handed out at least once: a message that was not acknowledged and committed when its
/// partition goes to another member, or when the process ends, comes again. Broken connections and
/// restarts of the broker are got over without losing either.
///
/// ```no_run
/// use sapwood_client::Client;
///
/// # async fn example() -> Result<(), sapwood_client::Error> {
/// let client = Client::new("127.0.0.1:9092")?;
/// let mut consumer = client.group_consumer("billing").topic("orders").build().await?;
/// while let Some(message) = consumer.next().await {
///     let message = message?;
///     println!("{}/{}: {:?}", message.partition, message.offset, message.value);
///     message.ack();
/// }
/// consumer.close().await
/// # }
/// ```
///
/// # When the group changes
///
/// Before a partition becomes another member's, its messages in flight (handed out, and neither
/// acknowledged nor dropped) are waited for, for at most four fifths of
/// [`GroupConsumerBuilder::rebalance_timeout`]; then what is acknowledged is committed. This happens in
/// the background, whether or not the consumer is asked for its next message. To take part in it, use
/// [`GroupConsumer::next_event`] instead of the stream.
///
/// # Ends
///
/// [`GroupConsumer::close`] waits for messages in flight, commits and leaves. Dropping the consumer never
/// blocks: its task commits what is acknowledged and leaves, if the runtime goes on; otherwise its
/// partitions go to others when its session is over. As long as the consumer lives it stays a member,
/// however long the application takes for a message.
#[derive(Debug)]
pub struct GroupConsumer {
    group: Arc<str>,
    member_id: String,
    close_timeout: Duration,
    commands: mpsc::UnboundedSender<Command>,
    control: mpsc::UnboundedReceiver<Control>,
    wants_events: Arc<AtomicBool>,
    reading: Reading,
    ended: bool,
}

/// What a consumer is made of.
struct Parts {
    group: Arc<str>,
    member_id: String,
    from: Position,
    close_timeout: Duration,
    consumer: Consumer,
    commands: mpsc::UnboundedSender<Command>,
    control: mpsc::UnboundedReceiver<Control>,
    wants_events: Arc<AtomicBool>,
}

impl GroupConsumer {
    fn new(parts: Parts) -> Self {
        Self {
            group: parts.group,
            member_id: parts.member_id,
            close_timeout: parts.close_timeout,
            commands: parts.commands,
            control: parts.control,
            wants_events: parts.wants_events,
            reading: Reading::new(parts.consumer, parts.from),
            ended: false,
        }
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The member's id, as `sapwood group describe` shows it.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The next message. Waits for one to come; `None` once the member is out of the group for good,
    /// after an error that says why. Cancel-safe.
    ///
    /// # Errors
    /// [`Code::PartitionOffline`] and [`Code::CorruptBatch`] with `topic` and `partition`: the partition
    /// is tried again now and then, and the others go on. [`Code::InstanceFenced`],
    /// [`Code::OtherGroupKind`] and other refusals of the group: `None` follows.
    pub async fn next(&mut self) -> Option<Result<GroupMessage, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// As [`GroupConsumer::next`], and says what happens to the consumer's partitions too. From the first
    /// call on, a partition that is being revoked is kept until the application has let go of
    /// [`GroupEvent::Revoking`], or its time is over. Cancel-safe.
    ///
    /// ```no_run
    /// # use sapwood_client::{GroupConsumer, GroupEvent, Error};
    /// # async fn example(mut consumer: GroupConsumer) -> Result<(), Error> {
    /// while let Some(event) = consumer.next_event().await {
    ///     match event? {
    ///         GroupEvent::Message(message) => message.ack(),
    ///         GroupEvent::Assigned(partitions) => println!("reading {partitions:?}"),
    ///         GroupEvent::Revoking(revocation) => {
    ///             println!("flushing {:?}", revocation.partitions());
    ///             // Dropping it lets them go.
    ///         }
    ///         GroupEvent::Lost { partitions, .. } => println!("forgetting {partitions:?}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`GroupConsumer::next`].
    pub async fn next_event(&mut self) -> Option<Result<GroupEvent, Error>> {
        self.wants_events.store(true, Ordering::Relaxed);
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// The partitions that are read by this member now, in order: those that were handed out by
    /// [`GroupEvent::Assigned`] or whose messages may come, paused ones included.
    pub fn assigned(&self) -> Vec<TopicPartition> {
        self.reading.assigned()
    }

    /// The offset behind the last message of a partition that was handed out, or where it begins; `None`
    /// when that is not known yet, or the partition is not read by this member.
    pub fn position(&self, topic: &str, partition: PartitionId) -> Option<Offset> {
        let partition = TopicPartition::new(topic, partition);
        self.reading.position(&partition)
    }

    /// Commits what is acknowledged: of each partition the offset behind the last message below which all
    /// are. Durable when it returns. Needed only to be sure: see
    /// [`GroupConsumerBuilder::commit_interval`]. Tried again for as long as the client's request
    /// timeout.
    ///
    /// # Errors
    /// [`Code::UnknownMember`] and [`Code::MemberFenced`]: the group has gone on without this member.
    /// [`Code::Unreachable`], [`Code::StorageFull`] and others of the broker.
    pub async fn commit(&self) -> Result<(), Error> {
        self.ask(Command::Commit).await
    }

    /// Commits these offsets, whatever is acknowledged. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::MemberFenced`] if one of the partitions is not this member's (any more): none is
    /// committed then. Otherwise as [`GroupConsumer::commit`], and
    /// [`Code::OffsetMetadataTooLarge`], the first of the partitions that were refused.
    pub async fn commit_offsets(&self, offsets: Vec<PartitionOffset>) -> Result<(), Error> {
        self.ask(|waiter| Command::CommitOffsets(offsets, waiter))
            .await
    }

    /// Hands out no more messages of a partition, until [`GroupConsumer::resume`]; it stays this
    /// member's. One that goes to another member and comes back is not paused any more. Does not wait.
    ///
    /// # Errors
    /// [`Code::UnknownPartition`] when it is not read by this member.
    pub fn pause(&mut self, topic: &str, partition: PartitionId) -> Result<(), Error> {
        self.reading.pause(&TopicPartition::new(topic, partition))
    }

    /// Hands out messages of a paused partition again, from where it was. Does not wait.
    ///
    /// # Errors
    /// As [`GroupConsumer::pause`].
    pub fn resume(&mut self, topic: &str, partition: PartitionId) -> Result<(), Error> {
        self.reading.resume(&TopicPartition::new(topic, partition))
    }

    /// Reads a partition from elsewhere; a paused one once it is resumed. Messages that were handed out
    /// before do not count any more, acknowledged or not; what is committed stays until one of those
    /// that follow is acknowledged. Does not wait: an offset that is not there is an error of the
    /// stream ([`Code::OffsetOutOfRange`]), and the partition is read from where a new group begins.
    ///
    /// # Errors
    /// As [`GroupConsumer::pause`].
    pub fn seek(&mut self, topic: &str, partition: PartitionId, to: Position) -> Result<(), Error> {
        self.reading
            .seek(&TopicPartition::new(topic, partition), to)
    }

    /// Hands nothing out any more, waits until what was handed out is acknowledged or dropped (but not
    /// longer than the rebalance timeout), commits what is acknowledged unless commits are manual, and
    /// leaves the group: the others get the partitions at once. Those of a static member are kept for it
    /// until its session is over.
    ///
    /// # Errors
    /// What was acknowledged could not be committed, or the broker could not be told in time that the
    /// member leaves ([`Code::TimedOut`]).
    pub async fn close(self) -> Result<(), Error> {
        self.close_with(false).await
    }

    /// As [`GroupConsumer::close`]; a static member gives up its place too.
    ///
    /// # Errors
    /// As [`GroupConsumer::close`].
    pub async fn close_for_good(self) -> Result<(), Error> {
        self.close_with(true).await
    }

    async fn close_with(self, for_good: bool) -> Result<(), Error> {
        let timeout = self.close_timeout;
        let closing = self.ask(|reply| Command::Close {
            for_good,
            timeout,
            reply,
        });
        match closing.await {
            // It is out of the group already, and the stream has said why.
            Err(_) if self.ended => Ok(()),
            closed => closed,
        }
    }

    async fn ask(&self, command: impl FnOnce(Waiter) -> Command) -> Result<(), Error> {
        let (waiter, answer) = oneshot::channel();
        let gone = || {
            Error::local(
                Code::UnknownMember,
                "the consumer is out of the group for good",
            )
        };
        self.commands.send(command(waiter)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GroupEvent, Error>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            // What the task says comes first: it may take partitions away.
            match self.control.poll_recv(context) {
                Poll::Ready(Some(control)) => match self.on_control(control) {
                    Some(event) => return Poll::Ready(Some(event)),
                    None => continue,
                },
                Poll::Ready(None) => {
                    // The task is gone with its runtime.
                    self.ended = true;
                    continue;
                }
                Poll::Pending => {}
            }
            return self.reading.poll(context).map(Some);
        }
    }

    fn on_control(&mut self, control: Control) -> Option<Result<GroupEvent, Error>> {
        match control {
            Control::Assign(places) => {
                let partitions = places.iter().map(|placed| placed.partition.clone());
                let partitions = partitions.collect();
                for placed in places {
                    self.reading.begin(placed);
                }
                Some(Ok(GroupEvent::Assigned(partitions)))
            }
            Control::Revoke(revocation) => {
                for partition in revocation.partitions() {
                    self.reading.end(partition);
                }
                Some(Ok(GroupEvent::Revoking(revocation)))
            }
            Control::Lost { partitions, error } => {
                for partition in &partitions {
                    self.reading.end(partition);
                }
                Some(Ok(GroupEvent::Lost { partitions, error }))
            }
            Control::Problem(error) => Some(Err(error)),
            Control::Failed(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl Stream for GroupConsumer {
    type Item = Result<GroupMessage, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.poll_event(context)) {
                Some(Ok(GroupEvent::Message(message))) => return Poll::Ready(Some(Ok(message))),
                // A revocation that nobody looks at is let go of.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
