use std::{ops::ControlFlow, path::Path};

use sapwood_log::StoreOptions;
use sapwood_model::{Acks, Code};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_sim::Machine;

use super::*;
use crate::{
    Broker, BrokerOptions, ConfigChange, Driver, NewTopic, Produce, background::retention,
};

const SECOND: Duration = Duration::from_secs(1);
const P0: PartitionId = PartitionId(0);
/// What a batch takes, about.
const BATCH_BYTES: u64 = 980;

async fn open_with(machine: &Machine, change: impl FnOnce(&mut BrokerOptions)) -> Broker {
    let store = StoreOptions {
        journal_file_bytes: 1 << 20,
        ballast_bytes: 0,
        boot_id: machine.disk.boot_id(),
        ..StoreOptions::default()
    };
    let mut options = BrokerOptions::new(Path::new("/data"), store);
    options.driver = Driver::Caller;
    options.compaction_dedupe_bytes = 1 << 20;
    options.topic_defaults = vec![
        ("segment.bytes".into(), "2048".into()),
        ("durability".into(), "os".into()),
    ];
    change(&mut options);
    Broker::open_in(machine.environment(), options, Arc::default())
        .await
        .unwrap()
}

async fn open(machine: &Machine) -> Broker {
    open_with(machine, |_| {}).await
}

async fn create(broker: &Broker, name: &str, configs: &[(&str, &str)]) {
    let mut all = vec![("cleanup.policy", "compact")];
    all.retain(|(key, _)| configs.iter().all(|(other, _)| other != key));
    all.extend(configs);
    let configs = all.iter();
    let configs = configs.map(|(key, value)| ((*key).into(), (*value).into()));
    let new = NewTopic {
        configs: configs.collect(),
        ..NewTopic::named(name)
    };
    broker.create_topic(new).await.unwrap();
}

/// Appends so many batches of a record each, a second apart, two of them in a segment, with three keys.
/// All but the last segment are sealed and below a checkpoint then.
async fn fill(machine: &Machine, broker: &Broker, topic: &str, batches: usize) {
    for n in 0..batches {
        let mut builder = BatchBuilder::new(Codec::None);
        let record = RecordInput {
            timestamp: machine.environment().clock.now(),
            key: Some(&[(n % 3) as u8]),
            value: Some(&[7; 900]),
            headers: &[],
        };
        builder.push(record).unwrap();
        let request = Produce {
            topic: topic.into(),
            partition: P0,
            batch: builder.build().unwrap().to_bytes(),
            acks: Acks::All,
            expected_end: None,
            auto_create: false,
        };
        broker.produce(request).await.unwrap().await.unwrap();
        machine.clock.advance(SECOND);
    }
    broker.step_maintenance().unwrap();
    broker.core.store.checkpoint().unwrap();
}

/// Ticks until there is nothing to do for now, and the pauses between them.
fn run(broker: &Broker) -> (Next, Vec<Duration>) {
    let mut pauses = Vec::new();
    loop {
        match compact(&broker.core).unwrap() {
            Next::After(pause) => pauses.push(pause),
            next => return (next, pauses),
        }
        assert!(pauses.len() < 10_000, "it does not end");
    }
}

fn bytes(broker: &Broker, topic: &str) -> u64 {
    broker.partitions(topic).unwrap()[0].stats.bytes
}

fn files(machine: &Machine, topic: &str, suffix: &str) -> usize {
    let folder = format!("/data/topics/{topic}-0");
    let entries = machine.environment().disk.read_dir(Path::new(&folder));
    let entries = entries.unwrap_or_default();
    let found = entries.iter().filter(|entry| entry.name.ends_with(suffix));
    found.count()
}

/// Ticks until a segment is being written.
fn run_into_cleaning(machine: &Machine, broker: &Broker, topic: &str) {
    for _ in 0..10_000 {
        if files(machine, topic, ".cleaned.tmp") > 0 {
            return;
        }
        compact(&broker.core).unwrap();
    }
    panic!("no segment is written");
}

