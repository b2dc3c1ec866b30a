//! Each configuration key that this version honours does what it says.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_broker::{Broker, ConfigChange, ConfigKey, Driver, Effect};
use sapwood_model::{Code, Durability, Offset, PartitionId, Timestamp};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordHeader, RecordInput, batches};
use sapwood_sim::Machine;
use tempfile::tempdir;

use crate::support::*;

/// One batch of records with key, header and value, made at these times.
fn batch_at(codec: Codec, times: &[i64], value: &[u8]) -> Bytes {
    let headers = [RecordHeader {
        key: Bytes::from_static(b"trace"),
        value: Some(Bytes::from_static(b"7")),
    }];
    let mut builder = BatchBuilder::new(codec);
    for time in times {
        builder
            .push(RecordInput {
                timestamp: Timestamp(*time),
                key: Some(b"key"),
                value: Some(value),
                headers: &headers,
            })
            .unwrap();
    }
    builder.build().unwrap().to_bytes()
}

async fn kept(broker: &Broker, topic: &str) -> Vec<Batch> {
    let fetched = broker.fetch(at_once(vec![from(topic, 0, 0)])).await;
    let fetched = fetched.into_iter().next().unwrap().result.unwrap();
    batches(fetched.batches).map(Result::unwrap).collect()
}

/// Text that compresses, better with more effort.
fn text() -> Vec<u8> {
    let words = ["segment", "offset", "batch", "epoch", "topic", "ack"];
    (0..4_000_usize)
        .flat_map(|n| format!("{} {};", words[(n * n / 7) % 6], n * 37 % 1_009).into_bytes())
        .collect()
}

async fn set(broker: &Broker, topic: &str, key: &str, value: &str) {
    let (key, value) = (key.to_owned(), value.to_owned());
    broker
        .alter_topic(topic, vec![ConfigChange::Set { key, value }], false)
        .await
        .unwrap();
}

