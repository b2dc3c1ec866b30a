//! CreateTopics and CreatePartitions.

use sapwood_broker::{BrokerOptions, ReplicationPolicy};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        CreatePartitionsRequest, CreatePartitionsRequestAssignment, CreatePartitionsRequestTopic,
        CreateTopicsRequest, CreateTopicsRequestAssignment, CreateTopicsRequestConfig,
        CreateTopicsRequestTopic, CreateTopicsResponseTopic,
    },
};
use sapwood_model::TopicId;

use super::{error, refusal};
use crate::support::{Client, Server, Start};

fn topic(name: &str) -> CreateTopicsRequestTopic {
    CreateTopicsRequestTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreateTopicsRequestTopic::default()
    }
}

fn assigned(partition_index: i32, broker_ids: &[i32]) -> CreateTopicsRequestAssignment {
    CreateTopicsRequestAssignment {
        partition_index,
        broker_ids: broker_ids.to_vec(),
    }
}

fn config(name: &str, value: &str) -> CreateTopicsRequestConfig {
    CreateTopicsRequestConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    }
}

async fn create(
    client: &mut Client,
    version: i16,
    topics: Vec<CreateTopicsRequestTopic>,
    validate_only: bool,
) -> Vec<CreateTopicsResponseTopic> {
    let request = CreateTopicsRequest {
        topics,
        timeout_ms: 20_000,
        validate_only,
    };
    client.ask(version, &request).await.topics
}

#[tokio::test]
async fn topics_are_created_in_every_version() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for version in 2..=7 {
        let name = format!("t{version}");
        let asked = CreateTopicsRequestTopic {
            num_partitions: 3,
            replication_factor: 1,
            configs: vec![config("retention.ms", "1000")],
            ..topic(&name)
        };
        let answers = create(&mut client, version, vec![asked, topic("t/")], false).await;
        let [made, wrong] = &answers[..] else {
            panic!("an answer for each topic");
        };
        assert_eq!((made.name.as_str(), made.error_code), (name.as_str(), 0));
        assert_eq!(error(wrong.error_code), "INVALID_TOPIC_EXCEPTION");
        let info = server.broker.topic(&name).unwrap();
        assert_eq!(info.partitions, 3);
        if version >= 5 {
            assert_eq!((made.num_partitions, made.replication_factor), (3, 1));
            let configs = made.configs.as_ref().unwrap();
            let of = |key| configs.iter().find(|config| config.name == key).unwrap();
            let retention = of("retention.ms");
            assert_eq!(retention.value.as_deref(), Some("1000"));
            assert_eq!(retention.config_source, 1);
            assert_eq!(of("segment.bytes").config_source, 5);
            assert!(configs.iter().all(|config| config.config_source != -1));
        }
        if version >= 7 {
            assert_eq!(TopicId(made.topic_id.0), info.id);
        }
    }
}

#[tokio::test]
async fn defaults_stand_for_minus_one_and_validation_creates_nothing() {
    let server = Server::start_with(Start {
        broker: Box::new(|options| BrokerOptions {
            default_partitions: 4,
            ..options
        }),
        ..Start::default()
    })
    .await;
    let mut client = server.connect().await;
    let planned = create(&mut client, 7, vec![topic("t")], true).await;
    assert_eq!(
        (planned[0].error_code, planned[0].num_partitions),
        (0, 4),
        "{planned:?}"
    );
    assert_eq!(planned[0].topic_id, Uuid::ZERO);
    assert!(server.broker.topics().is_empty());
    assert_eq!(
        create(&mut client, 7, vec![topic("t")], false).await[0].error_code,
        0
    );
    assert_eq!(server.broker.topic("t").unwrap().partitions, 4);
    // What would be refused is refused.
    let again = create(&mut client, 7, vec![topic("t")], true).await;
    assert_eq!(error(again[0].error_code), "TOPIC_ALREADY_EXISTS");
}

#[tokio::test]
async fn replicas_can_be_assigned_to_the_one_broker() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let with = |assignments| CreateTopicsRequestTopic {
        assignments,
        ..topic("t")
    };
    let invalid = "INVALID_REPLICA_ASSIGNMENT";
    for (assignments, code, says) in [
        (vec![assigned(0, &[2])], invalid, "no broker 2"),
        (vec![assigned(0, &[])], invalid, "no broker"),
        (vec![assigned(0, &[1, 1])], invalid, "twice"),
        (vec![assigned(0, &[1]), assigned(0, &[1])], invalid, "twice"),
        (
            vec![assigned(0, &[1]), assigned(2, &[1])],
            invalid,
            "partition 1",
        ),
        (vec![assigned(-1, &[1])], invalid, "partition 0"),
    ] {
        let answer = &create(&mut client, 2, vec![with(assignments)], false).await[0];
        let (name, message) = refusal(answer.error_code, &answer.error_message);
        assert_eq!(name, code);
        assert!(message.contains(says), "{message}");
    }
    let both = CreateTopicsRequestTopic {
        num_partitions: 1,
        ..with(vec![assigned(0, &[1])])
    };
    let answer = &create(&mut client, 7, vec![both], false).await[0];
    assert_eq!(error(answer.error_code), "INVALID_REQUEST");
    assert!(server.broker.topics().is_empty());

    let good = with(vec![assigned(1, &[1]), assigned(0, &[1])]);
    assert_eq!(
        create(&mut client, 7, vec![good], false).await[0].error_code,
        0
    );
    assert_eq!(server.broker.topic("t").unwrap().partitions, 2);
}

