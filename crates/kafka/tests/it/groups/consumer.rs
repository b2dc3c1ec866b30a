//! ConsumerGroupHeartbeat and ConsumerGroupDescribe.

use sapwood_kafka_wire::{
    Uuid,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponseAssignment,
        ConsumerGroupDescribeResponseGroup, ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatRequestTopicPartitions, ConsumerGroupHeartbeatResponse,
        OffsetCommitRequest, OffsetFetchRequest, OffsetFetchRequestGroup,
    },
};

use super::{commit, committed, error, server};
use crate::support::Client;

/// Joins group `g` as a consumer of topic `t`.
fn join(member_id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: member_id.to_owned(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// Stays, owning these partitions of a topic.
fn stay(
    member_id: &str,
    epoch: i32,
    owned: Option<(Uuid, &[i32])>,
) -> ConsumerGroupHeartbeatRequest {
    let owned = owned.map(|(topic_id, partitions)| {
        vec![ConsumerGroupHeartbeatRequestTopicPartitions {
            topic_id,
            partitions: partitions.to_vec(),
        }]
    });
    ConsumerGroupHeartbeatRequest {
        group_id: "g".to_owned(),
        member_id: member_id.to_owned(),
        member_epoch: epoch,
        topic_partitions: owned,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// The topics and partitions of an assignment, if there is one.
fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(Uuid, Vec<i32>)>> {
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    let topics = topics.map(|topic| (topic.topic_id, topic.partitions.clone()));
    Some(topics.collect())
}

async fn describe(client: &mut Client, version: i16) -> ConsumerGroupDescribeResponseGroup {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".to_owned(), "g".to_owned()],
        include_authorized_operations: true,
    };
    let mut groups = client.ask(version, &request).await.groups;
    assert_eq!(groups.len(), 1, "each group is described once");
    groups.remove(0)
}

fn named(assignment: &ConsumerGroupDescribeResponseAssignment) -> Vec<(String, Uuid, Vec<i32>)> {
    let topics = assignment.topic_partitions.iter();
    topics
        .map(|topic| {
            let (name, id) = (topic.topic_name.clone(), topic.topic_id);
            (name, id, topic.partitions.clone())
        })
        .collect()
}

#[tokio::test]
async fn a_second_member_gets_what_the_first_gives_up() {
    let server = server().await;
    let t = Uuid(server.create_with("t", 2, &[]).await.id.0);
    let mut client = server.connect().await;
    let first = client.ask(1, &join("one")).await;
    assert_eq!((error(first.error_code), first.member_epoch), ("NONE", 1));
    assert_eq!(first.member_id.as_deref(), Some("one"));
    assert_eq!(first.heartbeat_interval_ms, 5_000);
    assert_eq!(assigned(&first), Some(vec![(t, vec![0, 1])]));
    let quiet = client.ask(1, &stay("one", 1, Some((t, &[0, 1])))).await;
    assert_eq!((error(quiet.error_code), quiet.member_epoch), ("NONE", 1));

    let second = client.ask(1, &join("two")).await;
    assert_eq!(error(second.error_code), "NONE");
    assert_eq!(assigned(&second), Some(vec![]), "nothing is free yet");
    let revoked = client.ask(1, &stay("one", 1, None)).await;
    let kept = assigned(&revoked).expect("one partition is to be given up");
    assert_eq!((kept.len(), kept[0].1.len()), (1, 1));
    let kept = kept[0].1.clone();
    let given_up = client.ask(1, &stay("one", 1, Some((t, &kept)))).await;
    assert_eq!(
        (error(given_up.error_code), given_up.member_epoch),
        ("NONE", 2)
    );
    let epoch = second.member_epoch;
    let freed = client.ask(1, &stay("two", epoch, None)).await;
    assert_eq!(assigned(&freed), Some(vec![(t, vec![1 - kept[0]])]));

    for version in 0..=1 {
        let group = describe(&mut client, version).await;
        assert_eq!(
            (error(group.error_code), &*group.group_state),
            ("NONE", "Stable")
        );
        assert_eq!((group.group_epoch, group.assignment_epoch), (2, 2));
        assert_eq!(group.assignor_name, "uniform");
        assert_eq!(group.authorized_operations, 0b1_0100_1000);
        let ids: Vec<_> = group.members.iter().map(|one| &*one.member_id).collect();
        assert_eq!(ids, ["one", "two"]);
        let member = &group.members[0];
        assert_eq!((member.member_epoch, &*member.client_id), (2, "a test"));
        assert_eq!(member.client_host, "/127.0.0.1");
        assert_eq!(member.subscribed_topic_names, ["t"]);
        assert_eq!(
            named(&member.assignment),
            [("t".to_owned(), t, kept.clone())]
        );
        assert_eq!(named(&member.target_assignment), named(&member.assignment));
        assert_eq!(member.member_type, if version >= 1 { 1 } else { -1 });
    }
    // Gone, with a word.
    let left = client.ask(1, &stay("two", -1, None)).await;
    assert_eq!((error(left.error_code), left.member_epoch), ("NONE", -1));
    assert_eq!(describe(&mut client, 1).await.members.len(), 1);
}

#[tokio::test]
async fn a_member_without_an_id_is_given_one_in_version_0_only() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let given = client.ask(0, &join("")).await;
    assert_eq!(error(given.error_code), "NONE");
    assert_eq!(given.member_id.unwrap().len(), 36);
    let refused = client.ask(1, &join("")).await;
    assert_eq!(error(refused.error_code), "INVALID_REQUEST");
    assert_eq!((refused.member_id, refused.assignment), (None, None));
}

#[tokio::test]
async fn a_subscription_may_be_a_pattern_and_names_that_no_topic_has_match_nothing() {
    let server = server().await;
    let t = Uuid(server.create("tea", &[]).await.id.0);
    let mut client = server.connect().await;
    let request = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec!["a/b".to_owned(), String::new()]),
        subscribed_topic_regex: Some("t.*".to_owned()),
        ..join("one")
    };
    let joined = client.ask(1, &request).await;
    assert_eq!(assigned(&joined), Some(vec![(t, vec![0])]));
    let group = describe(&mut client, 1).await;
    let member = &group.members[0];
    assert_eq!(member.subscribed_topic_regex.as_deref(), Some("t.*"));
    assert!(member.subscribed_topic_names.is_empty());
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let server = server().await;
    let t = Uuid(server.create("t", &[]).await.id.0);
    let mut client = server.connect().await;
    assert_eq!(client.ask(1, &join("one")).await.member_epoch, 1);
    let with = |change: fn(&mut ConsumerGroupHeartbeatRequest)| {
        let mut request = join("two");
        change(&mut request);
        request
    };
    let wrong = [
        (with(|request| request.group_id.clear()), "INVALID_GROUP_ID"),
        (
            with(|request| request.rebalance_timeout_ms = -1),
            "INVALID_REQUEST",
        ),
        (
            with(|request| request.subscribed_topic_names = None),
            "INVALID_REQUEST",
        ),
        (with(|request| request.member_epoch = -3), "INVALID_REQUEST"),
        // It is no static member.
        (stay("one", -2, None), "INVALID_REQUEST"),
        (
            with(|request| request.server_assignor = Some("best".to_owned())),
            "UNSUPPORTED_ASSIGNOR",
        ),
        (
            with(|request| request.subscribed_topic_regex = Some("(".to_owned())),
            "INVALID_REGULAR_EXPRESSION",
        ),
        (stay("one", 1, Some((t, &[-1]))), "INVALID_REQUEST"),
        (stay("one", 7, None), "FENCED_MEMBER_EPOCH"),
        (stay("nobody", 1, None), "UNKNOWN_MEMBER_ID"),
        (
            ConsumerGroupHeartbeatRequest {
                group_id: "nowhere".to_owned(),
                ..stay("one", 1, None)
            },
            "GROUP_ID_NOT_FOUND",
        ),
    ];
    for (request, name) in wrong {
        let refused = client.ask(1, &request).await;
        assert_eq!(error(refused.error_code), name);
        assert!(refused.error_message.is_some(), "{name}");
        assert_eq!(refused.assignment, None);
    }
    assert_eq!(describe(&mut client, 1).await.members.len(), 1);
}

