//! One consumer of partitions that one broker leads: fetch sessions, one fetch ahead.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sapwood_kafka_wire::messages::{
    FetchRequest, FetchRequestForgottenTopic, FetchRequestPartition, FetchRequestTopic,
    FetchResponse,
};
use sapwood_record::batches;

use super::{Cluster, cluster::NEWEST_WITH_NAMES, connection::Connection};
use crate::{
    Error,
    consumer::{Place, Sink},
    error::refused,
    plan::Plan,
};

/// What a response has at most, as the clients of Kafka have it by default.
const RESPONSE_BYTES: i32 = 50 << 20;
const SESSION_NOT_FOUND: i16 = 70;
const SESSION_EPOCH: i16 = 71;
/// Batches are decompressed to at most so many bytes.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;
/// Where the numbers stand that say how long a batch is and which offset follows it.
const LENGTH_AT: usize = 8;
const LAST_DELTA_AT: usize = 23;
const HEADER_BYTES: usize = 61;

/// Reads partitions of one leader.
#[derive(Debug)]
pub(crate) struct KafkaConsumer {
    connection: Connection,
    version: i16,
    topic: String,
    fetch_bytes: i32,
    fetch_wait_ms: i32,
    places: BTreeMap<i32, Place>,
    session: Session,
}

/// Records of a partition, and the place they were asked for.
#[derive(Debug)]
struct Fetched {
    records: Bytes,
    place: Place,
}

/// A fetch session: the broker remembers what is asked for (KIP-227).
#[derive(Debug, Default)]
struct Session {
    id: i32,
    epoch: i32,
    /// Partitions whose place the broker does not know.
    changed: BTreeSet<i32>,
    forgotten: Vec<i32>,
}

impl KafkaConsumer {
    /// Connects to the leader of these partitions.
    pub(crate) fn open(
        cluster: &Cluster,
        leader: i32,
        places: BTreeMap<i32, Place>,
        plan: &Plan,
    ) -> Result<Self, Error> {
        let connection = Connection::open(&cluster.brokers[&leader])?;
        let version = connection.version::<FetchRequest>(NEWEST_WITH_NAMES.1)?;
        let mut consumer = Self {
            connection,
            version,
            topic: cluster.topic.clone(),
            fetch_bytes: i32::try_from(plan.fetch_bytes).unwrap_or(i32::MAX),
            fetch_wait_ms: i32::try_from(plan.fetch_wait.as_millis()).unwrap_or(i32::MAX),
            places,
            session: Session::default(),
        };
        consumer.session.changed = consumer.places.keys().copied().collect();
        Ok(consumer)
    }

    /// Reads until every partition has come to its end or the sink is told to stop. Blocks.
    pub(crate) fn run(mut self, sink: &mut Sink) -> Result<(), Error> {
        self.send()?;
        loop {
            let (answer, frame) = self.connection.answer_with_frame(self.version)?;
            sink.tally.requests += 1;
            let read = self.advance(answer)?;
            // The next fetch is on its way while the records of this one are looked at.
            let goes_on = !self.places.is_empty() && !sink.is_over();
            if goes_on {
                self.send()?;
            }
            for fetched in read {
                fetched.enter(sink)?;
            }
            sink.turn();
            self.connection.reuse(frame);
            if !goes_on {
                sink.tally.flush();
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> Result<(), Error> {
        let session = &mut self.session;
        let asked = session.changed.iter().filter_map(|partition| {
            let place = self.places.get(partition)?;
            Some(FetchRequestPartition {
                partition: *partition,
                fetch_offset: place.next,
                partition_max_bytes: self.fetch_bytes,
                ..Default::default()
            })
        });
        let asked: Vec<_> = asked.collect();
        let topics = match asked.is_empty() {
            true => Vec::new(),
            false => vec![FetchRequestTopic {
                topic: self.topic.clone(),
                partitions: asked,
                ..Default::default()
            }],
        };
        let forgotten = match session.forgotten.is_empty() {
            true => Vec::new(),
            false => vec![FetchRequestForgottenTopic {
                topic: self.topic.clone(),
                partitions: std::mem::take(&mut session.forgotten),
                ..Default::default()
            }],
        };
        let request = FetchRequest {
            max_wait_ms: self.fetch_wait_ms,
            min_bytes: 1,
            max_bytes: RESPONSE_BYTES,
            session_id: session.id,
            session_epoch: session.epoch,
            topics,
            forgotten_topics_data: forgotten,
            ..Default::default()
        };
        session.changed.clear();
        self.connection.send(&request, self.version).map(drop)
    }

    /// Notes what comes next, and takes out the records.
    fn advance(&mut self, answer: FetchResponse) -> Result<Vec<Fetched>, Error> {
        let session = &mut self.session;
        match answer.error_code {
            0 if answer.session_id != 0 => {
                session.id = answer.session_id;
                session.epoch = session.epoch.checked_add(1).unwrap_or(1);
            }
            // No session, or an expired one: everything is said again.
            0 | SESSION_NOT_FOUND | SESSION_EPOCH => {
                *session = Session::default();
                session.changed = self.places.keys().copied().collect();
            }
            code => return Err(refused("fetching", code, None)),
        }
        let mut read = Vec::new();
        for found in answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            let index = found.partition_index;
            if found.error_code != 0 {
                return Err(refused(
                    format!("fetching partition {index}"),
                    found.error_code,
                    None,
                ));
            }
            let Some(place) = self.places.get_mut(&index) else {
                continue;
            };
            let Some((records, next)) = found.records.and_then(whole_batches) else {
                continue;
            };
            read.push(Fetched {
                records,
                place: *place,
            });
            place.next = next;
            if place.until.is_some_and(|until| next >= until) {
                self.places.remove(&index);
                session.changed.remove(&index);
                session.forgotten.push(index);
            } else {
                session.changed.insert(index);
            }
        }
        Ok(read)
    }
}

/// The whole batches at the beginning of a response, which may end in a part of one, and the offset behind them.
/// `None` when there is none.
fn whole_batches(records: Bytes) -> Option<(Bytes, i64)> {
    let word = |at: usize| {
        let bytes = records.get(at..at + 4)?;
        Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let (mut end, mut next) = (0, None);
    while records.len() - end >= HEADER_BYTES {
        let (high, low) = (word(end)?, word(end + 4)?);
        let size = usize::try_from(word(end + LENGTH_AT)?).ok()? + LENGTH_AT + 4;
        if size > records.len() - end {
            break;
        }
        let base = (i64::from(high) << 32) | i64::from(low.cast_unsigned());
        next = Some(base + i64::from(word(end + LAST_DELTA_AT)?) + 1);
        end += size;
    }
    Some((records.slice(..end), next?))
}

impl Fetched {
    fn enter(self, sink: &mut Sink) -> Result<(), Error> {
        let Place {
            next,
            until,
            is_whole,
        } = self.place;
        for batch in batches(self.records) {
            let batch = batch?;
            if batch.header().is_control() {
                continue;
            }
            for record in batch.records(DECOMPRESSED_BYTES_MAX)? {
                let record = record?;
                let offset = i64::try_from(record.offset.0).unwrap_or(i64::MAX);
                // A batch comes whole, also when only some of its records were asked for.
                if offset >= next && until.is_none_or(|until| offset < until) {
                    sink.enter(record.key.as_ref(), record.value.as_ref(), is_whole);
                }
            }
            sink.turn();
        }
        Ok(())
    }
}
