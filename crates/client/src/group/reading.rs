//! The partitions of a member as its application reads them: where each goes on, which are paused, and
//! which failed and are tried again.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use sapwood_model::{Code, Offset, PartitionId};
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;

use super::{GroupEvent, GroupMessage, Placed, acks::Acks};
use crate::{Assignment, Consumer, Error, Message, Position, TopicPartition};

/// Pauses between tries of a partition that cannot be read.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

pub(super) struct Reading {
    consumer: Consumer,
    /// Where to begin when there is no better place.
    from: Position,
    partitions: HashMap<TopicPartition, Place>,
    /// When the next partition that failed is tried again.
    retry: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Place {
    acks: Arc<Acks>,
    /// The offset behind the last message, or where to begin.
    next: Position,
    paused: bool,
    /// The application has asked for this place: it is told when it is not there.
    sought: bool,
    failed: Option<Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    retry_at: Instant,
    pause: Duration,
    /// It is waiting for `retry_at`.
    waits: bool,
}

impl Reading {
    pub(super) fn new(consumer: Consumer, from: Position) -> Self {
        Self {
            consumer,
            from,
            partitions: HashMap::new(),
            retry: None,
        }
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        let mut assigned: Vec<_> = self.partitions.keys().cloned().collect();
        assigned.sort_unstable();
        assigned
    }

