//! OffsetCommit, OffsetFetch, OffsetDelete.

use std::{sync::Arc, time::Duration};

use sapwood_kafka_wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic, OffsetFetchRequest, OffsetFetchRequestGroup,
    OffsetFetchRequestGroupTopic, OffsetFetchRequestTopic, OffsetFetchResponse, ProduceResponse,
};
use sapwood_model::{Offset, PartitionId};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    commit, committed, error, loaded, server, server_in, server_without_groups, stable_group,
};
use crate::support::{
    Client, batch,
    client::{frame, produce},
    machine::Gate,
    until,
};

/// Asks for partitions of `t`, or for all that there are.
fn fetch(group: &str, partitions: Option<&[i32]>) -> OffsetFetchRequest {
    let topics = partitions.map(|partitions| {
        vec![OffsetFetchRequestTopic {
            name: "t".to_owned(),
            partition_indexes: partitions.to_vec(),
        }]
    });
    let of_group = |topic: &OffsetFetchRequestTopic| OffsetFetchRequestGroupTopic {
        name: topic.name.clone(),
        partition_indexes: topic.partition_indexes.clone(),
    };
    OffsetFetchRequest {
        group_id: group.to_owned(),
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: topics
                .as_ref()
                .map(|topics| topics.iter().map(of_group).collect()),
            ..OffsetFetchRequestGroup::default()
        }],
        topics,
        ..OffsetFetchRequest::default()
    }
}

/// Number, offset, leader epoch, metadata.
type Told = (i32, i64, i32, String);

/// What is told about the partitions of the first topic of the first group, none of which is refused.
fn told(response: OffsetFetchResponse) -> Vec<Told> {
    assert_eq!(response.error_code, 0);
    let mut response = response;
    if response.groups.is_empty() {
        let partitions = response.topics.remove(0).partitions.into_iter();
        let partitions = partitions.map(|one| {
            assert_eq!(one.error_code, 0);
            let (offset, epoch) = (one.committed_offset, one.committed_leader_epoch);
            (one.partition_index, offset, epoch, one.metadata.unwrap())
        });
        return partitions.collect();
    }
    let mut group = response.groups.remove(0);
    assert_eq!(group.error_code, 0);
    let partitions = group.topics.remove(0).partitions.into_iter();
    let partitions = partitions.map(|one| {
        assert_eq!(one.error_code, 0);
        let (offset, epoch) = (one.committed_offset, one.committed_leader_epoch);
        (one.partition_index, offset, epoch, one.metadata.unwrap())
    });
    partitions.collect()
}

async fn fetched(client: &mut Client, version: i16, request: &OffsetFetchRequest) -> Vec<Told> {
    told(client.ask(version, request).await)
}

