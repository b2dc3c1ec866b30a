//! DescribeConfigs and ListConfigResources.

use sapwood_broker::{BrokerOptions, ConfigKey};
use sapwood_kafka_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsRequestResource, DescribeConfigsResponseConfig,
    DescribeConfigsResponseResult, ListConfigResourcesRequest,
};

use super::{error, refusal};
use crate::support::{Client, Server, Start};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn resource(resource_type: i8, name: &str) -> DescribeConfigsRequestResource {
    DescribeConfigsRequestResource {
        resource_type,
        resource_name: name.to_owned(),
        configuration_keys: None,
    }
}

async fn describe(
    client: &mut Client,
    version: i16,
    resources: Vec<DescribeConfigsRequestResource>,
) -> Vec<DescribeConfigsResponseResult> {
    let request = DescribeConfigsRequest {
        resources,
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    client.ask(version, &request).await.results
}

fn of<'a>(
    result: &'a DescribeConfigsResponseResult,
    key: &str,
) -> &'a DescribeConfigsResponseConfig {
    let found = result.configs.iter().find(|config| config.name == key);
    found.unwrap_or_else(|| panic!("no {key}"))
}

/// Name, value and source of each synonym.
fn synonyms(config: &DescribeConfigsResponseConfig) -> Vec<(&str, &str, i8)> {
    let synonyms = config.synonyms.iter();
    synonyms
        .map(|one| (one.name.as_str(), one.value.as_deref().unwrap(), one.source))
        .collect()
}

async fn served() -> Server {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let defaults = vec![pair("retention.ms", "5000"), pair("segment.ms", "7000")];
    Server::start_with(Start {
        broker: Box::new(|options| BrokerOptions {
            topic_defaults: defaults,
            ..options
        }),
        ..Start::default()
    })
    .await
}

#[tokio::test]
async fn a_topics_values_come_with_their_sources_synonyms_types_and_words() {
    let server = served().await;
    server.create("t", &[("retention.ms", "1000")]).await;
    let mut client = server.connect().await;
    for version in 1..=4 {
        let results = describe(&mut client, version, vec![resource(TOPIC, "t")]).await;
        let result = &results[0];
        assert_eq!((result.error_code, result.resource_name.as_str()), (0, "t"));
        assert_eq!(result.configs.len(), ConfigKey::all().len());
        let retention = of(result, "retention.ms");
        assert_eq!(
            (retention.value.as_deref(), retention.config_source),
            (Some("1000"), 1)
        );
        assert_eq!(
            synonyms(retention),
            [
                ("retention.ms", "1000", 1),
                ("log.retention.ms", "5000", 4),
                ("log.retention.ms", "604800000", 5),
            ]
        );
        let segment = of(result, "segment.ms");
        assert_eq!(
            (segment.value.as_deref(), segment.config_source),
            (Some("7000"), 4)
        );
        let usual = of(result, "max.message.bytes");
        assert_eq!(usual.config_source, 5);
        assert_eq!(synonyms(usual), [("message.max.bytes", "1048588", 5)]);
        assert!(
            result
                .configs
                .iter()
                .all(|config| !config.read_only && !config.is_sensitive)
        );
        if version >= 3 {
            let types = [
                "preallocate",
                "compression.type",
                "segment.bytes",
                "segment.ms",
            ];
            let types = types.map(|key| of(result, key).config_type);
            assert_eq!(types, [1, 2, 3, 5]);
            assert_eq!(of(result, "min.cleanable.dirty.ratio").config_type, 6);
            assert_eq!(of(result, "cleanup.policy").config_type, 7);
            let has_words = |config: &DescribeConfigsResponseConfig| {
                config
                    .documentation
                    .as_ref()
                    .is_some_and(|text| !text.is_empty())
            };
            assert!(result.configs.iter().all(has_words));
        }
    }
}

#[tokio::test]
async fn only_what_is_asked_for_is_told() {
    let server = served().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsRequestResource {
            configuration_keys: Some(vec!["segment.ms".into(), "nope".into()]),
            ..resource(TOPIC, "t")
        }],
        include_synonyms: false,
        include_documentation: false,
    };
    let results = client.ask(4, &request).await.results;
    let [config] = &results[0].configs[..] else {
        panic!("one key");
    };
    assert_eq!(config.name, "segment.ms");
    assert!(config.synonyms.is_empty() && config.documentation.is_none());
}

