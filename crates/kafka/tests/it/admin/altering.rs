//! AlterConfigs and IncrementalAlterConfigs.

use std::collections::BTreeMap;

use sapwood_broker::ConfigSource;
use sapwood_kafka_wire::messages::{
    AlterConfigsRequest, AlterConfigsRequestConfig, AlterConfigsRequestResource,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource,
};

use super::{error, refusal};
use crate::support::{Client, Server};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The values of a topic's own.
fn own(server: &Server, topic: &str) -> BTreeMap<&'static str, String> {
    let configs = server.broker.topic_configs(topic).unwrap().into_iter();
    configs
        .filter(|entry| entry.source == ConfigSource::Topic)
        .map(|entry| (entry.key, entry.value))
        .collect()
}

fn is(values: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    values
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect()
}

fn replaced(
    resource_type: i8,
    name: &str,
    configs: &[(&str, Option<&str>)],
) -> AlterConfigsRequestResource {
    let config = |(name, value): &(&str, Option<&str>)| AlterConfigsRequestConfig {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    AlterConfigsRequestResource {
        resource_type,
        resource_name: name.to_owned(),
        configs: configs.iter().map(config).collect(),
    }
}

async fn replace(
    client: &mut Client,
    version: i16,
    resources: Vec<AlterConfigsRequestResource>,
    validate_only: bool,
) -> Vec<(&'static str, String)> {
    let request = AlterConfigsRequest {
        resources,
        validate_only,
    };
    let responses = client.ask(version, &request).await.responses;
    responses
        .iter()
        .map(|one| refusal(one.error_code, &one.error_message))
        .collect()
}

#[tokio::test]
async fn alter_configs_replaces_the_whole_configuration() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for version in 0..=2 {
        let name = format!("t{version}");
        server.create(&name, &[("retention.ms", "1000")]).await;
        let with = |configs| vec![replaced(TOPIC, &name, configs)];
        let segment = with(&[("segment.ms", Some("2000"))]);
        let answers = replace(&mut client, version, segment.clone(), true).await;
        assert_eq!(answers[0].0, "NONE");
        assert_eq!(own(&server, &name), is(&[("retention.ms", "1000")]));
        replace(&mut client, version, segment, false).await;
        assert_eq!(own(&server, &name), is(&[("segment.ms", "2000")]));
        replace(&mut client, version, with(&[]), false).await;
        assert_eq!(own(&server, &name), is(&[]));
    }
}

#[tokio::test]
async fn what_alter_configs_refuses_changes_nothing() {
    let server = Server::start().await;
    server.create("t", &[("retention.ms", "1000")]).await;
    let mut client = server.connect().await;
    let invalid = "INVALID_REQUEST";
    for (resource, code, says) in [
        (
            replaced(TOPIC, "t", &[("segment.ms", Some("-1"))]),
            "INVALID_CONFIG",
            "1 to",
        ),
        (
            replaced(TOPIC, "t", &[("segment.msx", Some("1"))]),
            "INVALID_CONFIG",
            "segment.ms",
        ),
        (
            replaced(TOPIC, "t", &[("segment.ms", None)]),
            invalid,
            "null",
        ),
        (
            replaced(
                TOPIC,
                "t",
                &[("segment.ms", Some("1")), ("segment.ms", Some("1"))],
            ),
            invalid,
            "twice",
        ),
        (
            replaced(TOPIC, "nobody", &[]),
            "UNKNOWN_TOPIC_OR_PARTITION",
            "nobody",
        ),
        (
            replaced(BROKER, "1", &[("num.partitions", Some("3"))]),
            invalid,
            "configuration file",
        ),
        (replaced(BROKER, "", &[]), invalid, "configuration file"),
    ] {
        let (found, message) = replace(&mut client, 2, vec![resource], false)
            .await
            .remove(0);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(says), "{message}");
    }
    let twice = replaced(TOPIC, "t", &[("segment.ms", Some("1"))]);
    let answers = replace(&mut client, 2, vec![twice.clone(), twice], false).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, invalid);
    assert_eq!(own(&server, "t"), is(&[("retention.ms", "1000")]));
}

fn changed(
    resource_type: i8,
    name: &str,
    configs: &[(&str, i8, Option<&str>)],
) -> IncrementalAlterConfigsRequestResource {
    let config = |(name, config_operation, value): &(&str, i8, Option<&str>)| {
        IncrementalAlterConfigsRequestConfig {
            name: (*name).to_owned(),
            config_operation: *config_operation,
            value: value.map(str::to_owned),
        }
    };
    IncrementalAlterConfigsRequestResource {
        resource_type,
        resource_name: name.to_owned(),
        configs: configs.iter().map(config).collect(),
    }
}

