use super::*;

fn defaults(values: &[(&str, &str)], replication: ReplicationPolicy) -> TopicDefaults {
    TopicDefaults::new(
        &pairs(values),
        replication,
        32 << 20,
        Duration::from_secs(86_400),
    )
    .unwrap()
}

fn pairs(values: &[(&str, &str)]) -> Vec<(String, String)> {
    values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn strict() -> TopicDefaults {
    defaults(&[], ReplicationPolicy::Refuse)
}

#[test]
fn every_refused_value_says_why() {
    let refused = |key: &str, value: &str| {
        strict()
            .create(&pairs(&[(key, value)]))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("retention.mss", "1"),
        "topic configuration key \"retention.mss\" is not known; did you mean \"retention.ms\"?"
    );
    assert_eq!(
        refused("segment.bytes", "10"),
        "segment.bytes cannot be \"10\"; it is a whole number from 1024 to 2147483647"
    );
    assert_eq!(
        refused("max.message.bytes", "33554433"),
        "max.message.bytes cannot be \"33554433\"; it is at most 33554432 in a topic with \
         durability=fsync (half a journal file)"
    );
    assert_eq!(
        refused("min.insync.replicas", "2"),
        "min.insync.replicas cannot be 2; one broker keeps 1 replica"
    );
    let lags = pairs(&[
        ("min.compaction.lag.ms", "20"),
        ("max.compaction.lag.ms", "10"),
    ]);
    assert_eq!(
        strict().create(&lags).unwrap_err().to_string(),
        "min.compaction.lag.ms is 20, which is above max.compaction.lag.ms (10)"
    );
}

#[test]
fn a_large_batch_is_for_os_topics_only_and_the_switch_to_fsync_is_refused() {
    let large = pairs(&[("max.message.bytes", "100000000"), ("durability", "os")]);
    let current = strict().create(&large).unwrap();
    let switch = [ConfigChange::Set {
        key: "durability".into(),
        value: "fsync".into(),
    }];
    let refused = strict().change(&current, &switch).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidTopicConfig);
    let reset = [ConfigChange::Reset {
        key: "durability".into(),
    }];
    assert!(strict().change(&current, &reset).is_err());
}

#[test]
fn replicas_above_one_are_taken_as_one_where_the_policy_says_so() {
    let dev = defaults(&[], ReplicationPolicy::AsOne);
    let values = dev.create(&pairs(&[("min.insync.replicas", "2")])).unwrap();
    assert_eq!(values["min.insync.replicas"], "1");
    let refused = strict()
        .create(&pairs(&[("min.insync.replicas", "2")]))
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidReplication);
}

#[test]
fn sources_tell_the_topics_values_from_the_brokers_and_from_kafkas() {
    let broker = defaults(&[("durability", "os")], ReplicationPolicy::Refuse);
    let own = broker.create(&pairs(&[("retention.ms", "1000")])).unwrap();
    let entries = broker.entries(&own);
    assert_eq!(entries.len(), KEYS.len());
    let of = |key| entries.iter().find(|entry| entry.key == key).unwrap();
    assert_eq!(
        (of("retention.ms").source, &*of("retention.ms").value),
        (ConfigSource::Topic, "1000")
    );
    assert_eq!(of("retention.ms").default, "604800000");
    assert_eq!(
        (of("durability").source, &*of("durability").value),
        (ConfigSource::Broker, "os")
    );
    assert_eq!(of("segment.ms").source, ConfigSource::Default);
    assert_eq!(broker.resolve("t", &own).log.durability, Durability::Os);
}

#[test]
fn lists_take_and_give_items() {
    let change = |current: &BTreeMap<String, String>, append: bool, value: &str| {
        let (key, value) = ("cleanup.policy".to_owned(), value.to_owned());
        let change = if append {
            ConfigChange::Append { key, value }
        } else {
            ConfigChange::Subtract { key, value }
        };
        strict().change(current, &[change])
    };
    let both = change(&BTreeMap::new(), true, "compact").unwrap();
    assert_eq!(both["cleanup.policy"], "delete,compact");
    assert!(strict().resolve("t", &both).compaction.is_some());
    let compact = change(&both, false, "delete").unwrap();
    assert_eq!(compact["cleanup.policy"], "compact");
    assert!(change(&compact, false, "compact").is_err());
    let number = [ConfigChange::Append {
        key: "retention.ms".into(),
        value: "1".into(),
    }];
    assert_eq!(
        strict().change(&BTreeMap::new(), &number),
        Err(TopicConfigError::NotAList {
            key: "retention.ms"
        })
    );
}

