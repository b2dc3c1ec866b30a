//! What users and machines get wrong: a clear error with a code and a next step, on the right exit
//! code, and the broker goes on.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::broker::{Broker, Done, SIGTERM, run, sapwood, until};

/// Starts `sapwood ARGS` that is expected to refuse.
fn refused(args: &[&str], data_dir: &Path) -> Done {
    let mut command = sapwood();
    command
        .args(args)
        .args(["--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir);
    run(&mut command, b"")
}

const DEV: &[&str] = &["dev", "--listen", "127.0.0.1:0"];

#[test]
fn unknown_topics_are_not_found() {
    let broker = Broker::start();
    let none: &[&str] = &["none"];
    broker
        .run(&["topic", "consume", "none", "-e"])
        .fails(3, "SW3001", none);
    broker
        .run(&["topic", "describe", "none"])
        .fails(3, "SW3001", none);
    broker
        .run(&["topic", "delete", "none", "-y"])
        .fails(3, "SW3001", none);
    broker
        .run(&["topic", "trim", "none", "--before", "0", "-y"])
        .fails(3, "SW3001", none);
    broker
        .run(&["topic", "alter", "none", "-p", "2"])
        .fails(3, "SW3001", none);
    assert_eq!(
        broker.run(&["topic", "list", "-o", "name"]).ok().out,
        "",
        "and were not created"
    );
}

#[test]
fn without_auto_creation_produce_finds_no_topic() {
    let folder = tempfile::TempDir::new().unwrap();
    let broker = Broker::start_in(
        folder,
        "127.0.0.1:0",
        &["--set", "topics.auto_create=false"],
    );
    broker
        .run_with(&["topic", "produce", "none"], b"x\n")
        .fails(3, "SW3001", &["none"]);
}

#[test]
fn unknown_partitions_are_not_found() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "2"]).ok();
    let words: &[&str] = &["2"];
    broker
        .run(&["topic", "consume", "t", "-p", "2", "-e"])
        .fails(3, "SW3002", words);
    broker
        .run_with(&["topic", "produce", "t", "--partition", "2"], b"x\n")
        .fails(3, "SW3002", words);
    broker
        .run(&["topic", "trim", "t", "-p", "7", "--before", "0", "-y"])
        .fails(3, "SW3002", words);
}

#[test]
fn offsets_out_of_range_say_the_range() {
    let broker = Broker::start();
    broker
        .run_with(&["topic", "produce", "t"], b"a\nb\nc\n")
        .ok();
    let done = broker.run(&["topic", "consume", "t", "--from", "999", "-e"]);
    done.fails(3, "SW4001", &["999", "0", "3"]);
}

#[test]
fn invalid_names_and_configurations_are_usage_errors() {
    let broker = Broker::start();
    broker
        .run(&["topic", "create", "a/b"])
        .fails(2, "SW3003", &["a/b", "'/'"]);
    broker
        .run(&["topic", "create", ".."])
        .fails(2, "SW3003", &[]);
    broker
        .run(&["topic", "create", &"x".repeat(250)])
        .fails(2, "SW3003", &["250", "249"]);
    let create = |set: &str| broker.run(&["topic", "create", "t", "--set", set]);
    create("retention.mss=1").fails(2, "SW3005", &["retention.mss", "retention.ms"]);
    create("cleanup.policy=shred").fails(2, "SW3004", &["shred", "compact"]);
    create("segment.bytes=1").fails(2, "SW3004", &["segment.bytes", "1"]);
    broker
        .run(&["topic", "create", "t", "-p", "100001"])
        .fails(2, "SW3007", &["100001"]);
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok().out, "");
}

#[test]
fn records_over_the_limit_are_refused_and_what_came_before_stays() {
    let broker = Broker::start();
    broker
        .run(&["topic", "create", "t", "--set", "max.message.bytes=10000"])
        .ok();
    let large = "x".repeat(20_000);
    let input = format!("small\n{large}\n");
    let done = broker.run_with(
        &["topic", "produce", "t", "--batch-bytes", "1024"],
        input.as_bytes(),
    );
    done.fails(
        8,
        "SW4002",
        &["record 2: ", "10000", "1 record acknowledged"],
    );
    assert_eq!(broker.values("t"), "small\n");
    let done = broker.run_with(&["topic", "produce", "t"], large.as_bytes());
    done.fails(1, "SW4002", &["record 1: ", "10000"]);
}

