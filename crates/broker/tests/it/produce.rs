use std::{sync::Arc, time::Duration};

use sapwood_broker::{BrokerOptions, CreateTopicError, NewTopic, Produce, ProduceError};
use sapwood_model::{Acks, Code, Offset, PartitionId, Timestamp};
use sapwood_record::{Codec, batches};
use tempfile::tempdir;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_back_in_the_order_of_their_offsets() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let first = produce(&broker, to("t", batch(&["a", "b"]))).await.unwrap();
    let second = produce(&broker, to("t", batch(&["c"]))).await.unwrap();
    assert_eq!(
        (first.base_offset, first.last_offset),
        (Offset(0), Offset(1))
    );
    assert_eq!(
        (second.base_offset, second.last_offset),
        (Offset(2), Offset(2))
    );
    let expected: Vec<_> = [(0, "a"), (1, "b"), (2, "c")]
        .map(|(o, v)| (o, v.to_owned()))
        .into();
    assert_eq!(read_all(&broker, "t").await, expected);
    let record = broker.read_record("t", P0, Offset(1)).await.unwrap();
    assert_eq!(record.value.as_deref(), Some(&b"b"[..]));
    let past = broker.read_record("t", P0, Offset(3)).await.unwrap_err();
    assert_eq!(past.code(), Code::OffsetOutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_sequenced_by_the_first_stage_and_share_the_wait_of_the_second() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let mut pending = Vec::new();
    for n in 0..100 {
        let sent = broker
            .produce(to("t", batch(&[&n.to_string()])))
            .await
            .unwrap();
        assert_eq!(sent.produced().base_offset, Offset(n));
        pending.push(sent);
    }
    for (n, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap().base_offset, Offset(n as u64));
    }
    let rounds = broker.store_metrics().journal_rounds.get();
    assert!(rounds < 100, "{rounds} syncs for 100 batches");
    assert_eq!(broker.bounds("t", P0).unwrap().high_watermark, Offset(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_refusal_has_its_code_and_appends_nothing() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("max.message.bytes", "1000")]).await;
    create(&broker, "compacted", &[("cleanup.policy", "compact")]).await;
    let code = async |request| produce(&broker, request).await.unwrap_err().code();

    assert_eq!(code(to("nobody", batch(&["x"]))).await, Code::UnknownTopic);
    let partition = PartitionId(1);
    assert_eq!(
        code(Produce {
            partition,
            ..to("t", batch(&["x"]))
        })
        .await,
        Code::UnknownPartition
    );
    let large = "x".repeat(1001);
    assert_eq!(code(to("t", batch(&[&large]))).await, Code::RecordTooLarge);
    let mut damaged = batch(&["hello"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(code(to("t", damaged.into())).await, Code::CorruptBatch);
    assert_eq!(
        code(to("t", batch(&["x"]).slice(..40))).await,
        Code::CorruptBatch
    );
    assert_eq!(code(to("t", bytes::Bytes::new())).await, Code::CorruptBatch);
    assert_eq!(
        code(to("compacted", batch(&["no key"]))).await,
        Code::InvalidRecord
    );
    let compressed = batch_with(Codec::Lz4, None, &["no key"]);
    assert_eq!(code(to("compacted", compressed)).await, Code::InvalidRecord);
    let expected_end = Some(Offset(7));
    assert_eq!(
        code(Produce {
            expected_end,
            ..to("t", batch(&["x"]))
        })
        .await,
        Code::ExpectedEndConflict
    );
    for topic in ["t", "compacted"] {
        assert_eq!(broker.bounds(topic, P0).unwrap().log_end, Offset(0));
    }
    let errors = broker.metrics().produce.errors();
    assert!(errors.contains(&(Code::CorruptBatch, 3)), "{errors:?}");
    assert_eq!(broker.metrics().produce.ok(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_end_lets_one_of_two_writers_through() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let write = |value| {
        let request = Produce {
            expected_end: Some(Offset(0)),
            ..to("t", batch(&[value]))
        };
        produce(&broker, request)
    };
    let (one, two) = tokio::join!(write("one"), write("two"));
    let conflict = match (one, two) {
        (Ok(_), Err(e)) | (Err(e), Ok(_)) => e,
        both => panic!("{both:?}"),
    };
    assert_eq!(
        conflict.to_string(),
        "the log ends at offset 1; the writer expected 0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_batch_gets_its_first_offsets_back() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let (id, _) = broker.allocate_producer_id().await.unwrap();
    let first = batch_with(Codec::None, Some(stamp(id, 0, 0, 2)), &["a", "b"]);
    let second = batch_with(Codec::None, Some(stamp(id, 0, 2, 1)), &["c"]);
    produce(&broker, to("t", first.clone())).await.unwrap();
    produce(&broker, to("t", second)).await.unwrap();
    let again = produce(&broker, to("t", first)).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(
        (again.base_offset, again.last_offset),
        (Offset(0), Offset(1))
    );
    assert_eq!(read_all(&broker, "t").await.len(), 3);
    let gap = batch_with(Codec::None, Some(stamp(id, 0, 9, 1)), &["z"]);
    assert_eq!(
        produce(&broker, to("t", gap)).await.unwrap_err().code(),
        Code::OutOfSequence
    );
    let topic = &broker.metrics_snapshot().topics[0];
    assert_eq!((topic.records_in, topic.batches_in), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn os_topics_acknowledge_what_is_appended() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("durability", "os")]).await;
    let rounds = broker.store_metrics().journal_rounds.get();
    for acks in [Acks::All, Acks::Leader, Acks::None] {
        produce(
            &broker,
            Produce {
                acks,
                ..to("t", batch(&["x"]))
            },
        )
        .await
        .unwrap();
    }
    assert_eq!(broker.bounds("t", P0).unwrap().high_watermark, Offset(3));
    assert_eq!(broker.store_metrics().journal_rounds.get(), rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_append_time_is_the_brokers_and_is_told() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = broker.environment().clock.now();
    let produced = produce(&broker, to("t", batch(&["x"]))).await.unwrap();
    let time = produced.log_append_time.unwrap();
    assert!(time >= before);
    assert_eq!(
        broker
            .read_record("t", P0, Offset(0))
            .await
            .unwrap()
            .timestamp,
        time
    );
    let found = broker.find_timestamp("t", P0, time).await.unwrap().unwrap();
    assert_eq!(found.offset, Offset(0));
    assert!(
        broker
            .find_timestamp("t", P0, Timestamp(time.0 + 1))
            .await
            .unwrap()
            .is_none()
    );
    let max = broker.find_max_timestamp("t", P0).await.unwrap().unwrap();
    assert_eq!(max.timestamp, time);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_compression_type_rewrites_batches_and_keeps_their_producer() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("compression.type", "zstd")]).await;
    let (id, _) = broker.allocate_producer_id().await.unwrap();
    let sent = batch_with(Codec::Gzip, Some(stamp(id, 0, 0, 2)), &["a", "b"]);
    produce(&broker, to("t", sent.clone())).await.unwrap();
    let fetched = broker
        .fetch(at_once(vec![from("t", 0, 0)]))
        .await
        .pop()
        .unwrap();
    let fetched = fetched.result.unwrap();
    let kept = batches(fetched.batches.clone()).next().unwrap().unwrap();
    assert_eq!(kept.header().codec().unwrap(), Codec::Zstd);
    assert_eq!(values(&fetched).len(), 2);
    assert!(produce(&broker, to("t", sent)).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_by_its_first_batch_only_where_both_sides_allow_it() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let ask = |name| Produce {
        auto_create: true,
        ..to(name, batch(&["x"]))
    };
    assert_eq!(
        produce(&broker, ask("t")).await.unwrap_err().code(),
        Code::UnknownTopic
    );
    broker.drain_and_close().await.unwrap();
    drop(broker);

    let broker = open_with(BrokerOptions {
        auto_create: true,
        ..options(dir.path())
    })
    .await;
    assert!(produce(&broker, to("t", batch(&["x"]))).await.is_err());
    let bad = produce(&broker, ask("no spaces")).await.unwrap_err();
    assert!(matches!(&bad, ProduceError::AutoCreate { .. }), "{bad}");
    assert_eq!(bad.code(), Code::InvalidTopicName);
    // Many first batches at once make one topic.
    let many = (0..20).map(|_| {
        let broker = broker.clone();
        tokio::spawn(async move {
            let ask = Produce {
                auto_create: true,
                ..to("t", batch(&["x"]))
            };
            produce(&broker, ask).await
        })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    assert_eq!(read_all(&broker, "t").await.len(), 20);
    assert_eq!(broker.topics().len(), 1);
    let exists = broker.create_topic(NewTopic::named("t")).await.unwrap_err();
    assert!(matches!(exists, CreateTopicError::Exists { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn producing_to_a_topic_while_it_is_deleted_ends_for_everybody() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    for round in 0..10 {
        create(&broker, "t", &[]).await;
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let broker = broker.clone();
                tokio::spawn(async move {
                    let mut acknowledged = 0;
                    loop {
                        match produce(&broker, to("t", batch(&["x"]))).await {
                            Ok(_) => acknowledged += 1,
                            Err(e) => return (acknowledged, e),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        broker.delete_topic("t").await.unwrap();
        for producer in producers {
            let ended = tokio::time::timeout(Duration::from_secs(10), producer).await;
            let (_, error) = ended.expect("it is told that the topic is gone").unwrap();
            assert_eq!(error.code(), Code::UnknownTopic, "round {round}: {error}");
        }
        assert!(broker.topics().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_ids_are_never_given_twice_not_even_after_a_kill() {
    let dir = tempdir().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let broker = Arc::new(open(dir.path()).await);
        let tasks: Vec<_> = (0..1500)
            .map(|_| {
                let broker = broker.clone();
                tokio::spawn(async move { broker.allocate_producer_id().await.unwrap().0 })
            })
            .collect();
        for task in tasks {
            assert!(seen.insert(task.await.unwrap().0));
        }
    }
    assert_eq!(seen.len(), 4500);
}
