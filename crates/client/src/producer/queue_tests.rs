//! The queue against a model of the broker: Kafka's rules for producer state, connections that break
//! with requests still on their way, refusals, expiry.

use std::collections::BTreeMap;

use sapwood_model::Timestamp;
use sapwood_record::{BatchBuilder, Codec, Header, RecordInput};

use super::*;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What the broker keeps of the producer, and the batches it has.
#[derive(Default)]
struct Broker {
    producer: Option<State>,
    log: Vec<u64>,
    next_offset: u64,
}

struct State {
    epoch: u16,
    next: u32,
    /// The last 5: first sequence number, records, offset.
    recent: VecDeque<(u32, u32, u64)>,
}

impl Broker {
    /// `number` says which batch of the test it is.
    fn append(&mut self, bytes: &Bytes, number: u64) -> Result<Offset, Error> {
        let header = Header::read(bytes).unwrap();
        let stamp = header.producer().unwrap();
        let (base, records) = (stamp.base_sequence as u32, header.records_count());
        let refuse = |code| Err(Error::local(code, "model"));
        match &self.producer {
            Some(state) if stamp.epoch.0 < state.epoch => return refuse(Code::ProducerFenced),
            Some(state) if stamp.epoch.0 > state.epoch && base != 0 => {
                return refuse(Code::OutOfSequence);
            }
            Some(state) if stamp.epoch.0 == state.epoch => {
                let known =
                    |(seen, count, _): &&(u32, u32, u64)| (*seen, *count) == (base, records);
                if let Some((_, _, offset)) = state.recent.iter().find(known) {
                    return Ok(Offset(*offset));
                }
                if base != state.next {
                    return refuse(Code::OutOfSequence);
                }
            }
            _ => {}
        }
        let offset = self.next_offset;
        self.next_offset += u64::from(records);
        self.log.push(number);
        let state = self.producer.get_or_insert(State {
            epoch: stamp.epoch.0,
            next: 0,
            recent: VecDeque::new(),
        });
        if stamp.epoch.0 > state.epoch {
            state.recent.clear();
        }
        state.epoch = stamp.epoch.0;
        state.next = sequence_after(base, records);
        state.recent.push_back((base, records, offset));
        if state.recent.len() > 5 {
            state.recent.pop_front();
        }
        Ok(Offset(offset))
    }
}

/// What became of each batch: written, refused for certain, or given up in doubt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Written(u64),
    Refused,
    Expired,
}

