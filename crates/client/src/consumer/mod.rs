//! Reading records from chosen partitions.

mod current;
mod task;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use sapwood_model::{Code, Offset, PartitionId};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::Stream;

use crate::{Admin, Error, Message, Position, connection::Connections};
use current::Current;
use task::{Command, Event, Task};

/// Read ahead at most; beyond it memory is wasted.
const PREFETCH_BYTES_MAX: usize = 1 << 30;

/// A partition to read, and from where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// The first record to read.
    pub from: Position,
    /// The first record not to read, found once, at the beginning; `None` reads on for ever.
    pub until: Option<Position>,
}

impl Assignment {
    /// All of a partition, and what comes later.
    pub fn new(topic: impl Into<Arc<str>>, partition: PartitionId) -> Self {
        Self {
            topic: topic.into(),
            partition,
            from: Position::Start,
            until: None,
        }
    }

    /// Sets where to begin.
    #[must_use]
    pub fn from(mut self, from: Position) -> Self {
        self.from = from;
        self
    }

    /// Sets where to stop. [`Position::End`] stops at what is there at the beginning.
    #[must_use]
    pub fn until(mut self, until: Position) -> Self {
        self.until = Some(until);
        self
    }
}

/// Settings of a [`Consumer`].
#[derive(Debug, Clone)]
pub struct ConsumerBuilder {
    connections: Arc<Connections>,
    assignments: Vec<Assignment>,
    topics: Vec<(Arc<str>, Position, Option<Position>)>,
    prefetch_bytes: usize,
    retry_timeout: Option<Duration>,
}

impl ConsumerBuilder {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        Self {
            connections,
            assignments: Vec::new(),
            topics: Vec::new(),
            prefetch_bytes: 8 << 20,
            retry_timeout: None,
        }
    }

    /// Reads one partition. One that is assigned already is read from the new place.
    #[must_use]
    pub fn assign(mut self, assignment: Assignment) -> Self {
        self.assignments.push(assignment);
        self
    }

    /// Reads all partitions that a topic has when the consumer is built.
    #[must_use]
    pub fn topic(
        mut self,
        topic: impl Into<Arc<str>>,
        from: Position,
        until: Option<Position>,
    ) -> Self {
        self.topics.push((topic.into(), from, until));
        self
    }

    /// How many bytes of batches may be read ahead, at least one batch. 8 MiB by default.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// For how long a broken connection is made again before the stream ends with an error. `None`,
    /// the default, tries for ever.
    #[must_use]
    pub fn retry_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// Connects and begins to read.
    ///
    /// # Errors
    /// [`Code::Unreachable`](crate::Code) when no broker answers (nothing is retried here);
    /// [`Code::UnknownTopic`](crate::Code) for a topic named as a whole.
    pub async fn build(self) -> Result<Consumer, Error> {
        if !(1..=PREFETCH_BYTES_MAX).contains(&self.prefetch_bytes) {
            let message = format!(
                "prefetch_bytes is {} bytes; it must be 1 to {PREFETCH_BYTES_MAX} bytes",
                self.prefetch_bytes
            );
            return Err(Error::local(Code::InvalidArgument, message));
        }
        let mut assignments = self.assignments;
        let admin = Admin::new(Arc::clone(&self.connections));
        for (topic, from, until) in self.topics {
            let partitions = admin.partition_count(&topic, false).await?;
            assignments.extend((0..partitions).map(|partition| Assignment {
                topic: Arc::clone(&topic),
                partition: PartitionId(partition),
                from,
                until,
            }));
        }
        let (commands, received) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let task = Task::new(
            self.connections,
            self.prefetch_bytes,
            self.retry_timeout,
            sender,
        );
        let stream = task.open().await?;
        let task = tokio::spawn(task.run(received, stream)).abort_handle();
        let mut consumer = Consumer {
            commands,
            events,
            task,
            partitions: HashMap::new(),
            tags: HashMap::new(),
            next_tag: 0,
            current: None,
        };
        for assignment in assignments {
            consumer.assign(assignment);
        }
        Ok(consumer)
    }
}

/// Reads records as a [`Stream`]. Within a partition they come in the order of their offsets, each
/// once; between partitions there is no order. Broken connections are made again, and reading goes on
/// behind the last message that was returned.
///
/// An error about one partition (`error.field("partition")`) ends the reading of that partition only;
/// [`Consumer::assign`] it again to go on. The stream ends when every partition was read to its
/// `until`, and when a broken connection could not be made again within the retry timeout. Dropping
/// the consumer ends the reading and never blocks.
///
/// ```no_run
/// use sapwood_client::{Client, Position};
///
/// # async fn example() -> Result<(), sapwood_client::Error> {
/// let client = Client::new("127.0.0.1:9092")?;
/// let mut consumer =
///     client.consumer().topic("orders", Position::Start, Some(Position::End)).build().await?;
/// while let Some(message) = consumer.next().await {
///     let message = message?;
///     println!("{}/{}: {:?}", message.partition, message.offset, message.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    commands: mpsc::UnboundedSender<Command>,
    /// What was read ahead; the credit bounds it.
    events: mpsc::UnboundedReceiver<Event>,
    task: AbortHandle,
    /// What is being read, by the tag of its subscription.
    partitions: HashMap<u64, Reading>,
    tags: HashMap<(Arc<str>, PartitionId), u64>,
    next_tag: u64,
    current: Option<Current>,
}

