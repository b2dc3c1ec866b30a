use std::{path::Path, sync::Arc};

use sapwood_log::StoreOptions;
use sapwood_model::{Acks, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_sim::Machine;

use super::*;
use crate::{Broker, BrokerOptions, ConfigChange, Driver, NewTopic, PartitionInfo, Produce};

const SECOND: Duration = Duration::from_secs(1);

async fn open(machine: &Machine) -> Broker {
    let store = StoreOptions {
        journal_file_bytes: 1 << 20,
        ballast_bytes: 0,
        boot_id: machine.disk.boot_id(),
        ..StoreOptions::default()
    };
    let mut options = BrokerOptions::new(Path::new("/data"), store);
    options.driver = Driver::Caller;
    options.topic_defaults = vec![
        ("segment.bytes".into(), "2048".into()),
        ("durability".into(), "os".into()),
    ];
    Broker::open_in(machine.environment(), options, Arc::default())
        .await
        .unwrap()
}

async fn create(broker: &Broker, name: &str, configs: &[(&str, &str)]) {
    let configs = configs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()));
    let new = NewTopic {
        configs: configs.collect(),
        ..NewTopic::named(name)
    };
    broker.create_topic(new).await.unwrap();
}

/// Appends a batch of about a kilobyte, made at this time: two fill a segment.
async fn produce(broker: &Broker, topic: &str, timestamp: Timestamp) {
    let value = [7; 900];
    let mut builder = BatchBuilder::new(Codec::None);
    let record = RecordInput {
        timestamp,
        key: Some(b"key"),
        value: Some(&value),
        headers: &[],
    };
    builder.push(record).unwrap();
    let request = Produce {
        topic: topic.into(),
        partition: PartitionId(0),
        batch: builder.build().unwrap().to_bytes(),
        acks: Acks::All,
        expected_end: None,
        auto_create: false,
    };
    broker.produce(request).await.unwrap().await.unwrap();
}

/// A batch for each of so many seconds, the clock going on.
async fn fill(machine: &Machine, broker: &Broker, topic: &str, batches: usize) {
    for _ in 0..batches {
        let now = machine.environment().clock.now();
        produce(broker, topic, now).await;
        machine.clock.advance(SECOND);
    }
    broker.step_maintenance().unwrap();
}

/// One tick of retention, then the store's work.
fn tick(broker: &Broker) -> Next {
    let next = retain(&broker.core).unwrap();
    broker.step_maintenance().unwrap();
    next
}

fn info(broker: &Broker, topic: &str) -> PartitionInfo {
    broker.partitions(topic).unwrap().remove(0)
}

fn start(broker: &Broker, topic: &str) -> u64 {
    info(broker, topic).bounds.log_start.0
}

fn segments(machine: &Machine, topic: &str) -> usize {
    let folder = format!("/data/topics/{topic}-0");
    let entries = machine
        .environment()
        .disk
        .read_dir(Path::new(&folder))
        .unwrap();
    let logs = entries.iter().filter(|entry| entry.name.ends_with(".log"));
    logs.count()
}

