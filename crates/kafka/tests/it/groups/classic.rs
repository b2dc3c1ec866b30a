//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use sapwood_kafka_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupRequestMember, MetadataRequest, MetadataResponse, SyncGroupResponse,
};

use super::{enter, error, join, server, stable_group, subscription, sync};
use crate::support::{Client, until};

fn beat(group: &str, joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    }
}

async fn beaten(client: &mut Client, version: i16, request: &HeartbeatRequest) -> &'static str {
    error(client.ask(version, request).await.error_code)
}

/// Leaves as a client of this version does; gives the error of the member.
async fn leave(client: &mut Client, version: i16, group: &str, member: &str) -> &'static str {
    let request = LeaveGroupRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        members: vec![LeaveGroupRequestMember {
            member_id: member.to_owned(),
            ..LeaveGroupRequestMember::default()
        }],
    };
    let response = client.ask(version, &request).await;
    match response.members.first() {
        Some(only) => {
            assert_eq!(error(response.error_code), "NONE");
            assert_eq!(only.member_id, member);
            error(only.error_code)
        }
        None => error(response.error_code),
    }
}

#[tokio::test]
async fn a_member_enters_gets_its_assignment_stays_and_goes_in_every_version() {
    let server = server().await;
    let mut client = server.connect().await;
    for version in 0..=9 {
        let group = format!("group {version}");
        let joined = enter(&mut client, version, &group).await;
        assert_eq!(error(joined.error_code), "NONE", "version {version}");
        assert_eq!(
            (joined.generation_id, &joined.leader),
            (1, &joined.member_id)
        );
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        let of_type = (version >= 7).then_some("consumer");
        assert_eq!(joined.protocol_type.as_deref(), of_type);
        assert!(
            joined.member_id.starts_with("a test-"),
            "{}",
            joined.member_id
        );
        let members: Vec<_> = joined.members.iter().collect();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].metadata, subscription(&["t"]));

        let of_sync = version.min(5);
        let all = [(joined.member_id.as_str(), "everything")];
        let request = sync(&group, of_sync, &joined, &all);
        let synced = client.ask(of_sync, &request).await;
        assert_eq!(error(synced.error_code), "NONE", "version {of_sync}");
        assert_eq!(&synced.assignment[..], b"everything");
        let name = (of_sync >= 5).then_some("range");
        assert_eq!(synced.protocol_name.as_deref(), name);

        let of_beat = version.min(4);
        let request = beat(&group, &joined);
        assert_eq!(beaten(&mut client, of_beat, &request).await, "NONE");
        let of_leave = version.min(5);
        let left = leave(&mut client, of_leave, &group, &joined.member_id).await;
        assert_eq!(left, "NONE", "version {of_leave}");
        let request = beat(&group, &joined);
        assert_eq!(
            beaten(&mut client, of_beat, &request).await,
            "UNKNOWN_MEMBER_ID"
        );
        let again = leave(&mut client, of_leave, &group, &joined.member_id).await;
        assert_eq!(again, "UNKNOWN_MEMBER_ID", "version {of_leave}");
    }
}

#[tokio::test]
async fn a_join_waits_for_the_other_members_and_holds_nothing_of_its_frame() {
    let server = server().await;
    server.create_with("t", 2, &[]).await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    let first = stable_group(&mut one, "g").await;
    let required = other.ask(9, &join("g", "")).await;
    assert_eq!(error(required.error_code), "MEMBER_ID_REQUIRED");
    other.send(9, &join("g", &required.member_id)).await;
    // Read while the join waits; answered behind it.
    other.send(1, &MetadataRequest::default()).await;
    loop {
        match beaten(&mut one, 4, &beat("g", &first)).await {
            "NONE" => {}
            "REBALANCE_IN_PROGRESS" => break,
            wrong => panic!("{wrong}"),
        }
    }
    until(|| server.broker.budget().bytes_used() == 0).await;
    let led = one.ask(9, &join("g", &first.member_id)).await;
    let (_, joined) = other.receive::<JoinGroupResponse>(9).await;
    let (_, metadata) = other.receive::<MetadataResponse>(1).await;
    assert_eq!(metadata.brokers.len(), 1);
    assert_eq!((led.generation_id, joined.generation_id), (2, 2));
    assert_eq!(led.leader, first.member_id);
    assert_eq!(joined.leader, first.member_id);
    assert_eq!((led.members.len(), joined.members.len()), (2, 0));

    // The one that does not lead asks first, and waits for the leader.
    other.send(5, &sync("g", 5, &joined, &[])).await;
    let shares = [
        (first.member_id.as_str(), "t/0"),
        (joined.member_id.as_str(), "t/1"),
        ("a stranger", "t/2"),
    ];
    let mine = one.ask(5, &sync("g", 5, &led, &shares)).await;
    let (_, others) = other.receive::<SyncGroupResponse>(5).await;
    assert_eq!(&mine.assignment[..], b"t/0");
    assert_eq!(&others.assignment[..], b"t/1");
}

