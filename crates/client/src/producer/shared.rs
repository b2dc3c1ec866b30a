//! What a producer's callers and its sending task share: the lanes, the room in the buffer, and who
//! wakes whom.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock};
use sapwood_model::{Code, PartitionId, Timestamp};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::Instant,
};

use super::{
    Settings,
    lane::{Lane, Shape},
    partitioner::partition_of_key,
    receipt::{Receipt, Resolution},
};
use crate::{
    Admin, Error, Record,
    connection::{Backoff, Connections, seed},
};

/// Memory that a record takes beside its payload.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// How old the known number of partitions may be: partitions can be added at any time.
const PARTITIONS_AGE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) connections: Arc<Connections>,
    pub(super) settings: Settings,
    /// Bytes of the buffer that are free.
    room: Semaphore,
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    /// One asks, the others wait and then find the answer.
    lookup: tokio::sync::Mutex<()>,
    /// Every lane there is, by slot. They are kept, with their sequence numbers, to the end.
    lanes: RwLock<Vec<Arc<Lane>>>,
    /// Lanes with news for the sending task. At most one entry for each batch in the buffer.
    ready: Mutex<Vec<Arc<Lane>>>,
    pub(super) wake: Notify,
    closing: AtomicBool,
    stopped: AtomicBool,
    first_failure: Mutex<Option<Error>>,
}

#[derive(Debug)]
struct Topic {
    /// 0 when it has to be asked for.
    partitions: AtomicU32,
    asked: Mutex<Option<Instant>>,
    asking: AtomicBool,
    lanes: RwLock<HashMap<u32, Arc<Lane>>>,
    /// Where records without a key go now, and how many bytes of them went there.
    sticky: AtomicU32,
    sticky_bytes: AtomicUsize,
}

impl Shared {
    pub(super) fn new(connections: Arc<Connections>, settings: Settings) -> Self {
        Self {
            connections,
            room: Semaphore::new(settings.buffer_bytes),
            settings,
            topics: RwLock::default(),
            lookup: tokio::sync::Mutex::default(),
            lanes: RwLock::default(),
            ready: Mutex::default(),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            first_failure: Mutex::default(),
        }
    }

    pub(super) async fn send(self: &Arc<Self>, record: Record) -> Result<Receipt, Error> {
        let bytes = record.payload_bytes().saturating_add(RECORD_OVERHEAD_BYTES);
        if bytes > self.settings.buffer_bytes {
            let limit = self.settings.buffer_bytes;
            let message =
                format!("the record takes {bytes} bytes; the producer's buffer is {limit} bytes");
            return Err(Error::local(Code::RecordTooLarge, message));
        }
        if self.is_closing() {
            return Err(closed());
        }
        let topic = self.topic(&record.topic).await?;
        let partition = match record.partition {
            Some(partition) => self.checked(&record.topic, &topic, partition).await?,
            None => topic.choose(&record, bytes, self.settings.batch_bytes),
        };
        let lane = self.lane_of(&record.topic, &topic, partition);
        // The buffer is at most 1 GiB, which fits.
        let permit = self
            .room
            .acquire_many(bytes as u32)
            .await
            .map_err(|_| closed())?;
        // No await from here on: what has room is handed over.
        let shape = Shape {
            codec: self.settings.compression,
            batch_bytes: self.settings.batch_bytes,
        };
        let pushed = lane.push(&record, clock(), bytes, shape)?;
        permit.forget();
        if pushed.wake {
            self.ready.lock().push(lane);
            self.wake.notify_one();
        }
        if self.stopped.load(Ordering::SeqCst) {
            self.stop();
        }
        Ok(pushed.receipt)
    }

    pub(super) async fn flush(&self) -> Result<(), Error> {
        let lanes = self.lanes.read().clone();
        let mut outcomes = Vec::new();
        for lane in lanes {
            let unresolved = lane.flush();
            if !unresolved.is_empty() {
                outcomes.extend(unresolved);
                self.ready.lock().push(lane);
            }
        }
        self.wake.notify_one();
        for outcome in outcomes {
            // Failures were noted, in the order in which they came.
            let _ = outcome.await;
        }
        self.first_failure.lock().take().map_or(Ok(()), Err)
    }

