//! The layers of the configuration: which wins, what is refused, and what the errors say.

use std::path::PathBuf;
use std::time::Duration;

use sapwood_model::{Code, Durability};
use sapwood_server::config::{KEYS, LogFormat, Replication, Tail};
use sapwood_server::{Config, Flags, Inputs, Origin, Problem, Profile, Value};

struct Layers {
    inputs: Inputs,
    folder: tempfile::TempDir,
}

impl Layers {
    fn new(profile: Profile) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            inputs: Inputs::new(profile),
            folder,
        }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.path();
        std::fs::write(&path, text).expect("writes the file");
        self.inputs.file = Some(path);
        self
    }

    fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.inputs.environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self
    }

    fn set(mut self, settings: &[&str]) -> Self {
        self.inputs.flags.set = settings.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.inputs.flags = flags;
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sapwood.toml")
    }

    fn load(&self) -> Config {
        Config::load(&self.inputs).expect("is a valid configuration")
    }

    fn problems(&self) -> Vec<Problem> {
        Config::load(&self.inputs)
            .expect_err("is not a valid configuration")
            .problems
    }
}

#[test]
fn each_layer_wins_over_the_one_before_and_is_remembered() {
    let file = "[limits]\nrequest_bytes = 33554432\nconnections = 5\n\n[log]\nlevel = \"error\"\n";
    let layers = Layers::new(Profile::Serve)
        .file(file)
        .environment(&[
            ("SAPWOOD_LIMITS__CONNECTIONS", "6"),
            ("SAPWOOD_LOG__LEVEL", "debug"),
        ])
        .set(&["log.level=trace"]);
    let config = layers.load();
    assert_eq!(config.limits.request_bytes, 32 << 20);
    assert_eq!(config.limits.connections, 6);
    assert_eq!(config.log.level, "trace");
    assert_eq!(config.topics.partitions, 1);

    let origin = |key: &str| config.origin(key).expect("the key exists");
    assert_eq!(
        origin("limits.request_bytes"),
        Origin::File {
            path: layers.path(),
            line: 2
        }
    );
    let variable = "SAPWOOD_LIMITS__CONNECTIONS".to_owned();
    assert_eq!(origin("limits.connections"), Origin::Environment(variable));
    assert_eq!(origin("log.level"), Origin::Flag("--set".to_owned()));
    assert_eq!(origin("topics.partitions"), Origin::Default(Profile::Serve));
}

#[test]
fn dev_and_serve_differ_as_documented() {
    let dev = Config::new(Profile::Dev);
    assert!(dev.topics.auto_create && dev.metrics.per_partition);
    assert_eq!(dev.topics.replication_factor, Replication::AsOne);
    let serve = Config::new(Profile::Serve);
    assert!(!serve.topics.auto_create && !serve.metrics.per_partition);
    assert_eq!(serve.topics.replication_factor, Replication::Refuse);
    assert_eq!(dev.groups.initial_rebalance_delay, Duration::ZERO);
    assert_eq!(serve.groups.initial_rebalance_delay, Duration::from_secs(3));
    for config in [dev, serve] {
        assert_eq!(config.topics.durability, Durability::Fsync);
        assert_eq!(config.topics.partitions, 1);
        assert_eq!(config.listeners[0].address, "127.0.0.1:9092");
        assert_eq!(config.http.address.as_deref(), Some("127.0.0.1:9644"));
    }
}

#[test]
fn every_key_takes_its_own_default_back_and_has_a_meaning() {
    let settings = Config::new(Profile::Dev).settings();
    for key in KEYS {
        let setting = settings
            .iter()
            .find(|setting| setting.key == key.name)
            .expect("is shown");
        assert!(
            !setting.doc.is_empty() && !setting.bounds.is_empty(),
            "{}",
            key.name
        );
        let text = match &setting.value {
            Value::Text(text) => text.clone(),
            other => other.to_string(),
        };
        let config = Layers::new(Profile::Dev)
            .set(&[&format!("{}={text}", key.name)])
            .load();
        let again = config
            .settings()
            .into_iter()
            .find(|again| again.key == key.name);
        assert_eq!(
            again.expect("is shown").value,
            setting.value,
            "{}",
            key.name
        );
    }
}

#[test]
fn what_config_show_prints_reads_back_as_a_file() {
    let layers = Layers::new(Profile::Serve).set(&[
        "storage.tail=pwrite",
        "topics.durability=os",
        "topics.replication_factor=as-one",
        "log.format=json",
        "limits.drain_timeout_ms=5s",
        "listeners.main.advertised=broker.example.org:9092",
        "http.address=off",
    ]);
    let config = layers.load();
    let file: String = config
        .settings()
        .iter()
        .map(|setting| format!("{} = {}\n", setting.key, setting.value))
        .collect();
    let again = Layers::new(Profile::Dev).file(&file).load();
    assert_eq!(again.storage, config.storage);
    assert_eq!(again.topics, config.topics);
    assert_eq!(again.listeners, config.listeners);
    assert_eq!(again.limits, config.limits);
    assert_eq!(again.log, config.log);
    assert_eq!(again.storage.tail, Tail::Pwrite);
    assert_eq!(again.log.format, LogFormat::Json);
    assert_eq!(again.limits.drain_timeout, Duration::from_secs(5));
    assert_eq!(again.http.address, None);
}

