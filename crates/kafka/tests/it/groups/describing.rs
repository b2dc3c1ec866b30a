//! ListGroups, DescribeGroups, DeleteGroups; and groups of one kind asked for as the other.

use sapwood_kafka_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DescribeGroupsRequest, DescribeGroupsResponseGroup, HeartbeatRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetFetchRequest, OffsetFetchRequestGroup,
};

use super::{commit, committed, error, join, server, stable_group, subscription};
use crate::support::{Client, Server};

/// Classic `old`, newer `new`, and `plain`, which has nothing but offsets. Gives the id of the member
/// of `old`.
async fn three_groups(server: &Server, client: &mut Client) -> String {
    server.create("t", &[]).await;
    committed(client, 9, &commit("plain", &[(0, 1)])).await;
    let heartbeat = ConsumerGroupHeartbeatRequest {
        group_id: "new".to_owned(),
        member_id: "one".to_owned(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    assert_eq!(client.ask(1, &heartbeat).await.error_code, 0);
    stable_group(client, "old").await.member_id
}

async fn list(
    client: &mut Client,
    version: i16,
    states: &[&str],
    kinds: &[&str],
) -> Vec<[String; 4]> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let request = ListGroupsRequest {
        states_filter: owned(states),
        types_filter: owned(kinds),
    };
    let response = client.ask(version, &request).await;
    assert_eq!(response.error_code, 0);
    let groups = response.groups.into_iter();
    groups
        .map(|one| {
            [
                one.group_id,
                one.protocol_type,
                one.group_state,
                one.group_type,
            ]
        })
        .collect()
}

fn names(groups: &[[String; 4]]) -> Vec<&str> {
    groups.iter().map(|group| group[0].as_str()).collect()
}

#[tokio::test]
async fn groups_are_listed_by_state_and_kind() {
    let server = server().await;
    let mut client = server.connect().await;
    assert!(list(&mut client, 5, &[], &[]).await.is_empty());
    three_groups(&server, &mut client).await;
    for version in 0..=5 {
        let state = |text| if version >= 4 { text } else { "" };
        let kind = |text| if version >= 5 { text } else { "" };
        assert_eq!(
            list(&mut client, version, &[], &[]).await,
            [
                ["new", "consumer", state("Stable"), kind("consumer")],
                ["old", "consumer", state("Stable"), kind("classic")],
                ["plain", "", state("Empty"), kind("classic")],
            ],
            "version {version}"
        );
    }
    let stable = list(&mut client, 4, &["stable ", "Dead"], &[]).await;
    assert_eq!(names(&stable), ["new", "old"]);
    let classic = list(&mut client, 5, &[], &["Classic"]).await;
    assert_eq!(names(&classic), ["old", "plain"]);
    let both = list(&mut client, 5, &["Stable"], &["classic", "share"]).await;
    assert_eq!(names(&both), ["old"]);
    assert!(list(&mut client, 5, &["Nonsense"], &[]).await.is_empty());
}

async fn described(
    client: &mut Client,
    version: i16,
    groups: &[&str],
) -> Vec<DescribeGroupsResponseGroup> {
    let request = DescribeGroupsRequest {
        groups: groups.iter().map(|name| (*name).to_owned()).collect(),
        include_authorized_operations: true,
    };
    client.ask(version, &request).await.groups
}

#[tokio::test]
async fn classic_groups_are_described_with_their_members() {
    let server = server().await;
    let mut client = server.connect().await;
    let member_id = three_groups(&server, &mut client).await;
    for version in 0..=6 {
        let groups = described(&mut client, version, &["old", "plain", "old"]).await;
        assert_eq!(groups.len(), 2, "each group is described once");
        let old = &groups[0];
        assert_eq!((error(old.error_code), &*old.group_id), ("NONE", "old"));
        assert_eq!(
            (&*old.group_state, &*old.protocol_type),
            ("Stable", "consumer")
        );
        assert_eq!(old.protocol_data, "range");
        let operations = if version >= 3 {
            0b1_0100_1000
        } else {
            i32::MIN
        };
        assert_eq!(old.authorized_operations, operations);
        let member = &old.members[0];
        assert_eq!((old.members.len(), &member.member_id), (1, &member_id));
        assert_eq!(
            (&*member.client_id, &*member.client_host),
            ("a test", "/127.0.0.1")
        );
        assert_eq!(member.member_metadata, subscription(&["t"]));
        assert_eq!(&member.member_assignment[..], b"everything");
        let plain = &groups[1];
        assert_eq!((&*plain.group_state, plain.members.len()), ("Empty", 0));
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_or_of_the_other_kind_is_dead() {
    let server = server().await;
    let mut client = server.connect().await;
    three_groups(&server, &mut client).await;
    for version in 0..=6 {
        for group in described(&mut client, version, &["nowhere", "new"]).await {
            let name = match version {
                6 => "GROUP_ID_NOT_FOUND",
                _ => "NONE",
            };
            assert_eq!(error(group.error_code), name, "version {version}");
            assert_eq!((&*group.group_state, group.members.len()), ("Dead", 0));
            assert_eq!(group.error_message.is_some(), version == 6);
        }
    }
    let request = ConsumerGroupDescribeRequest {
        group_ids: ["nowhere", "old", ""].map(str::to_owned).into(),
        ..ConsumerGroupDescribeRequest::default()
    };
    for version in 0..=1 {
        let groups = client.ask(version, &request).await.groups;
        let told: Vec<_> = groups
            .iter()
            .map(|group| (&*group.group_id, error(group.error_code)))
            .collect();
        assert_eq!(
            told,
            [
                ("nowhere", "GROUP_ID_NOT_FOUND"),
                ("old", "GROUP_ID_NOT_FOUND"),
                ("", "INVALID_GROUP_ID"),
            ]
        );
        assert!(groups.iter().all(|group| group.error_message.is_some()));
    }
}

#[tokio::test]
async fn requests_of_the_other_kind_leave_a_group_unharmed() {
    let server = server().await;
    let mut client = server.connect().await;
    let member_id = three_groups(&server, &mut client).await;
    let wrong_join = client.ask(9, &join("new", "")).await;
    assert_eq!(error(wrong_join.error_code), "INCONSISTENT_GROUP_PROTOCOL");
    let beat = |group: &str, member_id: &str| HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: 1,
        member_id: member_id.to_owned(),
        ..HeartbeatRequest::default()
    };
    let wrong_beat = client.ask(4, &beat("new", "one")).await;
    assert_eq!(error(wrong_beat.error_code), "UNKNOWN_MEMBER_ID");
    let newer = |member_epoch| ConsumerGroupHeartbeatRequest {
        group_id: "old".to_owned(),
        member_id: member_id.clone(),
        member_epoch,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["t".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    for epoch in [0, 1, -1] {
        let refused = client.ask(1, &newer(epoch)).await;
        assert_eq!(error(refused.error_code), "GROUP_ID_NOT_FOUND", "{epoch}");
    }
    assert_eq!(client.ask(4, &beat("old", &member_id)).await.error_code, 0);
    let stable = list(&mut client, 5, &["Stable"], &[]).await;
    assert_eq!(names(&stable), ["new", "old"]);
}

#[tokio::test]
async fn groups_without_members_are_deleted_with_what_they_had_read() {
    let server = server().await;
    let mut client = server.connect().await;
    let member_id = three_groups(&server, &mut client).await;
    let delete = |groups: &[&str]| DeleteGroupsRequest {
        groups_names: groups.iter().map(|name| (*name).to_owned()).collect(),
    };
    let request = delete(&["old", "new", "nowhere", "old", ""]);
    for version in 0..=2 {
        let results = client.ask(version, &request).await.results;
        let told: Vec<_> = results
            .iter()
            .map(|one| (&*one.group_id, error(one.error_code)))
            .collect();
        assert_eq!(
            told,
            [
                ("old", "NON_EMPTY_GROUP"),
                ("new", "NON_EMPTY_GROUP"),
                ("nowhere", "GROUP_ID_NOT_FOUND"),
                ("", "GROUP_ID_NOT_FOUND"),
            ]
        );
    }
    let leave = LeaveGroupRequest {
        group_id: "old".to_owned(),
        member_id,
        ..LeaveGroupRequest::default()
    };
    assert_eq!(client.ask(2, &leave).await.error_code, 0);
    let results = client.ask(2, &delete(&["old", "plain"])).await.results;
    assert!(results.iter().all(|one| one.error_code == 0), "{results:?}");
    assert_eq!(names(&list(&mut client, 5, &[], &[]).await), ["new"]);
    let fetch = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "plain".to_owned(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let fetched = client.ask(9, &fetch).await.groups.remove(0);
    assert_eq!(
        (error(fetched.error_code), fetched.topics.len()),
        ("NONE", 0)
    );
}