    /// No more records are taken.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The sending task is gone: nothing waits for it any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.close();
        self.room.close();
        for lane in self.lanes.read().iter() {
            while let Some(gathered) = lane.take(Instant::now()) {
                self.finish(gathered.held_bytes, gathered.settle, Err(ended()));
                lane.resolved(gathered.number);
            }
        }
    }

    pub(super) fn take_ready(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut *self.ready.lock())
    }

    pub(super) fn nothing_ready(&self) -> bool {
        self.ready.lock().is_empty()
    }

    pub(super) fn lane(&self, slot: usize) -> Arc<Lane> {
        Arc::clone(&self.lanes.read()[slot])
    }

    /// A batch has its result: its room is free again.
    pub(super) fn finish(
        &self,
        held_bytes: usize,
        settle: oneshot::Sender<Resolution>,
        resolution: Resolution,
    ) {
        if let Err(error) = &resolution {
            self.first_failure
                .lock()
                .get_or_insert_with(|| error.clone());
        }
        self.room.add_permits(held_bytes);
        // Nobody may hold a receipt any more.
        let _ = settle.send(resolution);
    }

    /// The broker does not know the topic (any more): ask before the next record.
    pub(super) fn forget_topic(&self, name: &str) {
        if let Some(topic) = self.topics.read().get(name) {
            topic.partitions.store(0, Ordering::Relaxed);
        }
    }

    /// A topic whose number of partitions is known.
    async fn topic(self: &Arc<Self>, name: &Arc<str>) -> Result<Arc<Topic>, Error> {
        let known = |shared: &Self| {
            let topic = shared.topics.read().get(name).cloned()?;
            (topic.partitions.load(Ordering::Relaxed) > 0).then_some(topic)
        };
        if let Some(topic) = known(self) {
            if topic.is_old() && !topic.asking.swap(true, Ordering::Relaxed) {
                let (shared, name) = (Arc::clone(self), Arc::clone(name));
                tokio::spawn(async move {
                    let _ = shared.ask(&name).await;
                });
            }
            return Ok(topic);
        }
        let _turn = self.lookup.lock().await;
        match known(self) {
            Some(topic) => Ok(topic),
            None => self.ask(name).await,
        }
    }

    /// Asks for the number of partitions, again and again while the broker cannot be reached.
    async fn ask(&self, name: &Arc<str>) -> Result<Arc<Topic>, Error> {
        let admin = Admin::new(Arc::clone(&self.connections));
        let give_up = Instant::now() + self.settings.delivery_timeout;
        let mut backoff = Backoff::new(seed());
        let partitions = loop {
            match admin.partition_count(name, self.settings.auto_create).await {
                Ok(partitions) => break partitions.max(1),
                Err(error) => {
                    let next = Instant::now() + backoff.next();
                    let retriable = error.is_retriable() || error.code() == Code::TimedOut;
                    if !retriable || next > give_up || self.is_closing() {
                        return Err(error);
                    }
                    tokio::time::sleep_until(next).await;
                }
            }
        };
        let mut topics = self.topics.write();
        let topic = topics
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Topic::new()));
        topic.partitions.store(partitions, Ordering::Relaxed);
        *topic.asked.lock() = Some(Instant::now());
        topic.asking.store(false, Ordering::Relaxed);
        Ok(Arc::clone(topic))
    }

    /// A partition that the caller chose. One beyond the known count may have been added since.
    async fn checked(
        &self,
        name: &Arc<str>,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<u32, Error> {
        let exists = || partition.0 < topic.partitions.load(Ordering::Relaxed);
        if exists() {
            return Ok(partition.0);
        }
        self.ask(name).await?;
        if exists() {
            return Ok(partition.0);
        }
        let partitions = topic.partitions.load(Ordering::Relaxed);
        let message = format!(
            "topic {name:?} has no partition {partition}; it has {partitions}, numbered from 0"
        );
        Err(Error::local(Code::UnknownPartition, message).about(name, partition.0))
    }

    fn lane_of(&self, name: &Arc<str>, topic: &Topic, partition: u32) -> Arc<Lane> {
        if let Some(lane) = topic.lanes.read().get(&partition) {
            return Arc::clone(lane);
        }
        let mut lanes = topic.lanes.write();
        let lane = lanes.entry(partition).or_insert_with(|| {
            let mut all = self.lanes.write();
            let lane = Arc::new(Lane::new(Arc::clone(name), partition, all.len()));
            all.push(Arc::clone(&lane));
            lane
        });
        Arc::clone(lane)
    }
}

impl Topic {
    fn new() -> Self {
        Self {
            partitions: AtomicU32::new(0),
            asked: Mutex::default(),
            asking: AtomicBool::new(false),
            lanes: RwLock::default(),
            // Producers that start together shall not all begin with partition 0.
            sticky: AtomicU32::new(seed() as u32),
            sticky_bytes: AtomicUsize::new(0),
        }
    }

    fn is_old(&self) -> bool {
        self.asked
            .lock()
            .is_none_or(|asked| asked.elapsed() > PARTITIONS_AGE_MAX)
    }

    /// By the key; without one, a partition gets a batch's worth of bytes before the next one's
    /// turn (as Kafka's KIP-794), so that batches fill.
    fn choose(&self, record: &Record, bytes: usize, batch_bytes: usize) -> u32 {
        let partitions = self.partitions.load(Ordering::Relaxed).max(1);
        if let Some(key) = &record.key {
            return partition_of_key(key, partitions);
        }
        let partition = self.sticky.load(Ordering::Relaxed) % partitions;
        if self.sticky_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= batch_bytes {
            self.sticky_bytes.store(0, Ordering::Relaxed);
            self.sticky
                .store((partition + 1) % partitions, Ordering::Relaxed);
        }
        partition
    }
}

/// The producer was closed.
fn closed() -> Error {
    Error::local(Code::InvalidArgument, "the producer is closed")
}

/// The sending task ended with the runtime.
pub(super) fn ended() -> Error {
    Error::local(
        Code::TimedOut,
        "the producer ended before the record had its result",
    )
}

fn clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