#[tokio::test]
async fn every_refused_topic_has_its_code_and_the_others_are_created() {
    let server = Server::start().await;
    server.create("a.b", &[]).await;
    let mut client = server.connect().await;
    let partitions = |name: &str, num_partitions| CreateTopicsRequestTopic {
        num_partitions,
        ..topic(name)
    };
    let configured = |name: &str, key: &str, value: Option<&str>| CreateTopicsRequestTopic {
        configs: vec![CreateTopicsRequestConfig {
            name: key.to_owned(),
            value: value.map(str::to_owned),
        }],
        ..topic(name)
    };
    let cases = [
        (topic(""), "INVALID_TOPIC_EXCEPTION", "1 character"),
        (topic("no spaces"), "INVALID_TOPIC_EXCEPTION", "' '"),
        (topic("a_b"), "INVALID_TOPIC_EXCEPTION", "collides"),
        (topic("a.b"), "TOPIC_ALREADY_EXISTS", "1 partitions"),
        (
            topic("__consumer_offsets"),
            "INVALID_TOPIC_EXCEPTION",
            "reserved",
        ),
        (
            topic("__cluster_metadata"),
            "INVALID_TOPIC_EXCEPTION",
            "reserved",
        ),
        (partitions("zero", 0), "INVALID_PARTITIONS", "0 partitions"),
        (
            partitions("less", -2),
            "INVALID_PARTITIONS",
            "-2 partitions",
        ),
        (
            CreateTopicsRequestTopic {
                replication_factor: 3,
                ..topic("three")
            },
            "INVALID_REPLICATION_FACTOR",
            "as-one",
        ),
        (
            configured("key", "retention.mss", Some("1")),
            "INVALID_CONFIG",
            "did you mean",
        ),
        (
            configured("value", "segment.bytes", Some("x")),
            "INVALID_CONFIG",
            "1024",
        ),
        (
            configured("null", "segment.bytes", None),
            "INVALID_CONFIG",
            "null",
        ),
    ];
    let mut asked: Vec<_> = cases.iter().map(|(topic, ..)| topic.clone()).collect();
    asked.extend([topic("twice"), topic("good"), topic("twice")]);
    let answers = create(&mut client, 7, asked, false).await;
    assert_eq!(answers.len(), cases.len() + 2);
    for (answer, (asked, code, says)) in answers.iter().zip(&cases) {
        let (name, message) = refusal(answer.error_code, &answer.error_message);
        assert_eq!((&answer.name, name), (&asked.name, *code), "{message}");
        assert!(message.contains(says), "{message}");
    }
    let rest: Vec<_> = answers[cases.len()..]
        .iter()
        .map(|answer| (answer.name.as_str(), error(answer.error_code)))
        .collect();
    assert_eq!(rest, [("twice", "INVALID_REQUEST"), ("good", "NONE")]);
    let there: Vec<_> = server
        .broker
        .topics()
        .into_iter()
        .map(|topic| topic.name.to_string())
        .collect();
    assert_eq!(there, ["a.b", "good"]);
}

