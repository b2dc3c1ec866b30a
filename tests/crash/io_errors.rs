//! Disks that fail: chosen system calls of the real binary get an error instead of an answer. What
//! failed is never tried again as if nothing had happened; what does not need it goes on; a restart
//! finds everything that was acknowledged.

use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use sapwood_client::{Admin, Client, Code, Error, NewTopic};

use super::{
    kept::{Kept, PARTITION},
    workload::SMALL,
};
use crate::harness::{Broker, Call, Faults, KAFKA_STORAGE_ERROR, Kafka, Settings, skip};

const RECORDS: usize = 10;
const BYTES: usize = 2_000;
/// A segment is full after some of these.
const LARGE: usize = 60_000;

/// A broker over a disk that can fail, with a topic of each kind that holds some records.
struct Scene {
    settings: Settings,
    faults: Faults,
    broker: Broker,
    client: Client,
    synced: Kept,
    cached: Kept,
}

impl Scene {
    /// `None` where there is no layer that makes calls fail; the test is then skipped.
    async fn start() -> Option<Self> {
        let settings = Settings::new(SMALL);
        let boot_id = settings.scratch().join("boot_id");
        boot(&boot_id, 1);
        let settings = settings.set(format!("storage.boot_id_file={}", boot_id.display()));
        let (settings, faults) = match Faults::under(settings) {
            Ok(under) => under,
            Err(reason) => {
                skip(&format!("system calls cannot be made to fail: {reason}"));
                return None;
            }
        };
        let broker = settings.start();
        let client = settings.client();
        let admin = client.admin();
        let mut synced = Kept::create(&admin, "synced", &[]).await;
        let mut cached = Kept::create(&admin, "cached", &[("durability", "os")]).await;
        synced.fill(&admin, RECORDS, BYTES).await;
        cached.fill(&admin, RECORDS, BYTES).await;
        assert_eq!(broker.http().readyz().0, 200);
        Some(Self {
            settings,
            faults,
            broker,
            client,
            synced,
            cached,
        })
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// The data directory takes nothing more, says why to everybody who asks, and is read as before.
    /// Nothing is tried again, even though the disk is well again. `word` is in the reason.
    async fn check_read_only(&mut self, word: &str) {
        self.faults.set(&[]);
        let before = self.faults.count();
        let admin = self.admin();
        for kept in [&mut self.synced, &mut self.cached] {
            let refused = kept.append(&admin, BYTES).await.expect_err("read-only");
            check_reason(&refused, Code::ReadOnly, word);
            let mut kafka = Kafka::connect(&self.settings);
            let refused = kept.produce(&mut kafka, BYTES).expect_err("read-only");
            assert_eq!(refused.code, KAFKA_STORAGE_ERROR, "{refused:?}");
            assert!(refused.message.contains(word), "{refused:?}");
            let read = kafka.fetch(kept.topic, 0).expect("fetch goes on");
            assert!(read.len() > RECORDS * BYTES, "{} bytes", read.len());
            kept.check(&self.client).await;
        }
        let created = admin.create_topic(&NewTopic::new("late")).await;
        check_reason(&created.expect_err("read-only"), Code::ReadOnly, word);

        let http = self.broker.http();
        let (status, said, reason) = http.readyz();
        assert_eq!((status, said.as_str()), (503, "read_only"), "{reason}");
        assert!(reason.contains(word), "{reason}");
        assert_eq!(http.get("/livez").0, 200);
        let state = |state| http.metric(&format!("sapwood_disk_state{{state=\"{state}\"}}"));
        assert_eq!(
            [state("ok"), state("full"), state("read_only")],
            [Some(0.0), Some(0.0), Some(1.0)]
        );
        // Longer than a checkpoint of an os topic waits.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let after = self.faults.calls().split_off(before);
        let again = |call: &&Call| {
            let kind = ["write", "sync", "syncfs", "rename"].contains(&call.name.as_str());
            // A checkpoint that had begun may be at its segments; it will not be written.
            let of_segment = call.path.starts_with("topics/") && call.path.contains('.');
            kind && !of_segment && !call.path.starts_with("ballast")
        };
        let again: Vec<_> = after.iter().filter(again).collect();
        assert!(again.is_empty(), "written after the failure: {again:?}");
    }

    /// Killed and started again: everything that was acknowledged is there, and more is taken.
    async fn restart(mut self) {
        self.faults.set(&[]);
        self.broker.restart_after_kill(&self.settings);
        let (status, said, reason) = self.broker.http().readyz();
        assert!(said == "ready" || said == "loading", "{said}: {reason}");
        assert!(said == "loading" || status == 200);
        let admin = self.admin();
        for kept in [&mut self.synced, &mut self.cached] {
            kept.check(&self.client).await;
            kept.fill(&admin, 2, BYTES).await;
            kept.check(&self.client).await;
        }
        let offline = offline(&admin, "synced").await;
        assert!(offline.is_none(), "{offline:?}");
        self.broker.stop();
        self.settings.verify();
    }

    /// Only the partition of `synced` is offline, everybody is told why, the other goes on.
    /// `words` are in the reason.
    async fn check_offline(&mut self, words: &[&str]) {
        self.faults.set(&[]);
        let admin = self.admin();
        let reason = offline(&admin, "synced").await.expect("it is offline");
        for word in words {
            let text = format!("{reason} {}", reason.cause());
            assert!(text.contains(word), "{word} is not in {text}");
        }
        let refused = self.synced.append(&admin, BYTES).await;
        check_reason(
            &refused.expect_err("offline"),
            Code::PartitionOffline,
            words[0],
        );
        let mut kafka = Kafka::connect(&self.settings);
        let refused = self.synced.produce(&mut kafka, BYTES);
        assert_eq!(refused.expect_err("offline").code, KAFKA_STORAGE_ERROR);
        let refused = kafka.fetch("synced", 0).expect_err("offline");
        assert_eq!(refused.code, KAFKA_STORAGE_ERROR);
        let described = self.settings.cli(&["topic", "describe", "synced"], b"");
        let described = described.text();
        assert!(described.contains("offline"), "{described}");
        assert!(described.contains(words[0]), "{described}");

        self.cached.fill(&admin, 2, BYTES).await;
        self.cached.check(&self.client).await;
        let mut other = Kept::create(&admin, "other", &[]).await;
        other.fill(&admin, 2, BYTES).await;
        other.check(&self.client).await;
        let http = self.broker.http();
        assert_eq!(http.readyz().0, 200, "the broker serves the others");
        let offline = |topic| {
            http.metric(&format!(
                "sapwood_topic_partitions_offline{{topic=\"{topic}\"}}"
            ))
        };
        assert_eq!(
            [offline("synced"), offline("cached")],
            [Some(1.0), Some(0.0)]
        );
    }
}

/// Whoever reads the file after the next start sees another boot.
fn boot(file: &Path, number: u32) {
    fs::write(file, format!("00000000-0000-4000-8000-{number:012}\n")).expect("the scratch folder");
}

/// The words are in the message or in the cause that comes with it.
#[track_caller]
fn check_reason(error: &Error, code: Code, word: &str) {
    assert_eq!(error.code(), code, "{error}");
    let text = format!("{error} {}", error.cause());
    assert!(text.contains(word), "{word:?} is not in {text:?}");
}

/// Why the topic's partition is offline, if it is.
async fn offline(admin: &Admin, topic: &str) -> Option<Error> {
    let described = admin.describe_topic(topic).await.expect("a topic");
    let mut partitions = described.partitions;
    partitions.remove(0).offline
}

/// Appends until it is refused.
async fn until_refused(kept: &mut Kept, admin: &Admin, bytes: usize) -> Error {
    for _ in 0..200 {
        if let Err(refused) = kept.append(admin, bytes).await {
            return refused;
        }
    }
    panic!("{} is not refused", kept.topic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_of_the_journal_makes_the_directory_read_only_until_a_restart() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.faults.set(&["write journal/* EIO count=1"]);
    let refused = until_refused(&mut scene.synced, &scene.client.admin(), BYTES).await;
    check_reason(&refused, Code::ReadOnly, "journal");
    assert!(
        refused.is_retriable(),
        "another broker may take it: {refused}"
    );
    scene.check_read_only("journal").await;
    assert_eq!(scene.faults.failed().len(), 1);
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_the_journal_acknowledges_nothing_even_if_its_pages_are_lost() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.faults.set(&["sync journal/* EIO count=1"]);
    let refused = until_refused(&mut scene.synced, &scene.client.admin(), BYTES).await;
    check_reason(&refused, Code::ReadOnly, "journal");
    scene.check_read_only("journal").await;

    // The kernel may drop what it could not write: the round is gone, and so is the page cache.
    let calls = scene.faults.calls();
    let failed = calls.iter().position(|call| call.result == "EIO");
    let failed = failed.expect("the sync has failed");
    let round = calls[..failed].iter().rev();
    let mut round = round.filter(|call| call.name == "write" && call.path == calls[failed].path);
    let round = round.next().expect("a round was written");
    let journal = scene.settings.data_dir().join(&round.path);
    let zeros = vec![0; usize::try_from(round.bytes).expect("a round fits")];
    let journal = fs::File::options().write(true).open(journal);
    let journal = journal.expect("a file of the journal");
    journal
        .write_all_at(&zeros, round.position)
        .expect("the journal");
    boot(&scene.settings.scratch().join("boot_id"), 2);
    // An os topic loses what was not synced; it is killed before that matters.
    scene.cached = Kept::nothing_of("cached");
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_a_folder_at_a_roll_makes_the_directory_read_only() {
    for error in ["EIO", "ENOSPC"] {
        let Some(mut scene) = Scene::start().await else {
            return;
        };
        let rule = format!("sync topics/synced-0 {error} count=1");
        scene.faults.set(&[&rule]);
        let refused = until_refused(&mut scene.synced, &scene.client.admin(), LARGE).await;
        check_reason(&refused, Code::ReadOnly, "topics/synced-0");
        scene.check_read_only("topics/synced-0").await;
        scene.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_no_descriptor_is_left_to_sync_is_synced_when_there_is_one() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.faults.set(&["open topics/synced-0 EMFILE"]);
    let admin = scene.admin();
    // Nothing behind the roll is acknowledged: a power cut could lose the new segment's name.
    let filled = scene.synced.fill(&admin, 200, LARGE);
    let filled = tokio::time::timeout(Duration::from_secs(3), filled).await;
    assert!(filled.is_err(), "acknowledged with a name that may be lost");
    assert!(!scene.faults.failed().is_empty());
    scene.faults.set(&[]);
    scene.synced.fill(&admin, 2, BYTES).await;
    scene.cached.fill(&admin, 2, BYTES).await;
    assert_eq!(scene.broker.http().readyz().0, 200);
    let log = scene.broker.log();
    assert!(log.contains("waiting to sync a folder"), "{log}");
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_rename_at_a_roll_takes_its_partition_offline() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.faults.set(&["rename topics/synced-0/*segment* EIO"]);
    let refused = until_refused(&mut scene.synced, &scene.client.admin(), LARGE).await;
    check_reason(&refused, Code::PartitionOffline, "rename");
    scene.check_offline(&["rename", "synced-0", ".log"]).await;
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_creation_meets_a_failing_disk_is_there_after_a_restart_or_not_at_all() {
    for (rule, word) in [
        ("sync topics EIO count=1", "topics"),
        ("rename topics/* EIO count=1", "topics"),
        ("mkdir topics/* EIO count=1", "topics"),
        ("write catalog/catalog.log EIO count=1", "catalog.log"),
        ("sync catalog/catalog.log EIO count=1", "catalog.log"),
    ] {
        let Some(mut scene) = Scene::start().await else {
            return;
        };
        scene.faults.set(&[rule]);
        let created = scene.admin().create_topic(&NewTopic::new("new")).await;
        let refused = created.expect_err("the disk fails");
        check_reason(&refused, Code::ReadOnly, word);
        scene.check_read_only(word).await;
        scene.faults.set(&[]);
        scene.broker.restart_after_kill(&scene.settings);
        let admin = scene.admin();
        let there = admin.describe_topic("new").await.is_ok();
        eprintln!(
            "{rule}: the topic is {}",
            if there { "there" } else { "not there" }
        );
        if !there {
            admin.create_topic(&NewTopic::new("new")).await.expect(rule);
        }
        let reason = offline(&admin, "new").await;
        assert!(reason.is_none(), "{rule}: {reason:?}");
        scene.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_a_checkpoint_cannot_sync_takes_its_partition_offline_and_the_journal_has_it()
 {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene
        .faults
        .set(&["sync topics/synced-0/*.log EIO count=1"]);
    // An os topic that is dirty has a checkpoint taken.
    let admin = scene.admin();
    for _ in 0..100 {
        scene.cached.fill(&admin, 1, BYTES).await;
        if offline(&admin, "synced").await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene
        .check_offline(&["sync", "synced-0", "os error 5"])
        .await;
    // The journal turns over: what it holds of the partition has to be copied aside first.
    let mut other = Kept::create(&admin, "busy", &[]).await;
    other.fill(&admin, 70, LARGE).await;
    let aside = fs::read_dir(scene.settings.data_dir().join("aside"));
    assert!(aside.expect("the folder is there").count() > 0);
    other.check(&scene.client).await;
    // What could not be synced is lost.
    let segment = scene
        .settings
        .data_dir()
        .join("topics/synced-0/00000000000000000000.log");
    let segment = fs::File::options()
        .write(true)
        .open(segment)
        .expect("a segment");
    let length = segment.metadata().expect("a segment").len();
    scene.broker.restart_after(&scene.settings, || {
        let zeros = vec![0; usize::try_from(length).expect("small")];
        segment.write_all_at(&zeros, 0).expect("the segment");
        boot(&scene.settings.scratch().join("boot_id"), 2);
    });
    scene.cached = Kept::nothing_of("cached");
    other.check(&scene.client).await;
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_out_takes_its_partition_offline() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let admin = scene.admin();
    // Write-out goes in steps of 2 MiB.
    let segment =
        sapwood_client::ConfigChange::Set("segment.bytes".to_owned(), "16777216".to_owned());
    admin
        .alter_topic("synced", &[segment])
        .await
        .expect("a new size");
    scene.synced.fill(&admin, 4, LARGE).await; // the old segment is full
    scene
        .faults
        .set(&["writeout topics/synced-0/* EIO count=1"]);
    until_refused(&mut scene.synced, &admin, LARGE).await;
    scene
        .check_offline(&["write-out", "synced-0", ".log"])
        .await;
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_sealed_segment_is_an_error_of_its_partition_alone() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let admin = scene.admin();
    scene.synced.fill(&admin, 20, LARGE).await;
    let first = "topics/synced-0/00000000000000000000.log";
    scene.faults.set(&[&format!("read {first} EIO")]);
    let mut kafka = Kafka::connect(&scene.settings);
    let refused = kafka.fetch("synced", 0).expect_err("unreadable");
    assert_eq!(refused.code, KAFKA_STORAGE_ERROR);
    let refused = admin
        .read("synced", PARTITION, sapwood_client::Offset(1))
        .await;
    check_reason(
        &refused.expect_err("unreadable"),
        Code::PartitionOffline,
        "read",
    );
    scene
        .check_offline(&["read", "synced-0/00000000000000000000.log", "os error 5"])
        .await;
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_at_a_roll_is_refused_and_goes_away_with_the_next_free_block() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let admin = scene.admin();
    scene.faults.set(&["allocate topics/* ENOSPC"]);
    for kept in [&mut scene.synced, &mut scene.cached] {
        let refused = until_refused(kept, &admin, LARGE).await;
        check_reason(&refused, Code::StorageFull, "space");
        assert!(refused.is_retriable(), "{refused}");
        let mut kafka = Kafka::connect(&scene.settings);
        let refused = kept.produce(&mut kafka, LARGE).expect_err("full");
        assert_eq!(refused.code, KAFKA_STORAGE_ERROR, "{refused:?}");
        kept.check(&scene.client).await;
    }
    // The file system has room, as `/readyz` finds out; only this call had none.
    scene.broker.http().wait_for("ready");
    scene.faults.set(&[]);
    for kept in [&mut scene.synced, &mut scene.cached] {
        kept.fill(&admin, 6, LARGE).await;
    }
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_allocated_stops_the_start_with_its_name() {
    let Ok((settings, faults)) = Faults::under(Settings::new(SMALL)) else {
        return skip("system calls cannot be made to fail");
    };
    faults.set(&["allocate journal/* ENOSPC"]);
    let mut starting = settings.spawn();
    let status = starting.wait_for_end();
    assert_eq!(status.code(), Some(1));
    let log = starting.log();
    assert!(
        log.contains("journal") && log.contains("No space left"),
        "{log}"
    );
    faults.set(&[]);
    let broker = settings.start();
    let client = settings.client();
    let mut kept = Kept::create(&client.admin(), "synced", &[]).await;
    kept.fill(&client.admin(), 2, BYTES).await;
    broker.stop();
    settings.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_space_takes_the_ballast_and_holds_up_nobody_for_good() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let admin = scene.admin();
    scene.faults.set(&["write checkpoint.tmp ENOSPC count=3"]);
    // Three checkpoints are tried, one of them with the ballast.
    scene.synced.fill(&admin, 80, LARGE).await;
    let failed = scene.faults.failed();
    assert_eq!(failed.len(), 3, "{failed:?}");
    let released = |call: &Call| call.name == "truncate" && call.path == "ballast";
    assert!(
        scene.faults.calls().iter().any(released),
        "the ballast was kept"
    );
    assert_eq!(scene.broker.http().readyz().0, 200);
    // And taken back.
    let held = async {
        while scene.broker.http().metric("sapwood_disk_ballast_bytes") != Some(1_048_576.0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held)
        .await
        .expect("the ballast is taken back");
    scene.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_without_space_refuses_the_change_and_takes_the_next() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let admin = scene.admin();
    scene
        .faults
        .set(&["write catalog/catalog.log ENOSPC count=1"]);
    let refused = admin.create_topic(&NewTopic::new("new")).await;
    check_reason(&refused.expect_err("full"), Code::StorageFull, "space");
    assert!(admin.describe_topic("new").await.is_err());
    admin
        .create_topic(&NewTopic::new("new"))
        .await
        .expect("there is space again");
    scene.synced.fill(&admin, 2, BYTES).await;
    scene.restart().await;
}
