//! The task that sends a producer's batches and takes in the answers. It owns the connection and the
//! queues; it ends when the producer is closed or dropped and everything has its result.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use sapwood_model::{Acks, Code, Offset, ProducerId};
use sapwood_rpc::v1::{self, produce_request::Payload, produce_response};
use tokio::time::{Instant, sleep_until};

use super::{
    Shared,
    lane::{Gathered, Lane},
    link::{Link, LinkEvent},
    queue::{Answered, NewBatch, Owner, Queue},
    receipt::Resolution,
};
use crate::{Error, admin::acks_into, connection};

#[derive(Debug)]
pub(super) struct Sender {
    shared: Arc<Shared>,
    producer: Option<ProducerId>,
    link: Link,
    /// By the lanes' slots.
    queues: Vec<Entry>,
    /// Lanes that may have something to send.
    todo: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, Timer)>>,
    /// Requests of this connection, in order, with the lanes they came from.
    unanswered: VecDeque<(u64, usize)>,
    next_correlation: u64,
}

#[derive(Debug)]
struct Entry {
    lane: Arc<Lane>,
    queue: Queue,
    /// It is in `todo`.
    noted: bool,
    linger_set: bool,
    expiry_set: bool,
    retry_set: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// An open batch has waited long enough.
    Linger,
    /// A batch may be past its deadline.
    Expiry,
    /// The pause after a failure is over.
    Retry,
}

