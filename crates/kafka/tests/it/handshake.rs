//! ApiVersions and Metadata: what clients learn first.

use std::os::unix::fs::FileExt;

use sapwood_broker::BrokerOptions;
use sapwood_kafka_wire::{
    Uuid, decode_response,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataRequestTopic,
        MetadataResponse,
    },
};
use sapwood_model::{PartitionId, Timestamp};
use sapwood_record::Codec;

use crate::support::{Client, Server, Start, batch, batch_of, client::frame};

fn software(name: &str, version: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: name.to_owned(),
        client_software_version: version.to_owned(),
    }
}

fn topics(names: &[&str], auto_create: bool) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic {
        name: Some((*name).to_owned()),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: auto_create,
        ..MetadataRequest::default()
    }
}

#[tokio::test]
async fn api_versions_says_what_is_served_in_each_of_its_versions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for version in 0..=4 {
        let response = client.ask(version, &software("librdkafka", "2.16.0")).await;
        assert_eq!(response.error_code, 0);
        let row = |key| {
            let found = response.api_keys.iter().find(|api| api.api_key == key);
            found.map(|api| (api.min_version, api.max_version))
        };
        assert_eq!(row(0), Some((0, 13)), "Produce");
        assert_eq!(row(1), Some((4, 18)), "Fetch");
        assert_eq!(row(2), Some((1, 10)), "ListOffsets");
        assert_eq!(row(3), Some((0, 13)), "Metadata");
        assert_eq!(row(18), Some((0, 4)), "ApiVersions");
        assert_eq!(row(22), Some((0, 5)), "InitProducerId");
        assert_eq!(row(23), Some((2, 4)), "OffsetForLeaderEpoch");
        assert_eq!(row(8), Some((2, 9)), "OffsetCommit");
        assert_eq!(row(10), Some((0, 6)), "FindCoordinator");
        assert_eq!(row(11), Some((0, 9)), "JoinGroup");
        assert_eq!(row(68), Some((0, 1)), "ConsumerGroupHeartbeat");
        assert_eq!(row(24), None, "there are no transactions yet");
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0_with_the_range() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for version in [5, 99, i16::MAX, -1] {
        let mut bytes = frame(7, 4, &software("new", "9"));
        bytes[6..8].copy_from_slice(&version.to_be_bytes());
        client.send_raw(&bytes).await;
        let answer = client.receive_frame().await.unwrap();
        let (id, response): (i32, ApiVersionsResponse) = decode_response(answer, 0).unwrap();
        assert_eq!((id, response.error_code), (7, 35));
        let keys: Vec<_> = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        assert_eq!(keys, [(18, 0, 4)]);
    }
    // Its body is not looked at.
    client
        .send_raw(&[0, 0, 0, 10, 0, 18, 0, 50, 0, 0, 0, 9, 0xff, 0xff])
        .await;
    let answer = client.receive_frame().await.unwrap();
    let (id, _): (i32, ApiVersionsResponse) = decode_response(answer, 0).unwrap();
    assert_eq!(id, 9);
    assert_eq!(client.ask(4, &software("a", "1")).await.error_code, 0);
}

#[tokio::test]
async fn software_names_that_kafka_does_not_allow_are_refused_from_version_3_on() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for (name, version) in [("", "1"), ("a b", "1"), ("a", ""), ("a", "-1")] {
        let response = client.ask(3, &software(name, version)).await;
        assert_eq!(response.error_code, 42, "{name:?} {version:?}");
        assert!(response.api_keys.is_empty());
    }
    assert_eq!(client.ask(2, &software("", "")).await.error_code, 0);
}