/// A client, a broker and what is on its way between them.
struct World {
    random: Random,
    queue: Queue,
    broker: Broker,
    /// Requests of the present connection, and of broken ones, each in order.
    connection: VecDeque<(u64, Bytes)>,
    strays: Vec<VecDeque<(u64, Bytes)>>,
    answers: VecDeque<(u64, Result<Offset, Error>)>,
    /// By correlation.
    fates: BTreeMap<u64, Fate>,
    pushed: u64,
    /// Instants are made up: batch `n` expires at `start + n`.
    start: Instant,
    full: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            queue: Queue::new(Some(ProducerId(7)), 1),
            broker: Broker::default(),
            connection: VecDeque::new(),
            strays: Vec::new(),
            answers: VecDeque::new(),
            fates: BTreeMap::new(),
            pushed: 0,
            start: Instant::now(),
            full: false,
        }
    }

    fn push(&mut self) {
        let records = 1 + self.random.below(3) as u32;
        let stamp = self.queue.stamp(records).unwrap();
        let mut builder = BatchBuilder::new(Codec::None).with_producer(stamp);
        for _ in 0..records {
            let input = RecordInput {
                timestamp: Timestamp(1),
                key: None,
                value: Some(b"v"),
                headers: &[],
            };
            builder.push(input).unwrap();
        }
        self.pushed += 1;
        self.queue.push(NewBatch {
            correlation: self.pushed,
            bytes: builder.build().unwrap().to_bytes(),
            records,
            deadline: self.start + Duration::from_secs(self.pushed),
            owner: Owner {
                number: self.pushed,
                held_bytes: 0,
                settle: oneshot::channel().0,
            },
        });
    }

    /// Every eleventh batch is one that the broker refuses whatever happens.
    fn is_bad(correlation: u64) -> bool {
        correlation.is_multiple_of(11)
    }

    fn process(&mut self, correlation: u64, bytes: &Bytes) -> Result<Offset, Error> {
        // The broker takes only whole batches with the right checksum.
        sapwood_record::Batch::split(bytes.clone())
            .unwrap()
            .verify_crc()
            .unwrap();
        if Self::is_bad(correlation) {
            return Err(Error::local(Code::RecordTooLarge, "model"));
        }
        if self.full {
            let error = sapwood_rpc::v1::Error {
                code: Code::StorageFull.to_string(),
                retriable: true,
                ..Default::default()
            };
            return Err(error.into());
        }
        self.broker.append(bytes, correlation)
    }

    fn settle(&mut self, owner: &Owner, fate: Fate) {
        let before = self.fates.insert(owner.number, fate);
        assert_eq!(before, None, "batch {} has two results", owner.number);
    }

    fn send(&mut self) {
        while let Some(request) = self.queue.next_to_send() {
            self.connection.push_back(request);
        }
        assert!(self.connection.len() + self.answers.len() <= IN_FLIGHT_MAX);
    }

    fn resume(&mut self) {
        for (owner, _) in self.queue.resume() {
            self.settle(&owner, Fate::Refused);
        }
    }

    fn serve_one(&mut self) {
        if let Some((correlation, bytes)) = self.connection.pop_front() {
            let answer = self.process(correlation, &bytes);
            self.answers.push_back((correlation, answer));
        }
    }

    fn hear_one(&mut self) {
        let Some((correlation, answer)) = self.answers.pop_front() else {
            return;
        };
        match self.queue.answered(correlation, answer) {
            Answered::Done(owner, Ok(offset)) => {
                self.settle(&owner, Fate::Written(offset.unwrap().0));
            }
            Answered::Done(owner, Err(_)) => self.settle(&owner, Fate::Refused),
            Answered::Kept => {}
        }
        if self.queue.is_settled_after_failure() {
            self.queue.pause();
            self.resume();
        }
    }

    fn disconnect(&mut self) {
        // Answers are lost; requests may still arrive, all or the first few.
        self.answers.clear();
        let mut stray = std::mem::take(&mut self.connection);
        stray.truncate(self.random.below(stray.len() as u64 + 1) as usize);
        self.strays.push(stray);
        self.queue.disconnected();
        self.resume();
    }

    fn serve_stray(&mut self) {
        if self.strays.is_empty() {
            return;
        }
        let which = self.random.below(self.strays.len() as u64) as usize;
        match self.strays[which].pop_front() {
            Some((correlation, bytes)) => {
                let _ = self.process(correlation, &bytes);
            }
            None => {
                self.strays.swap_remove(which);
            }
        }
    }

    fn expire(&mut self) {
        let Some(oldest) = self.queue.batches.front() else {
            return;
        };
        let now = self.start + Duration::from_secs(oldest.correlation);
        for owner in self.queue.expire(now) {
            self.settle(&owner, Fate::Expired);
        }
        if self.queue.is_settled_after_failure() {
            self.resume();
        }
    }

    fn step(&mut self, with_expiry: bool) {
        match self.random.below(40) {
            0 => self.disconnect(),
            1 => self.full = true,
            2..=5 => self.full = false,
            6 if with_expiry => self.expire(),
            7..=12 => self.serve_stray(),
            13..=24 => self.serve_one(),
            _ => self.hear_one(),
        }
        while self.queue.has_room() && self.random.one_in(2) {
            self.push();
            self.send();
        }
        self.send();
    }

    /// No more failures: everything gets its result.
    fn finish(&mut self) {
        self.full = false;
        for _ in 0..1000 {
            self.serve_one();
            self.hear_one();
            self.send();
        }
        assert!(
            self.queue.batches.is_empty(),
            "batches are left: {:?}",
            self.queue.batches
        );
        while !self.strays.is_empty() {
            self.serve_stray();
        }
        assert_eq!(self.fates.len() as u64, self.pushed);
    }

    fn check(&self) {
        let log = &self.broker.log;
        assert!(
            log.windows(2).all(|pair| pair[0] < pair[1]),
            "out of order or twice: {log:?}"
        );
        for (correlation, fate) in &self.fates {
            let times = log.iter().filter(|logged| *logged == correlation).count();
            match fate {
                Fate::Written(_) => assert_eq!(times, 1, "batch {correlation} {fate:?}"),
                Fate::Refused => assert_eq!(times, 0, "batch {correlation} {fate:?}"),
                Fate::Expired => assert!(times <= 1, "batch {correlation} {fate:?}"),
            }
            if World::is_bad(*correlation) {
                assert!(!matches!(fate, Fate::Written(_)));
            }
        }
    }
}