    /// The offset behind the last message, or where to begin, if that is known.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        let place = self.partitions.get(partition)?;
        let read = self
            .consumer
            .position(&partition.topic, partition.partition);
        read.or(match place.next {
            Position::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// Reads a partition from now on.
    pub(super) fn begin(&mut self, placed: Placed) {
        let place = Place {
            acks: placed.acks,
            next: placed.from,
            paused: false,
            sought: false,
            failed: None,
        };
        self.read(&placed.partition, place.next);
        self.partitions.insert(placed.partition, place);
    }

    /// Reads a partition no more.
    pub(super) fn end(&mut self, partition: &TopicPartition) {
        if self.partitions.remove(partition).is_some() {
            self.consumer
                .unassign(&partition.topic, partition.partition);
        }
    }

    pub(super) fn pause(&mut self, partition: &TopicPartition) -> Result<(), Error> {
        let place = find(&mut self.partitions, partition)?;
        place.paused = true;
        let (topic, number) = (&partition.topic, partition.partition);
        // Times and counts are not searched for a second time: they may mean other places by then.
        if let Some(position) = self.consumer.position(topic, number) {
            place.next = Position::Offset(position);
        }
        self.consumer.unassign(topic, number);
        Ok(())
    }

    pub(super) fn resume(&mut self, partition: &TopicPartition) -> Result<(), Error> {
        let place = find(&mut self.partitions, partition)?;
        if std::mem::take(&mut place.paused) && !place.failed.is_some_and(|failed| failed.waits) {
            let next = place.next;
            self.read(partition, next);
        }
        Ok(())
    }

    pub(super) fn seek(&mut self, partition: &TopicPartition, to: Position) -> Result<(), Error> {
        let place = find(&mut self.partitions, partition)?;
        place.acks.seek();
        place.next = to;
        place.sought = true;
        place.failed = None;
        if !place.paused {
            self.read(partition, to);
        }
        Ok(())
    }

    fn read(&mut self, partition: &TopicPartition, from: Position) {
        let (topic, number) = (Arc::clone(&partition.topic), partition.partition);
        self.consumer
            .assign(Assignment::new(topic, number).from(from));
    }

    /// The next message, or what is to be told.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<GroupEvent, Error>> {
        loop {
            self.retry(context);
            let next = Pin::new(&mut self.consumer).poll_next(context);
            let told = match next {
                Poll::Ready(Some(Ok(message))) => self.on_message(message),
                Poll::Ready(Some(Err(error))) => self.on_error(error, context),
                // Nothing is assigned: what changes that wakes the task too.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
            if let Some(told) = told {
                return Poll::Ready(told);
            }
        }
    }

    fn on_message(&mut self, message: Message) -> Option<Result<GroupEvent, Error>> {
        let key = TopicPartition::new(Arc::clone(&message.topic), message.partition);
        let place = self.partitions.get_mut(&key)?;
        let Some(token) = place.acks.hand_out(message.offset) else {
            // It is being given up, which is about to be told.
            self.consumer.unassign(&message.topic, message.partition);
            return None;
        };
        place.next = Position::Offset(message.offset.add(1));
        place.sought = false;
        place.failed = None;
        Some(Ok(GroupEvent::Message(GroupMessage::new(message, token))))
    }

    /// The reading of one partition has ended, or of all.
    fn on_error(
        &mut self,
        error: Error,
        context: &mut Context<'_>,
    ) -> Option<Result<GroupEvent, Error>> {
        let Some(partition) = partition_of(&error) else {
            return Some(Err(error));
        };
        let place = self.partitions.get_mut(&partition)?;
        if error.code() == Code::OffsetOutOfRange {
            let was_sought = std::mem::take(&mut place.sought);
            let wanted = std::mem::replace(&mut place.next, self.from);
            if wanted == self.from {
                place.next = Position::Start;
            }
            let next = place.next;
            tracing::warn!(%partition, %error, "reading on from another place");
            self.read(&partition, next);
            let available = error.available();
            return Some(match was_sought {
                true => Err(error),
                false => Ok(GroupEvent::Reset {
                    partition,
                    available,
                }),
            });
        }
        let pause = place
            .failed
            .map_or(RETRY_MIN, |failed| (2 * failed.pause).min(RETRY_MAX));
        place.failed = Some(Failed {
            retry_at: Instant::now() + pause,
            pause,
            waits: true,
        });
        self.arm(context);
        // A topic that was deleted is about to be taken away.
        let is_gone = matches!(error.code(), Code::UnknownTopic | Code::UnknownPartition);
        (!is_gone).then_some(Err(error))
    }

    /// Reads partitions that failed again when their time has come.
    fn retry(&mut self, context: &mut Context<'_>) {
        let Some(sleep) = &mut self.retry else { return };
        if sleep.as_mut().poll(context).is_pending() {
            return;
        }
        self.retry = None;
        let now = Instant::now();
        let mut due = Vec::new();
        for (partition, place) in &mut self.partitions {
            if let Some(failed) = &mut place.failed
                && failed.waits
                && failed.retry_at <= now
            {
                failed.waits = false;
                if !place.paused {
                    due.push((partition.clone(), place.next));
                }
            }
        }
        for (partition, next) in due {
            self.read(&partition, next);
        }
        self.arm(context);
    }

    /// Sets the time of the next try.
    fn arm(&mut self, context: &mut Context<'_>) {
        let failed = self.partitions.values().filter_map(|place| place.failed);
        let next = failed.filter(|failed| failed.waits);
        self.retry = next
            .map(|failed| failed.retry_at)
            .min()
            .map(|at| Box::pin(tokio::time::sleep_until(at)));
        if let Some(sleep) = &mut self.retry
            && sleep.as_mut().poll(context).is_ready()
        {
            context.waker().wake_by_ref();
        }
    }
}

fn find<'a>(
    partitions: &'a mut HashMap<TopicPartition, Place>,
    partition: &TopicPartition,
) -> Result<&'a mut Place, Error> {
    partitions.get_mut(partition).ok_or_else(|| {
        let message = format!("{partition} is not read by this member");
        let error = Error::local(Code::UnknownPartition, message);
        error.about(&partition.topic, partition.partition.0)
    })
}

fn partition_of(error: &Error) -> Option<TopicPartition> {
    let number = error.field("partition")?.parse().ok()?;
    Some(TopicPartition::new(
        error.field("topic")?,
        PartitionId(number),
    ))
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
