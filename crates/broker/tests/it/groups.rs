//! Consumer groups on a real broker.

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use sapwood_broker::{
    Broker, CoordinatorError, GroupRequestError, LoadProgress, TopicInfo,
    group::{
        Client, Commit, CommitOffset, Committer, ConsumerHeartbeat, FetchOffsets, GroupError,
        GroupId, Join, Presence, Protocol, Sync,
    },
};
use sapwood_model::{Code, Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use sapwood_sim::Machine;
use tempfile::TempDir;

use crate::{
    gated::{Gate, environment},
    support::{P0, batch, create, open, open_on, options, produce, to},
};

pub(crate) fn at(topic: &TopicInfo) -> TopicPartition {
    TopicPartition {
        topic: topic.name.clone(),
        partition: P0,
    }
}

pub(crate) fn commit(group: &str, topic: &TopicInfo, offset: u64) -> Commit {
    Commit {
        group: group.into(),
        by: Committer::Alone,
        offsets: vec![CommitOffset {
            partition: at(topic),
            offset: Offset(offset),
            leader_epoch: None,
            metadata: "note".into(),
            expire_timestamp: None,
        }],
    }
}

/// How far a group has read each partition that it has read.
pub(crate) async fn committed(broker: &Broker, group: &str) -> Vec<(TopicName, u64)> {
    let fetch = FetchOffsets {
        group: group.into(),
        by: None,
        partitions: None,
    };
    let fetched = broker.groups().fetch_offsets(fetch).await.unwrap();
    let offset = |fetched: sapwood_broker::group::FetchedOffset| {
        let committed = fetched.committed?;
        assert_eq!(&*committed.metadata, "note");
        Some((fetched.partition.topic, committed.offset.0))
    };
    fetched.into_iter().filter_map(offset).collect()
}

/// Returns when the groups are loaded.
pub(crate) async fn loaded(broker: &Broker) -> LoadProgress {
    loop {
        let progress = broker.groups().load_progress();
        if progress.loading == 0 {
            return progress;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn join(group: &str) -> Join {
    Join {
        group: group.into(),
        member_id: None,
        instance_id: None,
        client: Client {
            id: "c".into(),
            host: "/127.0.0.1".into(),
        },
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: bytes::Bytes::from_static(b"what it reads"),
        }],
        takes_member_id: false,
        takes_skip_assignment: true,
    }
}

pub(crate) async fn try_commit(broker: &Broker, commit: Commit) {
    let results = broker.groups().commit(commit).await.unwrap();
    assert_eq!(results, [Ok(())]);
}

#[tokio::test]
async fn offsets_and_members_are_there_after_a_restart_and_after_a_kill() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.groups.initial_rebalance_delay_ms = 0;
    let broker = crate::support::open_with(options.clone()).await;
    let topic = create(&broker, "t", &[]).await;
    assert_eq!(loaded(&broker).await, LoadProgress::default());
    assert_eq!(committed(&broker, "g").await, []);
    assert!(broker.topic("__consumer_offsets").is_none());
    try_commit(&broker, commit("g", &topic, 7)).await;
    let groups = broker.groups();
    let joined = groups.join(join("m")).await.unwrap();
    assert_eq!(joined.leader.as_ref(), Some(&joined.member_id));
    let sync = Sync {
        group: "m".into(),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), "everything".into())],
    };
    let synced = groups.sync(sync).await.unwrap();
    assert_eq!(synced.assignment, "everything");
    let described = groups.describe_classic("m".into()).await.unwrap();
    drop(groups);
    broker.drain_and_close().await.unwrap();
    drop(broker);

    let broker = crate::support::open_with(options.clone()).await;
    let progress = loaded(&broker).await;
    assert_eq!((progress.loaded, progress.failed), (16, 0));
    assert_eq!(progress.replayed, progress.offsets);
    assert_eq!(committed(&broker, "g").await, [(topic.name.clone(), 7)]);
    let again = broker.groups().describe_classic("m".into()).await.unwrap();
    assert_eq!(again, described);
    try_commit(&broker, commit("g", &topic, 8)).await;
    // As if killed: nothing is drained or closed.
    drop(broker);
    let broker = crate::support::open_with(options).await;
    loaded(&broker).await;
    assert_eq!(committed(&broker, "g").await, [(topic.name, 8)]);
    let listing = broker.groups().list().await;
    let names: Vec<&str> = listing.groups.iter().map(|g| g.group.as_str()).collect();
    assert_eq!(names, ["g", "m"]);
    assert!(listing.missing.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_deleted_groups_are_the_same_after_their_topic_was_compacted() {
    let dir = TempDir::new().unwrap();
    let options = options(dir.path());
    let broker = crate::support::open_with(options.clone()).await;
    let topic = create(&broker, "t", &[]).await;
    let names: Vec<String> = (0..20).map(|n| format!("g{n}")).collect();
    for offset in 1..=10 {
        for group in &names {
            try_commit(&broker, commit(group, &topic, offset)).await;
        }
    }
    broker.groups().delete("g3".into()).await.unwrap();
    let mut removed = 0;
    for partition in (0..16).map(PartitionId) {
        let done = broker.compact("__consumer_offsets", partition, |_| {
            ControlFlow::Continue(())
        });
        removed += done.await.unwrap().stats.removed_records;
    }
    assert_eq!(
        removed,
        20 * 9 + 1,
        "the rest is the latest of each, and a tombstone"
    );
    let check = async |broker: &Broker| {
        for group in &names {
            let expected = match &**group {
                "g3" => Vec::new(),
                _ => vec![(topic.name.clone(), 10)],
            };
            assert_eq!(committed(broker, group).await, expected, "{group}");
        }
    };
    check(&broker).await;
    drop(broker);
    let broker = crate::support::open_with(options).await;
    let progress = loaded(&broker).await;
    assert_eq!((progress.loaded, progress.failed), (16, 0));
    check(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_what_reads_saw_of_them_are_held_back_while_the_sync_is_blocked() {
    let dir = TempDir::new().unwrap();
    let gate = Arc::new(Gate::default());
    let broker = Broker::open_in(environment(&gate), options(dir.path()), Arc::default())
        .await
        .unwrap();
    let topic = create(&broker, "t", &[]).await;
    broker.groups().prepare().await.unwrap();
    loaded(&broker).await;
    try_commit(&broker, commit("g", &topic, 1)).await;

    gate.shut();
    let groups = broker.groups();
    let first = groups.commit(commit("g", &topic, 2));
    let second = groups.commit(commit("g", &topic, 3));
    let read = committed(&broker, "g");
    tokio::pin!(first, second, read);
    let early = tokio::time::timeout(Duration::from_millis(100), async {
        tokio::select! {
            biased;
            _ = &mut first => "the first",
            _ = &mut second => "the second",
            _ = &mut read => "the read",
        }
    });
    let early = early.await;
    assert!(early.is_err(), "{early:?} was answered before its sync");
    // Both were appended: the second did not wait for the first one's sync.
    let partition = groups.partition(&"g".into());
    let bounds = broker.bounds("__consumer_offsets", partition).unwrap();
    assert_eq!(
        (bounds.high_watermark, bounds.log_end),
        (Offset(1), Offset(3))
    );

    gate.open();
    let (first, second, read) = tokio::join!(first, second, read);
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (vec![Ok(())], vec![Ok(())])
    );
    assert_eq!(read, [(topic.name, 3)]);
    broker.drain_and_close().await.unwrap();
}

#[tokio::test]
async fn the_topic_of_groups_is_the_brokers_own() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    let mine = create(&broker, "t", &[]).await;
    broker.groups().prepare().await.unwrap();
    let info = broker.topic("__consumer_offsets").unwrap();
    assert!(info.is_internal && !mine.is_internal);
    assert_eq!(info.partitions, 16);
    let configs = broker.topic_configs("__consumer_offsets").unwrap();
    let value = |key| {
        configs
            .iter()
            .find(|entry| entry.key == key)
            .unwrap()
            .value
            .as_str()
    };
    assert_eq!(
        (value("cleanup.policy"), value("durability")),
        ("compact", "fsync")
    );

    let name = "__consumer_offsets";
    let written = produce(&broker, to(name, batch(&["x"]))).await.unwrap_err();
    let deleted = broker.delete_topic(name).await.unwrap_err();
    let altered = broker
        .alter_topic(name, Vec::new(), false)
        .await
        .unwrap_err();
    let grown = broker.add_partitions(name, 17, false).await.unwrap_err();
    let trimmed = broker.trim(name, P0, None).await.unwrap_err();
    let codes = [
        written.code(),
        deleted.code(),
        altered.code(),
        grown.code(),
        trimmed.code(),
    ];
    assert_eq!(codes, [Code::InvalidTopicName; 5]);
}

#[tokio::test]
async fn what_was_committed_for_a_topic_goes_with_it() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    let kept = create(&broker, "kept", &[]).await;
    let gone = create(&broker, "gone", &[]).await;
    broker.groups().prepare().await.unwrap();
    loaded(&broker).await;
    try_commit(&broker, commit("g", &kept, 1)).await;
    try_commit(&broker, commit("g", &gone, 2)).await;
    broker.delete_topic("gone").await.unwrap();
    // The notice runs before the second look at the latest.
    committed(&broker, "g").await;
    assert_eq!(committed(&broker, "g").await, [(kept.name, 1)]);
    let refused = broker.groups().commit(commit("g", &gone, 3)).await.unwrap();
    assert!(
        matches!(refused[..], [Err(GroupError::UnknownPartition { .. })]),
        "{refused:?}"
    );
}