#[test]
fn input_that_is_not_of_its_format_names_the_line() {
    let broker = Broker::start();
    let produce = |args: &[&str], input: &[u8]| {
        broker.run_with(&[&["topic", "produce", "t"], args].concat(), input)
    };
    let done = produce(&["-F", "jsonl"], b"{\"value\":\"a\"}\nnonsense\n");
    done.fails(
        8,
        "SW1001",
        &["standard input, line 2", "not a record in JSON"],
    );
    assert_eq!(broker.values("t"), "a\n");
    let csv: &[&str] = &["-F", "csv", "--key-column", "tail"];
    produce(csv, b"a,b\n1,2\n").fails(2, "SW1001", &["no column \"tail\"", "a, b"]);
    produce(csv, b"").fails(2, "SW1001", &["empty"]);
    produce(csv, b"a,tail\n1\n").fails(2, "SW1001", &["line 2", "1 fields"]);
    produce(csv, b"a,tail\n1,\"x\n").fails(2, "SW1001", &["line 2", "never closed"]);
    produce(&["--key-column", "x"], b"").fails(2, "SW1001", &["--format csv"]);
    produce(&["/nonexistent"], b"").fails(3, "SW1001", &["/nonexistent"]);
}

#[test]
fn wrong_flags_have_a_code_and_the_usage_exit_code() {
    for args in [
        &["topic", "consume", "t", "--nope"][..],
        &["topic", "consume"],
        &["frobnicate"],
        &["topic", "consume", "t", "--from", "yesterday"],
        &["topic", "consume", "t", "-f", "%q"],
        &["topic", "consume", "t", "-f", "%v", "-o", "name"],
        &["topic", "consume", "t", "--from", "1", "-o", "2"],
        &["topic", "list", "-o", "-10"],
        &["topic", "list", "-o", "xml"],
        &["topic", "create", "t", "-p", "0"],
        &["topic", "create", "t", "--set", "novalue"],
        &["topic", "produce", "t", "--rate", "0"],
        &["topic", "alter", "t"],
        &["topic", "list", "--timeout", "soon"],
        &["topic", "list", "-b", "host:notaport"],
    ] {
        run(sapwood().args(args), b"").fails(2, "SW1001", &[]);
    }
    let done = run(
        sapwood().args(["topic", "list", "--nope", "-o", "json"]),
        b"",
    );
    assert_eq!(done.code, Some(2));
    let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"]["code"], "SW1001");
    assert_eq!(error["error"]["exit"], 2);
}

#[test]
fn a_broker_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let commands: &[&[&str]] = &[
        &["topic", "list"],
        &["topic", "consume", "t"],
        &["topic", "produce", "t"],
    ];
    for command in commands {
        let done = run(sapwood().args(*command).args(["-b", &address]), b"x\n");
        done.fails(4, "SW2002", &[&address, "sapwood dev"]);
    }
    let done = run(
        sapwood().args(["topic", "list", "-o", "json", "-b", &address]),
        b"",
    );
    let error: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!(error["error"]["code"], "SW2002");
    assert_eq!(done.out, "");
}

#[test]
fn a_broker_that_never_answers_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = run(
        sapwood().args(["topic", "list", "--timeout", "1s", "-b", &address]),
        b"",
    );
    assert!(matches!(done.code, Some(4 | 7)), "{done:?}");
    assert!(done.err.contains("error[SW200"), "{}", done.err);
    drop(listener);
}

#[test]
fn a_data_directory_has_one_user() {
    let broker = Broker::start();
    let data_dir = broker.data_dir();
    refused(DEV, &data_dir).fails(6, "SW5004", &["in use"]);
    let mut verify = sapwood();
    verify
        .args(["storage", "verify", "--data-dir"])
        .arg(&data_dir);
    run(&mut verify, b"").fails(6, "SW5004", &["in use"]);
    broker.run_with(&["topic", "produce", "t"], b"x\n").ok();
}

#[test]
fn directories_of_others_are_left_alone() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    refused(DEV, folder.path()).fails(1, "SW5006", &["thesis.tex"]);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was added"
    );
    let file = folder.path().join("thesis.tex");
    refused(DEV, &file).fails(1, "SW5006", &[]);
    let mut verify = sapwood();
    verify
        .args(["storage", "verify", "--data-dir"])
        .arg(folder.path());
    run(&mut verify, b"").fails(1, "SW5006", &[]);
}

#[test]
fn a_newer_format_is_refused() {
    let broker = Broker::start();
    let (_, folder) = broker.stop(SIGTERM);
    let meta = folder.path().join("data/sapwood.meta");
    let mut bytes = std::fs::read(&meta).unwrap();
    bytes[4..8].copy_from_slice(&99u32.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..16]);
    crc.update(&bytes[20..]);
    bytes[16..20].copy_from_slice(&crc.finalize().to_be_bytes());
    std::fs::write(&meta, bytes).unwrap();
    refused(DEV, &folder.path().join("data")).fails(1, "SW5005", &["format 99"]);
}