fn is_running(broker: &Broker) -> bool {
    broker.core.background.compaction.lock().run.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_log_is_compacted_when_it_is_due_and_others_are_not() {
    let machine = Machine::new(1);
    let broker = open(&machine).await;
    assert_eq!(run(&broker).0, Next::Triggered, "there is none");
    create(&broker, "t", &[]).await;
    create(&broker, "kept", &[("cleanup.policy", "delete")]).await;
    for topic in ["t", "kept"] {
        fill(&machine, &broker, topic, 21).await;
    }
    let before = bytes(&broker, "t");
    let bytes_of_last = before / 21;
    assert_eq!(run(&broker).0, Next::By(INTERVAL));
    // Twenty in sealed segments, of which the latest of three keys stay, and one that is written.
    let metrics = &broker.metrics().compaction;
    assert_eq!((metrics.runs.get(), metrics.removed_records.get()), (1, 17));
    assert_eq!(metrics.replaced_segments.get(), 9, "one is as it was");
    let removed = metrics.bytes_before.get() - metrics.bytes_after.get();
    assert_eq!(bytes(&broker, "t"), before - removed);
    assert!(bytes(&broker, "t") < 5 * BATCH_BYTES + 500);
    assert_eq!(bytes(&broker, "kept"), before);
    let levels = metrics.levels();
    assert!(
        levels.dirty_ratio_max == 0.0 && levels.map_bytes_max > 0,
        "{levels:?}"
    );
    assert_eq!(metrics.read_bytes.get(), 2 * (before - bytes_of_last));
    // Not again before half of it is new.
    fill(&machine, &broker, "t", 2).await;
    run(&broker);
    assert_eq!(metrics.runs.get(), 1);
    let ratio = metrics.levels().dirty_ratio_max;
    assert!(0.3 < ratio && ratio < 0.5, "{ratio}");
    fill(&machine, &broker, "t", 4).await;
    run(&broker);
    assert_eq!(metrics.runs.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_segment_and_a_changed_topic_wake_it() {
    let machine = Machine::new(2);
    let broker = open(&machine).await;
    let runs = || broker.metrics_snapshot().tasks[super::super::COMPACTION].runs;
    while runs() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    create(&broker, "later", &[("cleanup.policy", "delete")]).await;
    fill(&machine, &broker, "later", 21).await;
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(runs(), 1, "nothing is compacted, and nothing polls");
    let compact = ConfigChange::Set {
        key: "cleanup.policy".into(),
        value: "compact".into(),
    };
    broker
        .alter_topic("later", vec![compact], false)
        .await
        .unwrap();
    tokio::time::sleep(SECOND * 5).await;
    let metrics = &broker.metrics().compaction;
    assert_eq!(metrics.runs.get(), 1);
    let at = tokio::time::Instant::now();
    fill(&machine, &broker, "later", 20).await;
    while metrics.runs.get() == 1 {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(at.elapsed() < SECOND * 5, "before the interval is over");
}

#[tokio::test(start_paused = true)]
async fn the_throttle_is_kept_in_pauses_of_a_second_at_most() {
    let machine = Machine::new(3);
    let rate = 64 << 10;
    let broker = open_with(&machine, |options| {
        options.compaction_bytes_per_second = rate
    })
    .await;
    create(&broker, "t", &[("segment.bytes", "65536")]).await;
    fill(&machine, &broker, "t", 400).await;
    let (_, pauses) = run(&broker);
    let metrics = &broker.metrics().compaction;
    let moved = metrics.read_bytes.get() + metrics.written_bytes.get();
    assert!(moved > 500_000, "{moved}");
    let least = Duration::from_secs_f64(moved as f64 / rate as f64);
    let paused: Duration = pauses.iter().sum();
    assert!(
        (least..least + SECOND).contains(&paused),
        "{paused:?} for {moved} bytes"
    );
    assert!(pauses.iter().all(|pause| *pause <= SECOND));
}

#[test]
fn a_step_yields_to_those_who_produce() {
    let took = Duration::from_millis(30);
    assert_eq!(
        pause(1 << 20, 64 << 20, None),
        Duration::from_micros(15_625)
    );
    assert_eq!(pause(1 << 20, 64 << 20, Some(took)), took);
    assert_eq!(pause(1 << 20, 1 << 20, Some(took)), SECOND);
    assert_eq!(pause(0, 1 << 20, None), PAUSE_MIN);
}

#[tokio::test(start_paused = true)]
async fn zero_bytes_a_second_is_off() {
    let machine = Machine::new(4);
    let broker = open_with(&machine, |options| options.compaction_bytes_per_second = 0).await;
    create(&broker, "t", &[]).await;
    fill(&machine, &broker, "t", 21).await;
    assert_eq!(run(&broker), (Next::Triggered, Vec::new()));
    assert_eq!(broker.metrics().compaction.read_bytes.get(), 0);
    let row = &broker.metrics_snapshot().tasks[super::super::COMPACTION];
    assert_eq!((row.interval, row.bytes_per_second), (None, None));
    // Asked for, it is done all the same.
    let done = broker.compact("t", P0, |_| ControlFlow::Continue(())).await;
    assert_eq!(done.unwrap().stats.removed_records, 18);
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_log_is_the_first() {
    let machine = Machine::new(5);
    let broker = open(&machine).await;
    for name in ["half", "overdue", "whole"] {
        create(&broker, name, &[]).await;
        fill(&machine, &broker, name, 9).await;
    }
    run(&broker);
    for (name, batches) in [("half", 12), ("overdue", 2), ("whole", 40)] {
        fill(&machine, &broker, name, batches).await;
    }
    let lag = ConfigChange::Set {
        key: "max.compaction.lag.ms".into(),
        value: "1".into(),
    };
    broker
        .alter_topic("overdue", vec![lag], false)
        .await
        .unwrap();
    let mut compaction = Compaction::default();
    compaction.look_at_all(&broker.core).unwrap();
    let names = compaction.due.iter().map(|due| {
        let topic = broker.core.registry.find(TopicRef::Id(due.key.0));
        topic.unwrap().name.to_string()
    });
    assert_eq!(names.collect::<Vec<_>>(), ["overdue", "whole", "half"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_for_too_long_is_compacted_also_without_traffic() {
    for durability in ["os", "fsync"] {
        let machine = Machine::new(6);
        let broker = open(&machine).await;
        let configs = [
            ("max.compaction.lag.ms", "60000"),
            ("min.cleanable.dirty.ratio", "0.9"),
            ("durability", "os"),
        ];
        create(&broker, "t", &configs).await;
        fill(&machine, &broker, "t", 21).await;
        run(&broker);
        let metrics = &broker.metrics().compaction;
        assert_eq!(metrics.runs.get(), 1);
        let durability = ConfigChange::Set {
            key: "durability".into(),
            value: durability.into(),
        };
        broker
            .alter_topic("t", vec![durability], false)
            .await
            .unwrap();
        // The active segment has one record, and is rolled when it was written for long enough.
        machine.clock.advance(SECOND * 60);
        retention::retain(&broker.core).unwrap();
        broker.step_maintenance().unwrap();
        machine.clock.advance(SECOND);
        let mut ticks = 0;
        while metrics.runs.get() == 1 {
            run(&broker);
            broker.step_maintenance().unwrap();
            machine.clock.advance(SECOND);
            ticks += 1;
            assert!(ticks < 20, "it waits for ever");
        }
        assert_eq!(metrics.removed_records.get(), 18);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_fails_is_left_alone_and_stops_no_other() {
    let machine = Machine::new(7);
    let broker = open(&machine).await;
    for name in ["bad", "good"] {
        create(&broker, name, &[]).await;
        fill(&machine, &broker, name, 21).await;
    }
    drop(broker);
    machine.disk.kill();
    let disk = &machine.environment().disk;
    let broker = open(&machine).await;
    let log = Path::new("/data/topics/bad-0/00000000000000000000.log");
    disk.rename(log, &log.with_extension("away")).unwrap();
    run(&broker);
    let metrics = &broker.metrics().compaction;
    assert_eq!((metrics.runs.get(), metrics.failures.get()), (1, 1));
    assert!(bytes(&broker, "good") < 5 * BATCH_BYTES + 500);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_tried_again_later_and_later() {
    let machine = Machine::new(8);
    let broker = open(&machine).await;
    create(&broker, "t", &[]).await;
    fill(&machine, &broker, "t", 21).await;
    machine.disk.set_capacity(Some(0));
    let metrics = &broker.metrics().compaction;
    for (failures, pause) in [(1, 1), (2, 2), (3, 4)] {
        assert_eq!(run(&broker).0, Next::By(SECOND * pause));
        assert_eq!(metrics.failures.get(), failures);
        assert_eq!(files(&machine, "t", ".cleaned.tmp"), 0);
        assert_eq!(run(&broker).0, Next::By(SECOND * pause));
        assert_eq!(metrics.failures.get(), failures, "it is left alone");
        assert_eq!(metrics.levels().uncleanable, 1);
        machine.clock.advance(SECOND * pause);
    }
    machine.disk.set_capacity(None);
    run(&broker);
    assert_eq!((metrics.runs.get(), metrics.levels().uncleanable), (1, 0));
    assert!(bytes(&broker, "t") < 5 * BATCH_BYTES + 500);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_run_and_leaves_the_log_as_it_was() {
    let machine = Machine::new(9);
    let broker = open_with(&machine, |options| {
        options.compaction_bytes_per_second = 64 << 10
    })
    .await;
    create(&broker, "t", &[("segment.bytes", "65536")]).await;
    fill(&machine, &broker, "t", 400).await;
    run_into_cleaning(&machine, &broker, "t");
    assert!(is_running(&broker));
    broker.drain_and_close().await.unwrap();
    assert!(!is_running(&broker));
    assert_eq!(files(&machine, "t", ".cleaned.tmp"), 0);
    assert_eq!(compact(&broker.core).unwrap(), Next::Triggered);
    drop(broker);
    let broker = open(&machine).await;
    run(&broker);
    assert_eq!(broker.metrics().compaction.runs.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_or_not_compacted_any_more_ends_its_run() {
    let machine = Machine::new(10);
    let broker = open_with(&machine, |options| {
        options.compaction_bytes_per_second = 64 << 10
    })
    .await;
    for name in ["t", "u"] {
        create(&broker, name, &[("segment.bytes", "65536")]).await;
        fill(&machine, &broker, name, 400).await;
        run_into_cleaning(&machine, &broker, name);
        match name {
            "t" => broker.delete_topic("t").await.unwrap(),
            _ => {
                let delete = ConfigChange::Set {
                    key: "cleanup.policy".into(),
                    value: "delete".into(),
                };
                broker.alter_topic(name, vec![delete], false).await.unwrap();
            }
        }
        compact(&broker.core).unwrap();
        assert!(!is_running(&broker));
        assert_eq!(files(&machine, name, ".cleaned.tmp"), 0);
    }
    let metrics = &broker.metrics().compaction;
    assert_eq!((metrics.runs.get(), metrics.failures.get()), (0, 0));
    assert_eq!(run(&broker).0, Next::Triggered);
}

#[tokio::test(start_paused = true)]
async fn a_read_only_directory_ends_a_run_until_a_restart() {
    let machine = Machine::new(11);
    let broker = open_with(&machine, |options| {
        options.compaction_bytes_per_second = 64 << 10
    })
    .await;
    create(&broker, "t", &[("segment.bytes", "65536")]).await;
    fill(&machine, &broker, "t", 400).await;
    compact(&broker.core).unwrap();
    assert!(is_running(&broker));
    broker.core.store.make_read_only("a test says so");
    assert_eq!(compact(&broker.core).unwrap(), Next::Triggered);
    assert!(!is_running(&broker));
    assert_eq!(broker.metrics().compaction.failures.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn asked_for_it_compacts_what_is_written_now_as_well() {
    for durability in ["os", "fsync"] {
        let machine = Machine::new(12);
        let broker = open(&machine).await;
        create(&broker, "t", &[("durability", "os")]).await;
        fill(&machine, &broker, "t", 21).await;
        let durability = ConfigChange::Set {
            key: "durability".into(),
            value: durability.into(),
        };
        broker
            .alter_topic("t", vec![durability], false)
            .await
            .unwrap();
        let goes_on = |_| ControlFlow::Continue(());
        let done = broker.compact("t", P0, goes_on).await.unwrap();
        assert_eq!((done.stats.removed_records, done.cleaned), (18, Offset(21)));
        assert!(bytes(&broker, "t") < 4 * BATCH_BYTES);
        let again = broker.compact("t", P0, goes_on).await.unwrap();
        assert_eq!(
            (again.stats.removed_records, again.cleaned),
            (0, Offset(21))
        );
        assert_eq!(broker.metrics().compaction.runs.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn asked_for_it_keeps_the_least_lag_and_refuses_what_is_not_compacted() {
    let machine = Machine::new(13);
    let broker = open(&machine).await;
    create(&broker, "t", &[("min.compaction.lag.ms", "10500")]).await;
    fill(&machine, &broker, "t", 21).await;
    let goes_on = |_| ControlFlow::Continue(());
    // The records at 0 to 10 s are old enough at 21 s; that of 10 s shares its segment with one that is not.
    let done = broker.compact("t", P0, goes_on).await.unwrap();
    assert_eq!((done.stats.removed_records, done.cleaned), (7, Offset(10)));
    create(&broker, "kept", &[("cleanup.policy", "delete")]).await;
    let refused = broker.compact("kept", P0, goes_on).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidTopicConfig);
    let unknown = broker.compact("nobody", P0, goes_on).await.unwrap_err();
    assert_eq!(unknown.code(), Code::UnknownTopic);
    // The background has begun with it: it is taken over, and given up when nobody wants it.
    create(&broker, "u", &[("segment.bytes", "65536")]).await;
    fill(&machine, &broker, "u", 400).await;
    compact(&broker.core).unwrap();
    assert!(is_running(&broker));
    let ends = |_| ControlFlow::Break(());
    let given_up = broker.compact("u", P0, ends).await.unwrap_err();
    assert!(matches!(given_up, CompactError::GivenUp));
    assert!(!is_running(&broker));
    assert_eq!(
        broker
            .compact("u", P0, goes_on)
            .await
            .unwrap()
            .stats
            .removed_records,
        397
    );
}
