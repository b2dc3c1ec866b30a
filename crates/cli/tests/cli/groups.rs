//! Groups: list, describe, seek, delete, watch.

// Helpers are not tests to clippy, which allows it there.
#![allow(clippy::unwrap_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    broker::{Broker, Done},
    member::Member,
};

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A broker whose groups do not wait for more members.
fn broker() -> Broker {
    let folder = TempDir::new().unwrap();
    let eager = ["--set", "groups.initial_rebalance_delay_ms=0"];
    Broker::start_in(folder, "127.0.0.1:0", &eager)
}

/// Writes records of these times to a partition.
fn write_at(broker: &Broker, topic: &str, partition: u32, times: &[u64]) {
    let record = |time: &u64| format!("{{\"value\":\"{time}\",\"timestamp\":{time}}}\n");
    let lines: String = times.iter().map(record).collect();
    let to = partition.to_string();
    let produce = ["topic", "produce", topic, "--partition", &to, "-F", "jsonl"];
    broker.run_with(&produce, lines.as_bytes()).ok();
}

fn describe(broker: &Broker, group: &str) -> Value {
    broker
        .run(&["group", "describe", group, "-o", "json"])
        .ok()
        .json()
}

/// What a group has committed: `orders/0=7`.
fn committed(broker: &Broker, group: &str) -> Vec<String> {
    let described = describe(broker, group);
    let rows = described["partitions"].as_array().unwrap().iter();
    let rows = rows.filter(|row| !row["committed_offset"].is_null());
    let text = |row: &Value| {
        let topic = row["topic"].as_str().unwrap();
        format!("{topic}/{}={}", row["partition"], row["committed_offset"])
    };
    rows.map(text).collect()
}

fn seek(broker: &Broker, args: &[&str]) -> Done {
    broker.run(&[&["group", "seek", "billing", "--yes"], args].concat())
}

/// `orders` with two partitions of ten records each, a second apart, the last one of now; `billing`
/// stands at 4 in both.
fn orders(broker: &Broker) -> Vec<u64> {
    broker.run(&["topic", "create", "orders", "-p", "2"]).ok();
    let now = now_ms();
    let times: Vec<u64> = (0..10).map(|n| now - 9_000 + n * 1_000).collect();
    write_at(broker, "orders", 0, &times);
    write_at(broker, "orders", 1, &times);
    seek(broker, &["--topic", "orders", "--to", "4"]).ok();
    times
}

#[test]
fn a_group_is_described_in_records_and_in_time() {
    let broker = broker();
    let times = orders(&broker);
    let before = now_ms();
    let described = describe(&broker, "billing");
    let after = now_ms();
    assert_eq!(
        (&described["group"], &described["state"]),
        (&"billing".into(), &"empty".into())
    );
    assert_eq!(
        (&described["lag"], &described["lost"]),
        (&12.into(), &0.into())
    );
    let row = &described["partitions"][1];
    assert_eq!(
        (&row["topic"], &row["partition"]),
        (&"orders".into(), &1.into())
    );
    assert_eq!(
        (&row["committed_offset"], &row["high_watermark"]),
        (&4.into(), &10.into())
    );
    assert_eq!((&row["lag"], &row["member_id"]), (&6.into(), &Value::Null));
    let behind = row["behind_ms"].as_u64().unwrap();
    assert!(
        (before - times[4]..=after - times[4]).contains(&behind),
        "{behind} ms behind a record that is {} ms old",
        after - times[4]
    );
    let week = 7 * 24 * 3_600 * 1_000;
    assert_eq!(row["retention_headroom_ms"], week - behind);

    let text = broker.run(&["group", "info", "billing"]).ok().out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("GROUP billing  STATE empty  MEMBERS 0  LAG 12  BEHIND "),
        "{text}"
    );
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(lines[1]).join(" "),
        "TOPIC P COMMITTED END LAG BEHIND MEMBER HOST"
    );
    let mut row = words(lines[2]);
    assert!(row[5].ends_with('s'), "{text}");
    row.remove(5);
    assert_eq!(row.join(" "), "orders 0 4 10 6 - -");
    let wide = broker
        .run(&["group", "describe", "billing", "-o", "wide"])
        .ok()
        .out;
    assert!(
        wide.contains("KIND classic") && wide.contains("KEPT FOR"),
        "{wide}"
    );
    assert!(wide.contains("6d23h"), "{wide}");

    // A group that has read everything.
    seek(&broker, &["--to", "end"]).ok();
    let described = describe(&broker, "billing");
    assert_eq!(
        (&described["lag"], &described["behind_ms"]),
        (&0.into(), &0.into())
    );
    assert_eq!(described["retention_headroom_ms"], Value::Null);
}

