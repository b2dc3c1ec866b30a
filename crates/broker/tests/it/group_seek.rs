//! Sending groups to other places.

use sapwood_broker::{
    Broker, GroupRequestError, SeekError, SeekPartitions, SeekPosition, SeekResult, SeekTarget,
    TopicInfo,
    group::{GroupError, InstanceId},
};
use sapwood_model::{Code, Offset, PartitionId, Timestamp};
use sapwood_record::Codec;
use sapwood_sim::{Machine, Rng};

use crate::{
    group_overview::{batch_of, broker_on, commit_at, describe, join, place, topic_of},
    support::{P0, produce, to},
};

fn to_all(to: SeekPosition) -> Vec<SeekTarget> {
    vec![SeekTarget {
        partitions: SeekPartitions::Committed,
        to,
    }]
}

fn to_one(topic: &TopicInfo, partition: u32, to: SeekPosition) -> SeekTarget {
    SeekTarget {
        partitions: SeekPartitions::One(place(topic, partition)),
        to,
    }
}

/// Has the group go there; partition, from and to of each.
async fn seek(
    broker: &Broker,
    targets: Vec<SeekTarget>,
) -> Result<Vec<(u32, Option<u64>, u64)>, SeekError> {
    let results = broker.groups().seek(&"g".into(), targets, false).await?;
    let shown = |r: SeekResult| (r.partition.partition.0, r.from.map(|from| from.0), r.to.0);
    Ok(results.into_iter().map(shown).collect())
}

async fn committed(broker: &Broker) -> Vec<u64> {
    let overview = describe(broker, "g").await;
    let rows = overview.partitions.iter();
    rows.map(|row| row.committed.as_ref().unwrap().offset.0)
        .collect()
}

/// A topic of one partition with records 10 to 30, and a group that is at 20.
async fn at_twenty(machine: &Machine) -> (Broker, TopicInfo) {
    let broker = broker_on(machine).await;
    let topic = topic_of(&broker, "t", 1).await;
    let now = broker.environment().clock.now();
    let times: Vec<_> = (0..30).map(|n| Timestamp(now.0 + n)).collect();
    produce(&broker, to("t", batch_of(Codec::None, &times)))
        .await
        .unwrap();
    broker.trim("t", P0, Some(Offset(10))).await.unwrap();
    commit_at(&broker, "g", &[(place(&topic, 0), 20)]).await;
    (broker, topic)
}

#[tokio::test]
async fn every_position_leads_to_its_place() {
    let (broker, _) = at_twenty(&Machine::new(1)).await;
    let now = broker.environment().clock.now();
    use SeekPosition::{By, End, Last, Offset as To, Start, Time};
    for (position, expected) in [
        (Start, 10),
        (End, 30),
        (To(Offset(10)), 10),
        (To(Offset(17)), 17),
        (To(Offset(30)), 30),
        (Last(5), 25),
        (Last(0), 30),
        // Relative places stop at the ends.
        (Last(1_000), 10),
        (Last(u64::MAX), 10),
        (Time(Timestamp(now.0 + 13)), 13),
        (Time(Timestamp(now.0)), 10),
        (Time(Timestamp(now.0 + 30)), 30),
        (Time(Timestamp(i64::MAX)), 30),
    ] {
        commit_at(&broker, "g", &[(place(&topic(&broker), 0), 20)]).await;
        let went = seek(&broker, to_all(position)).await.unwrap();
        assert_eq!(went, [(0, Some(20), expected)], "{position:?}");
        assert_eq!(committed(&broker).await, [expected]);
    }
    for (by, expected) in [
        (3, 23),
        (-3, 17),
        (0, 20),
        (100, 30),
        (i64::MIN, 10),
        (i64::MAX, 30),
    ] {
        commit_at(&broker, "g", &[(place(&topic(&broker), 0), 20)]).await;
        let went = seek(&broker, to_all(By(by))).await.unwrap();
        assert_eq!(went, [(0, Some(20), expected)], "by {by}");
    }
}

fn topic(broker: &Broker) -> TopicInfo {
    broker.topic("t").unwrap()
}

#[tokio::test]
async fn offsets_that_are_not_in_the_log_are_refused_with_what_is() {
    let (broker, topic) = at_twenty(&Machine::new(2)).await;
    for wrong in [0, 9, 31, u64::MAX >> 1] {
        let refused = seek(&broker, to_all(SeekPosition::Offset(Offset(wrong)))).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::OffsetOutOfRange);
        let expected = format!("offset {wrong} is not in t/0, which holds 10 to 30 (exclusive)");
        assert_eq!(refused.to_string(), expected);
    }
    // One that is not stops all others.
    topic_of(&broker, "other", 1).await;
    let other = broker.topic("other").unwrap();
    let targets = vec![
        to_one(&topic, 0, SeekPosition::Start),
        to_one(&other, 0, SeekPosition::Offset(Offset(1))),
    ];
    seek(&broker, targets).await.unwrap_err();
    assert_eq!(committed(&broker).await, [20]);
}