#[tokio::test]
async fn members_of_the_newer_kind_get_partitions_and_lose_their_sessions_by_the_clock() {
    let machine = Machine::new(1);
    let broker = open_on(&machine, "boot-1").await.unwrap();
    let topic = create(&broker, "t", &[]).await;
    broker.groups().prepare().await.unwrap();
    loaded(&broker).await;
    let beat = ConsumerHeartbeat {
        group: "g".into(),
        member_id: Some("m".into()),
        presence: Presence::Join,
        instance_id: None,
        client: Client::default(),
        rack_id: None,
        rebalance_timeout_ms: Some(10_000),
        subscribed_topic_names: Some([topic.name.clone()].into()),
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: Some(Default::default()),
    };
    let answer = broker.groups().consumer_heartbeat(beat).await.unwrap();
    let assigned = answer.assignment.unwrap();
    assert!(assigned.contains(topic.id, PartitionId(0)), "{assigned:?}");
    let members = async || {
        let group: GroupId = "g".into();
        // The first one wakes the coordinator, which then looks at the clock.
        broker.groups().find(group.clone()).await.unwrap();
        let found = broker.groups().find(group).await.unwrap();
        found.unwrap().members
    };
    machine.clock.advance(Duration::from_millis(44_999));
    assert_eq!(members().await, 1);
    machine.clock.set(Timestamp(1));
    machine.clock.advance(Duration::from_millis(1));
    assert_eq!(members().await, 0);
}

#[tokio::test]
async fn waiting_members_are_sent_away_when_the_broker_closes() {
    let dir = TempDir::new().unwrap();
    let broker = open(Path::new(dir.path())).await;
    broker.groups().prepare().await.unwrap();
    loaded(&broker).await;
    let groups = broker.groups();
    let (joined, closed) = tokio::join!(groups.join(join("g")), broker.drain_and_close());
    closed.unwrap();
    let error = joined.unwrap_err();
    assert!(
        matches!(
            error,
            GroupRequestError::Coordinator(CoordinatorError::Draining)
        ),
        "{error:?}"
    );
}