#[tokio::test]
async fn the_broker_shows_its_settings_under_kafkas_names_and_read_only() {
    let server = served().await;
    let mut client = server.connect().await;
    let asked = vec![resource(BROKER, "1"), resource(BROKER, "")];
    for version in [1, 4] {
        let results = describe(&mut client, version, asked.clone()).await;
        let broker = &results[0];
        assert!(
            broker
                .configs
                .is_sorted_by(|one, next| one.name < next.name)
        );
        assert!(broker.configs.iter().all(|config| config.read_only));
        let value = |key| {
            (
                of(broker, key).value.clone().unwrap(),
                of(broker, key).config_source,
            )
        };
        let is = |value: &str, source| (value.to_owned(), source);
        assert_eq!(value("node.id"), is("1", 4));
        assert_eq!(value("num.partitions"), is("1", 5));
        assert_eq!(value("default.replication.factor"), is("1", 5));
        assert_eq!(value("log.retention.ms"), is("5000", 4));
        assert_eq!(value("auto.create.topics.enable"), is("true", 5));
        let advertised = format!("TEST://{}", server.address);
        assert_eq!(value("advertised.listeners"), (advertised, 4));
        assert_eq!(
            synonyms(of(broker, "log.roll.ms")),
            [("log.roll.ms", "7000", 4), ("log.roll.ms", "604800000", 5)]
        );
        if version >= 3 {
            let words = of(broker, "log.retention.ms").documentation.as_ref();
            assert!(words.is_some_and(|text| text.contains("topic_defaults")));
        }
        // Nothing is set for all brokers together.
        assert_eq!((results[1].error_code, results[1].configs.len()), (0, 0));
    }
}

#[tokio::test]
async fn resources_that_cannot_be_described_say_why() {
    let server = served().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let invalid = "INVALID_REQUEST";
    let cases = [
        (
            TOPIC,
            "nobody",
            "UNKNOWN_TOPIC_OR_PARTITION",
            "does not exist",
        ),
        (TOPIC, "no spaces", "INVALID_TOPIC_EXCEPTION", "' '"),
        (TOPIC, "", "INVALID_TOPIC_EXCEPTION", "1 character"),
        (BROKER, "2", invalid, "broker 1"),
        (BROKER, "one", invalid, "not the id"),
        (8, "", invalid, "not the id"),
        (16, "x", invalid, "client metrics"),
        (32, "g", invalid, "groups"),
        (0, "x", invalid, "resource type 0"),
        (-7, "x", invalid, "resource type -7"),
    ];
    let asked = cases.iter().map(|(kind, name, ..)| resource(*kind, name));
    let results = describe(&mut client, 4, asked.collect()).await;
    for (result, (kind, name, code, says)) in results.iter().zip(cases) {
        let (found, message) = refusal(result.error_code, &result.error_message);
        assert_eq!(
            (result.resource_type, found),
            (kind, code),
            "{name}: {message}"
        );
        assert!(message.contains(says), "{name}: {message}");
    }
    // A long answer is given once.
    let results = describe(
        &mut client,
        4,
        vec![resource(TOPIC, "t"), resource(TOPIC, "t")],
    )
    .await;
    assert_eq!(
        (results[0].error_code, error(results[1].error_code)),
        (0, invalid)
    );
    assert!(results[1].configs.is_empty());
}

#[tokio::test]
async fn resources_are_listed_by_type() {
    let server = Server::start().await;
    server.create("a", &[]).await;
    server.create("b", &[]).await;
    let mut client = server.connect().await;
    let mut list = async |version, resource_types: &[i8]| {
        let request = ListConfigResourcesRequest {
            resource_types: resource_types.to_vec(),
        };
        let response = client.ask(version, &request).await;
        let resources = response.config_resources.into_iter();
        let names: Vec<_> = resources
            .map(|one| (one.resource_type, one.resource_name))
            .collect();
        (error(response.error_code), names)
    };
    let is = |kind: i8, name: &str| (kind, name.to_owned());
    assert_eq!(list(0, &[]).await, ("NONE", vec![]));
    let all = vec![is(2, "a"), is(2, "b"), is(4, "1"), is(8, "1")];
    assert_eq!(list(1, &[]).await, ("NONE", all));
    assert_eq!(list(1, &[4, 4]).await, ("NONE", vec![is(4, "1")]));
    assert_eq!(list(1, &[16, 32]).await, ("NONE", vec![]));
    assert_eq!(list(1, &[2, 3]).await, ("UNSUPPORTED_VERSION", vec![]));
}
