//! Groups: coordinators, members of either kind, offsets, and what administrators ask.

mod absurd;
mod classic;
mod consumer;
mod coordinator;
mod describing;
mod offsets;
mod refusals;

use sapwood_broker::{BrokerOptions, Environment, group::Settings};
use sapwood_kafka::ErrorCode;
use sapwood_kafka_wire::messages::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, OffsetCommitRequest,
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, SyncGroupRequest,
    SyncGroupRequestAssignment, SyncGroupResponse,
};

use crate::support::{Client, Server, Start, until};

/// The name of an error on the wire.
fn error(number: i16) -> &'static str {
    ErrorCode::from_number(number).expect("a known code").name()
}

/// A broker whose groups begin without a delay, and that has none of them yet.
async fn server_without_groups() -> Server {
    server_in(Environment::real()).await
}

async fn server_in(environment: Environment) -> Server {
    let start = Start {
        broker: Box::new(|options| BrokerOptions {
            groups: Settings {
                initial_rebalance_delay_ms: 0,
                ..Settings::default()
            },
            ..options
        }),
        environment,
        ..Start::default()
    };
    Server::start_with(start).await
}

/// The same, once its coordinator is there. Until then it sends everybody away for a moment.
async fn server() -> Server {
    let server = server_without_groups().await;
    loaded(&server).await;
    server
}

async fn loaded(server: &Server) {
    let groups = server.broker.groups();
    groups.prepare().await.unwrap();
    until(|| groups.load_progress().loaded == 16).await;
}

/// What a consumer of topics says of itself (version 0).
fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes
}

/// A consumer of topic `t` that joins with an id, which may be empty.
fn join(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: subscription(&["t"]).into(),
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins anew, as a client of this version does.
async fn enter(client: &mut Client, version: i16, group: &str) -> JoinGroupResponse {
    let first = client.ask(version, &join(group, "")).await;
    if version < 4 {
        return first;
    }
    assert_eq!(error(first.error_code), "MEMBER_ID_REQUIRED");
    client.ask(version, &join(group, &first.member_id)).await
}

/// A sync of the member that a join was answered to, which as the leader gives these assignments.
fn sync(
    group: &str,
    version: i16,
    joined: &JoinGroupResponse,
    assignments: &[(&str, &str)],
) -> SyncGroupRequest {
    let names_protocol = version >= 5;
    let assignment = |(member, text): &(&str, &str)| SyncGroupRequestAssignment {
        member_id: (*member).to_owned(),
        assignment: text.as_bytes().to_vec().into(),
    };
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: names_protocol.then(|| "consumer".to_owned()),
        protocol_name: names_protocol.then(|| "range".to_owned()),
        assignments: assignments.iter().map(assignment).collect(),
        ..SyncGroupRequest::default()
    }
}

/// A group of one member, stable. Gives what its join was answered.
async fn stable_group(client: &mut Client, group: &str) -> JoinGroupResponse {
    let joined = enter(client, 9, group).await;
    assert_eq!(error(joined.error_code), "NONE");
    let all = [(joined.member_id.as_str(), "everything")];
    let synced: SyncGroupResponse = client.ask(5, &sync(group, 5, &joined, &all)).await;
    assert_eq!(error(synced.error_code), "NONE");
    joined
}

/// A commit by nobody in particular of partitions of `t`, each with its offset.
fn commit(group: &str, offsets: &[(i32, i64)]) -> OffsetCommitRequest {
    let partition = |(partition_index, committed_offset): &(i32, i64)| {
        let metadata = format!("at {committed_offset}");
        OffsetCommitRequestPartition {
            partition_index: *partition_index,
            committed_offset: *committed_offset,
            committed_leader_epoch: 3,
            committed_metadata: Some(metadata),
        }
    };
    OffsetCommitRequest {
        group_id: group.to_owned(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: offsets.iter().map(partition).collect(),
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Commits, and gives the error of each partition of the first topic.
async fn committed(
    client: &mut Client,
    version: i16,
    request: &OffsetCommitRequest,
) -> Vec<&'static str> {
    let mut response = client.ask(version, request).await;
    let partitions = response.topics.remove(0).partitions.into_iter();
    partitions
        .map(|partition| error(partition.error_code))
        .collect()
}