#[test]
fn groups_are_listed_with_how_far_they_are_behind() {
    let broker = broker();
    let none = broker.run(&["group", "ls"]).ok();
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", "no groups\n"));
    orders(&broker);
    broker
        .run(&[
            "group", "seek", "audit", "--yes", "--topic", "orders/1", "--to", "end",
        ])
        .ok();
    let list = broker.run(&["group", "list"]).ok().out;
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["GROUP", "STATE", "MEMBERS", "LAG", "BEHIND"]);
    assert_eq!(rows[1], ["audit", "empty", "0", "0", "0s"]);
    assert_eq!(rows[2][..4], ["billing", "empty", "0", "12"]);
    let json = broker
        .run(&["group", "list", "b", "-o", "json"])
        .ok()
        .json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(
        (&json[0]["group"], &json[0]["lag"]),
        (&"billing".into(), &12.into())
    );
    assert_eq!(
        broker.run(&["group", "ls", "-o", "name"]).ok().out,
        "audit\nbilling\n"
    );
}

#[test]
fn a_group_is_sent_to_every_kind_of_position() {
    let broker = broker();
    let times = orders(&broker);
    let at = |n: usize| format!("@{}", times[n]);
    for (args, expected) in [
        (&["--to", "start"][..], [0, 0]),
        (&["--to", "end"], [10, 10]),
        (&["--to", "7"], [7, 7]),
        (&["--to", "-3"], [7, 7]),
        (&["--to", "-300"], [0, 0]),
        (&["--to", &at(6)], [6, 6]),
        (&["--to", "@0"], [0, 0]),
        (&["--to", "@2099-01-01"], [10, 10]),
        (&["--back", "1h"], [0, 0]),
        (&["--by", "5"], [9, 9]),
        (&["--by", "-2"], [2, 2]),
        (&["--by", "-100"], [0, 0]),
        (&["--topic", "orders/1", "--to", "8"], [4, 8]),
        (
            &["--topic", "orders/1", "--topic", "orders/0", "--to", "1"],
            [1, 1],
        ),
    ] {
        seek(&broker, &["--to", "4"]).ok();
        let done = seek(&broker, args).ok();
        assert_eq!(done.out, "", "the plan is not data");
        let expected = [0, 1].map(|p| format!("orders/{p}={}", expected[p]));
        assert_eq!(committed(&broker, "billing"), expected, "{args:?}");
    }
}

/// The place by time is held against the data: the first record read from there, and the one before.
#[test]
fn a_time_leads_to_the_first_record_of_that_time() {
    let broker = broker();
    let times = orders(&broker);
    // Half a second before record 6, by a date.
    let at = times[6] - 500;
    let date = format!(
        "@{}",
        jiff::Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap()
    );
    seek(&broker, &["--to", &date]).ok();
    let place = describe(&broker, "billing")["partitions"][0]["committed_offset"].clone();
    let time_of = |from: u64| -> u64 {
        let from = from.to_string();
        let consume = [
            "topic",
            "consume",
            "orders",
            "--partitions",
            "0",
            "--from",
            &from,
            "-n",
            "1",
            "-f",
            "%T",
        ];
        broker.run(&consume).ok().out.trim().parse().unwrap()
    };
    let place = place.as_u64().unwrap();
    assert!(
        time_of(place) >= at && time_of(place - 1) < at,
        "record {place}"
    );
    assert_eq!(time_of(place), times[6]);
}

