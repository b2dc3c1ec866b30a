//! The broker's own settings under the names that Kafka's brokers give them. Read-only.

use sapwood_broker::{ConfigEntry, ConfigSource, ValueKind};

use crate::{context::Context, dispatch::FRAME_BYTES_MAX};

/// One setting.
#[derive(Debug)]
pub(super) struct BrokerConfig {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Kafka's own default, where it has one.
    pub(super) default: Option<String>,
    pub(super) kind: ValueKind,
    pub(super) documentation: String,
}

impl BrokerConfig {
    /// Whether it is as Kafka's brokers have it when nobody sets it.
    pub(super) fn is_default(&self) -> bool {
        self.default.as_ref() == Some(&self.value)
    }
}

/// Every setting that has a name in Kafka, in the order of the names.
pub(super) fn all(context: &Context) -> Vec<BrokerConfig> {
    let mut configs = own(context);
    configs.extend(
        context
            .broker()
            .default_configs()
            .into_iter()
            .filter_map(of_topics),
    );
    configs.sort_by_key(|config| config.name);
    configs
}

/// What gives topics their defaults.
fn of_topics(entry: ConfigEntry) -> Option<BrokerConfig> {
    let how = match entry.source {
        ConfigSource::Broker => " Set with topic_defaults in the broker's configuration.",
        _ => "",
    };
    Some(BrokerConfig {
        name: entry.broker_key?,
        value: entry.value,
        default: Some(entry.built_in.to_owned()),
        kind: entry.kind,
        documentation: format!("The default of the topic configuration {}.{how}", entry.key),
    })
}

fn own(context: &Context) -> Vec<BrokerConfig> {
    use ValueKind::{Boolean, Double, Int, List, Long, Text};

    let broker = context.broker().options();
    let door = context.options();
    let listener = context.connection().listener.to_uppercase();
    let advertised = context.advertised();
    let host = match advertised.host.contains(':') {
        true => format!("[{}]", advertised.host),
        false => advertised.host.clone(),
    };
    let directory = std::path::absolute(&broker.data_dir).unwrap_or(broker.data_dir.clone());
    let directory = directory.display().to_string();
    let millis = |duration: std::time::Duration| duration.as_millis().to_string();
    let id = context.broker_id().to_string();

    let set = |name, kind, value: String, documentation: &str| BrokerConfig {
        name,
        value,
        default: None,
        kind,
        documentation: documentation.to_owned(),
    };
    let usual = |name, kind, value: String, default: &str, documentation: &str| BrokerConfig {
        default: Some(default.to_owned()),
        ..set(name, kind, value, documentation)
    };
    vec![
        set(
            "advertised.listeners",
            List,
            format!("{listener}://{host}:{}", advertised.port),
            "The listener that this client came through, and where its clients are told to connect.",
        ),
        usual(
            "auto.create.topics.enable",
            Boolean,
            broker.auto_create.to_string(),
            "true",
            "Whether asking about an unknown topic, or producing to it, creates it.",
        ),
        set("broker.id", Int, id.clone(), "The id of the one broker."),
        usual(
            "connections.max.idle.ms",
            Long,
            millis(door.idle_timeout),
            "600000",
            "How long a connection may do nothing before it is closed.",
        ),
        usual(
            "default.replication.factor",
            Int,
            "1".to_owned(),
            "1",
            "One broker keeps one replica of each partition.",
        ),
        usual(
            "delete.topic.enable",
            Boolean,
            "true".to_owned(),
            "true",
            "Topics can be deleted.",
        ),
        usual(
            "fetch.max.bytes",
            Int,
            broker.fetch_bytes_max.to_string(),
            "57671680",
            "The most bytes that one fetch is answered with, whatever it asks for.",
        ),
        usual(
            "log.cleaner.dedupe.buffer.size",
            Long,
            broker.compaction_dedupe_bytes.to_string(),
            "134217728",
            "The most memory for the keys of a log that is compacted.",
        ),
        usual(
            "log.cleaner.enable",
            Boolean,
            (broker.compaction_bytes_per_second > 0).to_string(),
            "true",
            "Whether compacted topics are compacted in the background.",
        ),
        usual(
            "log.cleaner.io.max.bytes.per.second",
            Double,
            format!("{:.1}", broker.compaction_bytes_per_second as f64),
            "1.7976931348623157E308",
            "How many bytes a second compaction reads and writes at most; 0 where it is switched off.",
        ),
        set("log.dirs", List, directory.clone(), "The data directory."),
        usual(
            "max.incremental.fetch.session.cache.slots",
            Int,
            door.fetch_sessions_max.to_string(),
            "1000",
            "How many fetch sessions are kept at once.",
        ),
        usual(
            "max.request.partition.size.limit",
            Int,
            super::describe_topic_partitions::PARTITIONS_MAX.to_string(),
            "2000",
            "How many partitions one page of a description of topics has.",
        ),
        set("node.id", Int, id, "The id of the one broker."),
        usual(
            "num.partitions",
            Int,
            broker.default_partitions.to_string(),
            "1",
            "Partitions of a topic whose creator does not say.",
        ),
        set(
            "process.roles",
            Text,
            "broker,controller".to_owned(),
            "The one broker is the controller too.",
        ),
        usual(
            "producer.id.expiration.ms",
            Int,
            millis(broker.producer_expiration),
            "86400000",
            "How long an idempotent producer is remembered after its last batch.",
        ),
        set(
            "queued.max.request.bytes",
            Long,
            broker.request_bytes_max.to_string(),
            "Bytes of requests that the broker holds at once; past it, sockets are not read.",
        ),
        usual(
            "socket.request.max.bytes",
            Int,
            FRAME_BYTES_MAX.to_string(),
            "104857600",
            "The largest request.",
        ),
    ]
}
