use std::time::Duration;

use sapwood_broker::{Fetch, Produce, ProduceError, Status};
use sapwood_model::{Acks, Code, Offset};
use tempfile::tempdir;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..5_u64 {
        let broker = open(dir.path()).await;
        if life == 0 {
            create(&broker, "t", &[("segment.bytes", "2048")]).await;
        }
        assert_eq!(read_all(&broker, "t").await, expected, "life {life}");
        for n in 0..50 {
            let value = format!("{life}:{n}");
            let produced = produce(&broker, to("t", batch(&[&value]))).await.unwrap();
            expected.push((produced.base_offset.0, value));
        }
        // Dropped without being closed.
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_was_accepted_and_refuses_the_rest() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let parked = {
        let broker = broker.clone();
        let wait = Duration::from_secs(60);
        tokio::spawn(async move {
            broker
                .fetch(Fetch {
                    bytes_min: 1 << 20,
                    wait,
                    ..at_once(vec![from("t", 0, 0)])
                })
                .await
        })
    };
    let mut pending = Vec::new();
    for _ in 0..50 {
        pending.push(broker.produce(to("t", batch(&["x"]))).await.unwrap());
    }
    let unwaited = Produce {
        acks: Acks::Leader,
        ..to("t", batch(&["y"]))
    };
    produce(&broker, unwaited).await.unwrap();
    let mut status = broker.watch_status();
    broker.drain_and_close().await.unwrap();
    assert_eq!(*status.borrow_and_update(), Status::Closed);
    for pending in pending {
        pending.await.unwrap();
    }
    let fetched = tokio::time::timeout(Duration::from_secs(10), parked)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fetched.len(), 1);
    let refused = produce(&broker, to("t", batch(&["x"]))).await.unwrap_err();
    assert!(matches!(refused, ProduceError::Draining), "{refused}");
    assert_eq!(
        broker.delete_topic("t").await.unwrap_err().code(),
        Code::Draining
    );
    assert_eq!(
        broker.trim("t", P0, None).await.unwrap_err().code(),
        Code::Draining
    );
    // Closing again does nothing.
    broker.drain_and_close().await.unwrap();
    drop(broker);

    let broker = open(dir.path()).await;
    assert!(broker.recovery().clean);
    assert_eq!(read_all(&broker, "t").await.len(), 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_race_a_drain_are_acknowledged_or_refused() {
    let dir = tempdir().unwrap();
    let mut acknowledged = 0;
    for life in 0..5 {
        let broker = open(dir.path()).await;
        if life == 0 {
            create(&broker, "t", &[]).await;
        }
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let broker = broker.clone();
                tokio::spawn(async move {
                    for count in 0.. {
                        match produce(&broker, to("t", batch(&["x"]))).await {
                            Ok(_) => {}
                            Err(ProduceError::Draining) => return count,
                            Err(e) => panic!("{e}"),
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        broker.drain_and_close().await.unwrap();
        for producer in producers {
            acknowledged += producer.await.unwrap();
        }
        drop(broker);
    }
    let broker = open(dir.path()).await;
    assert_eq!(read_all(&broker, "t").await.len(), acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_with_its_code() {
    let dir = tempdir().unwrap();
    let _broker = open(dir.path()).await;
    let second = sapwood_broker::Broker::open(options(dir.path()), Default::default()).await;
    assert_eq!(second.unwrap_err().code(), Code::DirectoryInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_outside_their_bounds_are_refused() {
    let dir = tempdir().unwrap();
    let mut bad = options(dir.path());
    bad.default_partitions = 0;
    let refused = sapwood_broker::Broker::open(bad, Default::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidConfig);
    let mut bad = options(dir.path());
    bad.topic_defaults = pairs(&[("retention.mss", "1")]);
    let refused = sapwood_broker::Broker::open(bad, Default::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidConfig);
    assert!(refused.to_string().contains("retention.ms\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_produce_and_lets_everything_else_go_on() {
    let machine = sapwood_sim::Machine::new(7);
    let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
    create(&broker, "t", &[("segment.bytes", "65536")]).await;
    create(&broker, "doomed", &[]).await;
    produce(&broker, to("t", batch(&["before"]))).await.unwrap();
    let used = {
        let space = broker.disk_space().unwrap();
        space.total_bytes - space.free_bytes
    };
    machine.disk.set_capacity(Some(used));
    let value = "x".repeat(10_000);
    let mut appended = 1;
    let refused = loop {
        match produce(&broker, to("t", batch(&[&value]))).await {
            Ok(_) => appended += 1,
            Err(e) => break e,
        }
        assert!(appended < 10_000, "the disk never fills");
    };
    assert_eq!(refused.code(), Code::StorageFull);
    assert_eq!(read_all(&broker, "t").await.len(), appended);
    // The catalog, deletes and trims have the ballast.
    broker.delete_topic("doomed").await.unwrap();
    broker.trim("t", P0, Some(Offset(1))).await.unwrap();
    broker.allocate_producer_id().await.unwrap();
    assert!(broker.read_only().is_none());
    machine.disk.set_capacity(None);
    produce(&broker, to("t", batch(&["after"]))).await.unwrap();
    assert_eq!(read_all(&broker, "t").await.len(), appended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_system_keeps_for_root_is_not_filled_so_that_a_trim_makes_room() {
    const RESERVE_BYTES: u64 = 2 << 20;
    let machine = sapwood_sim::Machine::new(9);
    let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
    create(&broker, "t", &[("segment.bytes", "65536")]).await;
    produce(&broker, to("t", batch(&["before"]))).await.unwrap();
    let space = broker.disk_space().unwrap();
    let used = space.total_bytes - space.free_bytes;
    machine.disk.set_reserve(RESERVE_BYTES);
    machine
        .disk
        .set_capacity(Some(used + (2 << 20) + RESERVE_BYTES));
    let value = "x".repeat(10_000);
    let mut end = 1;
    while produce(&broker, to("t", batch(&[&value]))).await.is_ok() {
        end += 1;
        assert!(end < 10_000, "the disk never fills");
    }
    assert!(broker.is_disk_full());
    machine.disk.set_reserve(0);
    let reserve = broker.disk_space().unwrap().free_bytes;
    // Index files may be in it, which are small and nobody's records.
    assert!(reserve > RESERVE_BYTES / 8 * 7, "{reserve} bytes are left");
    machine.disk.set_reserve(RESERVE_BYTES);

    broker.trim("t", P0, Some(Offset(end / 2))).await.unwrap();
    let freed = async {
        while broker.is_disk_full() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), freed)
        .await
        .expect("the trim makes room");
    produce(&broker, to("t", batch(&[&value]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_readable_while_the_sync_fails() {
    let machine = sapwood_sim::Machine::new(8);
    let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
    create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["durable"])))
        .await
        .unwrap();
    // The journal's files are written ahead meanwhile, which has syncs of its own.
    (0..100).for_each(|sync| machine.disk.fail_sync(machine.disk.syncs() + sync));
    let lost = produce(&broker, to("t", batch(&["lost"])))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), Code::ReadOnly);
    assert!(broker.read_only().is_some());
    let bounds = broker.bounds("t", P0).unwrap();
    assert_eq!(
        (bounds.high_watermark, bounds.log_end),
        (Offset(1), Offset(2))
    );
    assert_eq!(read_all(&broker, "t").await, [(0, "durable".to_owned())]);
    let refused = produce(&broker, to("t", batch(&["x"]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ReadOnly);
    // The catalog belongs to the directory: a change of topics is refused before it is written.
    let records = broker.catalog_records().await;
    let refused = broker
        .create_topic(sapwood_broker::NewTopic::named("late"))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::ReadOnly);
    assert_eq!(broker.catalog_records().await, records);
    // A reader that waits in vain does so quietly.
    let wait = Duration::from_millis(50);
    let reads = broker.metrics().fetch_read.counts().iter().sum::<u64>();
    broker
        .fetch(Fetch {
            wait,
            ..at_once(vec![from("t", 0, 1)])
        })
        .await;
    assert!(broker.metrics().fetch_read.counts().iter().sum::<u64>() <= reads + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_after_a_switch_to_fsync_survives_a_power_cut() {
    for survivor in 0..10 {
        let machine = sapwood_sim::Machine::new(survivor);
        let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
        create(&broker, "t", &[("durability", "os")]).await;
        for n in 0..5 {
            produce(&broker, to("t", batch(&[&n.to_string()])))
                .await
                .unwrap();
        }
        let (key, value) = ("durability".into(), "fsync".into());
        let set = sapwood_broker::ConfigChange::Set { key, value };
        broker.alter_topic("t", vec![set], false).await.unwrap();
        for n in 5..10 {
            produce(&broker, to("t", batch(&[&n.to_string()])))
                .await
                .unwrap();
        }
        let expected: Vec<_> = (0..10).map(|n| (n, n.to_string())).collect();
        assert_eq!(read_all(&broker, "t").await, expected);
        let machine = machine.fork();
        machine.disk.power_cut(&mut sapwood_sim::Rng::new(survivor));
        let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
        assert_eq!(
            read_all(&broker, "t").await,
            expected,
            "survivor {survivor}"
        );
    }
}