#[test]
fn an_unknown_key_names_file_line_and_the_key_that_was_meant() {
    let layers = Layers::new(Profile::Serve).file(
        "[limits]\nrequest_byte = 1\n\n[broker]\ndata_dir = \"x\"\n\n[zebra]\nstripes = 40\n",
    );
    let problems = layers.problems();
    let found: Vec<(String, usize, Option<&str>)> = problems
        .iter()
        .map(|problem| match problem {
            Problem::UnknownKey {
                key,
                origin: Origin::File { line, .. },
                suggestion,
            } => (key.clone(), *line, suggestion.as_deref()),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "limits.request_byte".to_owned(),
                2,
                Some("limits.request_bytes")
            ),
            ("broker.data_dir".to_owned(), 5, Some("storage.data_dir")),
            ("zebra.stripes".to_owned(), 8, None),
        ]
    );
    let path = layers.path().display().to_string();
    assert_eq!(
        problems[0].to_string(),
        format!(
            "{path}:2: unknown key \"limits.request_byte\"; did you mean \"limits.request_bytes\"?"
        )
    );
    assert_eq!(problems[0].code(), Code::UnknownConfig);
}

#[test]
fn an_unknown_key_of_the_environment_and_of_a_flag_is_an_error_too() {
    let layers = Layers::new(Profile::Dev)
        .environment(&[
            ("SAPWOOD_LOG__LEVL", "info"),
            ("SAPWOOD_BROKERS", "a:1"),
            ("PATH", "/bin"),
        ])
        .set(&["listeners.main.adress=127.0.0.1:1"]);
    let problems: Vec<String> = layers.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "environment SAPWOOD_LOG__LEVL: unknown key \"log.levl\"; did you mean \"log.level\"?",
            "flag --set: unknown key \"listeners.main.adress\"; did you mean \
             \"listeners.main.address\"?",
        ]
    );
}

#[test]
fn a_value_outside_its_bounds_says_the_bounds() {
    let refused = [
        "storage.journal_files=1",
        "storage.journal_file_bytes=4096",
        "storage.journal_file_bytes=65537",
        "storage.ballast_bytes=-1",
        "storage.tail=tape",
        "storage.data_dir=",
        "topics.partitions=0",
        "topics.partitions=100001",
        "topics.auto_create=yes",
        "topics.durability=none",
        "limits.request_bytes=64 pints",
        "limits.connections=many",
        "limits.handshake_timeout_ms=9",
        "http.address=9644",
        "listeners.main.address=:9092",
        "listeners.main.advertised=host:0",
        "log.level=loud",
    ];
    let problems = Layers::new(Profile::Dev).set(&refused).problems();
    assert_eq!(problems.len(), refused.len());
    for (problem, refused) in problems.iter().zip(refused) {
        let (key, _) = refused.split_once('=').expect("is a setting");
        assert!(
            matches!(problem, Problem::InvalidValue { key: at, .. } if at == key),
            "{refused}: {problem}"
        );
    }
    assert_eq!(
        problems[0].to_string(),
        "flag --set: storage.journal_files = \"1\": 1 is outside 2 to 64"
    );
}