#[test]
fn the_keys_are_those_of_kafka_and_durability() {
    let of = |effect| {
        let keys = ConfigKey::all().iter();
        keys.filter(|key| key.effect() == effect).count()
    };
    // Kafka 4.1 lists 33 for a topic.
    assert_eq!(ConfigKey::all().len(), 34);
    assert_eq!((of(Effect::Honoured), of(Effect::Meaningless)), (20, 14));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_outside_the_window_around_the_brokers_clock_are_refused() {
    let machine = Machine::new(1);
    let broker = open_on(&machine, "boot-1").await.unwrap();
    let window = [
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "50"),
    ];
    create(&broker, "t", &window).await;
    let now = broker.environment().clock.now().0;
    for codec in [Codec::None, Codec::Zstd] {
        for good in [now - 1000, now, now + 50] {
            let good = batch_at(codec, &[good], b"x");
            produce(&broker, to("t", good)).await.unwrap();
        }
        for bad in [now - 1001, now + 51] {
            let bad = batch_at(codec, &[bad], b"x");
            let refused = produce(&broker, to("t", bad)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidTimestamp);
        }
    }
    // The broker's own time is inside every window.
    set(&broker, "t", "message.timestamp.type", "LogAppendTime").await;
    produce(&broker, to("t", batch_at(Codec::None, &[5], b"x")))
        .await
        .unwrap();
    let last = kept(&broker, "t").await.pop().unwrap();
    assert!(last.header().is_log_append_time());
    assert_eq!(last.header().max_timestamp().0, now);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_type_rewrites_batches_and_keeps_what_they_say() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let now = broker.environment().clock.now().0;
    for (name, wanted) in [
        ("uncompressed", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ] {
        create(&broker, name, &[("compression.type", name)]).await;
        for codec in Codec::ALL {
            let sent = batch_at(codec, &[now - 5, now, now - 9], b"value");
            produce(&broker, to(name, sent)).await.unwrap();
        }
        set(&broker, name, "message.timestamp.type", "LogAppendTime").await;
        let sent = batch_at(Codec::Gzip, &[1, 2], b"value");
        let produced = produce(&broker, to(name, sent)).await.unwrap();
        let mut all = kept(&broker, name).await;
        let stamped = all.pop().unwrap();
        assert_eq!(stamped.header().codec(), Ok(wanted), "{name}");
        for record in stamped.records(1 << 20).unwrap() {
            assert_eq!(Some(record.unwrap().timestamp), produced.log_append_time);
        }
        assert_eq!(all.len(), Codec::ALL.len());
        for batch in all {
            batch.verify_crc().unwrap();
            assert_eq!(batch.header().codec(), Ok(wanted), "{name}");
            assert_eq!(batch.header().max_timestamp().0, now);
            let records: Vec<_> = batch
                .records(1 << 20)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let times: Vec<_> = records.iter().map(|record| record.timestamp.0).collect();
            assert_eq!(times, [now - 5, now, now - 9]);
            for record in records {
                assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
                assert_eq!(record.value.as_deref(), Some(&b"value"[..]));
                assert_eq!(record.headers[0].value.as_deref(), Some(&b"7"[..]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_unpacks_past_the_limit_is_refused() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let configs = [
        ("compression.type", "uncompressed"),
        ("max.message.bytes", "4096"),
    ];
    create(&broker, "t", &configs).await;
    let now = broker.environment().clock.now().0;
    let sent = batch_at(Codec::Zstd, &[now], &[0; 10_000]);
    assert!(sent.len() < 4096);
    let refused = produce(&broker, to("t", sent)).await.unwrap_err();
    assert_eq!(refused.code(), Code::RecordTooLarge);
    assert!(kept(&broker, "t").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_levels_are_honoured_where_the_codec_has_them() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let now = broker.environment().clock.now().0;
    let text = text();
    let mut sizes = Vec::new();
    for (codec, levels) in [("gzip", ["1", "9"]), ("zstd", ["-20", "19"])] {
        let key = format!("compression.{codec}.level");
        create(&broker, codec, &[("compression.type", codec)]).await;
        for level in levels {
            set(&broker, codec, &key, level).await;
            let sent = batch_at(Codec::None, &[now], &text);
            produce(&broker, to(codec, sent)).await.unwrap();
        }
        let kept = kept(&broker, codec).await;
        sizes.extend(kept.iter().map(Batch::size_bytes));
    }
    assert!(sizes[0] > sizes[1] && sizes[2] > sizes[3], "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_rolled_by_size_and_by_age() {
    let machine = Machine::new(2);
    let broker = open_on(&machine, "boot-1").await.unwrap();
    create(&broker, "size", &[("segment.bytes", "1024")]).await;
    create(&broker, "age", &[("segment.ms", "60000")]).await;
    let segments = |topic| broker.partitions(topic).unwrap()[0].stats.segments;
    let now = || broker.environment().clock.now().0;
    for _ in 0..4 {
        let sent = batch_at(Codec::None, &[now()], &[b'x'; 400]);
        produce(&broker, to("size", sent)).await.unwrap();
    }
    assert_eq!(segments("size"), 2);
    let age = async || {
        let sent = batch_at(Codec::None, &[now()], b"x");
        produce(&broker, to("age", sent)).await.unwrap();
        segments("age")
    };
    assert_eq!(age().await, 1);
    machine.clock.advance(Duration::from_secs(60));
    assert_eq!(age().await, 1);
    machine.clock.advance(Duration::from_millis(1));
    assert_eq!(age().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_rolls_the_partitions_of_a_topic_at_different_times() {
    const PARTITIONS: u32 = 16;
    let machine = Machine::new(3);
    let broker = open_on(&machine, "boot-1").await.unwrap();
    let configs = [("segment.ms", "60000"), ("segment.jitter.ms", "60000")];
    create(&broker, "t", &configs).await;
    broker.add_partitions("t", PARTITIONS, false).await.unwrap();
    let write = async || {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let now = broker.environment().clock.now().0;
            let request = sapwood_broker::Produce {
                partition,
                ..to("t", batch_at(Codec::None, &[now], b"x"))
            };
            produce(&broker, request).await.unwrap();
        }
        let partitions = broker.partitions("t").unwrap();
        let rolled = partitions.iter().filter(|one| one.stats.segments == 2);
        rolled.count()
    };
    assert_eq!(write().await, 0);
    machine.clock.advance(Duration::from_secs(30));
    let rolled = write().await;
    assert!((1..PARTITIONS as usize).contains(&rolled), "{rolled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_has_an_entry_for_as_many_bytes_as_the_topic_says() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    let names = [("dense", "500"), ("sparse", "20000")];
    for (name, interval) in names {
        create(&broker, name, &[("index.interval.bytes", interval)]).await;
        for _ in 0..100 {
            let now = broker.environment().clock.now().0;
            let sent = batch_at(Codec::None, &[now], &[b'x'; 900]);
            produce(&broker, to(name, sent)).await.unwrap();
        }
    }
    broker.drain_and_close().await.unwrap();
    let [dense, sparse] = names.map(|(name, _)| {
        let index = dir
            .path()
            .join(format!("topics/{name}-0/00000000000000000000.index"));
        std::fs::metadata(index).unwrap().len() / 8
    });
    // About 1,000 bytes a batch, 100,000 in all.
    assert!((95..=100).contains(&dense), "{dense}");
    assert!((3..=5).contains(&sparse), "{sparse}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_takes_only_records_with_keys_from_the_change_on() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["no key"]))).await.unwrap();
    set(&broker, "t", "cleanup.policy", "compact").await;
    let refused = produce(&broker, to("t", batch(&["no key"])))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidRecord);
    let now = broker.environment().clock.now().0;
    let keyed = batch_at(Codec::Lz4, &[now], b"x");
    let produced = produce(&broker, to("t", keyed)).await.unwrap();
    assert_eq!(produced.base_offset, Offset(1));
}

#[tokio::test]
async fn a_topic_does_not_become_fsync_while_a_partition_of_it_cannot_be_synced() {
    let machine = Machine::new(1);
    let mut options = options(std::path::Path::new("/data"));
    options.driver = Driver::Caller;
    let broker = Broker::open_in(machine.environment(), options, Arc::default())
        .await
        .unwrap();
    create(&broker, "t", &[("durability", "os")]).await;
    produce(&broker, to("t", batch(&["a"]))).await.unwrap();
    // The first sync of the switch is that of the segment, which takes the partition offline.
    machine.disk.fail_sync(machine.disk.syncs());
    let to_fsync = || {
        vec![ConfigChange::Set {
            key: "durability".into(),
            value: "fsync".into(),
        }]
    };
    let refused = broker.alter_topic("t", to_fsync(), false).await;
    assert_eq!(refused.unwrap_err().code(), Code::PartitionOffline);
    assert_eq!(broker.topic("t").unwrap().durability, Durability::Os);
    let refused = broker.alter_topic("t", to_fsync(), false).await;
    assert_eq!(refused.unwrap_err().code(), Code::PartitionOffline);
}