enum Event {
    Woken,
    Link(LinkEvent),
    Timer,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, producer: Option<ProducerId>) -> Self {
        let link = Link::new(Arc::clone(&shared.connections));
        Self {
            shared,
            producer,
            link,
            queues: Vec::new(),
            todo: VecDeque::new(),
            timers: BinaryHeap::new(),
            unanswered: VecDeque::new(),
            next_correlation: 0,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.event().await {
                Event::Woken => self.take_in_news(),
                Event::Link(event) => self.on_link(event),
                Event::Timer => self.on_timers(Instant::now()),
            }
            self.work();
            if self.shared.is_closing() && self.is_done() {
                break;
            }
        }
        let link = std::mem::replace(
            &mut self.link,
            Link::new(Arc::clone(&self.shared.connections)),
        );
        link.finish().await;
    }

    async fn event(&mut self) -> Event {
        let next = self.timers.peek().map(|Reverse((at, ..))| *at);
        tokio::select! {
            // Answers first: they make room.
            biased;
            event = self.link.event() => Event::Link(event),
            () = self.shared.wake.notified() => Event::Woken,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Event::Timer,
        }
    }

    /// Lanes in which something new was pushed, or all when the producer closes.
    fn take_in_news(&mut self) {
        for lane in self.shared.take_ready() {
            let slot = lane.slot;
            while self.queues.len() <= slot {
                let lane = self.shared.lane(self.queues.len());
                let queue = Queue::new(self.producer, connection::seed());
                self.queues.push(Entry {
                    lane,
                    queue,
                    noted: false,
                    linger_set: false,
                    expiry_set: false,
                    retry_set: false,
                });
            }
            self.set_expiry(slot);
            self.note(slot);
        }
        if self.shared.is_closing() {
            for slot in 0..self.queues.len() {
                self.queues[slot].lane.flush();
                self.note(slot);
            }
        }
    }

    /// The lane may have something to send.
    fn note(&mut self, slot: usize) {
        let entry = &mut self.queues[slot];
        if !entry.noted {
            entry.noted = true;
            self.todo.push_back(slot);
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Opened => {
                for slot in 0..self.queues.len() {
                    self.resume(slot);
                }
            }
            LinkEvent::Room => {}
            LinkEvent::Answer(answer) => self.on_answer(answer),
            LinkEvent::Broken(error) => self.on_broken(&error),
        }
    }

    fn on_answer(&mut self, answer: v1::ProduceResponse) {
        let Some((correlation, slot)) = self.unanswered.pop_front() else {
            self.link
                .fail("the broker answered a request that was not sent");
            return;
        };
        if answer.correlation_id != correlation {
            self.unanswered.push_front((correlation, slot));
            self.link
                .fail("the broker answered requests out of their order");
            return;
        }
        let result = match answer.result {
            Some(produce_response::Result::Produced(produced)) => Ok(Offset(produced.base_offset)),
            Some(produce_response::Result::Error(error)) => Err(Error::from(error)),
            None => Err(Error::local(
                Code::Internal,
                "the broker's answer has no result",
            )),
        };
        self.on_result(correlation, slot, result);
    }

    fn on_result(&mut self, correlation: u64, slot: usize, result: Result<Offset, Error>) {
        let entry = &mut self.queues[slot];
        if let Err(error) = &result {
            tracing::debug!(
                topic = %entry.lane.topic, partition = entry.lane.partition, %error,
                "a batch was refused"
            );
            if matches!(error.code(), Code::UnknownTopic | Code::UnknownPartition) {
                self.shared.forget_topic(&entry.lane.topic);
            }
        }
        if let Answered::Done(owner, resolution) = entry.queue.answered(correlation, result) {
            self.settle(slot, owner, resolution);
        }
        self.after_failure(slot);
        self.note(slot);
    }

    fn on_broken(&mut self, error: &Error) {
        tracing::debug!(%error, "the produce stream ended");
        // A typed status that waiting does not cure is about the first request without an answer:
        // answers leave in the order of the requests.
        if !error.is_transport()
            && !error.is_retriable()
            && let Some((correlation, slot)) = self.unanswered.pop_front()
        {
            self.on_result(correlation, slot, Err(error.clone()));
        }
        self.unanswered.clear();
        for slot in 0..self.queues.len() {
            self.queues[slot].queue.disconnected();
            self.note(slot);
        }
    }

    fn on_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, timer))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            match timer {
                Timer::Linger => {
                    self.queues[slot].linger_set = false;
                    self.note(slot);
                }
                Timer::Retry => {
                    self.queues[slot].retry_set = false;
                    self.resume(slot);
                }
                Timer::Expiry => {
                    self.queues[slot].expiry_set = false;
                    self.expire(slot, now);
                    self.set_expiry(slot);
                    self.note(slot);
                }
            }
        }
    }

    /// Sends what may be sent.
    fn work(&mut self) {
        let now = Instant::now();
        while let Some(slot) = self.todo.front().copied() {
            if !self.pump(slot, now) {
                return;
            }
            self.todo.pop_front();
            self.queues[slot].noted = false;
        }
    }

    /// Sends what one lane may send. False when the connection takes no more now.
    fn pump(&mut self, slot: usize, now: Instant) -> bool {
        loop {
            let entry = &mut self.queues[slot];
            if entry.queue.is_settled() && entry.lane.opened().is_none() {
                return true;
            }
            if !self.link.is_open() {
                self.link.open();
                // All lanes are looked at when it is.
                return true;
            }
            if !self.link.has_room() {
                return false;
            }
            if let Some((correlation, bytes)) = entry.queue.next_to_send() {
                self.send(slot, correlation, bytes);
                continue;
            }
            if !entry.queue.has_room() {
                return true;
            }
            let linger = self.shared.settings.linger;
            // An instant before the clock's beginning means that nothing has waited that long.
            let taken = now
                .checked_sub(linger)
                .and_then(|before| entry.lane.take(before));
            match taken {
                Some(gathered) => self.seal(slot, gathered),
                None => {
                    self.set_linger(slot);
                    return true;
                }
            }
        }
    }

    /// Makes a batch of what was gathered and puts it in the queue.
    fn seal(&mut self, slot: usize, gathered: Gathered) {
        let entry = &mut self.queues[slot];
        let records = gathered.builder.records_count();
        let builder = match entry.queue.stamp(records) {
            Some(stamp) => gathered.builder.with_producer(stamp),
            None => gathered.builder,
        };
        match builder.build() {
            Ok(batch) => {
                self.next_correlation += 1;
                entry.queue.push(NewBatch {
                    correlation: self.next_correlation,
                    bytes: batch.to_bytes(),
                    records,
                    deadline: gathered.opened + self.shared.settings.delivery_timeout,
                    owner: Owner {
                        number: gathered.number,
                        held_bytes: gathered.held_bytes,
                        settle: gathered.settle,
                    },
                });
            }
            Err(error) => {
                let error = Error::local(error.code(), error.to_string());
                let error = error.about(&entry.lane.topic, entry.lane.partition);
                self.shared
                    .finish(gathered.held_bytes, gathered.settle, Err(error));
                entry.lane.resolved(gathered.number);
            }
        }
    }

    fn send(&mut self, slot: usize, correlation: u64, bytes: bytes::Bytes) {
        let entry = &mut self.queues[slot];
        let acks = self.shared.settings.acks;
        self.link.send(v1::ProduceRequest {
            correlation_id: correlation,
            topic: entry.lane.topic.to_string(),
            partition: entry.lane.partition,
            acks: acks_into(acks).into(),
            expected_end_offset: None,
            payload: Some(Payload::Batch(bytes)),
        });
        if acks != Acks::None {
            self.unanswered.push_back((correlation, slot));
        } else if let Some(owner) = entry.queue.hand_over(correlation) {
            self.settle(slot, owner, Ok(None));
        }
    }

    fn settle(&mut self, slot: usize, owner: Owner, resolution: Resolution) {
        let lane = &self.queues[slot].lane;
        let resolution = resolution.map_err(|error| error.about(&lane.topic, lane.partition));
        self.shared
            .finish(owner.held_bytes, owner.settle, resolution);
        lane.resolved(owner.number);
    }

    /// Fails what has waited longer than the delivery timeout.
    fn expire(&mut self, slot: usize, now: Instant) {
        let timeout = self.shared.settings.delivery_timeout;
        let entry = &mut self.queues[slot];
        let refused = match entry.queue.refusal() {
            Some(error) => format!("; the broker refused it with {}: {error}", error.code()),
            None => String::new(),
        };
        let error = Error::local(
            Code::TimedOut,
            format!(
                "the record was not acknowledged within {} s{refused}",
                timeout.as_secs_f64()
            ),
        );
        let expired = entry.queue.expire(now);
        if let Some(before) = now.checked_sub(timeout) {
            while entry.lane.opened().is_some_and(|opened| opened <= before)
                && let Some(gathered) = entry.lane.take(before)
            {
                let lane = &entry.lane;
                let error = error.clone().about(&lane.topic, lane.partition);
                self.shared
                    .finish(gathered.held_bytes, gathered.settle, Err(error));
                lane.resolved(gathered.number);
            }
        }
        for owner in expired {
            self.settle(slot, owner, Err(error.clone()));
        }
        self.after_failure(slot);
    }

    /// Sends again after a pause, once everything of the lane is answered.
    fn after_failure(&mut self, slot: usize) {
        let entry = &mut self.queues[slot];
        if !self.link.is_open() || entry.retry_set || !entry.queue.is_settled_after_failure() {
            return;
        }
        let pause = entry.queue.pause();
        if pause.is_zero() {
            self.resume(slot);
        } else {
            entry.retry_set = true;
            self.timers
                .push(Reverse((Instant::now() + pause, slot, Timer::Retry)));
        }
    }

    fn resume(&mut self, slot: usize) {
        for (owner, error) in self.queues[slot].queue.resume() {
            self.settle(slot, owner, Err(error));
        }
        self.note(slot);
    }

    fn set_linger(&mut self, slot: usize) {
        let entry = &mut self.queues[slot];
        if let Some(opened) = entry.lane.opened()
            && !entry.linger_set
        {
            entry.linger_set = true;
            let at = opened + self.shared.settings.linger;
            self.timers.push(Reverse((at, slot, Timer::Linger)));
        }
    }

    fn set_expiry(&mut self, slot: usize) {
        let timeout = self.shared.settings.delivery_timeout;
        let entry = &mut self.queues[slot];
        let gathered = entry.lane.opened().map(|opened| opened + timeout);
        let oldest = entry
            .queue
            .oldest_deadline()
            .into_iter()
            .chain(gathered)
            .min();
        if let Some(at) = oldest
            && !entry.expiry_set
        {
            entry.expiry_set = true;
            self.timers.push(Reverse((at, slot, Timer::Expiry)));
        }
    }

    fn is_done(&self) -> bool {
        self.shared.nothing_ready()
            && self
                .queues
                .iter()
                .all(|e| e.queue.is_settled() && e.lane.opened().is_none())
    }
}

impl Drop for Sender {
    /// Nobody shall wait for ever when the runtime ends, or for a record that came too late.
    fn drop(&mut self) {
        let error = super::ended();
        for slot in 0..self.queues.len() {
            for owner in self.queues[slot].queue.drain() {
                self.settle(slot, owner, Err(error.clone()));
            }
        }
        self.shared.stop();
    }
}