#[tokio::test]
async fn who_hangs_up_while_it_joins_holds_up_nobody() {
    let server = server().await;
    let mut one = server.connect().await;
    let first = stable_group(&mut one, "g").await;
    let mut gone = server.connect().await;
    let required = gone.ask(9, &join("g", "")).await;
    gone.send(9, &join("g", &required.member_id)).await;
    while beaten(&mut one, 4, &beat("g", &first)).await == "NONE" {}
    drop(gone);
    let left = leave(&mut one, 5, "g", &required.member_id).await;
    assert_eq!(left, "NONE");
    let again = one.ask(9, &join("g", &first.member_id)).await;
    assert_eq!((again.generation_id, again.members.len()), (2, 1));
}

fn static_join(group: &str, instance: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance.to_owned()),
        ..join(group, member_id)
    }
}

#[tokio::test]
async fn a_static_member_comes_back_without_a_rebalance_and_its_former_self_is_fenced() {
    let server = server().await;
    let mut client = server.connect().await;
    let former = client.ask(9, &static_join("g", "desk", "")).await;
    assert_eq!(
        (error(former.error_code), former.generation_id),
        ("NONE", 1)
    );
    assert!(!former.skip_assignment);
    let all = [(former.member_id.as_str(), "everything")];
    let mut request = sync("g", 5, &former, &all);
    request.group_instance_id = Some("desk".to_owned());
    assert_eq!(error(client.ask(5, &request).await.error_code), "NONE");

    let back = client.ask(9, &static_join("g", "desk", "")).await;
    assert_eq!((error(back.error_code), back.generation_id), ("NONE", 1));
    assert!(back.skip_assignment);
    assert_ne!(back.member_id, former.member_id);
    assert_eq!(back.members[0].group_instance_id.as_deref(), Some("desk"));
    // Before version 9 no leader can skip the assignment: it does not learn that it leads.
    let older = client.ask(8, &static_join("g", "desk", "")).await;
    assert_eq!((older.generation_id, older.members.len()), (1, 0));
    assert_ne!(older.leader, older.member_id);

    let fenced = HeartbeatRequest {
        group_instance_id: Some("desk".to_owned()),
        ..beat("g", &former)
    };
    assert_eq!(beaten(&mut client, 4, &fenced).await, "FENCED_INSTANCE_ID");
    let late = client
        .ask(9, &static_join("g", "desk", &former.member_id))
        .await;
    assert_eq!(error(late.error_code), "FENCED_INSTANCE_ID");
    assert_eq!(late.member_id, former.member_id);
    // An administrator takes it out by its lasting name.
    let removal = LeaveGroupRequest {
        group_id: "g".to_owned(),
        members: vec![LeaveGroupRequestMember {
            group_instance_id: Some("desk".to_owned()),
            ..LeaveGroupRequestMember::default()
        }],
        ..LeaveGroupRequest::default()
    };
    for (version, outcome) in [(3, "NONE"), (5, "UNKNOWN_MEMBER_ID")] {
        let response = client.ask(version, &removal).await;
        assert_eq!(error(response.error_code), "NONE");
        assert_eq!(error(response.members[0].error_code), outcome);
    }
}