#[test]
fn a_plan_is_shown_confirmed_and_only_then_carried_out() {
    let broker = broker();
    orders(&broker);
    let plan = ["group", "seek", "billing", "--to", "1", "--dry-run"];
    let dry = broker.run(&plan).ok().out;
    let rows: Vec<Vec<&str>> = dry
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["TOPIC", "P", "FROM", "TO", "MEANS"]);
    assert_eq!(rows[1].join(" "), "orders 0 4 1 reads 3 records again");
    let json = broker
        .run(&[&plan[..], &["-o", "json"]].concat())
        .ok()
        .json();
    let step = &json[1];
    assert_eq!(
        (&step["from_offset"], &step["to_offset"]),
        (&4.into(), &1.into())
    );
    assert_eq!(
        (&step["reads_again"], &step["skips"]),
        (&3.into(), &0.into())
    );
    assert_eq!(
        (&step["lag"], &step["action"]),
        (&9.into(), &"planned".into())
    );

    broker
        .run(&["group", "seek", "billing", "--to", "1"])
        .fails(2, "SW1001", &["needs --yes", "--dry-run"]);
    assert_eq!(committed(&broker, "billing"), ["orders/0=4", "orders/1=4"]);
    let done = seek(&broker, &["--topic", "orders/0", "--to", "1", "-o", "json"]).ok();
    assert_eq!(done.json()[0]["action"], "moved");
    assert!(done.err.contains("reads 3 records again"), "{}", done.err);
    assert_eq!(committed(&broker, "billing"), ["orders/0=1", "orders/1=4"]);
    let again = seek(&broker, &["--topic", "orders/0", "--to", "1"]).ok();
    assert!(
        again.err.contains("moved billing in 0 of 1 partition"),
        "{}",
        again.err
    );
    let new = broker.run(&[
        "group", "seek", "new", "--yes", "--topic", "orders", "--to", "start",
    ]);
    assert!(new.ok().err.contains("does not exist yet"));
}

#[test]
fn what_cannot_be_done_is_refused_and_moves_nothing() {
    let broker = broker();
    orders(&broker);
    seek(&broker, &["--to", "11"]).fails(
        3,
        "SW4001",
        &[
            "offset 11 is not in orders/0, which holds 0 to 10",
            "--to end",
        ],
    );
    seek(&broker, &["--topic", "orders/7", "--to", "end"]).fails(3, "SW3002", &[]);
    seek(&broker, &["--topic", "nowhere", "--to", "end"]).fails(3, "SW3001", &["nowhere"]);
    let twice = ["--topic", "orders", "--topic", "orders/1", "--to", "end"];
    seek(&broker, &twice).fails(2, "SW1001", &["orders/1 is given two places"]);
    let by = [
        "group", "seek", "new", "--yes", "--topic", "orders", "--by", "1",
    ];
    broker
        .run(&by)
        .fails(2, "SW1001", &["committed nothing for orders/0"]);
    for command in [
        &["seek", "ghost", "--to", "end", "--yes"][..],
        &["describe", "ghost"],
        &["watch", "ghost"],
    ] {
        let command = [&["group"], command].concat();
        broker.run(&command).fails(3, "SW6001", &["ghost"]);
    }
    for args in [
        &["--to", "soon"][..],
        &["--to", "1", "--by", "1"],
        &[],
        &["--topic", "orders/x", "--to", "1"],
        &["--topic", "orders", "--from-file", "x"],
        &["--back", "-1h"],
        &["--by", "many"],
    ] {
        seek(&broker, args).fails(2, "SW1001", &[]);
    }
    assert_eq!(committed(&broker, "billing"), ["orders/0=4", "orders/1=4"]);
}

