//! What clients do at random, and what they do with a broker that has just been opened.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sapwood_log::io::Clock;
use sapwood_model::{Acks, Code, Durability, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, ProducerStamp, RecordInput};
use sapwood_sim::Rng;

use crate::clients::{Batch, Failure, Request, ask};
use crate::log::{Fate, Log, Producer};
use crate::model::{At, Change, End, Key, Outcome, Settings};
use crate::world::World;

const TOPICS: [&str; 3] = ["orders", "events", "audit"];
const GROUPS: [&str; 3] = ["billing", "search", "mail"];
const PARTITIONS_MAX: u64 = 3;
const PRODUCERS: usize = 2;
/// A retry is recognised in so many of a producer's last batches.
const REMEMBERED: usize = 5;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Which operations there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaning {
    /// All.
    Mixed,
    /// All but the end of the process.
    Running,
}

/// The first topics.
pub(crate) fn begin(world: &mut World) -> Outcome {
    world.open()?;
    for (name, durability) in [("orders", Durability::Fsync), ("events", Durability::Os)] {
        let settings = Settings {
            durability,
            retention_ms: 1_000_000_000,
        };
        let create = Change::Create {
            partitions: 2,
            settings,
        };
        world.tally.created += 1;
        ask_all(world, vec![Request::Change(name.to_owned(), create)])?;
    }
    Ok(())
}

/// One random operation, which is traffic of several clients at once and perhaps something else.
pub(crate) fn step(world: &mut World, rng: &mut Rng, leaning: Leaning) -> Outcome {
    let mut requests = Vec::new();
    match rng.below(100) {
        0..24 => {}
        24..60 => requests.extend(change(world, rng)),
        60..68 => requests.extend(trim(world, rng)),
        68..76 => requests.extend(retry(world, rng)),
        76..80 => requests.extend(forget(world, rng)),
        80..83 => requests.push(Request::ProducerId),
        83..90 => return pass(world, rng),
        90..100 if leaning == Leaning::Running => {}
        90..93 => return restart(world, End::Kill, rng),
        93..96 => return restart(world, End::PowerCut, rng),
        _ => {
            let end = match world.stop()? {
                true => End::Clean,
                false => End::Kill,
            };
            return restart(world, end, rng);
        }
    }
    let is_retry = matches!(requests.first(), Some(Request::Produce(..)));
    let is_forgetting = matches!(
        requests.first(),
        Some(Request::ForgetOffsets(..) | Request::DeleteGroup(..))
    );
    if !is_retry {
        requests.extend(produce(world, rng)?);
    }
    if !is_forgetting {
        requests.extend(commit(world, rng));
    }
    let deletes = |request: &Request| matches!(request, Request::Change(_, Change::Delete));
    // What is read beside the deletion of a topic may still be what there was before.
    let reads_offsets = rng.chance(1, 4) && !requests.iter().any(deletes);
    requests.extend(look(world, reads_offsets, rng));
    if rng.chance(1, 2) {
        requests.reverse();
    }
    ask_all(world, requests)?;
    if rng.chance(1, 3) {
        world.rest()?;
    }
    Ok(())
}

