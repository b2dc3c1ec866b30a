//! Through the native API.

use std::time::Duration;

use sapwood_client::{
    Acks, Admin, Append, Client, Code, Codec, ConfigChange, Message, NewTopic, Offset, OffsetQuery,
    PartitionId, Position, Record, Timestamp,
};

use crate::harness::Settings;

const PARTITION: PartitionId = PartitionId(0);

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were_written_with_every_codec() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let client = settings.client();
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    for codec in codecs {
        let topic = format!("codec-{codec:?}");
        create(&client.admin(), &topic, &[]).await;
        let producer = client
            .producer()
            .compression(codec)
            .build()
            .await
            .expect("it runs");
        for number in 0..100 {
            producer
                .send(record(&topic, number))
                .await
                .expect("it is taken");
        }
        producer.close().await.expect("all are acknowledged");
        let read = read_all(&client, &topic).await;
        assert_eq!(read.len(), 100, "{codec:?}");
        for (number, message) in (0..).zip(read) {
            let sent = record(&topic, number);
            assert_eq!(message.offset, Offset(number), "{codec:?}");
            assert_eq!(
                (message.key, message.value),
                (sent.key, sent.value),
                "{codec:?}"
            );
            assert_eq!(message.headers, sent.headers, "{codec:?}");
            assert_eq!(Some(message.timestamp), sent.timestamp, "{codec:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_configurations_and_records_outlive_a_stop_and_a_kill() {
    let settings = Settings::new(&[]);
    let mut broker = settings.start();
    let client = settings.client();
    let admin = client.admin();
    create(
        &admin,
        "kept",
        &[("retention.ms", "1234567890123456"), ("durability", "os")],
    )
    .await;
    create(&admin, "gone", &[]).await;
    append(&admin, "kept", 0..10, None).await.expect("appended");
    admin.delete_topic("gone").await.expect("deleted");
    let set = ConfigChange::Set("segment.bytes".into(), "1048576".into());
    admin.alter_topic("kept", &[set]).await.expect("altered");
    admin.add_partitions("kept", 4).await.expect("added");
    let before = admin.describe_topic("kept").await.expect("described").topic;
    for clean in [true, false] {
        match clean {
            true => broker.stop(),
            false => broker.kill(),
        }
        broker = settings.start();
        let described = admin.describe_topic("kept").await.expect("described");
        assert_eq!(described.topic.id, before.id, "clean {clean}");
        assert_eq!(described.partitions.len(), 4, "clean {clean}");
        for (key, value) in [
            ("retention.ms", "1234567890123456"),
            ("durability", "os"),
            ("segment.bytes", "1048576"),
        ] {
            let entry = described.configs.iter().find(|entry| entry.key == key);
            assert_eq!(
                entry.map(|entry| entry.value.as_str()),
                Some(value),
                "clean {clean}"
            );
        }
        let names: Vec<String> = admin
            .list_topics()
            .await
            .expect("listed")
            .into_iter()
            .map(|topic| topic.name)
            .collect();
        assert_eq!(names, ["kept"], "clean {clean}");
        assert_eq!(read_all(&client, "kept").await.len(), 10, "clean {clean}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_with_an_expected_end_happens_only_there() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let admin = settings.client().admin();
    create(&admin, "events", &[]).await;
    append(&admin, "events", 0..3, Some(0))
        .await
        .expect("the log is empty");
    let conflict = append(&admin, "events", 3..4, Some(2))
        .await
        .expect_err("the end is 3");
    assert_eq!(conflict.code(), Code::ExpectedEndConflict, "{conflict}");
    assert_eq!(conflict.actual_end(), Some(Offset(3)));
    append(&admin, "events", 3..4, Some(3))
        .await
        .expect("the end is 3");
    let bounds = admin.bounds("events", PARTITION).await.expect("bounds");
    assert_eq!(
        (bounds.log_end, bounds.high_watermark),
        (Offset(4), Offset(4))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_found_by_offset_and_by_time_and_outside_is_an_error_that_says_the_range() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let admin = settings.client().admin();
    create(&admin, "times", &[]).await;
    append(&admin, "times", 0..50, None)
        .await
        .expect("appended");
    // Record n has the time 1,000,000 + 10 n.
    for (at, offset, time) in [
        (Position::Start, 0, None),
        (Position::End, 50, None),
        (Position::Last(10), 40, None),
        (Position::Last(1000), 0, None),
        (Position::Time(Timestamp(1_000_255)), 26, Some(1_000_260)),
        (Position::Time(Timestamp(0)), 0, Some(1_000_000)),
        (Position::Time(Timestamp(2_000_000)), 50, None),
    ] {
        let query = OffsetQuery {
            topic: "times".into(),
            partition: PARTITION,
            at: Some(at),
        };
        let answer = admin
            .offsets(&[query])
            .await
            .expect("answered")
            .remove(0)
            .expect("found");
        assert_eq!(answer.offset, Some(Offset(offset)), "{at:?}");
        if time.is_some() {
            assert_eq!(
                answer.timestamp.map(|timestamp| timestamp.0),
                time,
                "{at:?}"
            );
        }
    }
    let found = admin
        .read("times", PARTITION, Offset(33))
        .await
        .expect("read")
        .expect("there");
    assert_eq!(found.value, record("times", 33).value);
    let beyond = admin
        .read("times", PARTITION, Offset(51))
        .await
        .expect_err("past the end");
    assert_eq!(beyond.code(), Code::OffsetOutOfRange, "{beyond}");
    assert_eq!(beyond.available(), Some(Offset(0)..Offset(50)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_log_start_is_kept_and_offsets_are_never_used_again() {
    let settings = Settings::new(&[]);
    let mut broker = settings.start();
    let admin = settings.client().admin();
    create(&admin, "trimmed", &[]).await;
    append(&admin, "trimmed", 0..20, None)
        .await
        .expect("appended");
    let trimmed = admin
        .trim("trimmed", &[(PARTITION, Some(Offset(12)))])
        .await
        .expect("answered");
    assert_eq!(
        trimmed
            .into_iter()
            .next()
            .expect("an answer")
            .expect("trimmed"),
        Offset(12)
    );
    let all = admin
        .trim("trimmed", &[(PARTITION, Some(Offset(99)))])
        .await
        .expect("answered");
    let refused = all
        .into_iter()
        .next()
        .expect("an answer")
        .expect_err("past the end");
    assert_eq!(refused.code(), Code::OffsetOutOfRange, "{refused}");
    broker.restart_after_kill(&settings);
    let bounds = admin.bounds("trimmed", PARTITION).await.expect("bounds");
    assert_eq!((bounds.log_start, bounds.log_end), (Offset(12), Offset(20)));
    let below = admin
        .read("trimmed", PARTITION, Offset(11))
        .await
        .expect_err("it was trimmed");
    assert_eq!(below.available(), Some(Offset(12)..Offset(20)));
    // All of it: nothing is left, and the next record still gets the next offset.
    admin
        .trim("trimmed", &[(PARTITION, None)])
        .await
        .expect("answered");
    broker.stop();
    let _broker = settings.start();
    let appended = append(&admin, "trimmed", 20..21, None)
        .await
        .expect("appended");
    assert_eq!(appended, Offset(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_gets_what_comes_later() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    let client = settings.client();
    create(&client.admin(), "later", &[]).await;
    let consumer = client.consumer().topic("later", Position::End, None);
    let mut consumer = consumer.build().await.expect("it runs");
    let waited = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
    assert!(waited.is_err(), "there is nothing to read: {waited:?}");
    append(&client.admin(), "later", 0..1, None)
        .await
        .expect("appended");
    let next = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await;
    let message = next
        .expect("it comes in time")
        .expect("the stream goes on")
        .expect("a message");
    assert_eq!(message.offset, Offset(0));
}

async fn create(admin: &Admin, name: &str, configs: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name).partitions(1);
    for (key, value) in configs {
        topic = topic.config(*key, *value);
    }
    admin.create_topic(&topic).await.expect("it can be created");
}

async fn append(
    admin: &Admin,
    topic: &str,
    numbers: std::ops::Range<u64>,
    expected_end: Option<u64>,
) -> Result<Offset, sapwood_client::Error> {
    let append = Append {
        topic: topic.to_owned(),
        partition: PARTITION,
        records: numbers.map(|number| record(topic, number)).collect(),
        acks: Acks::All,
        expected_end: expected_end.map(Offset),
        compression: Codec::None,
    };
    let appended = admin.append(append).await?;
    Ok(appended.expect("acks=all names the offset").base_offset)
}

/// The record with this number: some have no key, some no value, some neither, some headers.
fn record(topic: &str, number: u64) -> Record {
    let ms = i64::try_from(number).expect("a small number");
    let mut record = Record::to(topic).timestamp(Timestamp(1_000_000 + 10 * ms));
    if !number.is_multiple_of(3) {
        record = record.key(format!("key {number}"));
    }
    if !number.is_multiple_of(5) {
        record = record.value(format!("value {number} ").repeat(20));
    }
    for header in 0..number % 4 {
        record = record.header(format!("name {header}"), format!("value {number}"));
    }
    record
}

async fn read_all(client: &Client, topic: &str) -> Vec<Message> {
    let consumer = client
        .consumer()
        .topic(topic, Position::Start, Some(Position::End));
    let mut consumer = consumer.build().await.expect("it runs");
    let mut messages = Vec::new();
    while let Some(message) = consumer.next().await {
        messages.push(message.expect("it can be read"));
    }
    messages
}
