use std::time::{Duration, Instant};

use sapwood_broker::Fetch;
use sapwood_model::{Code, Offset};
use tempfile::tempdir;

use crate::support::*;

const LONG: Duration = Duration::from_secs(60);

/// Waits until so many fetches are parked.
async fn parked(broker: &sapwood_broker::Broker, count: u64) {
    while broker.metrics().fetches_parked() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_its_bytes_and_is_woken_by_them() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let size = batch(&["0123456789"]).len();
    let waiting = {
        let broker = broker.clone();
        tokio::spawn(async move {
            let fetch = Fetch {
                bytes_min: 3 * size,
                wait: LONG,
                ..at_once(vec![from("t", 0, 0)])
            };
            broker.fetch(fetch).await
        })
    };
    for n in 0..2 {
        parked(&broker, 1).await;
        assert!(!waiting.is_finished(), "after {n} batches");
        produce(&broker, to("t", batch(&["0123456789"])))
            .await
            .unwrap();
    }
    parked(&broker, 1).await;
    produce(&broker, to("t", batch(&["0123456789"])))
        .await
        .unwrap();
    let fetched = waiting.await.unwrap().pop().unwrap().result.unwrap();
    assert_eq!(values(&fetched).len(), 3);
    assert_eq!(broker.metrics().fetches_parked(), 0);
    // Woken once: it was parked twice at most (bytes that come while it parks are read first).
    assert_eq!(broker.metrics().fetch.ok(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_answers_at_its_deadline_with_what_there_is() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["x"]))).await.unwrap();
    let began = Instant::now();
    let wait = Duration::from_millis(50);
    let fetch = Fetch {
        bytes_min: 10_000,
        wait,
        ..at_once(vec![from("t", 0, 0)])
    };
    let fetched = broker.fetch(fetch).await.pop().unwrap().result.unwrap();
    assert!(began.elapsed() >= wait);
    assert_eq!(values(&fetched).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_partition_is_told_at_once_and_the_others_are_answered() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["x"]))).await.unwrap();
    let partitions = vec![
        from("t", 0, 0),
        from("t", 5, 0),
        from("t", 0, 99),
        from("nobody", 0, 0),
    ];
    let fetch = Fetch {
        bytes_min: 10_000,
        wait: LONG,
        ..at_once(partitions)
    };
    let codes: Vec<_> = broker
        .fetch(fetch)
        .await
        .into_iter()
        .map(|fetched| {
            fetched
                .result
                .map(|fetched| fetched.next)
                .map_err(|e| e.code())
        })
        .collect();
    assert_eq!(
        codes,
        [
            Ok(Offset(1)),
            Err(Code::UnknownPartition),
            Err(Code::OffsetOutOfRange),
            Err(Code::UnknownTopic)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_topic_wakes_the_fetches_that_are_parked_at_it() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    let fetches: Vec<_> = (0..10)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move {
                broker
                    .fetch(Fetch {
                        wait: LONG,
                        ..at_once(vec![from("t", 0, 0)])
                    })
                    .await
            })
        })
        .collect();
    parked(&broker, 10).await;
    broker.delete_topic("t").await.unwrap();
    for fetch in fetches {
        let fetched = tokio::time::timeout(Duration::from_secs(10), fetch).await;
        let error = fetched.unwrap().unwrap().pop().unwrap().result.unwrap_err();
        assert_eq!(error.code(), Code::UnknownTopic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_given_up_leaves_nothing_parked() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    for _ in 0..100 {
        let fetch = Fetch {
            wait: LONG,
            ..at_once(vec![from("t", 0, 0)])
        };
        assert!(
            tokio::time::timeout(Duration::from_micros(50), broker.fetch(fetch))
                .await
                .is_err()
        );
    }
    assert_eq!(broker.metrics().fetches_parked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_byte_limits_hold_but_for_the_first_batch() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    for topic in ["a", "b"] {
        create(&broker, topic, &[]).await;
        for _ in 0..4 {
            produce(&broker, to(topic, batch(&["0123456789"])))
                .await
                .unwrap();
        }
    }
    let size = batch(&["0123456789"]).len();
    let counts = async |bytes_max, partition_bytes_max| {
        let mut partitions = vec![from("a", 0, 0), from("b", 0, 0)];
        for partition in &mut partitions {
            partition.bytes_max = partition_bytes_max;
        }
        let fetched = broker
            .fetch(Fetch {
                bytes_max,
                ..at_once(partitions)
            })
            .await;
        fetched
            .into_iter()
            .map(|f| values(&f.result.unwrap()).len())
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(1, 1).await, [1, 0]);
    assert_eq!(counts(10 * size, 2 * size).await, [2, 2]);
    assert_eq!(counts(5 * size, 4 * size).await, [4, 1]);
    assert_eq!(counts(5 * size - 1, 4 * size).await, [4, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_follow_many_producers_without_missing_a_record() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("segment.bytes", "4096")]).await;
    let (producers, each) = (4, 200);
    let consumers: Vec<_> = (0..4)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move {
                let (mut next, mut seen) = (0, Vec::new());
                while seen.len() < producers * each {
                    let fetch = Fetch {
                        wait: LONG,
                        ..at_once(vec![from("t", 0, next)])
                    };
                    let fetched = broker.fetch(fetch).await.pop().unwrap().result.unwrap();
                    assert!(fetched.next <= fetched.bounds.high_watermark);
                    seen.extend(values(&fetched));
                    next = fetched.next.0;
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..producers)
        .map(|producer| {
            let broker = broker.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    let value = format!("{producer}:{n}");
                    produce(&broker, to("t", batch(&[&value]))).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for consumer in consumers {
        let seen = consumer.await.unwrap();
        assert!(
            seen.iter()
                .enumerate()
                .all(|(n, (offset, _))| *offset == n as u64)
        );
        for producer in 0..producers {
            let prefix = format!("{producer}:");
            let own: Vec<_> = seen
                .iter()
                .filter(|(_, v)| v.starts_with(&prefix))
                .collect();
            let expected: Vec<_> = (0..each).map(|n| format!("{producer}:{n}")).collect();
            assert!(own.iter().map(|(_, v)| v).eq(expected.iter()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_between_the_read_and_the_parking_is_not_missed() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[("durability", "os")]).await;
    // Each record is produced when the one before was fetched, so that it races the next fetch; no
    // later record makes up for a wake-up that was missed.
    let (fetched, mut wanted) = tokio::sync::mpsc::unbounded_channel();
    let producer = {
        let broker = broker.clone();
        tokio::spawn(async move {
            while wanted.recv().await.is_some() {
                produce(&broker, to("t", batch(&["x"]))).await.unwrap();
            }
        })
    };
    for next in 0..20_000 {
        fetched.send(()).unwrap();
        let fetch = Fetch {
            wait: LONG,
            ..at_once(vec![from("t", 0, next)])
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), broker.fetch(fetch)).await;
        let answer = answer.expect("woken").pop().unwrap().result.unwrap();
        assert_eq!(answer.next, Offset(next + 1));
    }
    drop(fetched);
    producer.await.unwrap();
}
