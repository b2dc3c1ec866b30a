//! `sapwood bench` against a running broker, over both protocols.

use serde_json::Value;

use crate::harness::{Run, Settings};

fn bench(settings: &Settings, args: &[&str]) -> Run {
    let args: Vec<&str> = ["bench"].iter().chain(args).copied().collect();
    settings.cli(&args, b"")
}

fn report(run: &Run) -> Value {
    serde_json::from_slice(&run.stdout).expect("the report is JSON")
}

#[track_caller]
fn assert_sound(report: &Value, records: u64) {
    assert_eq!(report["records"], records, "{report}");
    for count in ["lost", "duplicated", "disordered", "corrupt", "errors"] {
        assert_eq!(report[count], 0, "{count}: {report}");
    }
    let rate = report["records_per_second"].as_f64();
    assert!(rate.is_some_and(|rate| rate > 0.0), "{report}");
    // The broker is on this machine: its process is found by its port.
    let cpu = report["server_cpu_seconds_per_million_records"].as_f64();
    assert!(cpu.is_some_and(|cpu| cpu > 0.0), "{report}");
}

#[test]
fn every_record_is_acknowledged_read_and_whole_over_both_protocols() {
    let settings = Settings::new(&[]);
    let broker = settings.start();
    for protocol in ["kafka", "grpc"] {
        let common = [
            "--protocol",
            protocol,
            "-t",
            protocol,
            "-o",
            "json",
            "--consumers",
            "2",
        ];
        let load = [
            "--producers",
            "3",
            "-p",
            "5",
            "--record-bytes",
            "32..3000",
            "--keys",
            "zipf:1000",
            "-z",
            "lz4",
            "--warm-up",
            "0ms",
        ];
        let with = |args: &[&'static str]| {
            let all = args.iter().copied().chain(common);
            all.collect::<Vec<_>>()
        };
        let produce = [&with(&["produce", "-n", "30000"])[..], &load].concat();
        let produced = report(&bench(&settings, &produce).ok());
        assert_sound(&produced, 30_000);
        assert_eq!(produced["partitions"], 5);
        let consumed = report(&bench(&settings, &with(&["consume"])).ok());
        assert_sound(&consumed, 30_000);
        assert_eq!(consumed["bytes"], produced["bytes"]);
        let e2e = ["e2e", "-n", "1000", "--rate", "2000"];
        let e2e = [&with(&e2e)[..], &load].concat();
        let followed = report(&bench(&settings, &e2e).ok());
        assert_sound(&followed, 1000);
        let p99 = |of: &str| followed[of]["p99"].as_f64();
        assert!(p99("latency_us").is_some_and(|us| us > 0.0), "{followed}");
        // Each of the two consumers reads everything.
        let fan_out = ["e2e", "-n", "500", "--rate", "2000", "--fan-out"];
        let mut fan_out = [&with(&fan_out)[..], &load].concat();
        fan_out.extend(["--fetch-wait", "100ms"]);
        assert_sound(&report(&bench(&settings, &fan_out).ok()), 1000);
        assert!(p99("produce_latency_us").is_some(), "{followed}");
    }
    broker.stop();
}

#[test]
fn records_that_are_not_what_was_sent_are_told() {
    let settings = Settings::new(&[]);
    let broker = settings.start();
    let produce = [
        "produce",
        "-n",
        "100",
        "--no-check",
        "--warm-up",
        "0ms",
        "-o",
        "json",
    ];
    let produced = report(&bench(&settings, &produce).ok());
    assert_eq!(produced["lost"], Value::Null);
    // They have no checksum, as if somebody had written over it.
    let consume = ["consume", "-o", "json"];
    let consumed = report(&bench(&settings, &consume).ended(8));
    assert_eq!(consumed["corrupt"], 100);
    // What was deleted in the middle of a topic is missing in the middle of its sequence.
    let produce = [
        "produce",
        "-t",
        "trimmed",
        "-n",
        "100",
        "--warm-up",
        "0ms",
        "--batch-bytes",
        "2000",
    ];
    bench(&settings, &produce).ok();
    bench(&settings, &[&produce[..], &["--rate", "1000"]].concat()).ok();
    let trim = ["topic", "trim", "trimmed", "--before", "50", "--yes"];
    settings.cli(&trim, b"").ok();
    let consume = ["consume", "-t", "trimmed", "-o", "json"];
    let consumed = report(&bench(&settings, &consume).ok());
    assert_eq!(
        (&consumed["records"], &consumed["lost"]),
        (&150.into(), &0.into())
    );
    broker.stop();
}

#[test]
fn reports_are_compared_and_drawn() {
    let settings = Settings::new(&[]);
    let broker = settings.start();
    let folder = settings.scratch();
    let path = |name: &str| folder.join(name).display().to_string();
    let produce = [
        "produce",
        "--rate",
        "500",
        "-d",
        "2s",
        "--warm-up",
        "0ms",
        "-o",
        "json",
    ];
    let page = path("page.html");
    let first = bench(&settings, &[&produce[..], &["--html", &page]].concat()).ok();
    let second = bench(&settings, &[&produce[..], &["--linger", "500ms"]].concat()).ok();
    for (name, run) in [("a.json", &first), ("b.json", &second)] {
        std::fs::write(path(name), &run.stdout).expect("it is written");
    }
    let page = std::fs::read_to_string(page).expect("the page was written");
    assert!(
        page.starts_with("<!doctype html>") && page.matches("<svg").count() >= 4,
        "{page}"
    );
    assert!(
        !page.contains("src=") && !page.contains("href="),
        "it needs nothing else"
    );
    let (a, b) = (path("a.json"), path("b.json"));
    let same = bench(&settings, &["compare", &a, &a]).ok().text();
    assert!(
        !same.contains("worse") && !same.contains("better"),
        "{same}"
    );
    let other = bench(&settings, &["compare", &a, &b]).ok().text();
    assert!(other.contains("settings.linger: 0.0 and 0.5"), "{other}");
    let p50 = other
        .lines()
        .find(|line| line.starts_with("latency_us.p50"));
    assert!(p50.is_some_and(|line| line.ends_with("worse")), "{other}");
    // What belongs to the warm-up is not counted, whenever it is acknowledged.
    let warm = ["produce", "-n", "5000", "--warm-up", "200ms", "-o", "json"];
    let warmed = report(&bench(&settings, &warm).ok());
    assert_eq!(warmed["records"], 5000, "{warmed}");
    let shown = bench(&settings, &["report", &a]).ok().text();
    assert!(shown.starts_with("throughput"), "{shown}");
    let wrong = bench(&settings, &["compare", &a, "Cargo.toml"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    broker.stop();
}

#[test]
fn a_run_that_cannot_be_made_says_why() {
    let settings = Settings::new(&[]);
    let broker = settings.start();
    let missing = bench(&settings, &["consume", "-t", "nowhere"]).ended(3);
    assert!(
        missing.stderr.contains("error[SW3001]"),
        "{}",
        missing.stderr
    );
    let small = bench(&settings, &["produce", "--record-bytes", "31"]).ended(2);
    assert!(small.stderr.contains("at least 32"), "{}", small.stderr);
    let refused = bench(&settings, &["produce", "-t", "a/b", "-n", "1"]);
    assert!(
        refused.stderr.contains("error[SW3003]"),
        "{}",
        refused.stderr
    );
    broker.stop();
    let gone = bench(&settings, &["produce", "-n", "1"]).ended(4);
    assert!(gone.stderr.contains("error[SW2002]"), "{}", gone.stderr);
}
