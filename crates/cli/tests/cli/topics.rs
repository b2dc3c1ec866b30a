//! Topics: create, list, describe, alter, trim, delete.

use crate::broker::Broker;

#[test]
fn a_topic_is_created_listed_and_described() {
    let broker = Broker::start();
    let create = [
        "topic",
        "create",
        "orders",
        "-p",
        "3",
        "--set",
        "retention.ms=60000",
    ];
    assert_eq!(
        broker.run(&create).ok().out,
        "created orders (3 partitions)\n"
    );
    broker
        .run_with(
            &["topic", "produce", "orders", "--partition", "1"],
            b"a\nb\n",
        )
        .ok();

    let list = broker.run(&["topic", "list"]).ok().out;
    let mut lines = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next(),
        Some(vec!["NAME", "PARTITIONS", "RECORDS", "SIZE", "STATE"])
    );
    let row = lines.next().unwrap();
    assert_eq!(
        (row[0], row[1], row[2], row.last()),
        ("orders", "3", "2", Some(&"online"))
    );
    assert_eq!(
        broker.run(&["topic", "ls", "-o", "name"]).ok().out,
        "orders\n"
    );

    let done = broker
        .run(&["topic", "describe", "orders", "-o", "json"])
        .ok();
    let topic = done.json();
    assert_eq!(topic["partitions"].as_array().map(Vec::len), Some(3));
    let partition = &topic["partitions"][1];
    assert_eq!(partition["log_start_offset"], 0);
    assert_eq!(partition["high_watermark"], 2);
    assert_eq!(partition["log_end_offset"], 2);
    assert_eq!(partition["offline"], serde_json::Value::Null);
    let configs = topic["configs"].as_array().unwrap();
    let retention = configs
        .iter()
        .find(|one| one["key"] == "retention.ms")
        .unwrap();
    assert_eq!(
        (&retention["value"], &retention["source"]),
        (&"60000".into(), &"topic".into())
    );
    assert!(configs.iter().any(|one| one["key"] == "durability"));

    let text = broker.run(&["topic", "info", "orders"]).ok().out;
    assert!(text.starts_with("TOPIC orders  ID "), "{text}");
    assert!(text.contains("retention.ms"), "{text}");
    assert!(
        !text.contains("segment.bytes"),
        "defaults are shown on request only: {text}"
    );
    let yaml = broker
        .run(&["topic", "describe", "orders", "-o", "yaml"])
        .ok()
        .out;
    assert!(yaml.contains("high_watermark: 2"), "{yaml}");
}

#[test]
fn create_can_accept_what_is_there() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "orders", "-p", "12"]).ok();
    let again = broker.run(&["topic", "create", "orders", "-p", "3"]).fails(
        6,
        "SW3006",
        &[
            "topic \"orders\" already exists (12 partitions, yours asked for 3)",
            "cause: partitions can be added, never removed",
            "try:   sapwood topic create orders-v2 -p 3     or --if-not-exists to accept 12",
            "more:  sapwood explain SW3006",
        ],
    );
    assert_eq!(again.out, "");
    let accept = ["topic", "create", "orders", "-p", "3", "--if-not-exists"];
    let done = broker.run(&accept).ok();
    assert_eq!(done.out, "exists orders (12 partitions)\n");
    assert!(
        done.err.contains("has 12 partitions, not 3"),
        "{}",
        done.err
    );
    let dry = broker.run(&["topic", "create", "new", "--dry-run"]).ok();
    assert_eq!(dry.out, "would create new (1 partition)\n");
    assert_eq!(
        broker.run(&["topic", "ls", "-o", "name"]).ok().out,
        "orders\n"
    );
}

#[test]
fn alter_changes_configuration_and_adds_partitions() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]).ok();
    let value = |key: &str| {
        let topic = broker
            .run(&["topic", "describe", "t", "-o", "json"])
            .ok()
            .json();
        let configs = topic["configs"].as_array().unwrap().clone();
        let entry = configs.into_iter().find(|one| one["key"] == key).unwrap();
        entry["value"].as_str().unwrap().to_owned()
    };
    let default = value("max.message.bytes");
    broker
        .run(&[
            "topic",
            "alter",
            "t",
            "--set",
            "max.message.bytes=2000",
            "-p",
            "4",
        ])
        .ok();
    assert_eq!(value("max.message.bytes"), "2000");
    let topic = broker
        .run(&["topic", "describe", "t", "-o", "json"])
        .ok()
        .json();
    assert_eq!(topic["partitions"].as_array().map(Vec::len), Some(4));
    broker
        .run(&["topic", "alter", "t", "--unset", "max.message.bytes"])
        .ok();
    assert_eq!(value("max.message.bytes"), default);
    broker
        .run(&["topic", "alter", "t", "--set", "durability=os"])
        .ok();
    assert_eq!(value("durability"), "os");
    broker
        .run(&["topic", "alter", "t", "-p", "2"])
        .fails(2, "SW3007", &[]);
}

