use sapwood_broker::{
    AlterTopicError, Broker, BrokerOptions, ConfigChange, ConfigSource, NewTopic, ReplicationPolicy,
};
use sapwood_model::{Code, Durability, Offset, PartitionId};
use tempfile::tempdir;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_creators_wins_and_the_other_is_told() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let creators: Vec<_> = (0..8)
        .map(|n| {
            let broker = broker.clone();
            let topic = NewTopic {
                partitions: Some(n + 1),
                ..NewTopic::named("t")
            };
            tokio::spawn(async move { broker.create_topic(topic).await })
        })
        .collect();
    let mut winners = Vec::new();
    let mut losers = Vec::new();
    for creator in creators {
        match creator.await.unwrap() {
            Ok(info) => winners.push(info),
            Err(e) => losers.push(e),
        }
    }
    assert_eq!(winners.len(), 1);
    for error in losers {
        assert_eq!(error.code(), Code::TopicExists);
        let text = error.to_string();
        let theirs = format!("already exists ({} partitions", winners[0].partitions);
        assert!(
            text.contains(&theirs) && text.contains("yours asked for"),
            "{text}"
        );
    }
    assert_eq!(
        broker.partitions("t").unwrap().len(),
        winners[0].partitions as usize
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_codes_and_create_nothing() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "a.b", &[]).await;
    let code = async |topic| broker.create_topic(topic).await.unwrap_err().code();
    let long = "x".repeat(250);
    for name in ["", ".", "..", "no spaces", "ü", &long, "__consumer_offsets"] {
        assert_eq!(
            code(NewTopic::named(name)).await,
            Code::InvalidTopicName,
            "{name}"
        );
    }
    assert_eq!(code(NewTopic::named("a_b")).await, Code::InvalidTopicName);
    let partitions = |partitions| NewTopic {
        partitions: Some(partitions),
        ..NewTopic::named("x")
    };
    assert_eq!(code(partitions(0)).await, Code::InvalidPartitions);
    assert_eq!(code(partitions(100_001)).await, Code::InvalidPartitions);
    let factor = |factor| NewTopic {
        replication_factor: Some(factor),
        ..NewTopic::named("x")
    };
    for bad in [0, -2, 2, 3] {
        assert_eq!(code(factor(bad)).await, Code::InvalidReplication, "{bad}");
    }
    let config = |key: &str, value: &str| NewTopic {
        configs: pairs(&[(key, value)]),
        ..NewTopic::named("x")
    };
    assert_eq!(
        code(config("retention.mss", "1")).await,
        Code::UnknownTopicConfig
    );
    assert_eq!(
        code(config("retention.ms", "-2")).await,
        Code::InvalidTopicConfig
    );
    assert_eq!(broker.topics().len(), 1);
    let check = NewTopic {
        validate_only: true,
        ..NewTopic::named("x")
    };
    assert_eq!(broker.create_topic(check).await.unwrap().partitions, 1);
    let check = NewTopic {
        validate_only: true,
        ..NewTopic::named("a.b")
    };
    assert_eq!(code(check).await, Code::TopicExists);
    assert!(broker.topic("x").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_is_taken_as_one_where_the_policy_says_so() {
    let dir = tempdir().unwrap();
    let replication = ReplicationPolicy::AsOne;
    let broker = open_with(BrokerOptions {
        replication,
        ..options(dir.path())
    })
    .await;
    let topic = NewTopic {
        replication_factor: Some(3),
        configs: pairs(&[("min.insync.replicas", "2")]),
        ..NewTopic::named("t")
    };
    broker.create_topic(topic).await.unwrap();
    produce(&broker, to("t", batch(&["x"]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_is_another_topic() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let first = create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["old"]))).await.unwrap();
    broker.delete_topic(first.id).await.unwrap();
    assert_eq!(
        broker.delete_topic("t").await.unwrap_err().code(),
        Code::UnknownTopic
    );
    let second = create(&broker, "t", &[]).await;
    assert_ne!(first.id, second.id);
    assert!(read_all(&broker, "t").await.is_empty());
    assert!(broker.topic(first.id).is_none());
    produce(&broker, to("t", batch(&["new"]))).await.unwrap();
    drop(broker);
    // Also after a kill, when the journal holds entries of both.
    let broker = open(dir.path()).await;
    assert_eq!(read_all(&broker, "t").await, [(0, "new".to_owned())]);
    assert_eq!(broker.topic("t").unwrap().id, second.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_survive_a_kill_with_all_that_was_changed() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let topic = NewTopic {
        partitions: Some(3),
        ..NewTopic::named("t")
    };
    let before = broker.create_topic(topic).await.unwrap();
    let set = ConfigChange::Set {
        key: "retention.ms".into(),
        value: "1000".into(),
    };
    broker.alter_topic("t", vec![set], false).await.unwrap();
    broker.add_partitions("t", 5, false).await.unwrap();
    for n in 0..10 {
        produce(&broker, to("t", batch(&[&n.to_string()])))
            .await
            .unwrap();
    }
    assert_eq!(
        broker.trim("t", P0, Some(Offset(4))).await.unwrap(),
        Offset(4)
    );
    drop(broker);
    let broker = open(dir.path()).await;
    let after = broker.topic("t").unwrap();
    assert_eq!(
        (after.id, after.created_at, after.partitions),
        (before.id, before.created_at, 5)
    );
    let configs = broker.topic_configs("t").unwrap();
    let retention = configs
        .iter()
        .find(|entry| entry.key == "retention.ms")
        .unwrap();
    assert_eq!(
        (&*retention.value, retention.source),
        ("1000", ConfigSource::Topic)
    );
    assert_eq!(broker.bounds("t", P0).unwrap().log_start, Offset(4));
    assert_eq!(read_all(&broker, "t").await.first().unwrap().0, 4);
    for partition in 0..5 {
        let partition = PartitionId(partition);
        let request = sapwood_broker::Produce {
            partition,
            ..to("t", batch(&["x"]))
        };
        produce(&broker, request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_and_never_removed() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    for bad in [0, 1, 100_001] {
        let refused = broker.add_partitions("t", bad, false).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidPartitions, "{bad}");
    }
    assert_eq!(
        broker
            .add_partitions("t", 3, true)
            .await
            .unwrap()
            .partitions,
        3
    );
    assert_eq!(broker.topic("t").unwrap().partitions, 1);
    assert_eq!(
        broker
            .add_partitions("t", 3, false)
            .await
            .unwrap()
            .partitions,
        3
    );
    let refused = broker.add_partitions("nobody", 3, false).await.unwrap_err();
    assert!(matches!(refused, AlterTopicError::Lookup(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_in_force_at_once_and_a_refused_one_changes_nothing() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let set = |key: &str, value: &str| ConfigChange::Set {
        key: key.into(),
        value: value.into(),
    };
    let bad = vec![set("max.message.bytes", "100"), set("segment.bytes", "1")];
    let refused = broker.alter_topic("t", bad, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidTopicConfig);
    let value = "x".repeat(200);
    produce(&broker, to("t", batch(&[&value]))).await.unwrap();
    let good = vec![set("max.message.bytes", "100")];
    broker.alter_topic("t", good.clone(), true).await.unwrap();
    produce(&broker, to("t", batch(&[&value]))).await.unwrap();
    broker.alter_topic("t", good, false).await.unwrap();
    let refused = produce(&broker, to("t", batch(&[&value])))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::RecordTooLarge);
    let reset = ConfigChange::Reset {
        key: "max.message.bytes".into(),
    };
    broker.alter_topic("t", vec![reset], false).await.unwrap();
    produce(&broker, to("t", batch(&[&value]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_is_switched_under_load_and_no_acknowledged_record_is_lost() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("durability", "os")]).await;
    let producer = {
        let broker = broker.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..400 {
                let value = n.to_string();
                let produced = produce(&broker, to("t", batch(&[&value]))).await.unwrap();
                acknowledged.push((produced.base_offset.0, value));
            }
            acknowledged
        })
    };
    for (value, durability) in [
        ("fsync", Durability::Fsync),
        ("os", Durability::Os),
        ("fsync", Durability::Fsync),
    ] {
        let set = ConfigChange::Set {
            key: "durability".into(),
            value: value.into(),
        };
        broker.alter_topic("t", vec![set], false).await.unwrap();
        assert_eq!(broker.topic("t").unwrap().durability, durability);
    }
    let acknowledged = producer.await.unwrap();
    assert_eq!(read_all(&broker, "t").await, acknowledged);
    drop(broker);
    let broker = open(dir.path()).await;
    assert_eq!(read_all(&broker, "t").await, acknowledged);
    assert_eq!(broker.topic("t").unwrap().durability, Durability::Fsync);
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_stops_at_the_high_watermark_and_goes_one_way() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    for n in 0..5 {
        produce(&broker, to("t", batch(&[&n.to_string()])))
            .await
            .unwrap();
    }
    let past = broker.trim("t", P0, Some(Offset(6))).await.unwrap_err();
    assert_eq!(past.code(), Code::OffsetOutOfRange);
    assert_eq!(
        broker.trim("t", P0, Some(Offset(3))).await.unwrap(),
        Offset(3)
    );
    assert_eq!(
        broker.trim("t", P0, Some(Offset(1))).await.unwrap(),
        Offset(3)
    );
    let below = broker.read_record("t", P0, Offset(2)).await.unwrap_err();
    assert_eq!(below.code(), Code::OffsetOutOfRange);
    assert_eq!(broker.trim("t", P0, None).await.unwrap(), Offset(5));
    let next = produce(&broker, to("t", batch(&["x"]))).await.unwrap();
    assert_eq!((next.base_offset, next.log_start), (Offset(5), Offset(5)));
    // Many at once end at the highest.
    let trims: Vec<_> = (0..20)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.trim("t", P0, None).await.unwrap() })
        })
        .collect();
    for trim in trims {
        assert_eq!(trim.await.unwrap(), Offset(6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_for_want_of_space_leaves_nothing_in_the_way_of_the_next() {
    let mut failed = 0;
    for pages in 0..24 {
        let machine = sapwood_sim::Machine::new(pages);
        let mut small = options(std::path::Path::new("/data"));
        small.store.ballast_bytes = 0;
        let opened = Broker::open_in(machine.environment(), small, Default::default()).await;
        let broker = opened.unwrap();
        // The journal's files are written ahead meanwhile.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let space = broker.disk_space().unwrap();
        machine
            .disk
            .set_capacity(Some(space.total_bytes - space.free_bytes + pages * 4096));
        let topic = NewTopic {
            partitions: Some(3),
            ..NewTopic::named("t")
        };
        for _ in 0..3 {
            if let Err(e) = broker.create_topic(topic.clone()).await {
                failed += 1;
                assert_eq!(e.code(), Code::StorageFull, "{pages} pages: {e}");
                assert!(broker.topic("t").is_none(), "{pages} pages");
            } else {
                break;
            }
        }
        machine.disk.set_capacity(None);
        if broker.topic("t").is_none() {
            broker.create_topic(topic.clone()).await.unwrap();
        }
        produce(&broker, to("t", batch(&["x"]))).await.unwrap();
        let id = broker.topic("t").unwrap().id;
        drop(broker);
        machine.disk.kill();
        let broker = open_on(&machine, &machine.disk.boot_id()).await.unwrap();
        assert_eq!(broker.topic("t").unwrap().id, id, "{pages} pages");
        assert_eq!(read_all(&broker, "t").await.len(), 1, "{pages} pages");
    }
    assert!(failed > 0);
}