#[tokio::test]
async fn a_dry_run_says_where_and_goes_nowhere() {
    let (broker, _) = at_twenty(&Machine::new(3)).await;
    let groups = broker.groups();
    let plan = groups
        .seek(&"g".into(), to_all(SeekPosition::Start), true)
        .await
        .unwrap();
    assert_eq!((plan[0].from, plan[0].to), (Some(Offset(20)), Offset(10)));
    assert_eq!(plan[0].bounds.high_watermark, Offset(30));
    assert_eq!(committed(&broker).await, [20]);
}

#[tokio::test]
async fn a_group_with_members_stays_where_it_is() {
    let (broker, topic) = at_twenty(&Machine::new(4)).await;
    let groups = broker.groups();
    let mut joins = join("g");
    joins.instance_id = Some(InstanceId::from("one"));
    // Waits for others until the clock moves, which it does not.
    let waiting = tokio::spawn({
        let groups = groups.clone();
        async move { groups.join(joins).await }
    });
    while groups.find("g".into()).await.unwrap().unwrap().members == 0 {
        tokio::task::yield_now().await;
    }
    for dry_run in [true, false] {
        let targets = vec![to_one(&topic, 0, SeekPosition::Start)];
        let refused = groups
            .seek(&"g".into(), targets, dry_run)
            .await
            .unwrap_err();
        let group = SeekError::Group(GroupRequestError::Group(GroupError::NonEmptyGroup));
        assert_eq!(refused.to_string(), group.to_string());
        assert_eq!(refused.code(), group.code());
    }
    assert_eq!(committed(&broker).await, [20]);
    waiting.abort();
}

#[tokio::test]
async fn partitions_are_meant_by_what_is_committed_by_topic_or_one_by_one() {
    let machine = Machine::new(5);
    let broker = broker_on(&machine).await;
    let topic = topic_of(&broker, "t", 3).await;
    use SeekPosition::{By, End, Start};
    let whole = |to| {
        let partitions = SeekPartitions::Topic(topic.name.clone());
        vec![SeekTarget { partitions, to }]
    };
    // There is no such group: its committed partitions cannot be meant, a topic's can.
    let refused = seek(&broker, to_all(Start)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            SeekError::Group(GroupRequestError::Group(GroupError::GroupNotFound))
        ),
        "{refused:?}"
    );
    let refused = seek(&broker, vec![to_one(&topic, 1, By(-1))])
        .await
        .unwrap_err();
    assert!(
        matches!(refused, SeekError::NothingCommitted { .. }),
        "{refused:?}"
    );
    let went = seek(&broker, vec![to_one(&topic, 1, End)]).await.unwrap();
    assert_eq!(went, [(1, None, 0)]);
    let went = seek(&broker, to_all(Start)).await.unwrap();
    assert_eq!(went, [(1, Some(0), 0)]);
    let went = seek(&broker, whole(End)).await.unwrap();
    assert_eq!(went, [(0, None, 0), (1, Some(0), 0), (2, None, 0)]);

    let mut twice = whole(End);
    twice.push(to_one(&topic, 2, Start));
    let refused = seek(&broker, twice).await.unwrap_err();
    assert_eq!(refused.to_string(), "t/2 is given two places to go to");
    let refused = seek(&broker, vec![to_one(&topic, 3, End)])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::UnknownPartition);
    broker.delete_topic("t").await.unwrap();
    let refused = seek(&broker, whole(End)).await.unwrap_err();
    assert_eq!(refused.code(), Code::UnknownTopic);
}

/// The place by time is the one that a reader of the data comes to by itself.
#[tokio::test]
async fn a_time_leads_to_the_first_record_of_that_time_or_later() {
    let seed = std::env::var("SAPWOOD_TEST_SEED").map_or(6, |seed| seed.parse().unwrap());
    println!("SAPWOOD_TEST_SEED={seed}");
    let mut random = Rng::new(seed);
    let machine = Machine::new(seed);
    let broker = broker_on(&machine).await;
    let topic = topic_of(&broker, "t", 1).await;
    let began = broker.environment().clock.now().0;
    let mut data = Vec::new();
    for _ in 0..60 {
        let codec = Codec::ALL[usize::try_from(random.below(5)).unwrap()];
        let records = 1 + random.below(20);
        // Not in order, as producers' clocks are not.
        let times: Vec<_> = (0..records)
            .map(|_| Timestamp(began + i64::try_from(random.below(100_000)).unwrap()))
            .collect();
        data.extend(times.iter().map(|time| time.0));
        produce(&broker, to("t", batch_of(codec, &times)))
            .await
            .unwrap();
    }
    for at in (0..=100_000).step_by(1_009) {
        let at = began + at;
        let expected = data
            .iter()
            .position(|time| *time >= at)
            .unwrap_or(data.len());
        let to = SeekPosition::Time(Timestamp(at));
        let went = seek(&broker, vec![to_one(&topic, 0, to)]).await.unwrap();
        assert_eq!(went[0].2, expected as u64, "the first record at {at}");
        if expected < data.len() {
            let offset = Offset(expected as u64);
            let found = broker
                .read_record("t", PartitionId(0), offset)
                .await
                .unwrap();
            assert!(found.timestamp.0 >= at);
        }
    }
}
