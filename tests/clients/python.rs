//! A Python program that is generated from `proto/`, next to the command line.

use std::process::{Command, Output};

use super::python;
use crate::harness::{Settings, root, skip};

/// Runs the program with these arguments against the broker; `None` where there is no Python for it.
fn interop(settings: &Settings, args: &[&str]) -> Option<Output> {
    let Some(python) = python() else {
        skip("there is no Python with grpcio-tools; SAPWOOD_PYTHON names one, .ci/run makes one");
        return None;
    };
    let output = Command::new(python)
        .arg(root().join("tests/python/interop.py"))
        .args(["--broker", &settings.address(), "--proto"])
        .arg(root().join("proto"))
        .arg("--generated")
        .arg(settings.scratch().join("generated"))
        .args(args)
        .output()
        .expect("Python can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "interop.py {args:?}: {stderr}");
    Some(output)
}

#[test]
fn the_command_line_reads_what_a_python_program_wrote() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    settings
        .cli(&["topic", "create", "from-python", "-p", "2"], b"")
        .ok();
    if interop(&settings, &["write", "from-python", "500"]).is_none() {
        return;
    }
    let consume = [
        "topic",
        "consume",
        "from-python",
        "--exit-at-end",
        "-p",
        "1",
        "-f",
        "%o %k %v %h\\n",
    ];
    let lines = settings.cli(&consume, b"").ok().text();
    // Odd numbers go to partition 1.
    let expected: Vec<String> = (0..250)
        .map(|offset| {
            let n = 2 * offset + 1;
            format!("{offset} key-{n} größe {n} source=python")
        })
        .collect();
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let all = settings
        .cli(&["topic", "consume", "from-python", "--exit-at-end"], b"")
        .ok()
        .text();
    assert_eq!(all.lines().count(), 500);
}

#[test]
fn a_python_program_reads_what_the_command_line_wrote() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    settings.cli(&["topic", "create", "for-python"], b"").ok();
    let input: String = (0..500).map(|n| format!("key-{n}\tvalue {n}\n")).collect();
    let produce = [
        "topic",
        "produce",
        "for-python",
        "-k",
        "\\t",
        "--compression",
        "zstd",
    ];
    settings.cli(&produce, input.as_bytes()).ok();
    let Some(output) = interop(&settings, &["read", "for-python", "500"]) else {
        return;
    };
    let expected: String = (0..500)
        .map(|n| format!("{n}\tkey-{n}\tvalue {n}\n"))
        .collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn a_python_program_is_the_member_of_a_group_and_goes_on_where_the_group_was() {
    let settings = Settings::new(&[]);
    let _broker = settings.start();
    settings
        .cli(&["topic", "create", "shared", "-p", "3"], b"")
        .ok();
    for (from, count) in [(0, 300), (300, 60)] {
        let input: String = (from..from + count)
            .map(|n| format!("value {n}\n"))
            .collect();
        settings
            .cli(&["topic", "produce", "shared"], input.as_bytes())
            .ok();
        let arguments = ["group", "pythons", "shared", &count.to_string()];
        let Some(output) = interop(&settings, &arguments) else {
            return;
        };
        let stdout = String::from_utf8_lossy(&output.stdout);
        let values = stdout.lines().map(|line| line.rsplit('\t').next());
        let mut values: Vec<&str> = values.map(|value| value.expect("a value")).collect();
        values.sort_unstable();
        let mut expected: Vec<&str> = input.lines().collect();
        expected.sort_unstable();
        assert_eq!(values, expected, "only what is new");
    }
    let describe = ["group", "describe", "pythons", "-o", "json"];
    let described = settings.cli(&describe, b"").ok().text();
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["lag"], 0, "{described}");
    assert_eq!(described["members"], serde_json::json!([]), "{described}");
}

#[test]
fn a_python_program_gets_errors_with_their_codes() {
    let settings = Settings::new(&["topics.auto_create=false"]);
    let _broker = settings.start();
    settings
        .cli(&["topic", "create", "there", "-p", "3"], b"")
        .ok();
    let Some(output) = interop(&settings, &["errors", "there"]) else {
        return;
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let codes: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        codes,
        [
            "unknown topic: NOT_FOUND SW3001 topic=nowhere",
            "topic exists: ALREADY_EXISTS SW3006 topic=there",
            "unknown key: INVALID_ARGUMENT SW3005 suggestion=retention.ms",
            "offset out of range: OUT_OF_RANGE SW4001 log_end_offset=0",
            "in a stream: SW3002 partition=9",
        ]
    );
}
