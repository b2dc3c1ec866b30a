//! Requests that no client should send, and members that answer late or never: the group is unharmed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sapwood_broker::{Clock, Environment};
use sapwood_kafka_wire::messages::{
    ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, HeartbeatRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupRequestMember, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup,
};
use sapwood_model::Timestamp;

use super::{
    commit, committed, enter, error, join, loaded, server, server_in, stable_group, subscription,
    sync,
};
use crate::support::Client;

/// The real clock, moved on by hand.
#[derive(Debug)]
struct Ahead {
    began: Instant,
    by_ms: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + i64::try_from(self.elapsed().as_millis()).unwrap())
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed() + Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

fn heartbeat(group: &str, joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    }
}

fn consumer(group: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let joins = epoch == 0;
    ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec!["t".to_owned()]),
        topic_partitions: joins.then(Vec::new),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn leave(group: &str, members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let member = |(member, instance): &(&str, Option<&str>)| LeaveGroupRequestMember {
        member_id: (*member).to_owned(),
        group_instance_id: instance.map(str::to_owned),
        ..LeaveGroupRequestMember::default()
    };
    LeaveGroupRequest {
        group_id: group.to_owned(),
        members: members.iter().map(member).collect(),
        ..LeaveGroupRequest::default()
    }
}

fn fetch(group: &str) -> OffsetFetchRequest {
    OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_id: None,
            member_epoch: -1,
            topics: None,
        }],
        ..OffsetFetchRequest::default()
    }
}

/// A heartbeat (version 4) of a group whose name no encoder would write: its length takes 3 bytes.
fn too_long(group: &str) -> Vec<u8> {
    assert_eq!(group.len(), 32_768);
    let mut body = vec![0, 12, 0, 4, 0, 0, 0, 9, 0, 1, b'c', 0];
    body.extend([0x81, 0x80, 0x02]);
    body.extend(group.as_bytes());
    body.extend([0, 0, 0, 1, 2, b'm', 0, 0]);
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// What a group of this name is answered by each request that has one.
async fn answers(client: &mut Client, group: &str) -> Vec<(&'static str, &'static str)> {
    let nobody = JoinGroupResponse {
        member_id: "m".to_owned(),
        generation_id: 1,
        ..JoinGroupResponse::default()
    };
    let joined = client.ask(9, &join(group, "m")).await.error_code;
    let synced = client.ask(5, &sync(group, 5, &nobody, &[])).await;
    let beaten = client.ask(4, &heartbeat(group, &nobody)).await;
    let left = client.ask(5, &leave(group, &[("m", None)])).await;
    let consumed = client.ask(1, &consumer(group, "m", 7)).await;
    let fetched = client.ask(8, &fetch(group)).await;
    let deleted = DeleteGroupsRequest {
        groups_names: vec![group.to_owned()],
    };
    let deleted = client.ask(2, &deleted).await;
    let offset = committed(client, 8, &commit(group, &[(0, 5)])).await;
    let left = match left.members.first() {
        Some(member) => member.error_code,
        None => left.error_code,
    };
    vec![
        ("join", error(joined)),
        ("sync", error(synced.error_code)),
        ("heartbeat", error(beaten.error_code)),
        ("leave", error(left)),
        ("consumer", error(consumed.error_code)),
        ("fetch", error(fetched.groups[0].error_code)),
        ("delete", error(deleted.results[0].error_code)),
        ("commit", offset[0]),
    ]
}

#[tokio::test]
async fn a_group_may_have_any_name_of_1_to_32767_bytes_and_no_other() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    stable_group(&mut client, "bystander").await;
    // The wire knows no longer strings: as in Kafka that ends the connection.
    for name in ["g".repeat(32_768), "\u{1fab5}".repeat(8_192)] {
        let mut talker = server.connect().await;
        talker.send_raw(&too_long(&name)).await;
        assert!(talker.is_closed().await);
    }

    let unknown = [
        ("join", "UNKNOWN_MEMBER_ID"),
        ("sync", "UNKNOWN_MEMBER_ID"),
        ("heartbeat", "UNKNOWN_MEMBER_ID"),
        ("leave", "UNKNOWN_MEMBER_ID"),
        ("consumer", "GROUP_ID_NOT_FOUND"),
        ("fetch", "NONE"),
        ("delete", "GROUP_ID_NOT_FOUND"),
        ("commit", "NONE"),
    ];
    let longest = "g".repeat(32_767);
    let names = [
        "\0\u{1}\r\n\t\u{7f}",
        "../../etc/passwd",
        "\u{202e}\u{feff}Bäume 🪵",
        " ",
        &longest,
    ];
    for group in names {
        let told = answers(&mut client, group).await;
        assert_eq!(told, unknown, "{:?}", &group[..group.len().min(40)]);
        let fetched = client.ask(8, &fetch(group)).await;
        let partition = &fetched.groups[0].topics[0].partitions[0];
        assert_eq!(partition.committed_offset, 5);
        let joined = stable_group(&mut client, group).await;
        let beat = client.ask(4, &heartbeat(group, &joined)).await;
        assert_eq!(error(beat.error_code), "NONE");
    }
    let listing = server.broker.groups().list().await;
    assert_eq!(listing.groups.len(), names.len() + 1);
}

