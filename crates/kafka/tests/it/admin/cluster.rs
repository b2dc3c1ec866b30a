//! DescribeCluster, DescribeQuorum, ElectLeaders and the reassignments.

use std::os::unix::fs::FileExt;

use sapwood_kafka_wire::{
    Uuid,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsRequestPartition,
        AlterPartitionReassignmentsRequestTopic, DescribeClusterRequest, DescribeQuorumRequest,
        DescribeQuorumRequestPartition, DescribeQuorumRequestTopic, DescribeTopicPartitionsRequest,
        ElectLeadersRequest, ElectLeadersRequestTopic, ListPartitionReassignmentsRequest,
        ListPartitionReassignmentsRequestTopic,
    },
};
use sapwood_model::{PartitionId, Timestamp};
use sapwood_record::Codec;

use super::{error, refusal};
use crate::support::{Server, Start, batch_of};

#[tokio::test]
async fn the_cluster_is_one_broker_at_the_advertised_address() {
    let server = Server::start_with(Start {
        advertised: Some("kafka.example:1234"),
        ..Start::default()
    })
    .await;
    let mut client = server.connect().await;
    for version in 0..=2 {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: version == 2,
            endpoint_type: 1,
            ..DescribeClusterRequest::default()
        };
        let cluster = client.ask(version, &request).await;
        assert_eq!((cluster.error_code, cluster.controller_id), (0, 1));
        assert_eq!(cluster.cluster_id, server.kafka.cluster_id());
        let [broker] = &cluster.brokers[..] else {
            panic!("there is one broker");
        };
        assert_eq!(
            (broker.broker_id, broker.host.as_str(), broker.port),
            (1, "kafka.example", 1234)
        );
        assert_eq!(
            cluster.cluster_authorized_operations != i32::MIN,
            version == 2
        );
    }
    for (endpoint_type, code) in [
        (2, "MISMATCHED_ENDPOINT_TYPE"),
        (3, "UNSUPPORTED_ENDPOINT_TYPE"),
    ] {
        let request = DescribeClusterRequest {
            endpoint_type,
            ..DescribeClusterRequest::default()
        };
        let cluster = client.ask(2, &request).await;
        assert_eq!(error(cluster.error_code), code);
        assert!(cluster.error_message.is_some() && cluster.brokers.is_empty());
    }
}

#[tokio::test]
async fn the_quorum_is_the_one_broker_and_follows_the_catalog() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let topic = |name: &str, partitions: &[i32]| DescribeQuorumRequestTopic {
        topic_name: name.to_owned(),
        partitions: partitions
            .iter()
            .map(|partition_index| DescribeQuorumRequestPartition {
                partition_index: *partition_index,
            })
            .collect(),
    };
    let request = DescribeQuorumRequest {
        topics: vec![topic("t", &[0]), topic("__cluster_metadata", &[0, 1, 0])],
    };
    let mut end = -1;
    for version in 0..=2 {
        server.create(&format!("t{version}"), &[]).await;
        let quorum = client.ask(version, &request).await;
        assert_eq!(quorum.error_code, 0);
        assert_eq!(
            error(quorum.topics[0].partitions[0].error_code),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
        let partitions = &quorum.topics[1].partitions;
        let known = &partitions[0];
        assert_eq!((known.error_code, known.leader_id), (0, 1));
        let [voter] = &known.current_voters[..] else {
            panic!("there is one voter");
        };
        assert_eq!(
            (voter.replica_id, voter.log_end_offset),
            (1, known.high_watermark)
        );
        assert!(known.high_watermark > end, "a topic was created");
        end = known.high_watermark;
        assert!(partitions[1..].iter().all(|one| one.error_code == 3));
        if version >= 1 {
            assert!(voter.last_fetch_timestamp > 0);
        }
        if version >= 2 {
            assert_ne!(voter.replica_directory_id, Uuid::ZERO);
            let listener = &quorum.nodes[0].listeners[0];
            assert_eq!(listener.name, "TEST");
            assert_eq!(listener.port, server.address.port());
        }
    }
}

