//! One producer: batches by partition, requests by broker, a thread for the answers of each connection.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use sapwood_kafka_wire::messages::{
    ProduceRequest, ProduceRequestPartition, ProduceRequestTopic, ProduceResponse,
};
use sapwood_model::Timestamp;
use sapwood_record::{BatchBuilder, Codec, RecordInput};

use super::{Cluster, cluster::NEWEST_WITH_NAMES, connection::Connection};
use crate::{
    Error,
    clock::Clock,
    error::refused,
    plan::Plan,
    producer::{Outgoing, Outlet, Tally},
    watch::Watch,
};

/// How many bytes of batches a request has at most, unless a single batch is larger.
const REQUEST_BYTES: usize = 1 << 20;
const ANSWER_TIMEOUT_MS: i32 = 60_000;

/// Sends records to the leaders of their partitions.
#[derive(Debug)]
pub(crate) struct KafkaProducer {
    clock: Clock,
    topic: String,
    acks: i16,
    codec: Codec,
    batch_bytes: usize,
    linger_ns: u64,
    in_flight_max: usize,
    leaders: Vec<i32>,
    /// When the run began, in milliseconds since 1970.
    epoch_ms: i64,
    open: HashMap<u32, Open>,
    /// How large the last batch became.
    usual_bytes: usize,
    links: HashMap<i32, Link>,
    /// Bytes of batches that are full and wait for their turn.
    waiting_bytes: usize,
    state: Arc<State>,
    tally: Tally,
}

/// A batch that is being filled.
#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    sequence: u64,
    due: Vec<u64>,
    bytes: u64,
    opened_ns: u64,
}

/// A batch on its way.
#[derive(Debug)]
struct Batch {
    partition: u32,
    /// The number of its first record.
    sequence: u64,
    due: Vec<u64>,
    /// Of keys and values.
    bytes: u64,
}

/// A connection to a broker.
#[derive(Debug)]
struct Link {
    connection: Connection,
    version: i16,
    /// Partitions with an open batch and when it was opened, in that order. Entries of batches that have been full
    /// since are dropped when their turn comes.
    order: VecDeque<(u32, u64)>,
    /// The broker has no time for a batch that has waited long enough.
    is_awaited: bool,
    /// Batches that are full and wait for their turn.
    full: VecDeque<(Batch, Bytes)>,
    reader: Option<JoinHandle<Tally>>,
}

/// Shared with the threads that read answers.
#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// By broker: what is not answered yet.
    in_flight: HashMap<i32, VecDeque<(i32, Vec<Batch>)>>,
    failed: Option<Error>,
    is_done: bool,
}

impl State {
    /// A thread that panicked while it held the lock has ended the run anyway.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KafkaProducer {
    /// Connects to every leader of the topic.
    pub(crate) fn open(
        plan: &Plan,
        cluster: &Cluster,
        clock: Clock,
        watch: &Arc<Watch>,
    ) -> Result<Self, Error> {
        let state = Arc::new(State::default());
        let partitions = 0..u32::try_from(cluster.leaders.len()).unwrap_or(u32::MAX);
        let mut links = HashMap::new();
        for (leader, connection) in cluster.connect(partitions)? {
            let version = connection.version::<ProduceRequest>(NEWEST_WITH_NAMES.0)?;
            // Without acknowledgements nothing is answered.
            let reader = match plan.acks {
                0 => None,
                _ => Some(read_answers(
                    connection.split()?,
                    leader,
                    version,
                    Arc::clone(&state),
                    Tally::new(clock, Arc::clone(watch)),
                )),
            };
            let link = Link {
                connection,
                version,
                order: VecDeque::new(),
                is_awaited: false,
                full: VecDeque::new(),
                reader,
            };
            links.insert(leader, link);
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(0));
        let since_ms = i64::try_from(clock.now_ns() / 1_000_000).unwrap_or(0);
        Ok(Self {
            clock,
            topic: cluster.topic.clone(),
            acks: plan.acks,
            codec: plan.codec()?,
            batch_bytes: plan.batch_bytes as usize,
            linger_ns: u64::try_from(plan.linger.as_nanos()).unwrap_or(u64::MAX),
            in_flight_max: plan.in_flight as usize,
            leaders: cluster.leaders.clone(),
            epoch_ms: now_ms - since_ms,
            open: HashMap::new(),
            usual_bytes: 0,
            links,
            waiting_bytes: 0,
            state,
            tally: Tally::new(clock, Arc::clone(watch)),
        })
    }