#[tokio::test]
async fn what_members_say_of_themselves_need_not_be_understood() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    // No subscription at all, one that is cut off, and one that promises two thousand million topics.
    let cut = subscription(&["t"])[..7].to_vec();
    let lies = [0, 0, 0x7f, 0xff, 0xff, 0xff].to_vec();
    for (group, said) in [("empty", Vec::new()), ("cut", cut), ("lies", lies)] {
        let mut request = join(group, "");
        request.protocols[0].metadata = said.into();
        request.member_id = client.ask(9, &request).await.member_id;
        let joined = client.ask(9, &request).await;
        assert_eq!(error(joined.error_code), "NONE", "{group}");
        let all = [(joined.member_id.as_str(), "no assignment either")];
        let synced = client.ask(5, &sync(group, 5, &joined, &all)).await;
        assert_eq!(&synced.assignment[..], b"no assignment either");
        // Nobody can know that it does not read the topic.
        let delete = OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics: vec![OffsetDeleteRequestTopic {
                name: "t".to_owned(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        };
        let deleted = client.ask(0, &delete).await;
        let refused = deleted.topics[0].partitions[0].error_code;
        assert_eq!(error(refused), "GROUP_SUBSCRIBED_TO_TOPIC");
        let described = server.broker.groups().describe(&group.into()).await;
        assert_eq!(described.unwrap().unwrap().members.len(), 1);
        let beat = client.ask(4, &heartbeat(group, &joined)).await;
        assert_eq!(error(beat.error_code), "NONE");
    }
}

#[tokio::test]
async fn an_assignment_that_no_batch_can_hold_is_refused_and_the_group_goes_on() {
    let server = server().await;
    let mut client = server.connect().await;
    let joined = enter(&mut client, 9, "g").await;
    let huge = "x".repeat(2 << 20);
    let all = [(joined.member_id.as_str(), huge.as_str())];
    let refused = client.ask(5, &sync("g", 5, &joined, &all)).await;
    assert_ne!(error(refused.error_code), "NONE");
    assert!(refused.assignment.is_empty());
    // It did not happen: the leader may say something shorter.
    let all = [(joined.member_id.as_str(), "everything")];
    let synced = client.ask(5, &sync("g", 5, &joined, &all)).await;
    assert_eq!(error(synced.error_code), "NONE");
    let beat = client.ask(4, &heartbeat("g", &joined)).await;
    assert_eq!(error(beat.error_code), "NONE");
}

#[tokio::test]
async fn members_that_answer_late_or_never_lose_their_place_and_nobody_elses() {
    let clock = Arc::new(Ahead {
        began: Instant::now(),
        by_ms: AtomicU64::new(0),
    });
    let environment = Environment {
        clock: clock.clone(),
        ..Environment::real()
    };
    let server = server_in(environment).await;
    server.create("t", &[]).await;
    loaded(&server).await;
    let mut client = server.connect().await;
    let mut other = server.connect().await;
    let first = stable_group(&mut client, "g").await;
    // The second comes, and is in the next generation as soon as the first has joined again.
    let id = other.ask(9, &join("g", "")).await.member_id;
    let again = join("g", &first.member_id);
    let second = join("g", &id);
    let (first, second) = tokio::join!(client.ask(9, &again), other.ask(9, &second));
    let between = commit("g", &[(0, 1)]);
    let between = OffsetCommitRequest {
        member_id: first.member_id.clone(),
        generation_id_or_member_epoch: first.generation_id,
        ..between
    };
    let refused = committed(&mut client, 8, &between).await;
    assert_eq!(refused, ["REBALANCE_IN_PROGRESS"], "nobody has its share");
    let all = [(first.member_id.as_str(), "all")];
    client.ask(5, &sync("g", 5, &first, &all)).await;
    let consumed = other.ask(1, &consumer("new", "m", 0)).await;

    // Only the first is heard of: twice within its session, the other two never.
    for _ in 0..3 {
        clock.by_ms.fetch_add(20_000, Ordering::SeqCst);
        // Whatever wakes the coordinator: it looks at its clock.
        server.broker.groups().list().await;
        let beat = client.ask(4, &heartbeat("g", &first)).await;
        assert!(["NONE", "REBALANCE_IN_PROGRESS"].contains(&error(beat.error_code)));
    }
    let told = client.ask(4, &heartbeat("g", &first)).await;
    assert_eq!(error(told.error_code), "REBALANCE_IN_PROGRESS");
    let late = other.ask(5, &sync("g", 5, &second, &[])).await;
    assert_eq!(error(late.error_code), "UNKNOWN_MEMBER_ID");
    let late = other.ask(4, &heartbeat("g", &second)).await;
    assert_eq!(error(late.error_code), "UNKNOWN_MEMBER_ID");
    let late = OffsetCommitRequest {
        member_id: second.member_id.clone(),
        generation_id_or_member_epoch: second.generation_id,
        ..commit("g", &[(0, 1)])
    };
    let late = committed(&mut other, 8, &late).await;
    assert_eq!(late, ["UNKNOWN_MEMBER_ID"]);
    let late = other
        .ask(1, &consumer("new", "m", consumed.member_epoch))
        .await;
    assert_eq!(error(late.error_code), "UNKNOWN_MEMBER_ID");
    // The first goes on alone.
    let alone = client.ask(9, &again).await;
    assert_eq!((error(alone.error_code), alone.members.len()), ("NONE", 1));
}

#[tokio::test]
async fn an_administrator_takes_static_members_out_of_a_group_of_the_newer_kind() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    for (member, instance) in [("a", Some("i")), ("b", None), ("c", None)] {
        let request = ConsumerGroupHeartbeatRequest {
            instance_id: instance.map(str::to_owned),
            ..consumer("g", member, 0)
        };
        let joined = client.ask(1, &request).await;
        assert_eq!(error(joined.error_code), "NONE");
    }
    let some = [("", Some("i")), ("b", None), ("", Some("j")), ("a", None)];
    let left = client.ask(5, &leave("g", &some)).await;
    let told: Vec<_> = left
        .members
        .iter()
        .map(|one| {
            let instance = one.group_instance_id.as_deref();
            (one.member_id.as_str(), instance, error(one.error_code))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("", Some("i"), "NONE"),
            ("b", None, "NONE"),
            ("", Some("j"), "UNKNOWN_MEMBER_ID"),
            ("a", None, "UNKNOWN_MEMBER_ID"),
        ]
    );
    let rest = client.ask(1, &consumer("g", "c", 3)).await;
    let assignment = rest.assignment.unwrap();
    assert_eq!(assignment.topic_partitions[0].partitions, [0]);
}
