//! The same load through `sapwood-client`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sapwood_client::{
    Acks, Assignment, Client, Code, NewTopic, Offset, PartitionId, Position, Producer, Receipt,
    Record,
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::{
    Error,
    clock::{Clock, sleep_until},
    consumer::{Place, Sink},
    plan::{Plan, Topic},
    producer::{Outgoing, Outlet, Tally},
    watch::Watch,
};

/// Sends records with a [`Producer`].
#[derive(Debug)]
pub(crate) struct GrpcProducer {
    runtime: Handle,
    clock: Clock,
    topic: Arc<str>,
    producer: Producer,
    /// By partition: its records are acknowledged in order, so that one task awaits them in order.
    waiting: HashMap<u32, mpsc::UnboundedSender<Waiting>>,
    waiters: JoinSet<()>,
    tally: Arc<Mutex<Tally>>,
}

/// A record that is not acknowledged yet.
#[derive(Debug)]
struct Waiting {
    receipt: Receipt,
    sequence: u64,
    due_ns: u64,
    bytes: u64,
}

/// Opens a client. Does not connect.
pub(crate) fn client(plan: &Plan, runtime: &Handle) -> Result<Client, Error> {
    let _entered = runtime.enter();
    Ok(Client::new(&plan.brokers.join(","))?)
}

impl GrpcProducer {
    pub(crate) fn open(
        plan: &Plan,
        runtime: &Handle,
        clock: Clock,
        watch: &Arc<Watch>,
    ) -> Result<Self, Error> {
        let acks = match plan.acks {
            0 => Acks::None,
            1 => Acks::Leader,
            _ => Acks::All,
        };
        let builder = client(plan, runtime)?
            .producer()
            .acks(acks)
            .compression(plan.codec()?)
            .linger(plan.linger)
            .batch_bytes(plan.batch_bytes as usize)
            .buffer_bytes(
                (plan.batch_bytes as usize)
                    .saturating_mul(plan.in_flight as usize)
                    .clamp(1 << 20, 1 << 30),
            )
            .auto_create(false);
        let producer = runtime.block_on(builder.build())?;
        Ok(Self {
            runtime: runtime.clone(),
            clock,
            topic: plan.topic.name.as_str().into(),
            producer,
            waiting: HashMap::new(),
            waiters: JoinSet::new(),
            tally: Arc::new(Mutex::new(Tally::new(clock, Arc::clone(watch)))),
        })
    }
}

impl Outlet for GrpcProducer {
    /// The client waits for room by itself.
    fn has_room(&self) -> bool {
        true
    }