#[tokio::test]
async fn metadata_tells_the_address_that_was_connected_to_unless_there_is_another() {
    let server = Server::start().await;
    let advertised = Start {
        advertised: Some("kafka.example:19092"),
        ..Start::default()
    };
    let elsewhere = Server::start_with(advertised).await;
    let (host, port) = ("127.0.0.1".to_owned(), i32::from(server.address.port()));
    let told = [
        (&server, host, port),
        (&elsewhere, "kafka.example".to_owned(), 19092),
    ];
    for (server, host, port) in told {
        let mut client = server.connect().await;
        for version in 0..=13 {
            let response = client.ask(version, &topics(&[], false)).await;
            let brokers: Vec<_> = response
                .brokers
                .iter()
                .map(|broker| (broker.node_id, broker.host.clone(), broker.port))
                .collect();
            assert_eq!(brokers, [(1, host.clone(), port)], "version {version}");
            if version >= 1 {
                assert_eq!(response.controller_id, 1);
            }
            if version >= 2 {
                let cluster_id = response.cluster_id.unwrap();
                assert_eq!(cluster_id, server.kafka.cluster_id());
                assert_eq!(cluster_id.len(), 22);
            }
        }
    }
}

#[tokio::test]
async fn no_topics_are_all_topics_in_version_0_and_none_later() {
    let server = Server::start().await;
    server.create_with("one", 3, &[]).await;
    server.create("two", &[]).await;
    let mut client = server.connect().await;
    let names = |response: MetadataResponse| {
        let topics = response.topics.into_iter();
        topics.map(|topic| topic.name.unwrap()).collect::<Vec<_>>()
    };
    let none = topics(&[], false);
    assert_eq!(names(client.ask(0, &none).await), ["one", "two"]);
    assert!(names(client.ask(1, &none).await).is_empty());
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    for version in 1..=13 {
        let response = client.ask(version, &all).await;
        let one = &response.topics[0];
        let partitions: Vec<_> = one.partitions.iter().map(|p| p.partition_index).collect();
        assert_eq!(partitions, [0, 1, 2]);
        let first = &one.partitions[0];
        assert_eq!((first.error_code, first.leader_id), (0, 1));
        assert_eq!(
            (&first.replica_nodes, &first.isr_nodes),
            (&vec![1], &vec![1])
        );
        assert_eq!(first.leader_epoch, if version >= 7 { 0 } else { -1 });
        assert_eq!(names(response), ["one", "two"], "version {version}");
    }
}

#[tokio::test]
async fn a_client_whose_id_is_not_utf_8_is_served() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    for (correlation_id, version) in (1..).zip(0..=13) {
        let mut frame = frame(correlation_id, version, &topics(&["t"], false));
        let at = frame.windows(6).position(|bytes| bytes == b"a test");
        frame[at.unwrap() + 1] = 0xff;
        client.send_raw(&frame).await;
        let (answered, response) = client.receive::<MetadataResponse>(version).await;
        assert_eq!(answered, correlation_id);
        assert_eq!(response.topics[0].error_code, 0, "version {version}");
    }
}

#[tokio::test]
async fn topics_are_found_by_id_and_an_unknown_id_says_so() {
    let server = Server::start().await;
    let id = Uuid(server.create("one", &[]).await.id.0);
    let mut client = server.connect().await;
    // Some clients leave the name empty, others leave it out.
    for name in [None, Some(String::new())] {
        let by_id = |topic_id| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                topic_id,
                name: name.clone(),
            }]),
            ..MetadataRequest::default()
        };
        for version in 12..=13 {
            let found = client.ask(version, &by_id(id)).await.topics.remove(0);
            assert_eq!((found.error_code, found.topic_id), (0, id));
            assert_eq!(found.name.as_deref(), Some("one"));
            let unknown = client.ask(version, &by_id(Uuid(7))).await.topics.remove(0);
            assert_eq!((unknown.error_code, unknown.topic_id), (100, Uuid(7)));
            assert_eq!(unknown.name, None);
        }
    }
}

