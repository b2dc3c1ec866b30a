//! Kafka's own command-line tools, run by a script that judges what they print.

use std::{path::PathBuf, process::Command};

use crate::harness::{binary, root, skip};

#[test]
fn kafkas_own_tools_work_and_print_no_error() {
    let named = std::env::var_os("SAPWOOD_CLIENTS").map(PathBuf::from);
    let clients = named.unwrap_or_else(|| root().join("target/clients"));
    let tools = clients.join("kafka-tools");
    if !tools.exists() {
        skip("Kafka's tools are not installed; tests/clients/install.sh does it");
        return;
    }
    let run = Command::new("bash")
        .arg(root().join("tests/clients/kafka_tools.sh"))
        .arg(binary())
        .arg(tools)
        .output()
        .expect("bash can be run");
    let (printed, errors) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{printed}{errors}");
    let passed = printed
        .lines()
        .filter(|line| line.starts_with("ok "))
        .count();
    assert!(passed >= 95, "only {passed} checks: {printed}");
}
