//! `storage usage`, `storage retain` and `storage compact`, and what `topic describe` says of retention.

use crate::broker::Broker;

fn line_of<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let mut lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.first() == Some(&first));
    line.unwrap_or_else(|| panic!("no line begins with {first:?}:\n{text}"))
}

#[test]
fn what_is_due_is_shown_and_deleted_at_once_when_asked_for() {
    let broker = Broker::start();
    let create = ["topic", "create", "t", "-p", "2", "--set", "retention.ms=1"];
    broker.run(&create).ok();
    let produce = ["topic", "produce", "t", "--partition", "1"];
    broker.run_with(&produce, b"a\nb\nc\n").ok();
    std::thread::sleep(std::time::Duration::from_millis(10)); // the records grow older than 1 ms

    let shown = broker.run(&["storage", "retain", "t"]).ok().out;
    assert!(shown.contains("0..3 ("), "{shown}");
    assert!(shown.contains("now"), "{shown}");
    let described = broker
        .run(&["topic", "describe", "t", "-o", "json"])
        .ok()
        .json();
    let next = &described["partitions"][1]["next_removal"];
    assert_eq!(
        (&next["start_offset"], &next["end_offset"]),
        (&0.into(), &3.into())
    );
    assert!(next["at"].is_i64(), "{next}");
    assert!(
        described["partitions"][0]["next_removal"].is_null(),
        "it is empty"
    );

    let done = broker.run(&["storage", "retain", "t", "--now"]).ok();
    assert!(done.err.contains("deleted 1 segment ("), "{}", done.err);
    assert!(done.err.contains("of 2 partitions"), "{}", done.err);
    let again = broker
        .run(&["storage", "retain", "t", "-p", "1", "--now", "-o", "json"])
        .ok();
    let rows = again.json();
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&rows[0]["segments"], &rows[0]["log_start_offset"]),
        (&0.into(), &3.into())
    );
    let described = broker.run(&["topic", "describe", "t"]).ok().out;
    let columns = "PARTITION START HIGH WATERMARK END SIZE STATE NEXT DELETED";
    assert_eq!(line_of(&described, "PARTITION").join(" "), columns);
    assert_eq!(line_of(&described, "1")[..4], ["1", "3", "3", "3"]);

    broker
        .run(&["storage", "retain", "nobody", "--now"])
        .fails(3, "SW3001", &[]);
    broker
        .run(&["storage", "retain", "t", "-p", "2"])
        .fails(3, "SW3002", &[]);
}

#[test]
fn a_topic_is_compacted_at_once_when_asked_for() {
    let broker = Broker::start();
    let create = [
        "topic",
        "create",
        "t",
        "-p",
        "2",
        "--set",
        "cleanup.policy=compact",
    ];
    broker.run(&create).ok();
    let produce = [
        "topic",
        "produce",
        "t",
        "--partition",
        "1",
        "--key-separator",
        " ",
    ];
    broker.run_with(&produce, b"a 1\nb 1\na 2\n").ok();
    let done = broker.run(&["storage", "compact", "t", "--now"]).ok();
    assert!(
        done.err.contains("removed 1 record of 2 partitions: "),
        "{}",
        done.err
    );
    let consume = ["topic", "consume", "t", "--from", "start", "--exit-at-end"];
    let format = ["-f", "%o %k %v\\n"];
    let read = broker.run(&[&consume[..], &format].concat()).ok().out;
    assert_eq!(read, "1 b 1\n2 a 2\n");
    let state = ["storage", "compact", "t", "-o", "json"];
    let rows = broker.run(&state).ok().json();
    let state = &rows[1]["compaction"];
    assert_eq!(
        (&state["clean_offset"], &state["dirty_bytes"]),
        (&3.into(), &0.into())
    );
    let described = broker.run(&["topic", "describe", "t"]).ok().out;
    assert!(
        described.contains("partition 1 is compacted up to 3; 0% of its "),
        "{described}"
    );
    broker.run_with(&produce, b"b 2\n").ok();
    let again = ["storage", "compact", "t", "-p", "1", "--now", "-o", "json"];
    let rows = broker.run(&again).ok().json();
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&rows[0]["removed_records"], &rows[0]["clean_offset"]),
        (&1.into(), &4.into())
    );
    assert!(rows[0]["bytes_after"].as_u64() < rows[0]["bytes_before"].as_u64());

    broker.run(&["topic", "create", "kept"]).ok();
    broker
        .run(&["storage", "compact", "kept", "--now"])
        .fails(2, "SW3004", &["cleanup.policy"]);
    broker
        .run(&["storage", "compact", "nobody", "--now"])
        .fails(3, "SW3001", &[]);
}

#[test]
fn what_takes_space_and_how_background_work_is_going_is_shown() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    broker
        .run_with(&["topic", "produce", "t", "--partition", "0"], b"a\nb\n")
        .ok();
    let text = broker.run(&["storage", "usage"]).ok().out;
    assert!(text.starts_with("DISK "), "{text}");
    assert!(text.contains("STATE ok"), "{text}");
    assert_eq!(line_of(&text, "t")[1..3], ["3", "3"], "{text}");
    for task in [
        "forget-deleted",
        "expire-producers",
        "scrub",
        "retention",
        "compaction",
    ] {
        line_of(&text, task);
    }
    let wide = broker.run(&["storage", "usage", "-o", "wide"]).ok().out;
    assert!(wide.contains("5m"), "{wide}");
    let usage = broker.run(&["storage", "usage", "-o", "json"]).ok().json();
    assert!(usage["free_bytes"].is_u64(), "{usage}");
    assert!(
        usage["topics"][0]["size_bytes"].as_u64() > Some(0),
        "{usage}"
    );
    let rows = usage["background"].as_array().unwrap();
    let retention = rows.iter().find(|row| row["name"] == "retention").unwrap();
    assert_eq!(
        (&retention["interval_ms"], &retention["failures"]),
        (&300_000.into(), &0.into())
    );
    let names = broker.run(&["storage", "usage", "-o", "name"]).ok().out;
    assert_eq!(names, "t\n");
}
