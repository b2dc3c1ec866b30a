//! A disk that fills up: a small file system of memory, which only root can mount.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sapwood_client::{
    Acks, Admin, Append, Appended, Code, Codec, Error, NewTopic, Offset, PartitionId, Record,
};
use tempfile::TempDir;

use crate::harness::{Settings, skip};

const DISK_BYTES: u64 = 48 << 20;
const VALUE_BYTES: usize = 60_000;
/// The broker notices by itself that there is space again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
const PARTITION: PartitionId = PartitionId(0);

/// A mounted file system, unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    fn mount(bytes: u64) -> Result<Self, String> {
        let folder = TempDir::with_prefix("sapwood-disk-").map_err(|e| e.to_string())?;
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "sapwood-tests"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Err(format!("mount cannot be run: {e}")),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a broker that just died may not have let go of its files yet.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_records_keeps_what_it_has_and_recovers_when_space_returns() {
    let disk = match Disk::mount(DISK_BYTES) {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a small disk cannot be mounted: {reason}")),
    };
    let sets = [
        "storage.journal_file_bytes=1048576",
        "storage.journal_files=2",
        "storage.ballast_bytes=4194304",
    ];
    let settings = Settings::new(&sets).with_data_dir(&disk.path().join("data"));
    let mut broker = settings.start();
    let admin = settings.client().admin();
    for (name, durability) in [("synced", "fsync"), ("cached", "os"), ("victim", "os")] {
        let topic = NewTopic::new(name).config("durability", durability);
        let topic = topic
            .config("max.message.bytes", "262144")
            .config("segment.bytes", "4194304");
        admin
            .create_topic(&topic)
            .await
            .expect("there is space for a topic");
    }
    for number in 0..150 {
        append(&admin, "victim", number)
            .await
            .expect("there is space for 9 MB");
    }

    // Until both kinds of topic are refused.
    let mut kept = [Vec::new(), Vec::new()];
    let mut refused = [false, false];
    for number in 0..5_000 {
        for (index, topic) in ["synced", "cached"].into_iter().enumerate() {
            match append(&admin, topic, number).await {
                Ok(appended) => kept[index].push((appended.base_offset, number)),
                Err(error) => {
                    assert_eq!(error.code(), Code::StorageFull, "{error}");
                    assert!(error.is_retriable(), "{error}");
                    refused[index] = true;
                }
            }
        }
        if refused == [true, true] {
            break;
        }
    }
    assert_eq!(refused, [true, true], "the disk never filled up");
    assert!(broker.is_running());
    check_kept(&admin, &kept).await;

    // Killed and started on a full disk: everything is still there, and still full.
    broker.restart_after_kill(&settings);
    check_kept(&admin, &kept).await;

    // A topic can be deleted on a full disk, and its space is used again without a restart.
    admin
        .delete_topic("victim")
        .await
        .expect("a topic can be deleted on a full disk");
    let started = Instant::now();
    for (index, topic) in ["synced", "cached"].into_iter().enumerate() {
        let appended = loop {
            match append(&admin, topic, 77).await {
                Ok(appended) => break appended,
                Err(error) => assert_eq!(error.code(), Code::StorageFull, "{error}"),
            }
            assert!(
                started.elapsed() < RECOVERY_LIMIT,
                "{topic} is still refused"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        kept[index].push((appended.base_offset, 77));
    }
    check_kept(&admin, &kept).await;
    broker.stop();
    settings.verify();
}

async fn append(admin: &Admin, topic: &str, number: u64) -> Result<Appended, Error> {
    let append = Append {
        topic: topic.to_owned(),
        partition: PARTITION,
        records: vec![Record::to(topic).value(value(number))],
        acks: Acks::All,
        expected_end: None,
        compression: Codec::None,
    };
    admin
        .append(append)
        .await
        .map(|appended| appended.expect("acks=all names the offset"))
}

fn value(number: u64) -> Bytes {
    let mut value = format!("value {number} ").into_bytes();
    value.resize(VALUE_BYTES, b'x');
    value.into()
}

/// Everything that was acknowledged is there, without a gap before the end.
async fn check_kept(admin: &Admin, kept: &[Vec<(Offset, u64)>; 2]) {
    for (topic, kept) in ["synced", "cached"].into_iter().zip(kept) {
        for (offset, number) in kept {
            let read = admin.read(topic, PARTITION, *offset).await;
            let message = read.unwrap_or_else(|e| panic!("{topic} offset {offset}: {e}"));
            let message = message.unwrap_or_else(|| panic!("{topic} offset {offset} is not there"));
            assert_eq!(
                message.value.as_deref(),
                Some(&value(*number)[..]),
                "{topic} {offset}"
            );
        }
        let bounds = admin
            .bounds(topic, PARTITION)
            .await
            .expect("the topic is there");
        let last = kept.last().map_or(Offset(0), |(offset, _)| offset.add(1));
        assert_eq!(
            bounds.high_watermark, last,
            "{topic} holds records that nobody was told of"
        );
    }
}
