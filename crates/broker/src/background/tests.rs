use std::{path::Path, sync::Arc, time::Duration};

use sapwood_log::StoreOptions;
use sapwood_model::{Acks, PartitionId, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, ProducerStamp, RecordInput};
use sapwood_sim::Machine;

use super::*;
use crate::{Broker, BrokerOptions, NewTopic, Produce};

async fn open(machine: &Machine) -> Broker {
    let store = StoreOptions {
        journal_file_bytes: 1 << 20,
        ballast_bytes: 0,
        boot_id: machine.disk.boot_id(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(Path::new("/data"), store);
    Broker::open_in(machine.environment(), options, Arc::default())
        .await
        .unwrap()
}

async fn produce_as(broker: &Broker, id: u64) {
    let stamp = ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        base_sequence: 0,
        last_sequence: 0,
    };
    let mut builder = BatchBuilder::new(Codec::None).with_producer(stamp);
    let timestamp = Timestamp::NONE;
    builder
        .push(RecordInput {
            timestamp,
            key: None,
            value: Some(b"x"),
            headers: &[],
        })
        .unwrap();
    let request = Produce {
        topic: "t".into(),
        partition: PartitionId(0),
        batch: builder.build().unwrap().to_bytes(),
        acks: Acks::All,
        expected_end: None,
        auto_create: false,
    };
    broker.produce(request).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_forgotten_once_no_journal_entry_of_it_is_needed() {
    let machine = Machine::new(1);
    let broker = open(&machine).await;
    let core = &broker.core;
    // The row itself runs once after the start, and then not before long.
    while core.background.tasks(core)[FORGET_DELETED].runs == 0 {
        tokio::task::yield_now().await;
    }
    broker.create_topic(NewTopic::named("t")).await.unwrap();
    produce_as(&broker, 1).await;
    broker.delete_topic("t").await.unwrap();
    assert_eq!(core.catalog.read(|state| state.deleted().len()), 1);
    assert_eq!(deletions::forget(core).unwrap(), Next::Triggered);
    assert!(core.catalog.read(|state| state.deleted().is_empty()));
    drop(broker);
    machine.disk.kill();
    let broker = open(&machine).await;
    assert!(broker.topics().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_expire_and_the_row_rests_when_none_are_left() {
    let machine = Machine::new(2);
    let broker = open(&machine).await;
    broker.create_topic(NewTopic::named("t")).await.unwrap();
    let core = &broker.core;
    assert_eq!(producers::expire(core).unwrap(), Next::Triggered);
    produce_as(&broker, 1).await;
    let producers = || broker.partitions("t").unwrap()[0].stats.producers;
    assert!(matches!(producers::expire(core).unwrap(), Next::After(_)));
    assert_eq!(producers(), 1);
    machine.clock.advance(Duration::from_secs(25 * 60 * 60));
    assert_eq!(producers::expire(core).unwrap(), Next::Triggered);
    assert_eq!(producers(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_table_says_how_each_row_went_and_when_it_runs_next() {
    let machine = Machine::new(3);
    let broker = open(&machine).await;
    let started = machine.environment().clock.now();
    let tasks = || broker.metrics_snapshot().tasks;
    while tasks().iter().any(|task| task.runs == 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let names: Vec<_> = tasks().iter().map(|task| task.name).collect();
    let rows = [
        "forget-deleted",
        "expire-producers",
        "scrub",
        "retention",
        "compaction",
    ];
    assert_eq!(names, rows);
    let retention = &tasks()[RETENTION];
    let interval = 5 * 60 * 1000;
    assert_eq!(retention.interval, Some(Duration::from_millis(interval)));
    assert_eq!(retention.last_run, Some(started));
    let next = Timestamp(started.0 + interval as i64);
    assert_eq!(
        (retention.next_run, &retention.last_error),
        (Some(next), &None)
    );
    assert!(!retention.is_running);
    assert_eq!(
        tasks()[FORGET_DELETED].next_run,
        None,
        "only when it is triggered"
    );
    // A topic that is too old fails to be trimmed: the catalog cannot be synced.
    broker.create_topic(NewTopic::named("t")).await.unwrap();
    produce_as(&broker, 1).await;
    broker.delete_topic("t").await.unwrap();
    // The first may be that of the deleted folder, whose failure is nobody's.
    let next = machine.disk.syncs();
    (next..next + 20).for_each(|sync| machine.disk.fail_sync(sync));
    while tasks()[FORGET_DELETED].failures == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let failed = &tasks()[FORGET_DELETED];
    let (at, error) = failed.last_error.clone().unwrap();
    assert_eq!(at, started);
    assert!(error.contains("read-only"), "{error}");
    assert_eq!(failed.next_run, Some(Timestamp(started.0 + 1000)));
}