    /// Closes a partition's batch and puts it in line.
    fn close(&mut self, partition: u32) -> Result<(), Error> {
        let Some(open) = self.open.remove(&partition) else {
            return Ok(());
        };
        let bytes = open.builder.build()?.to_bytes();
        let batch = Batch {
            partition,
            sequence: open.sequence,
            due: open.due,
            bytes: open.bytes,
        };
        let leader = self.leaders[partition as usize];
        let link = link_to(&mut self.links, leader);
        self.waiting_bytes += bytes.len();
        self.usual_bytes = bytes.len();
        link.full.push_back((batch, bytes));
        Ok(())
    }

    /// Sends what is in line to one broker, as one request. Whether there was anything.
    fn send(&mut self, leader: i32) -> Result<bool, Error> {
        let link = link_to(&mut self.links, leader);
        let (mut batches, mut partitions): (Vec<Batch>, Vec<_>) = Default::default();
        let mut bytes = 0;
        while let Some((batch, records)) = link.full.front() {
            // A request names a partition once.
            let is_named = batches.iter().any(|sent| sent.partition == batch.partition);
            if is_named || (bytes > 0 && bytes + records.len() > REQUEST_BYTES) {
                break;
            }
            bytes += records.len();
            let Some((batch, records)) = link.full.pop_front() else {
                break;
            };
            partitions.push(ProduceRequestPartition {
                index: i32::try_from(batch.partition).unwrap_or(i32::MAX),
                records: Some(records),
            });
            batches.push(batch);
        }
        if batches.is_empty() {
            return Ok(false);
        }
        self.waiting_bytes -= bytes;
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: ANSWER_TIMEOUT_MS,
            topic_data: vec![ProduceRequestTopic {
                name: self.topic.clone(),
                partition_data: partitions,
                ..Default::default()
            }],
        };
        self.tally.requests += 1;
        if self.acks == 0 {
            link.connection.send(&request, link.version)?;
            for batch in batches {
                self.tally.count(&[], batch.due.len() as u64, batch.bytes);
            }
            return Ok(true);
        }
        // The answer may come before `send` returns, so it is in flight first; only this thread sends on the
        // connection, so the id is known.
        let mut inner = self.state.lock();
        let line = inner.in_flight.entry(leader).or_default();
        line.push_back((link.connection.next_id(), batches));
        drop(inner);
        link.connection.send(&request, link.version)?;
        Ok(true)
    }

    /// Closes a broker's batches that have waited long enough, if it has time for them. Says when the next one
    /// will have.
    fn close_expired(&mut self, leader: i32, now: u64) -> Result<Option<u64>, Error> {
        let has_room =
            self.links[&leader].full.is_empty() && self.in_flight(leader)? < self.in_flight_max;
        loop {
            let link = link_to(&mut self.links, leader);
            link.is_awaited = false;
            let Some(&(partition, opened_ns)) = link.order.front() else {
                return Ok(None);
            };
            let open = self.open.get(&partition);
            let is_open = open.is_some_and(|open| open.opened_ns == opened_ns);
            let ends = opened_ns.saturating_add(self.linger_ns);
            if is_open && ends > now {
                return Ok(Some(ends));
            }
            if is_open && !has_room {
                link.is_awaited = true;
                return Ok(None);
            }
            link.order.pop_front();
            if is_open {
                self.close(partition)?;
            }
        }
    }

    fn in_flight(&self, leader: i32) -> Result<usize, Error> {
        let mut inner = self.state.lock();
        if let Some(error) = inner.failed.take() {
            return Err(error);
        }
        Ok(inner.in_flight.get(&leader).map_or(0, VecDeque::len))
    }
}

impl Outlet for KafkaProducer {
    fn has_room(&self) -> bool {
        self.waiting_bytes < REQUEST_BYTES
    }