#[tokio::test(start_paused = true)]
async fn old_segments_go_by_the_time_of_their_youngest_record() {
    let machine = Machine::new(1);
    let broker = open(&machine).await;
    create(&broker, "t", &[("retention.ms", "10000")]).await;
    fill(&machine, &broker, "t", 6).await; // at 0 to 5 s, and it is 6 s now
    assert_eq!(segments(&machine, "t"), 3);
    // The first segment's youngest record was made at 1 s, and is older than 10 s from 11,001 ms on.
    assert_eq!(tick(&broker), Next::By(Duration::from_millis(5_001)));
    machine.clock.advance(SECOND * 5);
    tick(&broker);
    assert_eq!((start(&broker, "t"), segments(&machine, "t")), (0, 3));
    let now = machine.environment().clock.now();
    let next = info(&broker, "t").next_removal.unwrap();
    assert_eq!(
        (next.offsets, next.at),
        (Offset(0)..Offset(2), Some(Timestamp(now.0 + 1)))
    );
    machine.clock.advance(Duration::from_millis(1));
    let next = info(&broker, "t").next_removal.unwrap();
    assert_eq!(
        (next.offsets, next.at),
        (Offset(0)..Offset(2), Some(Timestamp(now.0 + 1)))
    );
    assert_eq!(tick(&broker), Next::By(SECOND * 2));
    assert_eq!((start(&broker, "t"), segments(&machine, "t")), (2, 2));
    // All of it is due: the active segment is rolled and goes.
    machine.clock.advance(SECOND * 60);
    assert_eq!(tick(&broker), Next::By(PASS_GAP));
    assert_eq!((start(&broker, "t"), segments(&machine, "t")), (6, 0));
    assert_eq!(info(&broker, "t").stats.bytes, 0);
    assert_eq!(
        tick(&broker),
        Next::By(broker.core.options.retention_interval)
    );
    fill(&machine, &broker, "t", 1).await;
    assert_eq!(info(&broker, "t").bounds.high_watermark, Offset(7));
    let metrics = &broker.metrics().retention;
    assert_eq!((metrics.segments.get(), metrics.failures.get()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_log_keeps_at_least_the_bytes_that_it_may_have() {
    let machine = Machine::new(2);
    let broker = open(&machine).await;
    create(
        &broker,
        "t",
        &[("retention.bytes", "4000"), ("retention.ms", "-1")],
    )
    .await;
    create(&broker, "keeps", &[("retention.ms", "-1")]).await;
    for topic in ["t", "keeps"] {
        fill(&machine, &broker, topic, 9).await;
    }
    tick(&broker);
    let bytes = info(&broker, "t").stats.bytes;
    assert!((4000..4000 + 2048).contains(&bytes), "{bytes}");
    assert_eq!(start(&broker, "t"), 4);
    machine.clock.advance(SECOND * 100_000_000);
    tick(&broker);
    tick(&broker);
    assert_eq!((start(&broker, "t"), start(&broker, "keeps")), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_grows_is_looked_at_before_the_interval_is_over() {
    let machine = Machine::new(10);
    let broker = open(&machine).await;
    while broker
        .metrics_snapshot()
        .tasks
        .iter()
        .any(|task| task.runs == 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    create(&broker, "t", &[("retention.bytes", "4000")]).await;
    fill(&machine, &broker, "t", 9).await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(start(&broker, "t"), 4, "a full segment says so");
    create(&broker, "later", &[]).await;
    fill(&machine, &broker, "later", 9).await;
    let limit = ConfigChange::Set {
        key: "retention.bytes".into(),
        value: "4000".into(),
    };
    broker
        .alter_topic("later", vec![limit], false)
        .await
        .unwrap();
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(start(&broker, "later"), 4, "so does a change");
}

#[tokio::test(start_paused = true)]
async fn only_topics_with_the_policy_delete_are_deleted_from() {
    let machine = Machine::new(3);
    let broker = open(&machine).await;
    let limits = [("retention.ms", "1000"), ("retention.bytes", "0")];
    for (name, policy) in [("d", "delete"), ("c", "compact"), ("b", "compact,delete")] {
        let policy = [limits[0], limits[1], ("cleanup.policy", policy)];
        create(&broker, name, &policy).await;
        fill(&machine, &broker, name, 5).await;
    }
    machine.clock.advance(SECOND * 60);
    tick(&broker);
    let starts = ["d", "c", "b"].map(|name| start(&broker, name));
    assert_eq!(starts, [5, 0, 5]);
    // In force as soon as the change is answered.
    let delete = ConfigChange::Set {
        key: "cleanup.policy".into(),
        value: "delete".into(),
    };
    broker.alter_topic("c", vec![delete], false).await.unwrap();
    tick(&broker);
    assert_eq!(start(&broker, "c"), 5);
}

#[tokio::test(start_paused = true)]
async fn records_of_the_future_stay_until_their_time_has_come() {
    let machine = Machine::new(4);
    let broker = open(&machine).await;
    let any = i64::MAX.to_string();
    let after = ("message.timestamp.after.max.ms", &*any);
    create(&broker, "t", &[("retention.ms", "1000"), after]).await;
    let now = machine.environment().clock.now();
    produce(&broker, "t", Timestamp(now.0 + 60_000)).await;
    fill(&machine, &broker, "t", 5).await;
    machine.clock.advance(SECOND * 50);
    tick(&broker);
    assert_eq!(start(&broker, "t"), 0, "it keeps what is behind it");
    machine.clock.advance(SECOND * 10);
    tick(&broker);
    assert_eq!(start(&broker, "t"), 6);
}

#[tokio::test(start_paused = true)]
async fn times_are_looked_up_once_after_a_start_and_never_in_a_pass() {
    let machine = Machine::new(5);
    let broker = open(&machine).await;
    create(&broker, "t", &[("retention.ms", "10000")]).await;
    fill(&machine, &broker, "t", 60).await;
    drop(broker);
    machine.disk.kill();
    let broker = open(&machine).await;
    let reads = || machine.disk.reads();
    let before = reads();
    assert_eq!(retain(&broker.core).unwrap(), Next::After(LOOK_UP_PAUSE));
    assert_eq!(reads(), before, "a pass reads no file");
    // 25 of the 30 segments are due: more than are looked up at once.
    while tick(&broker) == Next::After(LOOK_UP_PAUSE) {}
    assert!(reads() > before);
    assert_eq!(start(&broker, "t"), 50);
    let before = reads();
    machine.clock.advance(SECOND);
    retain(&broker.core).unwrap();
    assert_eq!(reads(), before, "it is known now when the next one is due");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_segment_is_rolled_and_goes_with_the_next_pass_also_after_a_start() {
    for restarts in [false, true] {
        let machine = Machine::new(6);
        let mut broker = open(&machine).await;
        create(
            &broker,
            "t",
            &[("segment.ms", "5000"), ("retention.ms", "8000")],
        )
        .await;
        create(
            &broker,
            "kept",
            &[("segment.ms", "5000"), ("cleanup.policy", "compact")],
        )
        .await;
        fill(&machine, &broker, "kept", 1).await;
        fill(&machine, &broker, "t", 1).await;
        if restarts {
            drop(broker);
            machine.disk.kill();
            broker = open(&machine).await;
        }
        assert_eq!(tick(&broker), Next::By(SECOND * 3));
        machine.clock.advance(SECOND * 4);
        assert_eq!(tick(&broker), Next::By(PASS_GAP));
        let sizes = ["t", "kept"].map(|name| info(&broker, name).stats.segments);
        assert_eq!(sizes, [2, 2], "an empty one behind each");
        while tick(&broker) == Next::After(LOOK_UP_PAUSE) {}
        machine.clock.advance(Duration::from_millis(4_001));
        tick(&broker);
        assert_eq!([start(&broker, "t"), start(&broker, "kept")], [1, 0]);
        machine.clock.advance(SECOND * 60);
        assert_eq!(
            tick(&broker),
            Next::By(broker.core.options.retention_interval)
        );
        assert_eq!(info(&broker, "kept").stats.segments, 2, "not again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_fails_is_left_alone_for_a_while_and_stops_no_other() {
    let machine = Machine::new(7);
    let broker = open(&machine).await;
    for name in ["bad", "good"] {
        create(&broker, name, &[("retention.ms", "1000")]).await;
        fill(&machine, &broker, name, 5).await;
    }
    drop(broker);
    machine.disk.kill();
    let broker = open(&machine).await;
    machine.clock.advance(SECOND * 60);
    let disk = &machine.environment().disk;
    let log = Path::new("/data/topics/bad-0/00000000000000000000.log");
    let away = log.with_extension("away");
    disk.rename(log, &away).unwrap();
    while tick(&broker) == Next::After(LOOK_UP_PAUSE) {}
    while start(&broker, "good") < 5 {
        tick(&broker);
    }
    assert_eq!(start(&broker, "bad"), 0);
    assert_eq!(broker.metrics().retention.failures.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_doubles_and_the_partition_is_not_planned_meanwhile() {
    let machine = Machine::new(9);
    let broker = open(&machine).await;
    create(&broker, "t", &[("retention.ms", "1000")]).await;
    fill(&machine, &broker, "t", 5).await;
    machine.clock.advance(SECOND * 60);
    let core = &broker.core;
    let topics = core.registry.all();
    let key = (topics[0].id, PartitionId(0));
    let mut retention = Retention::default();
    let due = |retention: &mut Retention| retention.plan(core, &topics).due.len();
    assert_eq!(due(&mut retention), 1);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        retention.fail(core, key, &std::fmt::Error);
        assert_eq!(
            retention
                .left_alone
                .retry_in(core.environment.clock.elapsed()),
            Some(SECOND * pause)
        );
        machine
            .clock
            .advance(SECOND * pause - Duration::from_millis(1));
        assert_eq!(due(&mut retention), 0);
        machine.clock.advance(Duration::from_millis(1));
        assert_eq!(due(&mut retention), 1);
    }
    // Once it went well for as long as the last pause was, the next one is short again.
    machine.clock.advance(SECOND * 60);
    due(&mut retention);
    retention.fail(core, key, &std::fmt::Error);
    assert_eq!(
        retention
            .left_alone
            .retry_in(core.environment.clock.elapsed()),
        Some(SECOND)
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_start_is_durable_before_the_first_file_goes() {
    let machine = Machine::new(8);
    let broker = open(&machine).await;
    create(&broker, "t", &[("retention.ms", "1000")]).await;
    fill(&machine, &broker, "t", 5).await;
    machine.clock.advance(SECOND * 60);
    machine.disk.fail_sync(machine.disk.syncs());
    assert!(
        retain(&broker.core).is_err(),
        "the catalog could not be synced"
    );
    assert!(broker.step_maintenance().is_err());
    // The three, and an empty one that names the end of the one that was rolled.
    assert_eq!((start(&broker, "t"), segments(&machine, "t")), (0, 4));
    assert!(broker.read_only().is_some());
    assert_eq!(
        retain(&broker.core).unwrap(),
        Next::Triggered,
        "nothing is to be done until a restart"
    );
}