#[test]
fn a_running_group_shows_its_members_and_is_neither_moved_nor_deleted() {
    let broker = broker();
    orders(&broker);
    let member = Member::join(&broker, "billing", &[1]);
    let described = describe(&broker, "billing");
    assert_eq!(
        (&described["state"], &described["assignor"]),
        (&"stable".into(), &"range".into())
    );
    let shown = &described["members"][0];
    assert_eq!(shown["member_id"], member.member_id.as_str());
    assert_eq!(
        shown["assigned"],
        serde_json::json!([{ "topic": "orders", "partition": 1 }])
    );
    assert_eq!(described["partitions"][0]["member_id"], Value::Null);
    assert_eq!(
        described["partitions"][1]["member_id"],
        member.member_id.as_str()
    );
    let text = broker.run(&["group", "describe", "billing"]).ok().out;
    let row = text.lines().last().unwrap();
    assert!(row.ends_with("invoices  127.0.0.1"), "{text}");
    let other = Member::join(&broker, "shipping", &[0, 1]);
    let text = broker.run(&["group", "describe", "shipping"]).ok().out;
    let last = "nothing committed yet in orders/0 and 1 other: not counted in LAG";
    assert_eq!(text.lines().last(), Some(last), "{text}");
    other.leave("shipping");

    for dry in [&["--dry-run"][..], &[]] {
        let args = [&["--to", "start"], dry].concat();
        seek(&broker, &args).fails(
            6,
            "SW6007",
            &[
                "group \"billing\" is running: it has 1 member",
                "invoices (127.0.0.1)",
                "Stop these",
            ],
        );
    }
    broker.run(&["group", "delete", "billing", "--yes"]).fails(
        6,
        "SW6007",
        &["is running", "invoices"],
    );
    // What the members read is theirs to forget.
    broker
        .run(&["group", "delete", "billing", "--topic", "orders", "--yes"])
        .fails(6, "SW6014", &["orders"]);
    assert_eq!(committed(&broker, "billing"), ["orders/0=4", "orders/1=4"]);
    member.leave("billing");
    seek(&broker, &["--to", "start"]).ok();
    assert_eq!(committed(&broker, "billing"), ["orders/0=0", "orders/1=0"]);
}

#[test]
fn positions_are_exported_and_read_back_also_from_kafkas_tool() {
    let broker = broker();
    orders(&broker);
    seek(&broker, &["--topic", "orders/1", "--to", "9"]).ok();
    let exported = broker
        .run(&["group", "describe", "billing", "--export"])
        .ok()
        .out;
    assert_eq!(exported, "\"orders\",0,4\n\"orders\",1,9\n");
    let file = broker.data_dir().with_file_name("positions.csv");
    let path = file.to_str().unwrap();
    std::fs::write(&file, &exported).unwrap();
    seek(&broker, &["--to", "end"]).ok();
    seek(&broker, &["--from-file", path]).ok();
    assert_eq!(committed(&broker, "billing"), ["orders/0=4", "orders/1=9"]);
    // As kafka-consumer-groups prints it for several groups; a position instead of an offset.
    let all =
        "\"other\",\"orders\",0,1\n\"billing\",\"orders\",0,2\n\"billing\",\"orders\",1,end\n";
    let from_stdin = ["group", "seek", "billing", "--yes", "--from-file", "-"];
    broker.run_with(&from_stdin, all.as_bytes()).ok();
    assert_eq!(committed(&broker, "billing"), ["orders/0=2", "orders/1=10"]);

    std::fs::write(&file, "orders,0,1\norders;1\n").unwrap();
    let wrong = ["positions.csv: line 2: \"orders;1\" is not topic,partition,position"];
    seek(&broker, &["--from-file", path]).fails(2, "SW1001", &wrong);
    std::fs::write(&file, "orders,0,1\norders,1,99\n").unwrap();
    seek(&broker, &["--from-file", path]).fails(3, "SW4001", &["99"]);
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    seek(&broker, &["--from-file", path]).fails(2, "SW1001", &["not UTF-8"]);
    seek(&broker, &["--from-file", "/nowhere.csv"]).fails(3, "SW1001", &["/nowhere.csv"]);
    assert_eq!(committed(&broker, "billing"), ["orders/0=2", "orders/1=10"]);
}

#[test]
fn groups_and_offsets_are_deleted() {
    let broker = broker();
    orders(&broker);
    broker.run(&["topic", "create", "more"]).ok();
    seek(&broker, &["--topic", "more", "--to", "start"]).ok();
    let forget = ["group", "rm", "billing", "--topic", "orders/1"];
    let dry = broker.run(&[&forget[..], &["--dry-run"]].concat()).ok().out;
    assert!(dry.contains("would forget"), "{dry}");
    broker.run(&forget).fails(2, "SW1001", &["needs --yes"]);
    let done = broker.run(&[&forget[..], &["--yes"]].concat()).ok();
    assert!(
        done.err.contains("forgot 1 offset of billing"),
        "{}",
        done.err
    );
    assert_eq!(committed(&broker, "billing"), ["more/0=0", "orders/0=4"]);
    let done = broker
        .run(&["group", "delete", "billing", "--yes", "-o", "json"])
        .ok();
    let deleted = &done.json()[0];
    assert_eq!(
        (&deleted["group"], &deleted["offsets"]),
        (&"billing".into(), &2.into())
    );
    assert_eq!(broker.run(&["group", "ls", "-o", "name"]).ok().out, "");
    broker
        .run(&["group", "delete", "billing", "--yes"])
        .fails(3, "SW6001", &["billing"]);
    broker
        .run(&["group", "delete", "billing", "--yes", "--if-exists"])
        .ok();
}