#[tokio::test]
async fn more_replicas_are_taken_as_one_where_the_broker_is_told_so() {
    let server = Server::start_with(Start {
        broker: Box::new(|options| BrokerOptions {
            replication: ReplicationPolicy::AsOne,
            ..options
        }),
        ..Start::default()
    })
    .await;
    let mut client = server.connect().await;
    let three = CreateTopicsRequestTopic {
        replication_factor: 3,
        configs: vec![config("min.insync.replicas", "2")],
        ..topic("t")
    };
    let made = &create(&mut client, 7, vec![three], false).await[0];
    assert_eq!((made.error_code, made.replication_factor), (0, 1));
    let configs = made.configs.as_ref().unwrap();
    let entry = configs
        .iter()
        .find(|entry| entry.name == "min.insync.replicas");
    assert_eq!(entry.unwrap().value.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_request_for_too_many_partitions_creates_none_of_them() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let partitions = |name: &str, num_partitions| CreateTopicsRequestTopic {
        num_partitions,
        ..topic(name)
    };
    let asked = vec![partitions("a", 9_000), partitions("b", 1_001)];
    let answers = create(&mut client, 7, asked, false).await;
    for answer in &answers {
        let (name, message) = refusal(answer.error_code, &answer.error_message);
        assert_eq!(name, "POLICY_VIOLATION");
        assert!(
            message.contains("10001") && message.contains("10000"),
            "{message}"
        );
    }
    // Many topics are many partitions too; the answer is not much longer than the question.
    let many: Vec<_> = (0..100_000).map(|n| topic(&n.to_string())).collect();
    let answers = create(&mut client, 7, many, true).await;
    assert_eq!(answers.len(), 100_000);
    assert!(answers[0].error_message.is_some() && answers[99_999].error_message.is_none());
    assert!(
        answers
            .iter()
            .all(|answer| error(answer.error_code) == "POLICY_VIOLATION")
    );
    assert!(server.broker.topics().is_empty());
}

async fn grow(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatePartitionsRequestTopic>,
    validate_only: bool,
) -> Vec<(String, &'static str, String)> {
    let request = CreatePartitionsRequest {
        topics,
        timeout_ms: 20_000,
        validate_only,
    };
    let results = client.ask(version, &request).await.results.into_iter();
    results
        .map(|result| {
            let (code, message) = refusal(result.error_code, &result.error_message);
            (result.name, code, message)
        })
        .collect()
}

fn count(name: &str, count: i32) -> CreatePartitionsRequestTopic {
    CreatePartitionsRequestTopic {
        name: name.to_owned(),
        count,
        assignments: None,
    }
}

#[tokio::test]
async fn partitions_are_added_and_each_topic_has_its_result() {
    let server = Server::start().await;
    server.create("a", &[]).await;
    server.create("b", &[]).await;
    let mut client = server.connect().await;
    let partitions = |name: &str| server.broker.topic(name).unwrap().partitions;
    for version in 0..=3 {
        let total = 2 + i32::from(version);
        let planned = grow(&mut client, version, vec![count("a", total)], true).await;
        assert_eq!(planned[0].1, "NONE");
        assert_eq!(partitions("a"), total.unsigned_abs() - 1);
        let asked = vec![count("a", total), count("nobody", 3), count("b", 1)];
        let codes: Vec<_> = grow(&mut client, version, asked, false)
            .await
            .into_iter()
            .map(|(name, code, _)| (name, code))
            .collect();
        let is = |name: &str, code| (name.to_owned(), code);
        assert_eq!(
            codes,
            [
                is("a", "NONE"),
                is("nobody", "UNKNOWN_TOPIC_OR_PARTITION"),
                is("b", "INVALID_PARTITIONS"),
            ]
        );
        assert_eq!(partitions("a"), total.unsigned_abs());
    }
    for wrong in [0, -1, i32::MIN, 5] {
        let answer = grow(&mut client, 3, vec![count("a", wrong)], false).await;
        assert_eq!(answer[0].1, "INVALID_PARTITIONS", "{wrong}");
    }
    let answer = grow(&mut client, 3, vec![count("a", 20_000)], false).await;
    assert_eq!(answer[0].1, "POLICY_VIOLATION");
    let twice = vec![count("a", 6), count("a", 7)];
    let answer = grow(&mut client, 3, twice, false).await;
    assert_eq!((answer.len(), answer[0].1), (1, "INVALID_REQUEST"));
    assert_eq!(partitions("a"), 5);
}

#[tokio::test]
async fn added_partitions_can_be_assigned_to_the_one_broker() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let assigned = |places: &[&[i32]]| CreatePartitionsRequestTopic {
        assignments: Some(
            places
                .iter()
                .map(|place| CreatePartitionsRequestAssignment {
                    broker_ids: place.to_vec(),
                })
                .collect(),
        ),
        ..count("t", 3)
    };
    let (here, there): (&[i32], &[i32]) = (&[1], &[2]);
    for wrong in [&[][..], &[here], &[here, there], &[here, here, here]] {
        let answer = grow(&mut client, 3, vec![assigned(wrong)], false).await;
        assert_eq!(answer[0].1, "INVALID_REPLICA_ASSIGNMENT", "{wrong:?}");
    }
    let answer = grow(&mut client, 0, vec![assigned(&[here, here])], false).await;
    assert_eq!(answer[0].1, "NONE");
    assert_eq!(server.broker.topic("t").unwrap().partitions, 3);
}

#[tokio::test]
async fn a_request_of_more_than_2_mib_is_not_read() {
    let server = Server::start().await;
    for (length, is_closed) in [(2 << 20, false), ((2 << 20) + 1, true)] {
        let mut client = server.connect().await;
        let mut opening = i32::to_be_bytes(length).to_vec();
        // CreateTopics, version 7, correlation id 1.
        opening.extend([0, 19, 0, 7, 0, 0, 0, 1]);
        client.send_raw(&opening).await;
        if is_closed {
            assert!(client.is_closed().await);
        } else {
            let wait = std::time::Duration::from_millis(50);
            let silent = tokio::time::timeout(wait, client.receive_frame()).await;
            assert!(silent.is_err(), "it waits for the rest");
        }
    }
}
