//! Files that are cut under a running broker. A mapping that reaches beyond the end of its file is a
//! SIGBUS at the next touch: that must be an error of one partition, never the end of the process.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sapwood_client::{Admin, Client, Code, Error};

use super::{
    kept::{Kept, PARTITION},
    workload::SMALL,
};
use crate::harness::{Broker, KAFKA_STORAGE_ERROR, Kafka, Settings};

const BYTES: usize = 2_000;
const LARGE: usize = 60_000;
/// What takes longer than this to be noticed is not noticed.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST: &str = "00000000000000000000";

/// A broker, a topic whose files are cut, and one that others use all the time.
struct Scene {
    settings: Settings,
    broker: Broker,
    client: Client,
    cut: Kept,
    bystander: Bystander,
}

impl Scene {
    async fn start(sets: &[&str], durability: &str) -> Self {
        let settings = Settings::new(&[SMALL, sets].concat());
        let broker = settings.start();
        let client = settings.client();
        let admin = client.admin();
        let mut cut = Kept::create(&admin, "cut", &[("durability", durability)]).await;
        cut.fill(&admin, 20, BYTES).await;
        let bystander = Bystander::start(&settings, &client).await;
        Self {
            settings,
            broker,
            client,
            cut,
            bystander,
        }
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.settings.data_dir().join("topics/cut-0").join(name)
    }

    /// Cuts a file as `truncate -s` does.
    fn truncate(&self, name: &str, bytes: u64) {
        let file = File::options().write(true).open(self.file(name));
        let file = file.expect("the file is there");
        file.set_len(bytes).expect("it can be cut");
    }

    /// The name of the segment that is written to.
    fn active(&self) -> String {
        let names = fs::read_dir(self.file("")).expect("the folder");
        let names = names.map(|entry| entry.expect("the folder").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        let logs = names.filter(|name| name.ends_with(".log"));
        logs.max().expect("there is a segment")
    }

    async fn offline(&self) -> Option<Error> {
        described(&self.admin()).await
    }

    /// The partition is offline with a reason that names the file, through every door; the others are
    /// served, in the same process as before.
    async fn check_offline(mut self, file: &str) {
        let started = Instant::now();
        let reason = loop {
            if let Some(reason) = self.offline().await {
                break reason;
            }
            assert!(started.elapsed() < PATIENCE, "the cut goes unnoticed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let text = format!("{reason} {}", reason.cause());
        assert!(text.contains(file), "{file} is not in {text:?}");
        eprintln!("offline: {text}");
        let refused = self.cut.append(&self.admin(), BYTES).await;
        assert_eq!(refused.expect_err("offline").code(), Code::PartitionOffline);
        let mut kafka = Kafka::connect(&self.settings);
        let refused = self.cut.produce(&mut kafka, BYTES).expect_err("offline");
        assert_eq!(refused.code, KAFKA_STORAGE_ERROR);
        let refused = kafka.fetch("cut", 0).expect_err("offline");
        assert_eq!(refused.code, KAFKA_STORAGE_ERROR);
        let described = self.settings.cli(&["topic", "describe", "cut"], b"");
        assert!(described.text().contains(file), "{described:?}");
        let http = self.broker.http();
        let series = "sapwood_topic_partitions_offline{topic=\"cut\"}";
        assert_eq!(http.metric(series), Some(1.0));
        assert_eq!(http.readyz().0, 200);
        self.check_alive().await;
    }

    /// The process lives and serves the others.
    async fn check_alive(mut self) {
        let served = self.bystander.stop(&self.client).await;
        assert!(served > 0, "the others got nothing through");
        assert!(self.broker.is_running());
        let pid = self.broker.http().metric("sapwood_recovery_logs_cut");
        assert_eq!(pid, Some(0.0), "it is the process that was started first");
    }
}

/// Why the partition is offline, if it is.
async fn described(admin: &Admin) -> Option<Error> {
    let described = admin.describe_topic("cut").await;
    described.expect("the topic").partitions.remove(0).offline
}

/// Somebody who writes to and reads from another topic, over both protocols, all the time.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Kept>,
}

impl Bystander {
    async fn start(settings: &Settings, client: &Client) -> Self {
        let mut kept = Kept::create(&client.admin(), "bystander", &[]).await;
        let mut kafka = Kafka::connect(settings);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                kept.produce(&mut kafka, BYTES)
                    .expect("nothing is wrong with this topic");
                let last = i64::try_from(kept.last().0).expect("a small offset");
                let read = kafka.fetch("bystander", last);
                assert!(read.expect("this topic is read").len() > BYTES);
                thread::sleep(Duration::from_millis(2));
            }
            kept
        });
        Self { stop, thread }
    }

    /// How many records it got through; all of them are there.
    async fn stop(self, client: &Client) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let kept = self.thread.join().expect("the bystander was served");
        kept.check(client).await;
        kept.len()
    }
}