/// One partition that is being read.
#[derive(Debug)]
struct Reading {
    topic: Arc<str>,
    partition: PartitionId,
    /// Behind the last message that was returned; `None` until the broker has found the beginning.
    position: Option<Offset>,
    until: Option<Offset>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Consumer {
    /// The next message. Waits for one to come; `None` when every partition was read to its `until`.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Code::OffsetOutOfRange`] with the range that is there, [`Code::UnknownTopic`],
    /// [`Code::UnknownPartition`], [`Code::PartitionOffline`], [`Code::CorruptBatch`]: one
    /// partition is read no more. [`Code::Unreachable`]: nothing is, the retry timeout is over.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Reads a partition from now on, or from elsewhere if it is read already: messages of before are
    /// not returned any more. Does not wait.
    pub fn assign(&mut self, assignment: Assignment) {
        self.unassign(&assignment.topic, assignment.partition);
        let tag = self.next_tag;
        self.next_tag += 1;
        let (topic, partition) = (Arc::clone(&assignment.topic), assignment.partition);
        self.tags.insert((Arc::clone(&topic), partition), tag);
        self.partitions.insert(
            tag,
            Reading {
                topic,
                partition,
                position: None,
                until: None,
            },
        );
        // The task outlives every command; when it has given up, the next event says so.
        let _ = self.commands.send(Command::Subscribe { tag, assignment });
    }

    /// Stops reading a partition. Does not wait.
    pub fn unassign(&mut self, topic: &str, partition: PartitionId) {
        if let Some(tag) = self.tags.remove(&(Arc::from(topic), partition)) {
            self.partitions.remove(&tag);
            if let Some(current) = self.current.take_if(|current| current.tag == tag) {
                self.consumed(current.bytes);
            }
            let _ = self.commands.send(Command::Unsubscribe { tag });
        }
    }

    /// The offset behind the last message that was returned from a partition, or where reading
    /// began; `None` when that is not known yet or the partition is not assigned (any more).
    pub fn position(&self, topic: &str, partition: PartitionId) -> Option<Offset> {
        let tag = self.tags.get(&(Arc::from(topic), partition))?;
        match &self.current {
            Some(current) if current.tag == *tag => Some(current.position),
            _ => self.partitions.get(tag)?.position,
        }
    }

    /// The next message of what is at hand.
    fn take(&mut self) -> Option<Result<Message, Error>> {
        let current = self.current.as_mut()?;
        let next = current.next();
        if let Some(Ok(message)) = next {
            return Some(Ok(message));
        }
        let (tag, bytes, position) = (current.tag, current.bytes, current.position);
        self.current = None;
        self.consumed(bytes);
        if let Some(reading) = self.partitions.get_mut(&tag) {
            reading.position = Some(position);
        }
        if next.is_some() {
            // Nothing behind a batch that cannot be read is read: it would be a gap.
            self.forget(tag);
            let _ = self.commands.send(Command::Unsubscribe { tag });
        }
        next
    }

    /// The bytes are used up: more may be read ahead.
    fn consumed(&self, bytes: usize) {
        let _ = self.commands.send(Command::Consumed { bytes });
    }

    fn forget(&mut self, tag: u64) {
        if let Some(reading) = self.partitions.remove(&tag) {
            self.tags.remove(&(reading.topic, reading.partition));
        }
    }

    /// Takes in an event; an error is for the caller.
    fn on_event(&mut self, event: Event) -> Option<Error> {
        match event {
            Event::Started { tag, from, until } => {
                if let Some(reading) = self.partitions.get_mut(&tag) {
                    // After a new connection it goes on, it does not begin.
                    reading.position.get_or_insert(from);
                    reading.until = until;
                }
                None
            }
            Event::Fetched { tag, next, batches } => {
                let bytes = batches.len();
                match self.partitions.get(&tag) {
                    Some(reading) => {
                        let from = reading.position.unwrap_or_default();
                        let (topic, partition) = (Arc::clone(&reading.topic), reading.partition);
                        let end = reading.until.map_or(next, |until| until.min(next));
                        self.current =
                            Some(Current::new(tag, topic, partition, from..end, batches));
                    }
                    None => self.consumed(bytes),
                }
                None
            }
            Event::Finished { tag } => {
                self.forget(tag);
                None
            }
            Event::Failed { tag, error } => self.partitions.contains_key(&tag).then(|| {
                self.forget(tag);
                error
            }),
            Event::Ended(error) => {
                self.partitions.clear();
                self.tags.clear();
                Some(error)
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(next) = self.take() {
                return Poll::Ready(Some(next));
            }
            if self.partitions.is_empty() {
                return Poll::Ready(None);
            }
            let Some(event) = ready!(self.events.poll_recv(context)) else {
                // The task is gone with its runtime.
                return Poll::Ready(None);
            };
            if let Some(error) = self.on_event(event) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