async fn change(
    client: &mut Client,
    version: i16,
    resources: Vec<IncrementalAlterConfigsRequestResource>,
    validate_only: bool,
) -> Vec<(&'static str, String)> {
    let request = IncrementalAlterConfigsRequest {
        resources,
        validate_only,
    };
    let responses = client.ask(version, &request).await.responses;
    responses
        .iter()
        .map(|one| refusal(one.error_code, &one.error_message))
        .collect()
}

#[tokio::test]
async fn single_keys_are_set_reset_and_their_lists_changed() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for version in 0..=1 {
        let name = format!("t{version}");
        server.create(&name, &[("retention.ms", "1000")]).await;
        let with = |configs| vec![changed(TOPIC, &name, configs)];
        let both = with(&[
            ("segment.ms", SET, Some("2000")),
            ("cleanup.policy", APPEND, Some("compact")),
        ]);
        assert_eq!(
            change(&mut client, version, both.clone(), true).await[0].0,
            "NONE"
        );
        assert_eq!(own(&server, &name), is(&[("retention.ms", "1000")]));
        assert_eq!(change(&mut client, version, both, false).await[0].0, "NONE");
        let all = [
            ("cleanup.policy", "delete,compact"),
            ("retention.ms", "1000"),
            ("segment.ms", "2000"),
        ];
        assert_eq!(own(&server, &name), is(&all));
        let back = with(&[
            ("segment.ms", DELETE, None),
            ("retention.ms", DELETE, Some("ignored")),
            ("cleanup.policy", SUBTRACT, Some("delete")),
        ]);
        assert_eq!(change(&mut client, version, back, false).await[0].0, "NONE");
        assert_eq!(own(&server, &name), is(&[("cleanup.policy", "compact")]));
    }
}

#[tokio::test]
async fn all_changes_of_a_topic_are_made_or_none_and_each_topic_has_its_result() {
    let server = Server::start().await;
    server.create("a", &[]).await;
    server.create("b", &[]).await;
    let mut client = server.connect().await;
    let good = ("segment.ms", SET, Some("2000"));
    let answers = change(
        &mut client,
        1,
        vec![
            changed(TOPIC, "a", &[good, ("retention.ms", SET, Some("x"))]),
            changed(TOPIC, "b", &[good]),
            changed(TOPIC, "nobody", &[good]),
        ],
        false,
    )
    .await;
    let codes: Vec<_> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(
        codes,
        ["INVALID_CONFIG", "NONE", "UNKNOWN_TOPIC_OR_PARTITION"]
    );
    assert_eq!(own(&server, "a"), is(&[]));
    assert_eq!(own(&server, "b"), is(&[("segment.ms", "2000")]));
}

#[tokio::test]
async fn what_incremental_alter_configs_refuses_has_its_code() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let invalid = "INVALID_REQUEST";
    let set = ("segment.ms", SET, Some("1"));
    for (resource, code, says) in [
        (
            changed(TOPIC, "t", &[("segment.ms", 4, Some("1"))]),
            invalid,
            "operation 4",
        ),
        (
            changed(TOPIC, "t", &[("segment.ms", SET, None)]),
            invalid,
            "null",
        ),
        (
            changed(TOPIC, "t", &[("segment.ms", APPEND, Some("1"))]),
            "INVALID_CONFIG",
            "not a list",
        ),
        (
            changed(TOPIC, "t", &[set, ("segment.ms", DELETE, None)]),
            invalid,
            "twice",
        ),
        (
            changed(TOPIC, "t", &[("nope", DELETE, None)]),
            "INVALID_CONFIG",
            "nope",
        ),
        (
            changed(TOPIC, "", &[set]),
            "INVALID_TOPIC_EXCEPTION",
            "1 character",
        ),
        (
            changed(BROKER, "1", &[("log.retention.ms", SET, Some("1"))]),
            invalid,
            "configuration file",
        ),
        (changed(BROKER, "2", &[]), invalid, "broker 1"),
        (
            changed(BROKER_LOGGER, "1", &[("root", SET, Some("DEBUG"))]),
            invalid,
            "log.level",
        ),
        (changed(32, "g", &[]), invalid, "groups"),
    ] {
        let (found, message) = change(&mut client, 1, vec![resource], false)
            .await
            .remove(0);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(says), "{message}");
    }
    let twice = vec![changed(TOPIC, "t", &[set]), changed(TOPIC, "t", &[])];
    let answers = change(&mut client, 1, twice, false).await;
    assert_eq!((answers.len(), answers[0].0), (1, invalid));
    assert_eq!(own(&server, "t"), is(&[]));
}

/// Kafka's reassignment tool clears the throttles of brokers, whether it set them or not.
#[tokio::test]
async fn clearing_what_a_broker_never_had_is_fine() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let key = "leader.replication.throttled.rate";
    let clear = vec![changed(BROKER, "1", &[(key, DELETE, None)])];
    let answers = change(&mut client, 1, clear, false).await;
    assert_eq!(answers, [(error(0), String::new())]);
}
