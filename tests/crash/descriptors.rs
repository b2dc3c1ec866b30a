//! A broker that may open few files.

use std::{fs, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::kept::Kept;
use crate::harness::{Broker, Settings};

const PARTITIONS: &str = "600";
/// Room for the files that are appended to, and for no second one of each.
const LIMIT: &str = "ulimit -n 1000; exec \"$0\" \"$@\"";
const RECORDS: &str = "12000";

#[test]
fn more_partitions_than_half_the_descriptors_are_written_checkpointed_and_recovered() {
    let run_by = ["sh", "-c", LIMIT].map(Into::into).to_vec();
    // The journal turns, and asks for a checkpoint of all of them, in the middle of the load.
    let sets = [
        "storage.journal_files=2",
        "storage.journal_file_bytes=16mib",
    ];
    let settings = Settings::new(&sets).run_by(run_by);
    let broker = settings.start();
    let load = [
        "bench", "produce", "-t", "many", "-p", PARTITIONS, "-n", RECORDS,
    ];
    let small = ["--batch-bytes", "4096", "--warm-up", "0ms"];
    settings.cli(&[&load[..], &small].concat(), b"").ok();
    read(&settings, &broker);
    broker.stop();
    let broker = settings.start();
    read(&settings, &broker);
    settings
        .cli(&[&load[..], &small, &["--fresh"]].concat(), b"")
        .ok();
    broker.kill();
    let broker = settings.start();
    read(&settings, &broker);
    broker.stop();
    settings.verify();
}

fn read(settings: &Settings, broker: &Broker) {
    let read = settings.cli(&["bench", "consume", "-t", "many", "-o", "json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&read.ok().stdout).expect("JSON");
    assert_eq!(report["records"].to_string(), RECORDS, "{report}");
    assert_eq!(report["lost"], 0, "{report}");
    let log = broker.log();
    assert!(!log.contains("offline"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_finds_no_descriptor_is_tried_again_and_takes_no_partition_offline() {
    let sets = [
        "storage.journal_files=2",
        "storage.journal_file_bytes=16mib",
    ];
    let settings = Settings::new(&sets);
    let broker = settings.start();
    let admin = settings.client().admin();
    settings
        .cli(&["topic", "create", "kept", "-p", "1"], b"")
        .ok();
    let mut kept = Kept::nothing_of("kept");
    kept.fill(&admin, 1, 1000).await;
    let pid = broker.pid();
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("it runs");
    limit_descriptors(pid, Some(open.count() as u64));
    // The journal is full, and waits for a checkpoint.
    let much = kept.fill(&admin, 1000, 200_000);
    let ended = tokio::time::timeout(Duration::from_secs(5), much).await;
    assert!(ended.is_err(), "{}", broker.log());
    limit_descriptors(pid, getrlimit(Resource::Nofile).maximum);
    kept.fill(&admin, 10, 1000).await;
    let log = broker.log();
    assert!(
        !log.contains("offline") && !log.contains("read-only"),
        "{log}"
    );
    kept.check(&settings.client()).await;
    broker.stop();
    settings.verify();
}

fn limit_descriptors(pid: Pid, current: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current, maximum };
    prlimit(Some(pid), Resource::Nofile, limit).expect("the process is ours");
}