#[test]
fn a_key_given_twice_is_refused() {
    let twice = pairs(&[("retention.ms", "1"), ("retention.ms", "2")]);
    assert_eq!(
        strict().create(&twice),
        Err(TopicConfigError::Twice {
            key: "retention.ms".into()
        })
    );
}

#[test]
fn stored_values_that_are_no_longer_accepted_do_not_stop_a_start() {
    let stored = BTreeMap::from([
        ("of.the.future".to_owned(), "1".to_owned()),
        ("segment.bytes".to_owned(), "-5".to_owned()),
        ("max.message.bytes".to_owned(), "100000000".to_owned()),
    ]);
    let config = strict().resolve("t", &stored);
    assert_eq!(config.log.segment_bytes, 1 << 30);
    assert_eq!(config.batch_bytes_max, 32 << 20);
}

#[test]
fn a_small_journal_makes_for_small_batches_without_being_asked() {
    let small = |values: &[(&str, &str)]| {
        let expiration = Duration::from_secs(1);
        TopicDefaults::new(&pairs(values), ReplicationPolicy::Refuse, 4096, expiration)
    };
    let defaults = small(&[]).unwrap();
    assert_eq!(
        defaults.resolve("t", &BTreeMap::new()).batch_bytes_max,
        4096
    );
    let entries = defaults.entries(&BTreeMap::new());
    let entry = entries
        .iter()
        .find(|entry| entry.key == "max.message.bytes")
        .unwrap();
    assert_eq!(
        (&*entry.value, entry.source),
        ("4096", ConfigSource::Broker)
    );
    // Who asks for more is told.
    assert!(small(&[("max.message.bytes", "4097")]).is_err());
    assert!(
        defaults
            .create(&pairs(&[("max.message.bytes", "4097")]))
            .is_err()
    );
}

#[test]
fn a_compacted_topic_says_when_and_rolls_its_segments_in_time() {
    let resolve = |values: &[(&str, &str)]| {
        let own = strict().create(&pairs(values)).unwrap();
        strict().resolve("t", &own)
    };
    let week_ms = 7 * 24 * 60 * 60 * 1000;
    let usual = resolve(&[("cleanup.policy", "compact")]);
    assert_eq!(
        usual.retention,
        Policy::KEEP,
        "compaction alone removes no segment"
    );
    let policy = compaction::Policy {
        min_dirty_ratio: 0.5,
        min_lag_ms: 0,
        max_lag_ms: None,
    };
    let expected = Compaction {
        policy,
        delete_retention_ms: 24 * 60 * 60 * 1000,
    };
    assert_eq!(usual.compaction, Some(expected));
    assert_eq!(usual.log.segment_ms, week_ms);
    let lags = [
        ("min.cleanable.dirty.ratio", " 0.25"),
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "5000"),
        ("delete.retention.ms", "0"),
    ];
    let with = |policy| [&[("cleanup.policy", policy)], &lags[..]].concat();
    let both = resolve(&with("compact,delete"));
    let policy = compaction::Policy {
        min_dirty_ratio: 0.25,
        min_lag_ms: 10,
        max_lag_ms: Some(5000),
    };
    let expected = Compaction {
        policy,
        delete_retention_ms: 0,
    };
    assert_eq!(both.compaction, Some(expected));
    assert_eq!(both.retention.age_ms, Some(week_ms), "old segments go too");
    assert_eq!(both.log.segment_ms, 5000);
    // Where nothing is compacted, its keys mean nothing.
    let deleted = resolve(&with("delete"));
    assert_eq!(
        (deleted.compaction, deleted.log.segment_ms),
        (None, week_ms)
    );
    let short = [&with("compact")[..], &[("segment.ms", "100")]].concat();
    assert_eq!(resolve(&short).log.segment_ms, 100);
}
