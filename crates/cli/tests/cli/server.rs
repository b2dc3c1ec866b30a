//! `dev`, `serve`, `config`, `explain`, `generate`.

use std::io::{Read, Write};

use crate::broker::{Broker, SIGTERM, run, sapwood};

fn cli(args: &[&str]) -> crate::broker::Done {
    run(sapwood().args(args), b"")
}

#[test]
fn a_ready_broker_answers_on_both_addresses() {
    let broker = Broker::start();
    let mut http = std::net::TcpStream::connect(&broker.http).unwrap();
    http.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(broker.run(&["topic", "list"]).ok().out, "");
}

#[test]
fn clean_wipes_only_our_directories_and_only_after_a_yes() {
    let broker = Broker::start();
    broker.run_with(&["topic", "produce", "t"], b"x\n").ok();
    let data_dir = broker.data_dir();
    let clean = |more: &[&str]| {
        let mut command = sapwood();
        command
            .args(["dev", "--clean", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir);
        run(command.args(more), b"")
    };
    clean(&["--yes"]).fails(6, "SW5004", &["in use"]);
    let (_, folder) = broker.stop(SIGTERM);
    clean(&[]).fails(2, "SW1001", &["needs --yes"]);
    let broker = Broker::start_in(folder, "127.0.0.1:0", &[]);
    assert_eq!(broker.values("t"), "x\n");
    let (_, folder) = broker.stop(SIGTERM);
    let broker = Broker::start_in(folder, "127.0.0.1:0", &["--clean", "--yes"]);
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok().out, "");
    drop(broker);

    let other = tempfile::TempDir::new().unwrap();
    std::fs::write(other.path().join("precious"), "x").unwrap();
    let mut command = sapwood();
    command
        .args(["dev", "--clean", "--yes", "--data-dir"])
        .arg(other.path());
    run(&mut command, b"").fails(1, "SW5006", &["precious"]);
    assert!(other.path().join("precious").exists());
}

#[test]
fn config_show_says_where_each_value_comes_from() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("sapwood.toml");
    std::fs::write(
        &file,
        "[topics]\npartitions = 3\n\n[log]\nlevel = \"warn\"\n",
    )
    .unwrap();
    let mut command = sapwood();
    command
        .args([
            "config",
            "show",
            "-o",
            "json",
            "--set",
            "log.level=debug",
            "-c",
        ])
        .arg(&file);
    command.env("SAPWOOD_LIMITS__CONNECTIONS", "77");
    let settings = run(&mut command, b"").ok().json();
    let setting = |key: &str| {
        let all = settings.as_array().unwrap();
        all.iter()
            .find(|one| one["key"] == key)
            .unwrap_or_else(|| panic!("no {key}"))
            .clone()
    };
    let partitions = setting("topics.partitions");
    assert_eq!(partitions["value"], 3);
    assert!(
        partitions["source"]
            .as_str()
            .unwrap()
            .ends_with("sapwood.toml:2"),
        "{partitions}"
    );
    assert_eq!(setting("log.level")["source"], "flag --set");
    assert_eq!(setting("limits.connections")["value"], 77);
    assert_eq!(setting("topics.auto_create")["source"], "default (serve)");
    let text = cli(&["config", "show"]).ok().out;
    assert!(text.starts_with("KEY "), "{text}");
    assert!(text.contains("storage.data_dir"), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_with_all_its_problems() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("sapwood.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[limits]\nrequest_byte = 5\n").unwrap();
    let words = [
        "sapwood.toml:2",
        "limits.request_byte",
        "limits.request_bytes",
    ];
    cli(&["serve", "-c", path, "--check-config"]).fails(2, "SW1003", &words);
    std::fs::write(&file, "[topics]\npartitions = 0\n[log]\nlevel = \"loud\"\n").unwrap();
    let words = ["2 problems", "sapwood.toml:2", "sapwood.toml:4"];
    cli(&["serve", "-c", path, "--check-config"]).fails(2, "SW1002", &words);
    std::fs::write(&file, "[topics]\npartitions = 2\n").unwrap();
    assert!(
        cli(&["serve", "-c", path, "--check-config"])
            .ok()
            .err
            .contains("valid")
    );
    cli(&["serve", "-c", "/nonexistent.toml"]).fails(2, "SW1002", &["/nonexistent.toml"]);
}

#[test]
fn explain_knows_every_code_and_says_so_when_it_does_not() {
    let done = cli(&["explain", "SW3006"]).ok();
    assert!(
        done.out
            .starts_with("SW3006: the topic already exists\n  cause: "),
        "{}",
        done.out
    );
    assert_eq!(
        cli(&["explain", "sw3006", "-o", "json"]).ok().json()["exit"],
        6
    );
    cli(&["explain", "SW0000"]).fails(3, "SW1001", &["SW0000"]);
    let all = cli(&["explain", "-o", "json"]).ok().json();
    assert!(all.as_array().unwrap().len() > 30);
}

#[test]
fn completions_are_generated_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            cli(&["generate", "completion", shell])
                .ok()
                .out
                .contains("consume"),
            "{shell}"
        );
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    assert!(cli(&["--version"]).ok().out.starts_with("sapwood "));
    assert!(
        cli(&["topic", "consume", "--help"])
            .ok()
            .out
            .contains("--exit-at-end")
    );
    assert!(cli(&["--help"]).ok().out.contains("Exit codes: 0 ok"));
}