#[tokio::test]
async fn a_static_member_that_pauses_is_shown_and_comes_back_to_what_it_had() {
    let server = server().await;
    let t = Uuid(server.create("t", &[]).await.id.0);
    let mut client = server.connect().await;
    let desk = |request| ConsumerGroupHeartbeatRequest {
        instance_id: Some("desk".to_owned()),
        ..request
    };
    client.ask(1, &desk(join("one"))).await;
    let taken = client.ask(1, &desk(join("two"))).await;
    assert_eq!(error(taken.error_code), "UNRELEASED_INSTANCE_ID");
    let paused = client.ask(1, &desk(stay("one", -2, None))).await;
    assert_eq!(
        (error(paused.error_code), paused.member_epoch),
        ("NONE", -2)
    );
    let group = describe(&mut client, 1).await;
    assert_eq!(group.members[0].member_epoch, -2);
    assert_eq!(group.members[0].instance_id.as_deref(), Some("desk"));
    let back = client.ask(1, &desk(join("two"))).await;
    assert_eq!(assigned(&back), Some(vec![(t, vec![0])]));
    let fenced = client.ask(1, &desk(stay("one", 1, None))).await;
    assert_eq!(error(fenced.error_code), "FENCED_INSTANCE_ID");
}

#[tokio::test]
async fn members_commit_and_fetch_with_their_epoch() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    assert_eq!(client.ask(1, &join("one")).await.member_epoch, 1);
    let by = |member: &str, epoch| OffsetCommitRequest {
        member_id: member.to_owned(),
        generation_id_or_member_epoch: epoch,
        ..commit("g", &[(0, 4)])
    };
    let expected = [
        (9, by("one", 1), "NONE"),
        (9, by("one", 2), "STALE_MEMBER_EPOCH"),
        // There is no such error before.
        (8, by("one", 2), "UNSUPPORTED_VERSION"),
        (9, by("nobody", 1), "UNKNOWN_MEMBER_ID"),
        (9, by("", -1), "UNKNOWN_MEMBER_ID"),
    ];
    for (version, request, name) in expected {
        assert_eq!(committed(&mut client, version, &request).await, [name]);
    }
    let fetch = |member_id: Option<&str>, member_epoch| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".to_owned(),
            member_id: member_id.map(str::to_owned),
            member_epoch,
            topics: None,
        }],
        ..OffsetFetchRequest::default()
    };
    let expected = [
        (fetch(None, -1), "NONE"),
        (fetch(Some("one"), 1), "NONE"),
        (fetch(Some("one"), 2), "STALE_MEMBER_EPOCH"),
        (fetch(Some("one"), -1), "STALE_MEMBER_EPOCH"),
        (fetch(Some("nobody"), 1), "UNKNOWN_MEMBER_ID"),
    ];
    for (request, name) in expected {
        let group = client.ask(9, &request).await.groups.remove(0);
        assert_eq!(error(group.error_code), name);
        assert_eq!(group.topics.len(), usize::from(name == "NONE"));
    }
}