fn run(seed: u64, with_expiry: bool) -> World {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step(with_expiry);
    }
    world.finish();
    world.check();
    world
}

#[test]
fn every_batch_is_written_once_and_in_order_whatever_the_connections_do() {
    for seed in 0..400 {
        println!("seed {seed}");
        let world = run(seed, false);
        // Without expiry only the bad ones fail.
        for (correlation, fate) in &world.fates {
            assert_eq!(
                World::is_bad(*correlation),
                *fate == Fate::Refused,
                "{correlation} {fate:?}"
            );
        }
    }
}

#[test]
fn batches_that_are_given_up_are_written_at_most_once_and_the_others_still_once() {
    for seed in 1000..1400 {
        println!("seed {seed}");
        run(seed, true);
    }
}

#[test]
fn the_first_batch_goes_alone_until_it_is_written() {
    let mut world = World::new(1);
    world.push();
    assert!(!world.queue.has_room());
    world.send();
    world.serve_one();
    world.hear_one();
    for _ in 0..IN_FLIGHT_MAX {
        assert!(world.queue.has_room());
        world.push();
    }
    assert!(!world.queue.has_room());
    world.send();
    assert_eq!(world.connection.len(), IN_FLIGHT_MAX);
    world.disconnect();
    world.send();
    assert_eq!(world.connection.len(), 1);
}

#[test]
fn a_refused_batch_gives_its_numbers_to_the_next_without_a_new_epoch() {
    let mut world = World::new(1);
    for _ in 0..40 {
        world.push();
        world.send();
        world.serve_one();
        world.hear_one();
    }
    world.finish();
    world.check();
    assert_eq!(
        world.queue.producer,
        Some((ProducerId(7), ProducerEpoch(0)))
    );
}

#[test]
fn a_broker_that_lost_acknowledged_batches_gets_the_rest_in_a_new_epoch() {
    let mut world = World::new(1);
    for _ in 0..4 {
        world.push();
        world.send();
        world.serve_one();
        world.hear_one();
    }
    // A power cut on a topic with durability=os: back to the first batch.
    let state = world.broker.producer.as_mut().unwrap();
    let (base, records, _) = state.recent[0];
    state.next = sequence_after(base, records);
    state.recent.truncate(1);
    world.push();
    world.send();
    world.finish();
    assert_eq!(
        world.queue.producer,
        Some((ProducerId(7), ProducerEpoch(1)))
    );
    assert!(matches!(world.fates[&5], Fate::Written(_)));
}

#[test]
fn sequence_numbers_wrap_at_31_bits() {
    assert_eq!(sequence_after(0x7fff_ffff, 1), 0);
    assert_eq!(sequence_after(0x7fff_fffe, 3), 1);
    let stamp = stamp(Some((ProducerId(1), ProducerEpoch(0))), 0x7fff_ffff, 2).unwrap();
    assert_eq!((stamp.base_sequence, stamp.last_sequence), (i32::MAX, 0));
}

#[test]
fn a_restamped_batch_has_the_new_stamp_and_a_right_checksum() {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    let input = RecordInput {
        timestamp: Timestamp(1),
        key: None,
        value: Some(&[7; 500]),
        headers: &[],
    };
    builder.push(input).unwrap();
    let batch = builder.build().unwrap();
    let stamp = stamp(Some((ProducerId(5), ProducerEpoch(6))), 77, 1).unwrap();
    let restamped = sapwood_record::Batch::split(restamped(&batch.to_bytes(), stamp)).unwrap();
    restamped.verify_crc().unwrap();
    assert_eq!(restamped.header().producer().unwrap(), stamp);
    assert_eq!(restamped.record_bytes(), batch.record_bytes());
}