#[tokio::test]
async fn a_topic_is_created_only_when_request_and_broker_both_allow_it_and_takes_records_at_once() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let refused = client.ask(9, &topics(&["a"], false)).await.topics.remove(0);
    assert_eq!((refused.error_code, refused.partitions.len()), (3, 0));
    // Versions below 4 cannot say that they create nothing.
    for (version, name) in [(0, "old"), (3, "elder"), (4, "new"), (13, "newest")] {
        let made = client
            .ask(version, &topics(&[name], true))
            .await
            .topics
            .remove(0);
        assert_eq!((made.error_code, made.partitions.len()), (0, 1), "{name}");
        assert_eq!(
            client.produce(name, batch(&["x"])).await.error_code,
            0,
            "{name}"
        );
    }
    let wrong = client.ask(9, &topics(&["a/b", ""], true)).await.topics;
    assert_eq!([wrong[0].error_code, wrong[1].error_code], [17, 17]);

    let closed = Start {
        broker: Box::new(|options| BrokerOptions {
            auto_create: false,
            ..options
        }),
        ..Start::default()
    };
    let server = Server::start_with(closed).await;
    let mut client = server.connect().await;
    let refused = client.ask(9, &topics(&["a"], true)).await.topics.remove(0);
    assert_eq!(refused.error_code, 3);
    assert!(server.broker.topics().is_empty());
}

#[tokio::test]
async fn a_request_creates_100_topics_and_the_others_when_it_is_asked_again() {
    let server = Server::start().await;
    server.create("n005", &[]).await;
    let mut client = server.connect().await;
    let names: Vec<_> = (0..250).map(|n| format!("n{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for there in [101, 201, 250, 250] {
        let response = client.ask(9, &topics(&names, true)).await;
        let codes: Vec<_> = response.topics.iter().map(|one| one.error_code).collect();
        assert!(codes[..there].iter().all(|code| *code == 0), "{codes:?}");
        // The error that clients ask again after.
        assert!(codes[there..].iter().all(|code| *code == 5), "{codes:?}");
        assert_eq!(server.broker.topics().len(), there);
    }
}

#[tokio::test]
async fn what_clients_may_do_is_told_when_they_ask() {
    let server = Server::start().await;
    server.create("one", &[]).await;
    let mut client = server.connect().await;
    let asking = MetadataRequest {
        topics: None,
        include_cluster_authorized_operations: true,
        include_topic_authorized_operations: true,
        ..MetadataRequest::default()
    };
    let silent = client.ask(10, &topics(&["one"], false)).await;
    assert_eq!(silent.cluster_authorized_operations, i32::MIN);
    assert_eq!(silent.topics[0].topic_authorized_operations, i32::MIN);
    let told = client.ask(10, &asking).await;
    assert_eq!(told.cluster_authorized_operations, 0b1_1111_1010_0000);
    assert_eq!(told.topics[0].topic_authorized_operations, 0b1101_1111_1000);
}

#[tokio::test]
async fn a_partition_that_is_offline_has_no_leader() {
    let server = Server::start().await;
    server.create("one", &[]).await;
    let mut client: Client = server.connect().await;
    let records = batch_of(Codec::None, None, Timestamp(1000), &["x"]);
    client.produce("one", records).await;
    let path = server.broker.options().data_dir.join("topics/one-0");
    let segment = path.join("00000000000000000000.log");
    assert!(segment.exists(), "{path:?}");
    // Damage that a look-up by time meets: it reads the records and checks them.
    let file = std::fs::OpenOptions::new().write(true).open(&segment);
    file.unwrap().write_all_at(&[0xee], 66).unwrap();
    let found = server
        .broker
        .find_timestamp("one", PartitionId(0), Timestamp(1));
    assert!(found.await.is_err());
    let response = client.ask(9, &topics(&["one"], false)).await;
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (5, -1));
    assert_eq!(partition.offline_replicas, [1]);
    assert_eq!(client.produce("one", batch(&["y"])).await.error_code, 56);
}
