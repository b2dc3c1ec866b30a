//! All groups at once, and what is counted of them.

use std::time::Duration;

use sapwood_broker::{
    Broker, GroupSurvey, Histogram,
    group::{GroupState, Join, Leave, LeavingMember, Sync},
};
use sapwood_model::Timestamp;
use sapwood_record::Codec;
use sapwood_sim::Machine;
use tempfile::TempDir;

use crate::{
    group_changes::joins,
    group_overview::{batch_of, broker_on, commit_at, describe, join, place, ready, topic_of},
    support::{open, produce, to},
};

const SECOND: Duration = Duration::from_secs(1);

fn count(histogram: &Histogram) -> u64 {
    histogram.counts().iter().sum()
}

fn reads(broker: &Broker) -> u64 {
    let metrics = broker.store_metrics();
    metrics.reads_resident.get() + metrics.reads_cold.get()
}

#[tokio::test]
async fn a_survey_tells_of_each_group_what_its_description_does() {
    let machine = Machine::new(1);
    let broker = broker_on(&machine).await;
    assert_eq!(broker.groups().survey().await, GroupSurvey::default());
    let topic = topic_of(&broker, "t", 2).await;
    let now = broker.environment().clock.now();
    let times: Vec<_> = (0..20).map(|n| Timestamp(now.0 + n)).collect();
    produce(&broker, to("t", batch_of(Codec::Zstd, &times)))
        .await
        .unwrap();
    for (group, offset) in [("a", 3), ("b", 3), ("c", 17), ("d", 20)] {
        let places = [(place(&topic, 0), offset), (place(&topic, 1), 0)];
        commit_at(&broker, group, &places).await;
    }
    machine.clock.advance(SECOND * 60);
    let read_before = reads(&broker);
    let survey = broker.groups().survey().await;
    // Two groups stand at the same place, and one has read everything.
    assert_eq!(reads(&broker) - read_before, 2);
    assert_eq!(survey.states, [(GroupState::Empty, 4)]);
    assert_eq!((survey.groups_left_out, survey.unanswered), (0, 0));
    for group in &survey.groups {
        let described = describe(&broker, group.group.group.as_str()).await;
        assert_eq!(group.partitions, described.partitions);
    }
    let names: Vec<&str> = survey
        .groups
        .iter()
        .map(|g| g.group.group.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c", "d"]);

    // Times that are known are not read again, and grow with the clock.
    let read_before = reads(&broker);
    machine.clock.advance(SECOND);
    let later = broker.groups().survey().await;
    assert_eq!(reads(&broker), read_before);
    let behind = |survey: &GroupSurvey| survey.groups[0].partitions[0].behind_ms.unwrap();
    assert_eq!(behind(&later), behind(&survey) + 1_000);
    assert_eq!(behind(&later), 61_000 - 3);
}

/// 21 groups of 500 partitions each: one too many. And one whose name is too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_survey_leaves_out_groups_for_which_there_is_no_room_the_same_ones_each_time() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    ready(&broker).await;
    let topic = topic_of(&broker, "t", 500).await;
    let places: Vec<_> = (0..500).map(|n| (place(&topic, n), 0)).collect();
    for group in 0..21 {
        commit_at(&broker, &format!("g-{group}"), &places).await;
    }
    commit_at(&broker, &"x".repeat(513), &places[..1]).await;
    let survey = broker.groups().survey().await;
    assert_eq!(survey.groups_left_out, 2);
    assert_eq!(survey.states, [(GroupState::Empty, 22)]);
    assert_eq!(survey.groups.len(), 20);
    assert!(
        survey
            .groups
            .iter()
            .all(|group| group.partitions.len() == 500)
    );
    assert_eq!(broker.groups().survey().await, survey);
}

#[tokio::test]
async fn rebalances_are_counted_and_timed_until_every_member_has_its_partitions() {
    let machine = Machine::new(2);
    let broker = broker_on(&machine).await;
    let topic = topic_of(&broker, "t", 1).await;
    let groups = broker.groups();
    let metrics = &broker.metrics().groups;
    let joined = tokio::spawn({
        let groups = groups.clone();
        let join = Join {
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 60_000,
            ..join("classic")
        };
        async move { groups.join(join).await }
    });
    while groups
        .find("classic".into())
        .await
        .unwrap()
        .is_none_or(|g| g.members == 0)
    {
        tokio::task::yield_now().await;
    }
    machine.clock.advance(SECOND * 3);
    // Wakes the coordinator, which then looks at the clock.
    groups.find("classic".into()).await.unwrap();
    let joined = joined.await.unwrap().unwrap();
    machine.clock.advance(SECOND * 2);
    assert_eq!(count(&metrics.classic_rebalance), 0);
    let sync = Sync {
        group: "classic".into(),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    groups.sync(sync).await.unwrap();
    assert_eq!(count(&metrics.classic_rebalance), 1);
    assert_eq!(metrics.classic_rebalance.sum(), SECOND * 5);
    // Nobody is left: that is no rebalance.
    let leaving = LeavingMember {
        member_id: Some(joined.member_id),
        instance_id: None,
    };
    let leave = Leave {
        group: "classic".into(),
        members: vec![leaving],
    };
    groups.leave(leave).await.unwrap();
    assert_eq!(count(&metrics.classic_rebalance), 1);

    // One member gets everything at once.
    groups
        .consumer_heartbeat(joins("newer", "a", &topic))
        .await
        .unwrap();
    assert_eq!(count(&metrics.consumer_rebalance), 1);
    assert_eq!(metrics.consumer_rebalance.sum(), Duration::ZERO);
    let survey = groups.survey().await;
    let counted: Vec<_> = survey
        .groups
        .iter()
        .map(|group| (group.group.group.as_str(), group.rebalances))
        .collect();
    assert_eq!(counted, [("classic", 1), ("newer", 1)]);
}

#[tokio::test]
async fn commits_are_timed() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    ready(&broker).await;
    let topic = topic_of(&broker, "t", 1).await;
    commit_at(&broker, "g", &[(place(&topic, 0), 0)]).await;
    commit_at(&broker, "g", &[(place(&topic, 0), 0)]).await;
    let metrics = &broker.metrics().groups;
    assert_eq!(count(&metrics.commit), 2);
    assert!(metrics.commit.sum() > Duration::ZERO);
}
