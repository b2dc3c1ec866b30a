//! Reading records from chosen partitions.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use sapwood_model::{Offset, PartitionId};
use tokio_stream::Stream;

use crate::{Error, Message, Position, connection::Connections};

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
        let _ = (&self.connections, &self.assignments, &self.topics);
        let _ = (self.prefetch_bytes, self.retry_timeout);
        Err(Error::transport("not connected"))
    }
}

/// Reads records as a [`Stream`]. Within a partition they come in the order of their offsets, each
/// once; between partitions there is no order. Broken connections are made again, and reading goes on
/// behind the last message that was returned.
///
/// An error about one partition (`error.field("partition")`) ends the reading of that partition only;
/// [`Consumer::assign`] it again to go on. The stream ends when every partition was read to its
/// `until`. Dropping the consumer ends the reading and never blocks.
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
    connections: Arc<Connections>,
}

impl Consumer {
    /// The next message. Waits for one to come; `None` when every partition was read to its `until`.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Reads a partition from now on, or from elsewhere if it is read already: messages of before are
    /// not returned any more. Does not wait.
    pub fn assign(&mut self, assignment: Assignment) {
        let _ = (assignment, &self.connections);
    }

    /// Stops reading a partition. Does not wait.
    pub fn unassign(&mut self, topic: &str, partition: PartitionId) {
        let _ = (topic, partition);
    }

    /// The offset behind the last message that was returned from a partition, or where reading
    /// began; `None` when that is not known yet or the partition is not assigned.
    pub fn position(&self, topic: &str, partition: PartitionId) -> Option<Offset> {
        let _ = (topic, partition);
        None
    }
}

impl Stream for Consumer {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