#[test]
fn a_file_that_is_not_toml_says_line_and_column() {
    let problems = Layers::new(Profile::Dev)
        .file("[log]\nlevel = \n")
        .problems();
    assert!(
        matches!(
            problems[..],
            [Problem::Syntax {
                line: 2,
                column: 9,
                ..
            }]
        ),
        "{problems:?}"
    );
    let problems = Layers::new(Profile::Dev)
        .file("[log]\nlevel = [1]\n")
        .problems();
    assert!(matches!(&problems[..], [Problem::InvalidValue { key, .. }] if key == "log.level"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_an_error() {
    let mut layers = Layers::new(Profile::Serve);
    layers.inputs.file = Some(layers.path());
    assert!(matches!(
        layers.problems()[..],
        [Problem::Unreadable { .. }]
    ));
    std::fs::write(layers.path(), [0xff, 0xfe, 0x00]).expect("writes");
    assert!(matches!(
        layers.problems()[..],
        [Problem::Unreadable { .. }]
    ));
    std::fs::write(layers.path(), vec![b'#'; 2 << 20]).expect("writes");
    assert!(matches!(
        layers.problems()[..],
        [Problem::Unreadable { .. }]
    ));
}

#[test]
fn a_configured_listener_takes_the_place_of_the_default_one() {
    let file = "[listeners.internal]\naddress = \"127.0.0.1:7000\"\n";
    let config = Layers::new(Profile::Serve).file(file).load();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name, "internal");

    let listen = Flags {
        listen: Some("127.0.0.1:7001".to_owned()),
        ..Flags::default()
    };
    let config = Layers::new(Profile::Serve)
        .file(file)
        .flags(listen.clone())
        .load();
    assert_eq!(config.listeners[0].address, "127.0.0.1:7001");
    assert_eq!(
        config.origin("listeners.internal.address"),
        Some(Origin::Flag("--listen".to_owned()))
    );

    let two = format!("{file}[listeners.public]\naddress = \"127.0.0.1:7002\"\n");
    let problems = Layers::new(Profile::Serve)
        .file(&two)
        .flags(listen)
        .problems();
    assert!(
        matches!(problems[..], [Problem::InvalidFlag { .. }]),
        "{problems:?}"
    );
}

#[test]
fn set_wins_over_the_shorthand_and_needs_an_equals_sign() {
    let flags = Flags {
        data_dir: Some("one".to_owned()),
        http_listen: Some("127.0.0.1:1".to_owned()),
        set: vec!["storage.data_dir=two".to_owned()],
        ..Flags::default()
    };
    let config = Layers::new(Profile::Dev).flags(flags).load();
    assert_eq!(config.storage.data_dir, PathBuf::from("two"));
    assert_eq!(config.http.address.as_deref(), Some("127.0.0.1:1"));
    let problems = Layers::new(Profile::Dev).set(&["log.level"]).problems();
    assert!(
        matches!(problems[..], [Problem::InvalidFlag { .. }]),
        "{problems:?}"
    );
}

#[test]
fn serve_refuses_to_listen_beyond_loopback_unless_told() {
    let open = [
        "listeners.main.address=0.0.0.0:9092",
        "http.address=[::]:9644",
    ];
    let problems = Layers::new(Profile::Serve).set(&open).problems();
    assert_eq!(problems.len(), 2);
    for (problem, at) in problems
        .iter()
        .zip(["listeners.main.address", "http.address"])
    {
        assert_eq!(problem.code(), Code::InsecureListen);
        assert!(
            matches!(problem, Problem::InsecureListen { key, .. } if key == at),
            "{problem}"
        );
    }
    let set = open.iter().map(|text| (*text).to_owned()).collect();
    let flags = Flags {
        insecure: true,
        set,
        ..Flags::default()
    };
    Layers::new(Profile::Serve).flags(flags).load();
    Layers::new(Profile::Dev).set(&open).load();
    Layers::new(Profile::Serve)
        .set(&["listeners.main.address=localhost:0"])
        .load();
}

#[test]
fn defaults_of_topics_go_by_kafkas_names() {
    let layers = Layers::new(Profile::Serve)
        .file("[topic_defaults]\nretention.ms = 1000\n")
        .environment(&[("SAPWOOD_TOPIC_DEFAULTS__SEGMENT__BYTES", "65536")])
        .set(&["topic_defaults.cleanup.policy=compact"]);
    let config = layers.load();
    let set: Vec<(&str, &str)> = config
        .topic_defaults
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("segment.bytes", "65536"),
    ];
    assert_eq!(set, expected);
    let origin = config.origin("topic_defaults.retention.ms");
    assert_eq!(
        origin,
        Some(Origin::File {
            path: layers.path(),
            line: 2
        })
    );

    let wrong = [
        "topic_defaults.retention.msec=1",
        "topic_defaults.durability=os",
    ];
    let problems = Layers::new(Profile::Serve).set(&wrong).problems();
    let suggestions: Vec<Option<&str>> = problems
        .iter()
        .map(|problem| match problem {
            Problem::UnknownKey { suggestion, .. } => suggestion.as_deref(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        suggestions,
        [
            Some("topic_defaults.retention.ms"),
            Some("topics.durability")
        ]
    );
}

#[test]
fn one_connection_may_not_have_more_than_all() {
    let problems = Layers::new(Profile::Dev)
        .set(&["limits.request_bytes=1MiB"])
        .problems();
    assert!(
        matches!(&problems[..], [Problem::InvalidValue { key, .. }]
        if key == "limits.connection_bytes"),
        "{problems:?}"
    );
}

#[test]
fn times_of_groups_that_cannot_go_together_are_refused() {
    let pairs = [
        (
            "groups.session_timeout_min_ms",
            [
                "groups.session_timeout_min_ms=10s",
                "groups.session_timeout_max_ms=9s",
            ],
        ),
        (
            "groups.consumer_heartbeat_interval_ms",
            [
                "groups.consumer_heartbeat_interval_ms=5s",
                "groups.consumer_session_timeout_ms=5s",
            ],
        ),
    ];
    for (blamed, set) in pairs {
        let problems = Layers::new(Profile::Dev).set(&set).problems();
        assert!(
            matches!(&problems[..], [Problem::InvalidValue { key, .. }] if key == blamed),
            "{problems:?}"
        );
    }
}

#[test]
fn reload_reads_the_file_again_under_the_same_flags() {
    let layers = Layers::new(Profile::Dev)
        .file("log.level = \"error\"\ntopics.partitions = 2\n")
        .set(&["topics.partitions=3"]);
    let config = layers.load();
    std::fs::write(
        layers.path(),
        "log.level = \"debug\"\ntopics.partitions = 4\n",
    )
    .expect("writes");
    let again = config.reload().expect("is valid");
    assert_eq!(
        (again.log.level.as_str(), again.topics.partitions),
        ("debug", 3)
    );
}