    fn push(&mut self, record: Outgoing<'_>) -> Result<(), Error> {
        let bytes = (record.key.map_or(0, <[u8]>::len) + record.value.len()) as u64;
        let mut outgoing = Record::to(Arc::clone(&self.topic))
            .partition(PartitionId(record.partition))
            .value(Bytes::copy_from_slice(record.value));
        if let Some(key) = record.key {
            outgoing = outgoing.key(Bytes::copy_from_slice(key));
        }
        let receipt = self.runtime.block_on(self.producer.send(outgoing))?;
        let partition = record.partition;
        let sender = match self.waiting.get(&partition) {
            Some(sender) => sender,
            None => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let task = wait_for_receipts(partition, receiver, Arc::clone(&self.tally));
                self.waiters.spawn_on(task, &self.runtime);
                self.waiting.entry(partition).or_insert(sender)
            }
        };
        // The task ends when the sender is gone, not before.
        let _ = sender.send(Waiting {
            receipt,
            sequence: record.sequence,
            due_ns: record.due_ns,
            bytes,
        });
        Ok(())
    }

    /// The client sends by itself.
    fn pump(&mut self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    fn wait(&mut self, until_ns: Option<u64>) -> Result<(), Error> {
        if let Some(until) = until_ns {
            sleep_until(self.clock, until);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tally, Error> {
        let Self {
            runtime,
            clock,
            producer,
            waiting,
            waiters,
            tally,
            ..
        } = *self;
        drop(waiting);
        let watch = lock(&tally).watch();
        runtime.block_on(async {
            // Failures are counted record by record.
            let _ = producer.close().await;
            waiters.join_all().await;
        });
        let mut tally = std::mem::replace(&mut *lock(&tally), Tally::new(clock, watch));
        tally.flush();
        Ok(tally)
    }
}

async fn wait_for_receipts(
    partition: u32,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
    tally: Arc<Mutex<Tally>>,
) {
    while let Some(next) = waiting.recv().await {
        let result = next.receipt.await;
        let mut tally = lock(&tally);
        match result {
            Ok(_) => tally.count(&[next.due_ns], 1, next.bytes),
            Err(error) => {
                let sequences = next.sequence..next.sequence + 1;
                tally.fail(partition, sequences, error.to_string());
            }
        }
    }
}

/// A thread that panicked while it held the lock has ended the run anyway.
fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads partitions until each has come to its end or the sink is told to stop. Blocks.
pub(crate) fn consume(
    plan: &Plan,
    runtime: &Handle,
    places: &BTreeMap<i32, Place>,
    sink: &mut Sink,
) -> Result<(), Error> {
    /// How often it looks whether it is over.
    const LOOK: Duration = Duration::from_millis(50);
    /// Records that are counted at once at most.
    const TURN: usize = 64;
    let topic: Arc<str> = plan.topic.name.as_str().into();
    let mut builder = client(plan, runtime)?.consumer();
    let mut whole = HashMap::new();
    for (&partition, place) in places {
        let partition = PartitionId(partition.unsigned_abs());
        let at = |offset: i64| Position::Offset(Offset(offset.unsigned_abs()));
        let mut assignment = Assignment::new(Arc::clone(&topic), partition).from(at(place.next));
        if let Some(until) = place.until {
            assignment = assignment.until(at(until));
        }
        whole.insert(partition, place.is_whole);
        builder = builder.assign(assignment);
    }
    runtime.block_on(async {
        let mut consumer = builder.build().await?;
        let mut look = tokio::time::interval(LOOK);
        let mut untold = 0;
        while !sink.is_over() {
            let next = tokio::select! {
                biased;
                next = consumer.next() => next,
                // Nothing more is at hand: what came is counted before it gets old.
                () = std::future::ready(()), if untold > 0 => {
                    sink.turn();
                    untold = 0;
                    continue;
                }
                _ = look.tick() => continue,
            };
            let Some(message) = next else {
                break;
            };
            let message = message?;
            let is_whole = whole.get(&message.partition).copied().unwrap_or(false);
            sink.enter(message.key.as_ref(), message.value.as_ref(), is_whole);
            untold += 1;
            if untold == TURN {
                sink.turn();
                untold = 0;
            }
        }
        sink.turn();
        sink.tally.flush();
        Ok(())
    })
}

/// Makes the topic as the plan wants it; how many partitions it has.
pub(crate) async fn prepare(client: &Client, topic: &Topic) -> Result<u32, Error> {
    let admin = client.admin();
    if topic.fresh {
        remove(client, &topic.name).await?;
    }
    let mut new = NewTopic::new(&topic.name).partitions(topic.partitions);
    for (name, value) in &topic.config {
        new = new.config(name, value);
    }
    match admin.create_topic(&new).await {
        Err(error) if error.code() != Code::TopicExists => return Err(error.into()),
        _ => {}
    }
    bounds(client, &topic.name)
        .await
        .map(|bounds| u32::try_from(bounds.len()).unwrap_or(u32::MAX))
}

/// Deletes a topic, if it is there.
pub(crate) async fn remove(client: &Client, topic: &str) -> Result<(), Error> {
    match client.admin().delete_topic(topic).await {
        Err(error) if error.code() != Code::UnknownTopic => Err(error.into()),
        _ => Ok(()),
    }
}

/// The first offset of each partition and the one behind its last.
pub(crate) async fn bounds(client: &Client, topic: &str) -> Result<Vec<(i64, i64)>, Error> {
    let described = client.admin().describe_topic(topic).await?;
    let number = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
    let partitions = described.partitions.iter();
    Ok(partitions
        .map(|partition| {
            (
                number(partition.bounds.log_start),
                number(partition.bounds.high_watermark),
            )
        })
        .collect())
}