#[tokio::test]
async fn what_is_committed_in_any_version_is_fetched_in_any() {
    let server = server().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    for version in 2..=9_i16 {
        let offset = 100 + i64::from(version);
        let request = commit("g", &[(0, offset), (2, offset + 1)]);
        assert_eq!(
            committed(&mut client, version, &request).await,
            ["NONE", "NONE"]
        );
        let epoch_committed = if version >= 6 { 3 } else { -1 };
        for version in 1..=9 {
            let epoch = if version >= 5 { epoch_committed } else { -1 };
            let is = |index, offset| (index, offset, epoch, format!("at {offset}"));
            let some = fetch("g", Some(&[2, 1, 0]));
            let nothing = (1, -1, -1, String::new());
            assert_eq!(
                fetched(&mut client, version, &some).await,
                [is(2, offset + 1), nothing, is(0, offset)],
                "version {version}"
            );
            if version >= 2 {
                let all = fetched(&mut client, version, &fetch("g", None)).await;
                assert_eq!(all, [is(0, offset), is(2, offset + 1)]);
            }
        }
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_has_read_nothing_and_that_is_no_error() {
    let server = server_without_groups().await;
    let mut client = server.connect().await;
    for version in 1..=9 {
        let nothing = |index| (index, -1, -1, String::new());
        let request = fetch("nowhere", Some(&[0, -1, 7]));
        assert_eq!(
            fetched(&mut client, version, &request).await,
            [nothing(0), nothing(-1), nothing(7)]
        );
        if version >= 2 {
            let all = client.ask(version, &fetch("nowhere", None)).await;
            assert!(all.topics.is_empty());
            assert_eq!(
                all.groups
                    .iter()
                    .map(|group| group.topics.len())
                    .sum::<usize>(),
                0
            );
        }
    }
}

#[tokio::test]
async fn several_groups_are_told_at_once_and_each_once() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    committed(&mut client, 9, &commit("a", &[(0, 1)])).await;
    committed(&mut client, 9, &commit("b", &[(0, 2)])).await;
    let mut request = fetch("a", None);
    request.groups.extend(fetch("b", Some(&[0])).groups);
    request.groups.extend(fetch("a", None).groups);
    for version in 8..=9 {
        let groups = client.ask(version, &request).await.groups;
        let told: Vec<_> = groups
            .iter()
            .map(|group| {
                let offsets = group.topics.iter().flat_map(|topic| &topic.partitions);
                let offsets: Vec<_> = offsets.map(|one| one.committed_offset).collect();
                (group.group_id.as_str(), error(group.error_code), offsets)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", "NONE", vec![1]),
                ("b", "NONE", vec![2]),
                ("a", "INVALID_REQUEST", vec![]),
            ]
        );
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_committed_does_not_hold_up_the_others() {
    let server = server().await;
    server.create_with("t", 2, &[]).await;
    let mut client = server.connect().await;
    let mut request = commit("g", &[(-1, 1), (2, 1), (0, -1), (0, 5), (1, 6)]);
    request.topics[0].partitions[4].committed_metadata = Some("m".repeat(4097));
    assert_eq!(
        committed(&mut client, 9, &request).await,
        [
            "UNKNOWN_TOPIC_OR_PARTITION",
            "UNKNOWN_TOPIC_OR_PARTITION",
            "INVALID_REQUEST",
            "NONE",
            "OFFSET_METADATA_TOO_LARGE",
        ]
    );
    request.topics[0].partitions[2].committed_offset = 0;
    for name in ["nowhere", "no/topic", ""] {
        request.topics[0].name = name.to_owned();
        let refused = committed(&mut client, 9, &request).await;
        assert_eq!(refused, ["UNKNOWN_TOPIC_OR_PARTITION"; 5]);
    }
    // No metadata is none.
    let mut request = commit("g", &[(1, 9)]);
    request.topics[0].partitions[0].committed_metadata = None;
    assert_eq!(committed(&mut client, 9, &request).await, ["NONE"]);
    let all = fetched(&mut client, 9, &fetch("g", None)).await;
    let is = |index, offset, metadata: &str| (index, offset, 3, metadata.to_owned());
    assert_eq!(all, [is(0, 5, "at 5"), is(1, 9, "")]);
}

#[tokio::test]
async fn only_members_of_this_generation_commit_while_there_are_members() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let joined = stable_group(&mut client, "g").await;
    let by = |group: &str, member: &str, generation: i32| OffsetCommitRequest {
        member_id: member.to_owned(),
        generation_id_or_member_epoch: generation,
        ..commit(group, &[(0, 4)])
    };
    let member = joined.member_id.as_str();
    let expected = [
        (by("g", member, 1), "NONE"),
        (by("g", member, 2), "ILLEGAL_GENERATION"),
        (by("g", member, -1), "ILLEGAL_GENERATION"),
        (by("g", "nobody", 1), "UNKNOWN_MEMBER_ID"),
        (by("g", "", -1), "UNKNOWN_MEMBER_ID"),
    ];
    for version in 2..=9 {
        for (request, name) in &expected {
            let outcome = committed(&mut client, version, request).await;
            assert_eq!(outcome, [*name], "version {version}");
        }
        let nowhere = committed(&mut client, version, &by("nowhere", "nobody", 1)).await;
        let name = match version {
            9 => "GROUP_ID_NOT_FOUND",
            _ => "ILLEGAL_GENERATION",
        };
        assert_eq!(nowhere, [name], "version {version}");
    }
}

#[tokio::test]
async fn commits_that_are_sent_at_once_are_carried_out_in_their_order() {
    let server = server().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let mut sent = Vec::new();
    for round in 0..50_i32 {
        sent.extend(frame(2 * round, 9, &commit("g", &[(0, round.into())])));
        sent.extend(frame(2 * round + 1, 9, &fetch("g", Some(&[0]))));
    }
    client.stream.write_all(&sent).await.unwrap();
    for round in 0..50_i32 {
        let (id, _) = client.receive::<OffsetCommitResponse>(9).await;
        assert_eq!(id, 2 * round);
        let (_, response) = client.receive::<OffsetFetchResponse>(9).await;
        assert_eq!(told(response)[0].1, i64::from(round));
    }
}

#[tokio::test]
async fn a_commit_is_answered_when_it_is_durable_and_holds_up_no_request_behind_it() {
    let gate = Arc::new(Gate::default());
    let server = server_in(gate.machine()).await;
    server.create("t", &[]).await;
    loaded(&server).await;
    let mut client = server.connect().await;
    gate.shut();
    client.send(9, &commit("g", &[(0, 7)])).await;
    client.send(9, &produce("t", batch(&["x"]))).await;
    let end = || server.broker.bounds("t", PartitionId(0)).unwrap().log_end;
    until(|| end() == Offset(1)).await;
    // Nor is it shown before.
    let mut other = server.connect().await;
    other.send(9, &fetch("g", Some(&[0]))).await;
    let mut byte = [0];
    let wait = Duration::from_millis(50);
    assert!(timeout(wait, client.stream.peek(&mut byte)).await.is_err());
    assert!(timeout(wait, other.stream.peek(&mut byte)).await.is_err());
    gate.open();
    let (_, committed) = client.receive::<OffsetCommitResponse>(9).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let (_, produced) = client.receive::<ProduceResponse>(9).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    let (_, fetched) = other.receive::<OffsetFetchResponse>(9).await;
    assert_eq!(told(fetched)[0].1, 7);
}

#[tokio::test]
async fn offsets_of_topics_that_nobody_reads_are_forgotten() {
    let server = server().await;
    server.create_with("t", 2, &[]).await;
    server.create("u", &[]).await;
    let mut client = server.connect().await;
    let mut request = commit("g", &[(0, 1), (1, 2)]);
    request.topics.push(request.topics[0].clone());
    request.topics[1].name = "u".to_owned();
    request.topics[1].partitions.truncate(1);
    committed(&mut client, 9, &request).await;
    let joined = stable_group(&mut client, "g").await;
    assert_eq!(joined.generation_id, 1);
    let delete = |group: &str, topics: &[(&str, &[i32])]| {
        let partition = |index: &i32| OffsetDeleteRequestPartition {
            partition_index: *index,
        };
        let topic = |(name, partitions): &(&str, &[i32])| OffsetDeleteRequestTopic {
            name: (*name).to_owned(),
            partitions: partitions.iter().map(partition).collect(),
        };
        OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics: topics.iter().map(topic).collect(),
        }
    };
    let request = delete("g", &[("t", &[0]), ("nowhere", &[0]), ("u", &[-1, 0, 9])]);
    let response = client.ask(0, &request).await;
    assert_eq!(error(response.error_code), "NONE");
    let outcomes: Vec<_> = response
        .topics
        .iter()
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|one| (&*topic.name, one.partition_index, error(one.error_code)))
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("t", 0, "GROUP_SUBSCRIBED_TO_TOPIC"),
            ("nowhere", 0, "UNKNOWN_TOPIC_OR_PARTITION"),
            ("u", -1, "UNKNOWN_TOPIC_OR_PARTITION"),
            ("u", 0, "NONE"),
            ("u", 9, "NONE"),
        ]
    );
    let left = client.ask(9, &fetch("g", None)).await.groups.remove(0);
    assert_eq!((left.topics.len(), &*left.topics[0].name), (1, "t"));
    for (group, name) in [("nowhere", "GROUP_ID_NOT_FOUND"), ("", "INVALID_GROUP_ID")] {
        let refused = client.ask(0, &delete(group, &[("u", &[0])])).await;
        assert_eq!(error(refused.error_code), name);
        assert!(refused.topics.is_empty());
    }
}
