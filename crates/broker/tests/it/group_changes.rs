//! Watching groups.

use std::{
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use sapwood_broker::{
    GroupChanges, TopicInfo,
    group::{Client, ConsumerHeartbeat, Epoch, Partitions, Presence},
};
use tempfile::TempDir;

use crate::{
    groups::{commit, join, loaded, try_commit},
    support::{create, open},
};

pub(crate) fn beat(group: &str, member: &str, presence: Presence) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: group.into(),
        member_id: Some(member.into()),
        presence,
        instance_id: None,
        client: Client::default(),
        rack_id: None,
        rebalance_timeout_ms: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: None,
    }
}

pub(crate) fn joins(group: &str, member: &str, topic: &TopicInfo) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(10_000),
        subscribed_topic_names: Some([topic.name.clone()].into()),
        owned: Some(Partitions::new()),
        ..beat(group, member, Presence::Join)
    }
}

fn has_changed(changes: &mut GroupChanges) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(changes.changed()).poll(&mut context).is_ready()
}

#[tokio::test]
async fn members_and_assignments_wake_the_watchers_of_their_group_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    let topic = create(&broker, "t", &[]).await;
    let groups = broker.groups();
    // Before there is a topic of groups.
    let mut changes = groups.changes(&"g".into());
    let mut classic = groups.changes(&"classic".into());
    groups.prepare().await.unwrap();
    loaded(&broker).await;

    let joined = groups
        .consumer_heartbeat(joins("g", "a", &topic))
        .await
        .unwrap();
    assert!(has_changed(&mut changes));
    let stays = beat("g", "a", joined.presence);
    groups.consumer_heartbeat(stays.clone()).await.unwrap();
    try_commit(&broker, commit("g-offsets", &topic, 1)).await;
    assert!(!has_changed(&mut changes), "neither heartbeats nor offsets");

    // The only partition is a's: b waits for it.
    let second = groups
        .consumer_heartbeat(joins("g", "b", &topic))
        .await
        .unwrap();
    assert!(has_changed(&mut changes));
    assert_eq!(second.assignment, Some(Partitions::new()));
    groups
        .consumer_heartbeat(beat("g", "a", Presence::Leave))
        .await
        .unwrap();
    assert!(has_changed(&mut changes));
    let takes_over = beat("g", "b", second.presence);
    let got = groups.consumer_heartbeat(takes_over).await.unwrap();
    assert!(has_changed(&mut changes));
    assert_eq!(got.assignment.map(|assigned| assigned.len()), Some(1));
    assert_eq!(got.presence, Presence::Stay(Epoch(3)));

    assert!(!has_changed(&mut classic));
    let joining = groups.join(join("classic"));
    let heard = tokio::time::timeout(Duration::from_secs(10), classic.changed());
    let (_, heard) = tokio::join!(joining, heard);
    heard.unwrap();
}