    fn push(&mut self, record: Outgoing<'_>) -> Result<(), Error> {
        let timestamp = self.epoch_ms + i64::try_from(record.due_ns / 1_000_000).unwrap_or(0);
        let input = RecordInput {
            timestamp: Timestamp(timestamp),
            key: record.key,
            value: Some(record.value),
            headers: &[],
        };
        let batch_bytes = self.batch_bytes;
        if let Some(open) = self.open.get(&record.partition)
            && open.builder.uncompressed_bytes_with(&input) > batch_bytes
        {
            self.close(record.partition)?;
        }
        let open = match self.open.entry(record.partition) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let opened_ns = self.clock.now_ns();
                let leader = self.leaders[record.partition as usize];
                let link = link_to(&mut self.links, leader);
                link.order.push_back((record.partition, opened_ns));
                let capacity = batch_bytes.min(REQUEST_BYTES).min(2 * self.usual_bytes);
                place.insert(Open {
                    builder: BatchBuilder::new(self.codec).with_capacity(capacity),
                    sequence: record.sequence,
                    due: Vec::new(),
                    bytes: 0,
                    opened_ns,
                })
            }
        };
        open.builder.push(input)?;
        open.due.push(record.due_ns);
        open.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.len()) as u64;
        Ok(())
    }

    fn pump(&mut self) -> Result<Option<u64>, Error> {
        let now = self.clock.now_ns();
        let leaders: Vec<i32> = self.links.keys().copied().collect();
        let mut next = None;
        for leader in leaders {
            while self.in_flight(leader)? < self.in_flight_max && self.send(leader)? {}
            let ends = self.close_expired(leader, now)?;
            next = [next, ends].into_iter().flatten().min();
            while self.in_flight(leader)? < self.in_flight_max && self.send(leader)? {}
        }
        Ok(next)
    }

    fn wait(&mut self, until_ns: Option<u64>) -> Result<(), Error> {
        let inner = self.state.lock();
        let is_waiting = |inner: &Inner| {
            let links = self.links.iter();
            let wanted = links.filter(|(_, link)| link.is_awaited || !link.full.is_empty());
            let mut in_flight =
                wanted.map(|(leader, _)| inner.in_flight.get(leader).map_or(0, VecDeque::len));
            inner.failed.is_none() && !in_flight.any(|count| count < self.in_flight_max)
        };
        let timeout = match until_ns {
            Some(until) => Duration::from_nanos(until.saturating_sub(self.clock.now_ns())),
            None => Duration::from_secs(1),
        };
        if timeout.is_zero() || !is_waiting(&inner) {
            return Ok(());
        }
        // One wake-up is enough: the caller looks again at everything.
        let waited = self.state.changed.wait_timeout(inner, timeout);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Tally, Error> {
        let partitions: Vec<u32> = self.open.keys().copied().collect();
        for partition in partitions {
            self.close(partition)?;
        }
        loop {
            self.pump()?;
            let is_sent = self.links.values().all(|link| link.full.is_empty());
            let inner = self.state.lock();
            if is_sent && inner.in_flight.values().all(VecDeque::is_empty) {
                break;
            }
            if inner.failed.is_none() {
                let waited = self
                    .state
                    .changed
                    .wait_timeout(inner, Duration::from_millis(100));
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.state.lock().is_done = true;
        for link in self.links.values_mut() {
            link.connection.shut_down();
            if let Some(reader) = link.reader.take() {
                let tally = reader
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.tally.add(tally);
            }
        }
        self.tally.flush();
        Ok(self.tally)
    }
}

fn link_to(links: &mut HashMap<i32, Link>, leader: i32) -> &mut Link {
    let link = links.get_mut(&leader);
    link.expect("there is a connection to each leader")
}

/// Reads the answers of one connection until it is shut down.
fn read_answers(
    mut connection: Connection,
    leader: i32,
    version: i16,
    state: Arc<State>,
    mut tally: Tally,
) -> JoinHandle<Tally> {
    std::thread::spawn(move || {
        loop {
            let answer = connection.answer::<ProduceResponse>(version);
            let mut inner = state.lock();
            let settled = answer.and_then(|(id, answer)| {
                let line = inner.in_flight.entry(leader).or_default();
                match line.pop_front() {
                    Some((sent, batches)) if sent == id => Ok((batches, answer)),
                    _ => Err(Error::Answer(format!(
                        "nobody waits for the answer to {id}"
                    ))),
                }
            });
            state.changed.notify_one();
            match settled {
                Ok((batches, answer)) => {
                    drop(inner);
                    settle(&mut tally, batches, &answer);
                }
                Err(error) => {
                    if !inner.is_done {
                        inner.failed.get_or_insert(error);
                    }
                    drop(inner);
                    tally.flush();
                    return tally;
                }
            }
        }
    })
}

fn settle(tally: &mut Tally, batches: Vec<Batch>, answer: &ProduceResponse) {
    let results: HashMap<i32, i16> = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|partition| (partition.index, partition.error_code))
        .collect();
    for batch in batches {
        let index = i32::try_from(batch.partition).unwrap_or(i32::MAX);
        let records = batch.due.len() as u64;
        let error = match results.get(&index) {
            Some(0) => {
                tally.count(&batch.due, records, batch.bytes);
                continue;
            }
            Some(code) => refused("producing", *code, None).to_string(),
            None => "the broker's answer does not name the partition".to_owned(),
        };
        tally.fail(
            batch.partition,
            batch.sequence..batch.sequence + records,
            error,
        );
    }
}
