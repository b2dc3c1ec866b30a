//! Death and return of the broker, as its users see it.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::broker::{Broker, SIGKILL, SIGTERM, read_all, verify, wait};

/// Kills the broker several times while a producer sends at a steady rate, and restarts it on the
/// same address each time.
fn survives_kills(durability: &str) {
    let seed = std::time::UNIX_EPOCH
        .elapsed()
        .expect("it is after 1970")
        .subsec_nanos();
    println!("seed {seed}");
    let mut random = u64::from(seed) | 1;
    let mut broker = Broker::start();
    let listen = broker.listen.clone();
    broker
        .run(&[
            "topic",
            "create",
            "t",
            "-p",
            "3",
            "--set",
            &format!("durability={durability}"),
        ])
        .ok();
    let lines: Vec<String> = (0..6_000)
        .map(|n| format!("{n:06},key{}", n % 17))
        .collect();
    let input = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(input.path(), format!("n,key\n{}\n", lines.join("\n")))
        .expect("it can be written");
    let mut child = broker
        .command(&["topic", "produce", "t", "-F", "csv", "--key-column", "key"])
        .args(["--rate", "2000/s", "--retry-timeout", "60s"])
        .arg(input.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    for _ in 0..4 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_millis(100 + random % 500));
        let (status, folder) = broker.stop(SIGKILL);
        assert_eq!(status.code(), None, "it was killed");
        broker = Broker::start_in(folder, &listen, &[]);
    }
    let status = wait(&mut child);
    let err = read_all(child.stderr.take().expect("it is piped"));
    assert!(status.success(), "{err}");
    assert!(err.contains("6,000 records acknowledged"), "{err}");

    let done = broker
        .run(&["topic", "consume", "t", "-e", "-f", "%p %o %v\\n"])
        .ok();
    let mut next = [0u64; 3];
    let mut last = [const { None::<String> }; 3];
    let mut values = Vec::new();
    let number = |word: Option<&str>| {
        word.and_then(|word| word.parse::<u64>().ok())
            .expect("a number")
    };
    for line in done.out.lines() {
        let mut words = line.split(' ');
        let partition = number(words.next()) as usize;
        let offset = number(words.next());
        let value = words.next().expect("a value").to_owned();
        assert_eq!(offset, next[partition], "no gap in partition {partition}");
        next[partition] += 1;
        assert!(
            last[partition].as_ref().is_none_or(|last| *last < value),
            "order is kept"
        );
        last[partition] = Some(value.clone());
        values.push(value);
    }
    values.sort();
    assert_eq!(values, lines, "each record once");
    let (_, folder) = broker.stop(SIGKILL);
    verify(folder.path()).ok();
}

#[test]
fn nothing_is_lost_or_doubled_when_a_broker_is_killed_under_a_producer_with_fsync() {
    survives_kills("fsync");
}

#[test]
fn nothing_is_lost_or_doubled_when_a_broker_is_killed_under_a_producer_with_os() {
    survives_kills("os");
}

#[test]
fn a_clean_stop_leaves_a_sound_directory_that_opens_again() {
    let broker = Broker::start();
    broker.run_with(&["topic", "produce", "t"], b"kept\n").ok();
    let (status, folder) = broker.stop(SIGTERM);
    assert_eq!(status.code(), Some(0));
    let done = verify(folder.path()).ok();
    assert!(
        done.out
            .starts_with("sound: 1 partition, 1 batch, 1 record"),
        "{}",
        done.out
    );

    let mut inspect = crate::broker::sapwood();
    inspect
        .args(["storage", "inspect", "-o", "json", "--data-dir"])
        .arg(folder.path().join("data"));
    let report = crate::broker::run(&mut inspect, b"").ok().json();
    assert_eq!(report["clean_stop"], true);
    assert_eq!(report["partitions"][0]["topic"], "t");
    assert_eq!(report["partitions"][0]["end_offset"], 1);
    let broker = Broker::start_in(folder, "127.0.0.1:0", &[]);
    assert_eq!(broker.values("t"), "kept\n");
}

#[test]
fn damage_is_found_named_and_answered_with_ten() {
    let broker = Broker::start();
    let lines = "0123456789\n".repeat(1000);
    broker
        .run_with(&["topic", "produce", "t"], lines.as_bytes())
        .ok();
    let (_, folder) = broker.stop(SIGTERM);
    let segment = folder
        .path()
        .join("data/topics/t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let done = verify(folder.path());
    assert_eq!(done.code, Some(10), "{}{}", done.out, done.err);
    assert!(
        done.out.contains("00000000000000000000.log"),
        "{}",
        done.out
    );
    assert!(done.out.contains("damage: "), "{}", done.out);
}

#[test]
fn a_producer_gives_up_after_its_retry_timeout() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]).ok();
    let mut child = broker
        .command(&["topic", "produce", "t", "--retry-timeout", "2s"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"a\n").unwrap();
    crate::broker::until("the first line is there", || broker.values("t") == "a\n");
    drop(broker);
    let begun = Instant::now();
    std::io::Write::write_all(&mut stdin, b"b\n").unwrap();
    drop(stdin);
    let code = wait(&mut child).code();
    let err = read_all(child.stderr.take().unwrap());
    assert_eq!(code, Some(8), "one record was acknowledged, one not: {err}");
    assert!(err.contains("record 2: "), "{err}");
    assert!(
        err.contains("1 record acknowledged") && err.contains("1 not acknowledged"),
        "{err}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}