/// The active segment is cut to `bytes` while somebody appends to it.
async fn cut_under_writes(sets: &[&str], durability: &str, bytes: u64) {
    let mut scene = Scene::start(sets, durability).await;
    let admin = scene.admin();
    let name = scene.active();
    scene.truncate(&name, bytes);
    let started = Instant::now();
    while scene.cut.append(&admin, BYTES).await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "the cut goes unnoticed");
    }
    scene.check_offline(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_segment_cut_under_a_write_takes_its_partition_offline() {
    cut_under_writes(&["storage.tail=mmap"], "fsync", 0).await;
    cut_under_writes(&["storage.tail=mmap"], "os", 8192).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_segment_cut_under_kafkas_producer_takes_its_partition_offline() {
    let mut scene = Scene::start(&["storage.tail=mmap"], "os").await;
    let mut kafka = Kafka::connect(&scene.settings);
    let name = scene.active();
    let producing = thread::spawn(move || {
        let started = Instant::now();
        while scene.cut.produce(&mut kafka, BYTES).is_ok() {
            assert!(started.elapsed() < PATIENCE, "the cut goes unnoticed");
            scene.truncate(&name, 4096);
        }
        (scene, name)
    });
    let (scene, name) = producing.join().expect("the producer is refused");
    scene.check_offline(&name).await;
}

/// The active segment is cut, and then read.
async fn cut_under_reads(read: impl AsyncFn(&Scene)) {
    for durability in ["fsync", "os"] {
        let scene = Scene::start(&["storage.tail=mmap"], durability).await;
        let name = scene.active();
        scene.truncate(&name, 0);
        read(&scene).await;
        scene.check_offline(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_segment_cut_under_a_reader_takes_its_partition_offline() {
    cut_under_reads(async |scene| {
        for offset in 0..20 {
            let offset = sapwood_client::Offset(offset);
            let read = scene.admin().read("cut", PARTITION, offset).await;
            // What was in the file is gone; zeros are not what was written.
            assert!(read.is_err(), "{read:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_segment_cut_under_kafkas_reader_takes_its_partition_offline() {
    cut_under_reads(async |scene| {
        let mut kafka = Kafka::connect(&scene.settings);
        for offset in (0..20).rev() {
            match kafka.fetch("cut", offset) {
                Err(refused) => assert_eq!(refused.code, KAFKA_STORAGE_ERROR),
                Ok(bytes) => assert!(!is_intact(&bytes), "{offset} is not there any more"),
            }
        }
    })
    .await;
}

/// Whether these bytes begin with a batch whose checksum is right.
fn is_intact(bytes: &bytes::Bytes) -> bool {
    let first = sapwood_record::batches(bytes.clone()).next();
    first.is_some_and(|batch| batch.is_ok_and(|batch| batch.verify_crc().is_ok()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_active_segment_that_is_cut_is_never_read_as_records() {
    for bytes in [4096, 8192, 12_288, 20_480] {
        let scene = Scene::start(&["storage.tail=mmap"], "os").await;
        let name = scene.active();
        scene.truncate(&name, bytes);
        let mut kafka = Kafka::connect(&scene.settings);
        let (mut served, mut zeros, mut refused) = (0, 0, 0);
        for offset in 0..20 {
            match kafka.fetch("cut", offset) {
                Ok(bytes) if is_intact(&bytes) => served += 1,
                Ok(_) => zeros += 1,
                Err(_) => refused += 1,
            }
        }
        eprintln!(
            "cut to {bytes}: {served} served, {zeros} fail their checksum, {refused} refused"
        );
        assert!(refused > 0);
        scene.check_offline(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_segment_that_is_cut_takes_its_partition_offline_when_it_is_read() {
    for bytes in [0, 100_000] {
        let mut scene = Scene::start(&[], "fsync").await;
        let admin = scene.admin();
        scene.cut.fill(&admin, 20, LARGE).await;
        let name = format!("{FIRST}.log");
        scene.truncate(&name, bytes);
        let mut kafka = Kafka::connect(&scene.settings);
        let refused = (0..25).any(|offset| kafka.fetch("cut", offset).is_err());
        assert!(refused, "a part of the segment is missing");
        scene.check_offline(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_cut_costs_nothing_but_time() {
    let mut scene = Scene::start(&[], "fsync").await;
    let admin = scene.admin();
    scene.cut.fill(&admin, 20, LARGE).await;
    for (suffix, bytes) in [
        ("index", 0),
        ("timeindex", 5),
        ("index", 11),
        ("timeindex", 0),
    ] {
        scene.truncate(&format!("{FIRST}.{suffix}"), bytes);
        scene.cut.check(&scene.client).await;
        scene.cut.fill(&admin, 6, LARGE).await;
        scene.cut.check(&scene.client).await;
        assert!(scene.offline().await.is_none());
    }
    scene.check_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_cut_under_the_broker_is_found_by_the_next_recovery() {
    let mut scene = Scene::start(&[], "fsync").await;
    let admin = scene.admin();
    let journal = scene.settings.data_dir().join("journal");
    let cut = || {
        for entry in fs::read_dir(&journal).expect("the journal's folder") {
            let path = entry.expect("the journal's folder").path();
            let file = File::options().write(true).open(path);
            let file = file.expect("a file of the journal");
            file.set_len(4096).expect("it can be cut");
        }
    };
    cut();
    scene.cut.fill(&admin, 40, LARGE).await;
    scene.cut.check(&scene.client).await;
    cut();
    scene.cut.fill(&admin, 2, BYTES).await;
    let Scene {
        settings,
        mut broker,
        client,
        cut: kept,
        bystander,
    } = scene;
    assert!(bystander.stop(&client).await > 0);
    assert!(broker.is_running());
    // The segments may have everything; that they do is not taken on trust. The others may have lost
    // entries, too.
    broker.restart_after_kill(&settings);
    match described(&client.admin()).await {
        None => kept.check(&client).await,
        Some(reason) => {
            let text = format!("{reason} {}", reason.cause());
            assert!(
                text.contains("the journal has no record from offset"),
                "{text}"
            );
            assert!(
                text.contains("topics/cut-0/") && text.contains("position"),
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mappings_a_cut_segment_is_an_error_too() {
    cut_under_writes_without_mappings().await;
}

async fn cut_under_writes_without_mappings() {
    let mut scene = Scene::start(&["storage.tail=pwrite"], "os").await;
    let admin = scene.admin();
    let name = scene.active();
    scene.truncate(&name, 0);
    // A positional write makes the file longer again, with a hole before it.
    scene.cut.append(&admin, BYTES).await.ok();
    let mut kafka = Kafka::connect(&scene.settings);
    for offset in 0..20 {
        match kafka.fetch("cut", offset) {
            Err(refused) => assert_eq!(refused.code, KAFKA_STORAGE_ERROR),
            Ok(bytes) => assert!(!is_intact(&bytes), "{offset} is not there any more"),
        }
    }
    scene.check_offline(&name).await;
}
