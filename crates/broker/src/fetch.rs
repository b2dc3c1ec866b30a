//! Fetch: batches by offset, from many partitions at once, waiting for them when there are too few.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_log::{Bounds, Read, ReadError, ReadLimits, ReadMode};
use sapwood_model::{Code, Offset, PartitionId, TopicId};
use tokio::time::Instant;

use crate::{
    Broker,
    broker::Core,
    drain::Status,
    registry::{LookupError, Partition, Topic, TopicRef},
    waiters::Parked,
};

/// A fetch.
#[derive(Debug, Clone)]
pub struct Fetch<'a> {
    /// Where to read. The first partitions come first when `bytes_max` does not suffice for all.
    pub partitions: Vec<FetchPartition<'a>>,
    /// Wait until this many bytes are there. With 0 or 1, any record will do.
    pub bytes_min: usize,
    /// Answer with about this many bytes at most; the first batch comes whatever its size.
    pub bytes_max: usize,
    /// How long to wait for `bytes_min` bytes. Then the answer is what there is.
    pub wait: Duration,
}

/// One partition of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchPartition<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition.
    pub partition: PartitionId,
    /// The offset to read from.
    pub from: Offset,
    /// Answer with about this many bytes of it at most.
    pub bytes_max: usize,
}

/// What a fetch found in one partition.
#[derive(Debug)]
pub struct FetchedPartition {
    /// The topic, when it is known.
    pub topic: Option<TopicId>,
    /// The partition.
    pub partition: PartitionId,
    /// The batches, or why there are none.
    pub result: Result<Fetched, FetchError>,
}

/// Batches of one partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches, one after the other; empty when there is nothing to read at the offset yet. The
    /// first holds the asked offset, perhaps not as its first record.
    pub batches: Bytes,
    /// Where to read on.
    pub next: Offset,
    /// The partition's ends.
    pub bounds: Bounds,
}

/// Why a partition was not read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The topic or the partition is not there (any more).
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The log could not be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The broker has shut down.
    #[error("the broker is shutting down")]
    Draining,
}

impl FetchError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(e) => e.code(),
            Self::Read(e) => e.code(),
            Self::Draining => Code::Draining,
        }
    }
}

/// A partition that was looked up.
struct Place {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    from: Offset,
    bytes_max: usize,
    /// The end of what could be read when it was read last.
    seen: Offset,
}

type Found = Result<Place, LookupError>;

/// Takes a parked fetch out of its partitions again, also when the fetch is given up.
struct Parking<'a> {
    core: &'a Core,
    parked: Arc<Parked>,
    at: Vec<&'a Partition>,
}

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        for partition in &self.at {
            partition.waiters.leave(&self.parked);
        }
        self.core.metrics.fetches_left.add(1);
    }
}

