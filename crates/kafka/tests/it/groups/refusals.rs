//! What classic groups refuse, and what that looks like in each version.

use sapwood_kafka_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, LeaveGroupRequestMember,
};

use super::{error, join, server, stable_group, sync};

#[tokio::test]
async fn joins_that_cannot_be_are_refused_with_kafkas_errors() {
    let server = server().await;
    let mut client = server.connect().await;
    stable_group(&mut client, "g").await;
    let with = |change: fn(&mut JoinGroupRequest)| {
        let mut request = join("g", "");
        change(&mut request);
        request
    };
    let wrong = [
        (with(|request| request.group_id.clear()), "INVALID_GROUP_ID"),
        (
            with(|request| request.session_timeout_ms = 5_999),
            "INVALID_SESSION_TIMEOUT",
        ),
        (
            with(|request| request.session_timeout_ms = -1),
            "INVALID_SESSION_TIMEOUT",
        ),
        (
            with(|request| request.session_timeout_ms = 1_800_001),
            "INVALID_SESSION_TIMEOUT",
        ),
        (
            with(|request| request.protocols.clear()),
            "INCONSISTENT_GROUP_PROTOCOL",
        ),
        (
            with(|request| request.protocols[0].name = "sticky".to_owned()),
            "INCONSISTENT_GROUP_PROTOCOL",
        ),
        (
            with(|request| request.protocol_type = "connect".to_owned()),
            "INCONSISTENT_GROUP_PROTOCOL",
        ),
        (
            with(|request| request.member_id = "nobody".to_owned()),
            "UNKNOWN_MEMBER_ID",
        ),
    ];
    for version in 0..=9 {
        for (request, name) in &wrong {
            let refused = client.ask(version, request).await;
            assert_eq!(error(refused.error_code), *name, "version {version}");
            assert_eq!((refused.generation_id, refused.members.len()), (-1, 0));
            assert_eq!(refused.member_id, request.member_id);
            let no_name = (version < 7).then(String::new);
            assert_eq!(refused.protocol_name, no_name, "version {version}");
        }
    }
}

#[tokio::test]
async fn syncs_of_another_generation_protocol_or_member_are_refused() {
    let server = server().await;
    let mut client = server.connect().await;
    let joined = stable_group(&mut client, "g").await;
    let right = sync("g", 5, &joined, &[]);
    let mut wrong = vec![right.clone(); 6];
    wrong[0].generation_id = 0;
    wrong[1].generation_id = -1;
    wrong[2].member_id = "nobody".to_owned();
    wrong[3].protocol_name = Some("sticky".to_owned());
    wrong[4].protocol_type = None;
    wrong[5].group_id = "nowhere".to_owned();
    let names = [
        "ILLEGAL_GENERATION",
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "INCONSISTENT_GROUP_PROTOCOL",
        "INCONSISTENT_GROUP_PROTOCOL",
        "UNKNOWN_MEMBER_ID",
    ];
    for (request, name) in wrong.iter().zip(names) {
        let refused = client.ask(5, request).await;
        assert_eq!(error(refused.error_code), name);
        assert!(refused.assignment.is_empty());
    }
    // Before version 5 no protocol is named.
    let answer = client.ask(4, &wrong[4]).await;
    assert_eq!(error(answer.error_code), "NONE");
    assert_eq!(&client.ask(5, &right).await.assignment[..], b"everything");
}

#[tokio::test]
async fn a_heartbeat_of_another_generation_or_member_is_refused() {
    let server = server().await;
    let mut client = server.connect().await;
    let joined = stable_group(&mut client, "g").await;
    let right = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: 1,
        member_id: joined.member_id,
        ..HeartbeatRequest::default()
    };
    let mut wrong = vec![right.clone(); 5];
    wrong[0].generation_id = 2;
    wrong[1].generation_id = -1;
    wrong[2].member_id.clear();
    wrong[3].group_id = "nowhere".to_owned();
    wrong[4].group_id.clear();
    let names = [
        "ILLEGAL_GENERATION",
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "UNKNOWN_MEMBER_ID",
        "INVALID_GROUP_ID",
    ];
    for version in 0..=4 {
        for (request, name) in wrong.iter().zip(names) {
            let refused = client.ask(version, request).await;
            assert_eq!(error(refused.error_code), name, "version {version}");
        }
        assert_eq!(client.ask(version, &right).await.error_code, 0);
    }
}

#[tokio::test]
async fn each_of_several_members_that_leave_is_answered_for_by_itself() {
    let server = server().await;
    let mut client = server.connect().await;
    let joined = stable_group(&mut client, "g").await;
    let member = |id: &str| LeaveGroupRequestMember {
        member_id: id.to_owned(),
        ..LeaveGroupRequestMember::default()
    };
    let mut request = LeaveGroupRequest {
        group_id: "nowhere".to_owned(),
        members: vec![member("nobody"), member(&joined.member_id), member("")],
        ..LeaveGroupRequest::default()
    };
    let refused = client.ask(5, &request).await;
    assert_eq!(error(refused.error_code), "UNKNOWN_MEMBER_ID");
    assert!(refused.members.is_empty());
    request.group_id = "g".to_owned();
    let answer = client.ask(5, &request).await;
    assert_eq!(error(answer.error_code), "NONE");
    let outcomes: Vec<_> = answer
        .members
        .iter()
        .map(|member| (member.member_id.as_str(), error(member.error_code)))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("nobody", "UNKNOWN_MEMBER_ID"),
            (joined.member_id.as_str(), "NONE"),
            ("", "UNKNOWN_MEMBER_ID"),
        ]
    );
}