#[test]
fn losses_stand_at_the_head_of_a_description() {
    let broker = broker();
    let hour = "retention.ms=3600000";
    broker
        .run(&["topic", "create", "orders", "--set", hour])
        .ok();
    let now = now_ms();
    let times: Vec<u64> = (0..10).map(|_| now - 600_000).collect();
    write_at(&broker, "orders", 0, &times);
    seek(&broker, &["--topic", "orders", "--to", "2"]).ok();
    let text = broker.run(&["group", "describe", "billing"]).ok().out;
    let line = text.lines().nth(1).unwrap();
    assert!(line.starts_with("DATA LOSS IN 49m"), "{text}");
    assert!(
        line.ends_with("(orders/0 reaches retention before this group catches up)"),
        "{text}"
    );
    broker
        .run(&["topic", "trim", "orders", "--before", "5", "--yes"])
        .ok();
    let text = broker.run(&["group", "describe", "billing"]).ok().out;
    assert!(
        text.contains("\nDATA LOST 3 records (deleted before this group read them"),
        "{text}"
    );
    let described = describe(&broker, "billing");
    assert_eq!(
        (&described["lag"], &described["lost"]),
        (&5.into(), &3.into())
    );
}

#[test]
fn watching_prints_a_line_each_time_and_rates_from_the_second_on() {
    let broker = broker();
    orders(&broker);
    let watch = ["group", "watch", "billing", "-i", "100ms", "-n", "3"];
    let text = broker.run(&watch).ok().out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].contains("  billing  empty  MEMBERS 0  LAG 12  BEHIND "),
        "{text}"
    );
    assert!(!lines[0].contains("READ"), "{text}");
    assert!(lines[2].ends_with("READ 0/s  WRITTEN 0/s"), "{text}");
    let json = broker.run(&[&watch[..], &["-o", "json"]].concat()).ok().out;
    let looks: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(looks.len(), 3);
    assert_eq!(
        (&looks[0]["lag"], &looks[0]["read_per_second"]),
        (&12.into(), &Value::Null)
    );
    assert_eq!(looks[2]["written_per_second"], 0.0);
    broker
        .run(&["group", "watch", "billing", "-i", "1ms"])
        .fails(2, "SW1001", &["100ms"]);
}

#[test]
fn consuming_in_a_group_goes_on_where_the_group_stopped() {
    let broker = broker();
    broker.run(&["topic", "create", "orders", "-p", "1"]).ok();
    write_at(&broker, "orders", 0, &[1, 2, 3, 4, 5, 6, 7]);
    let consume = |count: &str| {
        let consume = ["topic", "consume", "orders", "-g", "billing", "-n", count];
        broker.run(&consume).ok().out
    };
    assert_eq!(consume("3"), "1\n2\n3\n");
    assert_eq!(committed(&broker, "billing"), ["orders/0=3"]);
    assert_eq!(consume("4"), "4\n5\n6\n7\n");
    assert_eq!(committed(&broker, "billing"), ["orders/0=7"]);
    let members = describe(&broker, "billing")["members"].clone();
    assert_eq!(members, Value::Array(Vec::new()), "it has left");
}

#[test]
fn a_group_shares_partitions_so_a_member_cannot_choose_or_know_the_end() {
    let broker = broker();
    broker.run(&["topic", "create", "orders", "-p", "1"]).ok();
    for more in [&["-p", "0"][..], &["-e"], &["--from", "1..3"]] {
        let consume = ["topic", "consume", "orders", "-g", "billing"];
        let done = broker.run(&[&consume, more].concat());
        assert_eq!(done.code, Some(2), "{more:?}: {}", done.err);
    }
}
