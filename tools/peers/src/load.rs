//! The three loads: producers alone, consumers of what is there, and both at once.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    consume::{Consumers, UNKNOWN},
    pace::Clock,
    peer::{Peer, Topic},
    produce::Producer,
};

const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) topic: Topic,
    /// Records a second of all producers; None: as many as go.
    pub(crate) rate: Option<u64>,
    /// Producing ends with these, or after `duration`, whichever comes first.
    pub(crate) records: u64,
    pub(crate) duration: Duration,
    pub(crate) producers: u64,
    pub(crate) consumers: u64,
    /// Records of one producer that may wait for their answers.
    pub(crate) in_flight: u64,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) records: u64,
    /// From the start to the last answer or record.
    pub(crate) nanos: u64,
    pub(crate) errors: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) latency: Histogram<u64>,
    /// The first error.
    pub(crate) complaint: Option<String>,
}

impl Seen {
    pub(crate) fn nothing() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3);
        Self {
            records: 0,
            nanos: 0,
            errors: 0,
            lost: 0,
            duplicated: 0,
            latency: latency.expect("the bounds are in order"),
            complaint: None,
        }
    }

    pub(crate) fn took(&mut self, nanos: u64) {
        self.latency.saturating_record(nanos.max(1));
    }

    pub(crate) fn complain(&mut self, about: impl ToString) {
        self.errors += 1;
        self.complaint.get_or_insert_with(|| about.to_string());
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.records += other.records;
        self.nanos = self.nanos.max(other.nanos);
        self.errors += other.errors;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        // Both have the same bounds, without which an addition could fail.
        let _ = self.latency.add(&other.latency);
        self.complaint = self.complaint.take().or(other.complaint);
    }
}

/// Sends, and sees the time from when a record was due to its acknowledgement.
pub(crate) fn produce(peer: &dyn Peer, load: &Load, clock: Clock) -> io::Result<Seen> {
    let senders = (0..load.producers).map(|producer| peer.sender(&load.topic, producer));
    let senders = senders.collect::<io::Result<Vec<_>>>()?;
    let start = clock.now() + 1_000_000;
    let mut seen = Seen::nothing();
    thread::scope(|scope| {
        let run = |(number, sender)| {
            let producer = Producer::new(load, number, start, clock);
            scope.spawn(move || producer.run(sender))
        };
        let threads: Vec<_> = (0..).zip(senders).map(run).collect();
        for thread in threads {
            seen.join(thread.join().expect("a producer does not panic"));
        }
    });
    Ok(seen)
}

/// Reads all that is in the topic from its start, and sees the rate.
pub(crate) fn consume(peer: &dyn Peer, load: &Load, clock: Clock) -> io::Result<Seen> {
    let expected = AtomicU64::new(peer.stored(&load.topic)?);
    let consumers = Consumers::start(peer, load, clock, &expected)?;
    let mut seen = consumers.run(|| ());
    // The time in the records is that of another run.
    seen.latency.reset();
    Ok(seen)
}

/// Sends and reads at once, and sees the time from when a record was due to when it was read.
pub(crate) fn end_to_end(peer: &dyn Peer, load: &Load, clock: Clock) -> io::Result<Seen> {
    let expected = AtomicU64::new(UNKNOWN);
    let consumers = Consumers::start(peer, load, clock, &expected)?;
    let mut produced = Ok(Seen::nothing());
    let mut seen = consumers.run(|| {
        produced = produce(peer, load, clock);
        let acknowledged = produced.as_ref().map_or(0, |seen| seen.records);
        expected.store(acknowledged, Ordering::Release);
    });
    let produced = produced?;
    seen.errors += produced.errors;
    seen.complaint = produced.complaint.or(seen.complaint);
    Ok(seen)
}