/// Asks for all of this at once and learns the answers.
pub(crate) fn ask_all(world: &mut World, requests: Vec<Request>) -> Outcome {
    let deleted: BTreeSet<String> = requests
        .iter()
        .filter_map(|request| match request {
            Request::Change(name, Change::Delete) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let (broker, notes) = (world.broker()?, world.notes.clone());
    let run = async move {
        let asked: Vec<_> = requests
            .into_iter()
            .map(|request| tokio::spawn(ask(broker.clone(), notes.clone(), request)))
            .collect();
        let mut failures = Vec::new();
        for asked in asked {
            failures.extend(asked.await.map_err(|error| error.to_string())?.err());
        }
        Outcome::Ok(failures)
    };
    let failures: Vec<Failure> = world.run(run)??;
    world.settle()?;
    for failure in failures {
        if failure.request.starts_with("produce")
            && let Some(at) = &failure.topic
            && let Some(log) = world.model.log_mut(at)
        {
            // Where their sequence goes on is open.
            log.producers.clear();
        }
        if failure.code == Some(Code::StorageFull) {
            world.tally.refused += 1;
        }
        let is_deleted = failure
            .topic
            .as_ref()
            .is_some_and(|at| deleted.contains(&at.0));
        if failure.code.is_none() || !(world.faulty || is_deleted) {
            return Err(failure.to_string());
        }
    }
    Ok(())
}

/// Ends the process and starts another one. With a faulty disk the first tries may fail.
pub(crate) fn restart(world: &mut World, end: End, rng: &mut Rng) -> Outcome {
    const TRIES: usize = 4;
    world.crash(end, rng)?;
    for _ in 0..TRIES {
        match world.open() {
            Err(_) if world.faulty && !world.is_open() => world.crash(End::Kill, rng)?,
            done => return done,
        }
    }
    Err("the broker does not open".to_owned())
}

/// A change of the catalog, of a topic that has none under way.
fn change(world: &mut World, rng: &mut Rng) -> Option<Request> {
    let name = (*rng.pick(&TOPICS)).to_owned();
    if world.model.changes.contains_key(&name) {
        return None;
    }
    let settings = Settings {
        durability: *rng.pick(&[Durability::Fsync, Durability::Os]),
        retention_ms: 1_000_000_000 + rng.below(1000),
    };
    let change = match world.model.topics.get(&name) {
        None => Change::Create {
            partitions: 1 + rng.below(PARTITIONS_MAX) as u32,
            settings,
        },
        Some(topic) => match rng.below(10) {
            0..4 => Change::Delete,
            4..6 if (topic.logs.len() as u64) < PARTITIONS_MAX => {
                Change::AddPartitions(topic.logs.len() as u32 + 1)
            }
            _ if settings == topic.settings => return None,
            _ => Change::Alter(settings),
        },
    };
    match &change {
        Change::Create { .. } => world.tally.created += 1,
        Change::Delete => world.tally.deleted += 1,
        Change::Alter(_) => world.tally.switched += 1,
        Change::AddPartitions(_) => {}
    }
    Some(Request::Change(name, change))
}

/// Every partition that the model knows.
fn partitions(world: &World) -> Vec<At> {
    let topics = world.model.topics.iter();
    let at = topics.flat_map(|(name, topic)| {
        (0..topic.logs.len() as u32).map(move |partition| (name.clone(), partition))
    });
    at.collect()
}

fn one_of(world: &World, rng: &mut Rng) -> Option<At> {
    let all = partitions(world);
    (!all.is_empty()).then(|| rng.pick(&all).clone())
}

/// Pipelines of new batches to some partitions.
pub(crate) fn produce(world: &mut World, rng: &mut Rng) -> Outcome<Vec<Request>> {
    let mut requests = Vec::new();
    for at in partitions(world) {
        if rng.chance(1, 2) {
            let count = 1 + rng.below(3);
            requests.push(produce_to(world, &at, count, rng)?);
        }
    }
    Ok(requests)
}

/// A few new batches to every partition.
pub(crate) fn produce_everywhere(world: &mut World, rng: &mut Rng) -> Outcome {
    let mut requests = Vec::new();
    for at in partitions(world) {
        let count = rng.below(4);
        requests.push(produce_to(world, &at, count, rng)?);
    }
    ask_all(world, requests)
}

fn produce_to(world: &mut World, at: &At, count: u64, rng: &mut Rng) -> Outcome<Request> {
    let mut producer = match rng.chance(3, 4) {
        true => producer_of(world, at, rng)?,
        false => None,
    };
    let mut batches = Vec::new();
    for _ in 0..count {
        let bytes = build(world, &mut producer, rng)?;
        let acks = *rng.pick(&[Acks::All, Acks::All, Acks::All, Acks::Leader]);
        batches.push(Batch {
            bytes,
            acks,
            is_first: true,
            duplicate_of: None,
        });
    }
    world.tally.produced += count;
    Ok(Request::Produce(at.clone(), batches))
}

/// A producer that goes on, or a new one. None if there is no id to be had.
fn producer_of(world: &mut World, at: &At, rng: &mut Rng) -> Outcome<Option<Producer>> {
    let known = &world
        .model
        .log_mut(at)
        .ok_or("no such partition")?
        .producers;
    if known.len() == PRODUCERS || (!known.is_empty() && rng.chance(4, 5)) {
        return Ok(Some(*rng.pick(known)));
    }
    let before = world.model.producer_ids.clone();
    ask_all(world, vec![Request::ProducerId])?;
    let Some(id) = world.model.producer_ids.difference(&before).next().copied() else {
        return Ok(None);
    };
    let producer = Producer {
        id,
        next_sequence: 0,
    };
    let log = world.model.log_mut(at).ok_or("no such partition")?;
    log.producers.push(producer);
    Ok(Some(producer))
}

/// A batch that was never sent before.
fn build(world: &mut World, producer: &mut Option<Producer>, rng: &mut Rng) -> Outcome<Bytes> {
    let count = 1 + rng.below(3) as i32;
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some(producer) = producer {
        let base_sequence = producer.next_sequence;
        producer.next_sequence += count;
        builder = builder.with_producer(ProducerStamp {
            id: ProducerId(producer.id),
            epoch: ProducerEpoch(0),
            base_sequence,
            last_sequence: base_sequence + count - 1,
        });
    }
    let size = match rng.chance(1, 10) {
        true => 3000 + rng.below(3000),
        false => rng.below(300),
    };
    for _ in 0..count {
        let mut value = world.number().to_be_bytes().to_vec();
        value.resize(8 + size as usize, rng.below(3) as u8);
        let record = RecordInput {
            timestamp: world.machine.clock.now(),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(record).map_err(|error| error.to_string())?;
    }
    let batch = builder.build().map_err(|error| error.to_string())?;
    Ok(batch.to_bytes())
}

/// A client whose answers were lost sends one of its last batches again.
fn retry(world: &mut World, rng: &mut Rng) -> Option<Request> {
    let at = one_of(world, rng)?;
    let log = world.model.log_mut(&at)?;
    let known = log.producers.clone();
    if known.is_empty() {
        return None;
    }
    let batch = retried(log, rng.pick(&known), rng)?;
    world.tally.retried += 1;
    Some(Request::Produce(at, vec![batch]))
}

/// One of a producer's last batches: one that is there, or the first that was lost.
fn retried(log: &Log, producer: &Producer, rng: &mut Rng) -> Option<Batch> {
    let sent = log.of_producer(producer.id);
    let lost = sent
        .iter()
        .find(|(place, sent)| sent.fate == Fate::Gone && place.first == producer.next_sequence);
    let (bytes, duplicate_of) = match lost {
        Some((_, lost)) => (lost.bytes.clone(), None),
        None => {
            let there: Vec<_> = sent
                .iter()
                .filter(|(_, sent)| sent.fate != Fate::Gone)
                .collect();
            let last = &there[there.len().saturating_sub(REMEMBERED)..];
            let known: Vec<(Bytes, u64)> = last
                .iter()
                .filter_map(|(_, sent)| match sent.fate {
                    Fate::At(base) if base >= log.start => Some((sent.bytes.clone(), base)),
                    _ => None,
                })
                .collect();
            if known.is_empty() {
                return None;
            }
            let (bytes, base) = rng.pick(&known).clone();
            (bytes, Some(base))
        }
    };
    Some(Batch {
        bytes,
        acks: Acks::All,
        is_first: false,
        duplicate_of,
    })
}

fn trim(world: &mut World, rng: &mut Rng) -> Option<Request> {
    let at = one_of(world, rng)?;
    let log = world.model.log_mut(&at)?;
    let to = log.start + rng.below(log.seen_floor.saturating_sub(log.start) + 1);
    world.tally.trimmed += 1;
    Some(Request::Trim(at, to))
}

/// Groups say how far they are.
fn commit(world: &mut World, rng: &mut Rng) -> Vec<Request> {
    let mut requests = Vec::new();
    for group in GROUPS {
        if !rng.chance(1, 3) {
            continue;
        }
        let mut values: Vec<(Key, Option<(_, u64)>)> = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let Some(at) = one_of(world, rng) else { break };
            let id = world.model.topics[&at.0].id;
            let key = (group.to_owned(), at.0, at.1);
            if values.iter().all(|(known, _)| *known != key) {
                values.push((key, Some((id, world.number()))));
            }
        }
        if !values.is_empty() {
            world.tally.committed += 1;
            requests.push(Request::Commit(group.to_owned(), values));
        }
    }
    requests
}

/// A group forgets some of its offsets, or is deleted.
fn forget(world: &mut World, rng: &mut Rng) -> Option<Request> {
    let group = (*rng.pick(&GROUPS)).to_owned();
    let offsets = world.model.offsets.iter();
    let of_group: Vec<_> = offsets.filter(|(key, _)| key.0 == group).collect();
    // What may have expired may be unknown to the broker.
    let is_sure = of_group.iter().all(|(_, offset)| offset.asked.is_empty());
    let known = of_group.iter().filter(|(_, offset)| offset.known.is_some());
    let known: Vec<Key> = known.map(|(key, _)| (*key).clone()).collect();
    if known.is_empty() || !is_sure {
        return None;
    }
    if rng.chance(1, 2) {
        return Some(Request::DeleteGroup(group, known));
    }
    let some = known.into_iter().filter(|_| rng.chance(1, 2)).collect();
    Some(Request::ForgetOffsets(group, some))
}

/// Readers.
fn look(world: &mut World, reads_offsets: bool, rng: &mut Rng) -> Vec<Request> {
    let mut requests = Vec::new();
    if let Some(at) = one_of(world, rng) {
        let topic = &world.model.topics[&at.0];
        // Others may move the log start before the read.
        let from = topic.logs[at.1 as usize].seen_floor;
        requests.push(Request::Read(at.clone(), topic.id, from));
    }
    if reads_offsets {
        requests.push(Request::ReadOffsets((*rng.pick(&GROUPS)).to_owned()));
    }
    requests
}

/// Time passes, or somebody sets the clock.
fn pass(world: &mut World, rng: &mut Rng) -> Outcome {
    let clock = world.machine.clock.clone();
    let time = match rng.below(12) {
        0..4 => Duration::from_millis(rng.below(2000)),
        4..7 => Duration::from_secs(35),
        7..9 => Duration::from_secs(11 * 60),
        9 => DAY + Duration::from_secs(3600),
        10 => DAY * 8,
        _ => {
            let by = rng.below(7_200_000) as i64 - 3_600_000;
            clock.set(Timestamp(clock.now().0 + by));
            return world.rest();
        }
    };
    if time > DAY {
        let logs = world
            .model
            .topics
            .values_mut()
            .flat_map(|topic| &mut topic.logs);
        logs.for_each(|log| log.producers.clear());
        // Offsets that nobody uses expire after a week.
        for offset in world.model.offsets.values_mut() {
            offset.asked.push(None);
        }
    }
    world.pass(time)
}

/// What clients do with a broker that has just been opened: send again what they have no answer to,
/// and go on.
pub(crate) fn go_on(world: &mut World, rng: &mut Rng) -> Outcome {
    let mut requests = Vec::new();
    for at in partitions(world) {
        let log = world.model.log_mut(&at).ok_or("no such partition")?;
        let producers = log.producers.clone();
        for producer in producers {
            let log = world.model.log_mut(&at).ok_or("no such partition")?;
            if let Some(batch) = retried(log, &producer, rng) {
                world.tally.retried += 1;
                ask_all(world, vec![Request::Produce(at.clone(), vec![batch])])?;
            }
        }
        requests.push(produce_to(world, &at, 1, rng)?);
    }
    requests.extend(commit(world, rng));
    requests.push(Request::ProducerId);
    ask_all(world, requests)?;
    if let Some(request) = change(world, rng) {
        ask_all(world, vec![request])?;
    }
    world.rest()
}

/// A full disk makes nothing read-only and takes nothing offline; commits go on, and a topic can be
/// deleted.
pub(crate) fn check_full(world: &mut World, rng: &mut Rng) -> Outcome {
    if let Some(reason) = world.broker()?.read_only() {
        return Err(format!("a full disk made the broker read-only: {reason}"));
    }
    for at in partitions(world) {
        let leader = world
            .broker()?
            .leader(&at.0, sapwood_model::PartitionId(at.1));
        let leader = leader.map_err(|error| error.to_string())?;
        if !leader.online {
            return Err(format!("a full disk took {at:?} offline"));
        }
    }
    world.faulty = false;
    let mut requests = commit(world, rng);
    let open = world.model.changes.clone();
    let topics = world.model.topics.keys();
    let name = topics.into_iter().find(|name| !open.contains_key(*name));
    requests.extend(name.map(|name| Request::Change(name.clone(), Change::Delete)));
    ask_all(world, requests)
}
