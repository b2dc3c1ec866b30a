//! The runtime with a machine that adds numbers up.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use sapwood_log::{AppendOptions, StoreOptions, io::TailKind};
use sapwood_model::{PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_sim::Machine as Computer;
use tokio::sync::Semaphore;

use super::{
    CallId, Coordinator, CoordinatorError, Decision, Decoded, Encoded, Event, Fault, Machine,
    Moment, host::Host,
};
use crate::{Broker, BrokerOptions, NewTopic, registry::Topic};

/// Sums by name. A record is a name and its new sum.
#[derive(Debug, Default)]
struct Sums {
    sums: BTreeMap<String, u64>,
    /// Who waits until something is added to a name.
    waiting: BTreeMap<String, CallId>,
    missed: Vec<&'static str>,
}

enum Request {
    Add(&'static str, u64),
    /// Adds to many names at once.
    AddEverywhere(u64),
    /// Replies with the next addition.
    Wait(&'static str),
    /// Adds 1 later, after so many milliseconds.
    AddLater(&'static str, i64),
    /// A record that cannot be written.
    Unwritable,
}

enum Effect {
    Waits(&'static str, CallId),
    Answered(String),
}

impl Machine for Sums {
    type Request = Request;
    type Reply = u64;
    type Notice = &'static str;
    type Record = (String, u64);
    type Effect = Effect;
    type TimerKey = &'static str;

    fn decide(&self, moment: Moment, event: Event<Self>) -> Decision<Self> {
        let mut out = Decision {
            records: Vec::new(),
            effects: Vec::new(),
            replies: Vec::new(),
            timers: Vec::new(),
        };
        let add = |out: &mut Decision<Self>, name: &str, number: u64| {
            let sum = self.sums.get(name).copied().unwrap_or(0) + number;
            out.records.push((name.to_owned(), sum));
            if let Some(call) = self.waiting.get(name) {
                out.replies.push((*call, sum));
                out.effects.push(Effect::Answered(name.to_owned()));
            }
            sum
        };
        match event {
            Event::Call(call, Request::Add(name, number)) => {
                let sum = add(&mut out, name, number);
                out.replies.push((call, sum));
            }
            Event::Call(call, Request::AddEverywhere(names)) => {
                for name in 0..names {
                    add(&mut out, &format!("name-{name:0100}"), 1);
                }
                out.replies.push((call, names));
            }
            Event::Call(call, Request::Wait(name)) => out.effects.push(Effect::Waits(name, call)),
            Event::Call(call, Request::AddLater(name, after_ms)) => {
                out.timers.push((name, Timestamp(moment.now.0 + after_ms)));
                out.replies.push((call, 0));
            }
            Event::Call(_, Request::Unwritable) => {
                add(&mut out, "good", 1);
                add(&mut out, "", 1);
            }
            Event::Timer(name) | Event::Notice(name) => {
                add(&mut out, name, 1);
            }
            Event::Loaded => {}
        }
        out
    }

    fn apply(&mut self, (name, sum): (String, u64)) {
        self.sums.insert(name, sum);
    }

    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Waits(name, call) => drop(self.waiting.insert(name.to_owned(), call)),
            Effect::Answered(name) => drop(self.waiting.remove(&name)),
        }
    }

    fn encode((name, sum): &(String, u64)) -> Result<Encoded, Fault> {
        if name.is_empty() {
            return Err("no name".into());
        }
        Ok(Encoded {
            key: format!("+{name}").into_bytes(),
            value: Some(sum.to_be_bytes().to_vec()),
        })
    }

    fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        _at: Timestamp,
    ) -> Result<Decoded<(String, u64)>, Fault> {
        let (kind, name) = key.and_then(|key| key.split_first()).ok_or("no key")?;
        match kind {
            b'+' => {
                let sum = u64::from_be_bytes(value.ok_or("no value")?.try_into()?);
                let name = String::from_utf8(name.to_vec())?;
                Ok(Decoded::Record((name, sum)))
            }
            b'-' => Ok(Decoded::Obsolete),
            kind => Ok(Decoded::Unknown {
                key: (*kind).into(),
            }),
        }
    }

    fn missed(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.missed)
    }
}

async fn open(computer: &Computer) -> Broker {
    let store = StoreOptions {
        ballast_bytes: 128 << 10,
        journal_file_bytes: 1 << 20,
        journal_files: 2,
        boot_id: computer.disk.boot_id(),
        tail: Some(TailKind::Mmap),
        ..StoreOptions::default()
    };
    let options = BrokerOptions {
        drain_timeout: Duration::from_secs(2),
        ..BrokerOptions::new(Path::new("/data"), store)
    };
    Broker::open_in(computer.environment(), options, Arc::default())
        .await
        .unwrap()
}

async fn topic(broker: &Broker) -> Arc<Topic> {
    if broker.topic("sums").is_none() {
        let new = NewTopic {
            // The first pass of retention leaves records of long ago alone.
            configs: vec![("retention.ms".into(), "-1".into())],
            ..NewTopic::named("sums")
        };
        broker.create_topic(new).await.unwrap();
    }
    broker.core.registry.find("sums".into()).unwrap()
}

/// The machine of the only partition, loaded.
async fn sums(broker: &Broker) -> Coordinator<Sums> {
    let home = broker.core.home(topic(broker).await);
    let coordinator = Coordinator::start(&home, Sums::default);
    coordinator.host(0).settled().await;
    coordinator
}

async fn all(host: &Host<Sums>) -> BTreeMap<String, u64> {
    host.look(|machine| machine.sums.clone()).await.unwrap()
}

fn map(sums: &[(&str, u64)]) -> BTreeMap<String, u64> {
    sums.iter()
        .map(|(name, sum)| ((*name).to_owned(), *sum))
        .collect()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_after_a_kill() {
    let computer = Computer::new(1);
    let broker = open(&computer).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    assert_eq!(host.call(Request::Add("a", 2)).await.unwrap(), 2);
    assert_eq!(host.call(Request::Add("a", 3)).await.unwrap(), 5);
    assert_eq!(host.call(Request::Add("b", 1)).await.unwrap(), 1);
    broker.drain_and_close().await.unwrap();
    let late = host.call(Request::Add("a", 1)).await;
    assert!(matches!(late, Err(CoordinatorError::Draining)), "{late:?}");
    coordinator.ended().await;
    drop((broker, coordinator));

    let broker = open(&computer).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    assert_eq!(all(host).await, map(&[("a", 5), ("b", 1)]));
    assert_eq!(host.call(Request::Add("a", 1)).await.unwrap(), 6);
    let survivor = computer.fork();
    survivor.disk.kill();
    let broker = open(&survivor).await;
    let coordinator = sums(&broker).await;
    assert_eq!(all(coordinator.host(0)).await, map(&[("a", 6), ("b", 1)]));
}

#[tokio::test]
async fn a_call_may_be_answered_by_a_later_decision_and_is_sent_away_by_a_drain() {
    let broker = open(&Computer::new(2)).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    let (waited, added) = tokio::join!(
        host.call(Request::Wait("a")),
        host.call(Request::Add("a", 7))
    );
    assert_eq!((waited.unwrap(), added.unwrap()), (7, 7));
    let (waited, closed) = tokio::join!(host.call(Request::Wait("a")), broker.drain_and_close());
    closed.unwrap();
    assert!(
        matches!(waited, Err(CoordinatorError::Draining)),
        "{waited:?}"
    );
}

#[tokio::test]
async fn timers_run_when_the_clock_says_so_and_the_last_deadline_counts() {
    let computer = Computer::new(3);
    let broker = open(&computer).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    host.call(Request::AddLater("a", 1_000)).await.unwrap();
    host.call(Request::AddLater("b", 1_000)).await.unwrap();
    host.call(Request::AddLater("b", 5_000)).await.unwrap();
    computer.clock.advance(Duration::from_millis(999));
    assert_eq!(all(host).await, map(&[]));
    computer.clock.advance(Duration::from_millis(1));
    // Whatever wakes the task: it looks at the clock first.
    all(host).await;
    assert_eq!(all(host).await, map(&[("a", 1)]));
    // The wall clock is nobody's business.
    computer.clock.set(Timestamp(1));
    computer.clock.advance(Duration::from_secs(4));
    all(host).await;
    assert_eq!(all(host).await, map(&[("a", 1), ("b", 1)]));
}

#[tokio::test]
async fn a_change_that_cannot_be_written_leaves_nothing_behind() {
    let broker = open(&Computer::new(4)).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    let refused = host.call(Request::Unwritable).await;
    assert!(
        matches!(refused, Err(CoordinatorError::Unwritable { .. })),
        "{refused:?}"
    );
    let refused = host.call(Request::AddEverywhere(10_000)).await;
    let Err(CoordinatorError::TooLarge { bytes, limit }) = refused else {
        panic!("{refused:?}");
    };
    assert!(bytes > limit && limit == 512 << 10, "{bytes} {limit}");
    assert_eq!(all(host).await, map(&[]));
    assert_eq!(host.call(Request::AddEverywhere(100)).await.unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_change_whole_once_the_ballast_is_used_and_recovers() {
    let computer = Computer::new(5);
    let broker = open(&computer).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    assert_eq!(host.call(Request::AddEverywhere(100)).await.unwrap(), 100);
    computer.disk.set_capacity(Some(0));
    let mut rounds = 1;
    let refused = loop {
        match host.call(Request::AddEverywhere(100)).await {
            Ok(_) => rounds += 1,
            Err(e) => break e,
        }
    };
    assert!(
        matches!(refused, CoordinatorError::Append(_)),
        "{refused:?}"
    );
    assert_eq!(refused.code(), sapwood_model::Code::StorageFull);
    assert!(broker.core.store.is_out_of_ballast());
    let sums = all(host).await;
    assert!(
        sums.values().all(|sum| *sum == rounds),
        "{rounds}: {sums:?}"
    );
    computer.disk.set_capacity(None);
    host.call(Request::AddEverywhere(100)).await.unwrap();
    let sums = all(host).await;
    assert!(
        sums.values().all(|sum| *sum == rounds + 1),
        "{rounds}: {sums:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_answers_those_who_wait_and_everybody_after_them_with_its_reason() {
    let computer = Computer::new(6);
    let broker = open(&computer).await;
    let coordinator = sums(&broker).await;
    let host = coordinator.host(0);
    host.call(Request::Add("a", 1)).await.unwrap();
    let fails = async {
        loop {
            // Whichever sync it hits, that of the journal or one beside it.
            computer.disk.fail_sync(computer.disk.syncs() + 1);
            if let Err(e) = host.call(Request::Add("a", 1)).await {
                break e;
            }
        }
    };
    let (waited, lost) = tokio::join!(host.call(Request::Wait("b")), fails);
    let later = host.call(Request::Add("c", 1)).await.unwrap_err();
    for failed in [waited.unwrap_err(), lost, later] {
        assert!(
            matches!(failed, CoordinatorError::Failed { .. }),
            "{failed:?}"
        );
    }
    let looked = host.look(|_| ()).await;
    assert!(
        matches!(looked, Err(CoordinatorError::Failed { .. })),
        "{looked:?}"
    );
    assert_eq!(coordinator.progress().failed, 1);
}

#[tokio::test]
async fn requests_are_told_that_the_partition_is_loading_and_notices_wait_for_it() {
    let computer = Computer::new(7);
    let broker = open(&computer).await;
    let before = sums(&broker).await;
    before.host(0).call(Request::Add("a", 1)).await.unwrap();
    drop(before);
    let mut home = broker.core.home(topic(&broker).await);
    home.loads = Arc::new(Semaphore::new(0));
    let missed = || Sums {
        missed: vec!["missed"],
        ..Sums::default()
    };
    let coordinator = Coordinator::start(&home, missed);
    let host = coordinator.host(0);
    let early = host.call(Request::Add("a", 1)).await;
    assert!(
        matches!(early, Err(CoordinatorError::Loading { .. })),
        "{early:?}"
    );
    let early = host.look(|_| ()).await.unwrap_err();
    assert_eq!(early.code(), sapwood_model::Code::Loading);
    assert_eq!(coordinator.progress().loading, 1);
    std::thread::scope(|scope| scope.spawn(|| host.tell("told")).join()).unwrap();
    home.loads.add_permits(1);
    host.settled().await;
    let progress = coordinator.progress();
    assert_eq!(
        (progress.loaded, progress.replayed, progress.offsets),
        (1, 1, 1)
    );
    // The notice is in the queue before the look.
    all(host).await;
    let seen = all(host).await;
    assert_eq!(seen, map(&[("a", 1), ("missed", 1), ("told", 1)]));
}

/// Appends a record as it is.
fn append(topic: &Topic, key: &[u8], value: Option<&[u8]>) {
    let mut builder = BatchBuilder::new(Codec::None);
    let record = RecordInput {
        timestamp: Timestamp(1),
        key: Some(key),
        value,
        headers: &[],
    };
    builder.push(record).unwrap();
    let options = AppendOptions {
        urgent: true,
        ..AppendOptions::default()
    };
    let partition = topic.partition(PartitionId(0)).unwrap();
    let batch = builder.build().unwrap();
    partition.log.append(&batch, options, Timestamp(1)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_kinds_are_passed_over_and_a_damaged_record_is_named_and_fails_its_partition() {
    let broker = open(&Computer::new(8)).await;
    let topic = topic(&broker).await;
    append(&topic, b"+a", Some(&7_u64.to_be_bytes()));
    append(&topic, b"-obsolete", None);
    append(&topic, b"?newer", Some(b"what"));
    let coordinator = sums(&broker).await;
    assert_eq!(all(coordinator.host(0)).await, map(&[("a", 7)]));
    drop(coordinator);

    append(&topic, b"+a", Some(b"cut"));
    let coordinator = sums(&broker).await;
    let failed = coordinator
        .host(0)
        .call(Request::Add("a", 1))
        .await
        .unwrap_err();
    assert_eq!(
        failed.to_string(),
        "sums/0 has failed: the record at offset 3 is damaged: could not convert slice to array"
    );
}