#[tokio::test]
async fn no_election_is_needed() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    for version in 0..=2 {
        let request = ElectLeadersRequest {
            election_type: 0,
            topic_partitions: Some(vec![ElectLeadersRequestTopic {
                topic: "t".to_owned(),
                partitions: vec![0, 1, -1],
            }]),
            timeout_ms: 1000,
        };
        let answer = client.ask(version, &request).await;
        let codes: Vec<_> = answer.replica_election_results[0]
            .partition_result
            .iter()
            .map(|one| (one.partition_id, error(one.error_code)))
            .collect();
        let unknown = "UNKNOWN_TOPIC_OR_PARTITION";
        assert_eq!(
            codes,
            [(0, "ELECTION_NOT_NEEDED"), (1, unknown), (-1, unknown)]
        );
        let all = ElectLeadersRequest {
            topic_partitions: None,
            ..request
        };
        let answer = client.ask(version, &all).await;
        assert_eq!(
            (answer.error_code, answer.replica_election_results.len()),
            (0, 0)
        );
    }
    let odd = ElectLeadersRequest {
        election_type: 9,
        ..ElectLeadersRequest::default()
    };
    assert_eq!(
        error(client.ask(2, &odd).await.error_code),
        "INVALID_REQUEST"
    );
}

#[tokio::test]
async fn partitions_can_be_nowhere_else() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let partition =
        |partition_index, replicas: Option<&[i32]>| AlterPartitionReassignmentsRequestPartition {
            partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        };
    for version in 0..=1 {
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![AlterPartitionReassignmentsRequestTopic {
                name: "t".to_owned(),
                partitions: vec![
                    partition(0, Some(&[1])),
                    partition(0, Some(&[2])),
                    partition(0, Some(&[])),
                    partition(0, None),
                    partition(9, Some(&[1])),
                ],
            }],
            ..AlterPartitionReassignmentsRequest::default()
        };
        let answer = client.ask(version, &request).await;
        assert_eq!(answer.error_code, 0);
        let results = answer.responses[0].partitions.iter();
        let codes: Vec<_> = results
            .map(|one| refusal(one.error_code, &one.error_message).0)
            .collect();
        assert_eq!(
            codes,
            [
                "NONE",
                "INVALID_REPLICA_ASSIGNMENT",
                "INVALID_REPLICA_ASSIGNMENT",
                "NO_REASSIGNMENT_IN_PROGRESS",
                "UNKNOWN_TOPIC_OR_PARTITION",
            ]
        );
    }
    for topics in [
        None,
        Some(vec![ListPartitionReassignmentsRequestTopic {
            name: "t".to_owned(),
            partition_indexes: vec![0],
        }]),
    ] {
        let request = ListPartitionReassignmentsRequest {
            topics,
            timeout_ms: 1000,
        };
        let answer = client.ask(0, &request).await;
        assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
    }
}

#[tokio::test]
async fn a_partition_that_is_offline_has_nobody_else_to_lead_it() {
    let server = Server::start().await;
    server.create_with("t", 2, &[]).await;
    let mut client = server.connect().await;
    let records = batch_of(Codec::None, None, Timestamp(1000), &["x"]);
    assert_eq!(client.produce("t", records).await.error_code, 0);
    let folder = server.broker.options().data_dir.join("topics/t-0");
    let segment = folder.join("00000000000000000000.log");
    // Damage that a look-up by time meets: it reads the records and checks them.
    let file = std::fs::OpenOptions::new().write(true).open(&segment);
    file.unwrap().write_all_at(&[0xee], 66).unwrap();
    let found = server
        .broker
        .find_timestamp("t", PartitionId(0), Timestamp(1));
    assert!(found.await.is_err());

    for (election_type, code) in [
        (0, "PREFERRED_LEADER_NOT_AVAILABLE"),
        (1, "ELIGIBLE_LEADERS_NOT_AVAILABLE"),
    ] {
        let request = ElectLeadersRequest {
            election_type,
            topic_partitions: Some(vec![ElectLeadersRequestTopic {
                topic: "t".to_owned(),
                partitions: vec![0, 1],
            }]),
            timeout_ms: 1000,
        };
        let answer = client.ask(2, &request).await;
        let results = answer.replica_election_results[0].partition_result.iter();
        let codes: Vec<_> = results.map(|one| error(one.error_code)).collect();
        assert_eq!(codes, [code, "ELECTION_NOT_NEEDED"]);
    }
    let pages = client
        .ask(0, &DescribeTopicPartitionsRequest::default())
        .await;
    let [offline, online] = &pages.topics[0].partitions[..] else {
        panic!("two partitions");
    };
    assert_eq!(
        (
            error(offline.error_code),
            offline.leader_id,
            &offline.offline_replicas[..]
        ),
        ("LEADER_NOT_AVAILABLE", -1, &[1][..])
    );
    assert!(offline.isr_nodes.is_empty());
    assert_eq!((online.error_code, online.leader_id), (0, 1));
}