#[test]
fn a_port_in_use_is_a_conflict() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::TempDir::new().unwrap();
    let done = refused(&["dev", "--listen", &address], folder.path());
    done.fails(6, "SW2001", &[&address]);
}

#[test]
fn listening_beyond_loopback_needs_a_word() {
    let folder = tempfile::TempDir::new().unwrap();
    let done = refused(&["serve", "--listen", "0.0.0.0:0"], folder.path());
    done.fails(2, "SW2006", &["0.0.0.0:0", "--insecure"]);
}

#[test]
fn no_permission_is_said() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let mut command = sapwood();
    command
        .args(DEV)
        .args(["--http-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(folder.path().join("data"));
    if is_root() {
        command.uid(65_534).gid(65_534);
        if command.output().is_err() {
            eprintln!("skipped: nobody else may run the binary, and root may write everywhere");
            return;
        }
    }
    run(&mut command, b"").fails(5, "SW5007", &["data"]);
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    id.stdout == b"0\n"
}

#[test]
fn too_few_descriptors_are_said_at_the_start() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = Command::new("sh");
    let script = "ulimit -n 24; exec \"$0\" dev --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
                  --data-dir \"$1\"";
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_sapwood")])
        .arg(folder.path().join("data"));
    run(&mut command, b"").fails(1, "SW5008", &["24"]);
}

#[test]
fn a_full_disk_refuses_records_and_comes_back_when_space_does() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mount = |args: &[&str]| {
        let done = Command::new("mount").args(args).arg(&data).output();
        done.is_ok_and(|done| done.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) {
        eprintln!("skipped: no right to mount a small file system");
        return;
    }
    let _unmount = Unmount(data.clone());
    let broker = Broker::start_in(folder, "127.0.0.1:0", &[]);
    broker
        .run(&["topic", "create", "t", "--set", "durability=os"])
        .ok();
    let line = format!("{}\n", "x".repeat(9_999));
    let produce = ["topic", "produce", "t", "--retry-timeout", "2s"];
    let done = broker.run_with(&produce, line.repeat(3_000).as_bytes());
    assert!(matches!(done.code, Some(7 | 8)), "{done:?}");
    let kept = broker.values("t").lines().count();
    assert!(kept > 0, "what was acknowledged can be read");
    broker.run(&["topic", "delete", "t", "-y"]).ok();
    broker
        .run_with(&["topic", "produce", "after"], b"again\n")
        .ok();
    assert_eq!(broker.values("after"), "again\n");
}

/// Takes a mount away, whatever the test came to.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn garbage_and_clients_that_die_cost_only_themselves() {
    let broker = Broker::start();
    for garbage in [
        &b"\0\0\0\x01"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 0, 200],
        &[255; 4096],
    ] {
        let mut stream = TcpStream::connect(&broker.listen).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.write_all(garbage).unwrap();
        // A reset is as good an end as any, and may have come by now.
        let _: std::io::Result<()> = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _: std::io::Result<usize> = stream.read_to_end(&mut answer);
    }
    let mut producer = broker
        .command(&["topic", "produce", "t", "--rate", "1000/s"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all("line\n".repeat(500).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    producer.kill().unwrap();
    producer.wait().unwrap();
    broker.run_with(&["topic", "produce", "u"], b"fine\n").ok();
    assert_eq!(broker.values("u"), "fine\n");
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let broker = Broker::start();
    let lines = format!("{}\n", "y".repeat(999)).repeat(30_000);
    broker
        .run_with(&["topic", "produce", "t"], lines.as_bytes())
        .ok();
    let mut silent: Vec<_> = (0..8)
        .map(|_| {
            let mut command = broker.command(&["topic", "consume", "t"]);
            command
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    broker.run_with(&["topic", "produce", "t"], b"last\n").ok();
    assert_eq!(
        broker
            .run(&["topic", "consume", "t", "--from", "-1", "-e"])
            .ok()
            .out,
        "last\n"
    );
    for reader in &mut silent {
        assert!(
            reader.try_wait().unwrap().is_none(),
            "it still waits for its reader"
        );
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
}

#[test]
fn records_sent_without_acks_arrive() {
    let broker = Broker::start();
    broker
        .run_with(&["topic", "produce", "t", "--acks", "none"], b"a\n")
        .ok();
    until("it arrived", || broker.values("t") == "a\n");
}