impl Broker {
    /// Reads batches from partitions; the answer has one item for each, in their order.
    ///
    /// Answers as soon as `bytes_min` bytes are there, when a partition has an error to tell, when
    /// `wait` is over, or when the broker shuts down. Meanwhile it costs nothing. Reads stop at the
    /// high watermark. Dropping the future gives up the wait.
    pub async fn fetch(&self, request: Fetch<'_>) -> Vec<FetchedPartition> {
        let core = &*self.core;
        let deadline = Instant::now().checked_add(request.wait);
        let bytes_max = request.bytes_max.min(core.options.fetch_bytes_max);
        // More than it may answer with would never come.
        let bytes_min = request.bytes_min.clamp(1, bytes_max.max(1));
        let mut found: Vec<Found> = request.partitions.iter().map(|p| core.place(p)).collect();
        let mut status = core.gate.watch();
        loop {
            let began = core.environment.clock.elapsed();
            let results = read_all(core, &mut found, bytes_max).await;
            let took = core.environment.clock.elapsed().saturating_sub(began);
            core.metrics.fetch_read.record(took);
            let bytes: usize = results
                .iter()
                .flatten()
                .map(|fetched| fetched.batches.len())
                .sum();
            let is_over = bytes >= bytes_min
                || results.iter().any(Result::is_err)
                || *status.borrow() != Status::Ready
                || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over {
                return answer(core, &request, found, results);
            }
            // What was read is read again after the wait: nothing is held while it is parked.
            drop(results);
            let missing = bytes_min - bytes;
            if let Some(parking) = park(core, &found, missing) {
                let began = core.environment.clock.elapsed();
                tokio::select! {
                    biased;
                    () = parking.parked.woken() => {}
                    () = sleep_until(deadline) => {}
                    // An error is the broker's end.
                    _ = status.changed() => {}
                }
                let took = core.environment.clock.elapsed().saturating_sub(began);
                core.metrics.fetch_parked.record(took);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        // So far away that the clock cannot hold it.
        None => std::future::pending().await,
    }
}

impl Core {
    fn place(&self, at: &FetchPartition<'_>) -> Found {
        let topic = self.registry.find(at.topic)?;
        let partition = topic.partition(at.partition)?;
        let (from, bytes_max) = (at.from, at.bytes_max);
        Ok(Place {
            topic,
            partition,
            from,
            bytes_max,
            seen: Offset::ZERO,
        })
    }

    /// Reads from one partition, on the blocking pool if the bytes are not in memory.
    pub(crate) async fn read(
        &self,
        log: &Arc<sapwood_log::Partition>,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<(Bytes, Offset), ReadError> {
        let read = match log.read(from, limits, ReadMode::Resident)? {
            Read::Cold => {
                let log = log.clone();
                self.blocking_read(move || log.read(from, limits, ReadMode::Blocking))
                    .await?
            }
            warm => warm,
        };
        match read {
            Read::Batches { bytes, next } => Ok((bytes, next)),
            Read::Cold => unreachable!("a read that may wait is never cold"),
        }
    }
}

/// Parks at every partition. `None` when there is more to read already, or an error to tell.
fn park<'a>(core: &'a Core, found: &'a [Found], missing: usize) -> Option<Parking<'a>> {
    let parked = Parked::new(missing as u64);
    core.metrics.fetches_came.add(1);
    let mut parking = Parking {
        core,
        parked,
        at: Vec::with_capacity(found.len()),
    };
    for place in found.iter().flatten() {
        if place.partition.waiters.park(&parking.parked) {
            parking.at.push(&place.partition);
        }
    }
    // What came between the read and the parking woke nobody.
    let missed = |place: &Place| {
        place.partition.log.bounds().high_watermark > place.seen
            || place.partition.waiters.is_deleted()
    };
    (!found.iter().flatten().any(missed)).then_some(parking)
}

async fn read_all(
    core: &Core,
    found: &mut [Found],
    bytes_max: usize,
) -> Vec<Result<Fetched, FetchError>> {
    let mut left = bytes_max;
    let mut is_first = true;
    let mut results = Vec::with_capacity(found.len());
    for place in found {
        let result = match place {
            Err(e) => Err(e.clone().into()),
            Ok(place) => read_one(core, place, left, is_first).await,
        };
        if let Ok(fetched) = &result {
            left = left.saturating_sub(fetched.batches.len());
            is_first &= fetched.batches.is_empty();
        }
        results.push(result);
    }
    results
}

/// Reads one partition. Only the first bytes of an answer may be more than was asked for: one whole
/// batch.
async fn read_one(
    core: &Core,
    place: &mut Place,
    left: usize,
    is_first: bool,
) -> Result<Fetched, FetchError> {
    let unknown = || LookupError::unknown_topic(TopicRef::Name(place.topic.name.as_str()));
    if place.partition.waiters.is_deleted() {
        return Err(unknown().into());
    }
    let log = &place.partition.log;
    let bounds = log.bounds();
    place.seen = bounds.high_watermark;
    let bytes_max = place.bytes_max.min(left);
    let nothing = Fetched {
        batches: Bytes::new(),
        next: place.from,
        bounds,
    };
    if bytes_max == 0 && !is_first {
        return Ok(nothing);
    }
    let limits = ReadLimits {
        bytes_max,
        upto: bounds.high_watermark,
    };
    match core.read(log, place.from, limits).await {
        Ok((batches, _)) if batches.len() > bytes_max && !is_first => Ok(nothing),
        Ok((batches, next)) => Ok(Fetched {
            batches,
            next,
            bounds,
        }),
        // Either the topic was deleted in the meantime, or the broker is closed.
        Err(ReadError::Closed) if place.partition.waiters.is_deleted() => Err(unknown().into()),
        Err(ReadError::Closed) => Err(FetchError::Draining),
        Err(e) => Err(e.into()),
    }
}

fn answer(
    core: &Core,
    request: &Fetch<'_>,
    found: Vec<Found>,
    results: Vec<Result<Fetched, FetchError>>,
) -> Vec<FetchedPartition> {
    let mut answer = Vec::with_capacity(results.len());
    for ((asked, place), result) in request.partitions.iter().zip(found).zip(results) {
        core.metrics
            .fetch
            .count(result.as_ref().err().map(FetchError::code));
        if let (Ok(place), Ok(fetched)) = (&place, &result) {
            let counters = &place.topic.counters;
            counters.bytes_out.add(fetched.batches.len() as u64);
            counters
                .records_out
                .add(fetched.next.0.saturating_sub(place.from.0));
        }
        answer.push(FetchedPartition {
            topic: place.ok().map(|place| place.topic.id),
            partition: asked.partition,
            result,
        });
    }
    answer
}