#[test]
fn alter_with_dry_run_shows_its_plan_and_changes_nothing() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]).ok();
    let describe = || broker.run(&["topic", "describe", "t", "-o", "json"]).ok();
    let before = describe().out;
    let alter = |more: &[&str]| broker.run(&[&["topic", "alter", "t", "--dry-run"], more].concat());
    let changes = ["--set", "max.message.bytes=2000", "--unset", "segment.ms"];
    let dry = alter(&[&changes[..], &["-p", "4", "-o", "json"]].concat())
        .ok()
        .json();
    let rows: Vec<_> = (dry.as_array().unwrap().iter())
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("setting"), text("after"), text("action"))
        })
        .collect();
    let row = |setting: &str, after: &str, action: &str| {
        (setting.to_owned(), after.to_owned(), action.to_owned())
    };
    assert_eq!(
        rows,
        [
            row("max.message.bytes", "2000", "would change"),
            row("segment.ms", "604800000", "nothing to do"),
            row("partitions", "4", "would change"),
        ]
    );
    // A plan that would be refused is refused now.
    alter(&["--set", "segment.bytes=1"]).fails(2, "SW3004", &["segment.bytes"]);
    alter(&["-p", "1"]).fails(2, "SW3007", &[]);
    assert_eq!(describe().out, before);
    // Without the flag, a refused half stops the other.
    let both = ["topic", "alter", "t", "--set", "segment.ms=1000", "-p", "1"];
    broker.run(&both).fails(2, "SW3007", &[]);
    assert_eq!(describe().out, before);
}

#[test]
fn trim_shows_its_plan_and_needs_a_yes() {
    let broker = Broker::start();
    let lines: String = (0..10).map(|n| format!("{n}\n")).collect();
    broker
        .run_with(&["topic", "produce", "t"], lines.as_bytes())
        .ok();
    let dry = broker
        .run(&[
            "topic",
            "trim",
            "t",
            "--before",
            "4",
            "--dry-run",
            "-o",
            "json",
        ])
        .ok();
    assert_eq!(dry.json()[0]["new_log_start_offset"], 4);
    assert_eq!(dry.json()[0]["deletes"], 4);
    let asked = broker.run(&["topic", "trim", "t", "--before", "4"]);
    asked.fails(2, "SW1001", &["needs --yes"]);
    assert_eq!(broker.values("t").lines().count(), 10);
    broker
        .run(&["topic", "trim", "t", "--before", "4", "--yes"])
        .ok();
    assert_eq!(broker.values("t"), "4\n5\n6\n7\n8\n9\n");
    broker
        .run(&["topic", "trim", "t", "--before", "-2", "--yes"])
        .ok();
    assert_eq!(broker.values("t"), "8\n9\n");
    // Again: nothing to do, nothing to ask.
    broker.run(&["topic", "trim", "t", "--before", "3"]).ok();
    broker
        .run(&["topic", "trim", "t", "--before", "11", "--yes"])
        .fails(3, "SW4001", &["8..10"]);
    broker
        .run(&["topic", "consume", "t", "--from", "2", "-e"])
        .fails(3, "SW4001", &["8", "10"]);
}

#[test]
fn delete_shows_its_plan_and_needs_a_yes() {
    let broker = Broker::start();
    for topic in ["a", "b", "c"] {
        broker.run_with(&["topic", "produce", topic], b"x\n").ok();
    }
    let dry = broker
        .run(&["topic", "delete", "a", "b", "--dry-run", "-o", "json"])
        .ok();
    assert_eq!(dry.json().as_array().map(Vec::len), Some(2));
    assert_eq!(dry.json()[0]["records"], 1);
    broker
        .run(&["topic", "delete", "a"])
        .fails(2, "SW1001", &["needs --yes"]);
    broker
        .run(&["topic", "rm", "a", "missing", "-y"])
        .fails(3, "SW3001", &["missing"]);
    assert_eq!(
        broker.run(&["topic", "ls", "-o", "name"]).ok().out,
        "a\nb\nc\n"
    );
    broker
        .run(&["topic", "rm", "a", "a", "b", "missing", "--if-exists", "-y"])
        .ok();
    assert_eq!(broker.run(&["topic", "ls", "-o", "name"]).ok().out, "c\n");
    assert_eq!(broker.values("c"), "x\n");
}
