//! A disk that fills up: a small file system of memory, and an ext4 in a file. Only root can mount them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sapwood_client::{Admin, Client, Code, NewTopic, Offset};
use tempfile::TempDir;

use super::kept::{Kept, PARTITION};
use crate::harness::{Broker, Http, KAFKA_STORAGE_ERROR, Kafka, Settings, skip};

const DISK_BYTES: u64 = 96 << 20;
const BALLAST_BYTES: u32 = 4 << 20;
const VALUE_BYTES: usize = 60_000;
const REFUSED_IN_A_ROW: u32 = 40;
/// What another program has on the disk.
/// More than segments take ahead, and twice the ballast beyond that: then it is taken back.
const STRANGER_BYTES: usize = 36 << 20;

/// A mounted file system, unmounted when dropped.
struct Disk {
    folder: TempDir,
    /// Where its blocks are, if it is not in memory.
    _image: Option<TempDir>,
}

impl Disk {
    fn tmpfs() -> Result<Self, String> {
        let size = format!("size={DISK_BYTES}");
        Self::mount(&["-t", "tmpfs", "-o", &size, "sapwood-tests"], None)
    }

    fn ext4() -> Result<Self, String> {
        let folder = TempDir::with_prefix("sapwood-image-").map_err(|e| e.to_string())?;
        let image = folder.path().join("ext4");
        let sized = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        sized.map_err(|e| e.to_string())?;
        let image = image.to_str().expect("the path is text");
        // What is kept for root is more than the ballast: the broker is root here, and must leave it alone.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "5", image]))?;
        Self::mount(&["-o", "loop", image], Some(folder))
    }

    fn mount(args: &[&str], image: Option<TempDir>) -> Result<Self, String> {
        let folder = TempDir::with_prefix("sapwood-disk-").map_err(|e| e.to_string())?;
        run(Command::new("mount").args(args).arg(folder.path()))?;
        Ok(Self {
            folder,
            _image: image,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) => Err(format!("{command:?} cannot be run: {e}")),
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a broker that just died may not have let go of its files yet.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
    }
}

/// A broker on a small disk, with a topic of each kind, one more to delete, and a file that is not the
/// broker's.
struct Scene {
    settings: Settings,
    broker: Broker,
    client: Client,
    kept: [Kept; 2],
    stranger: PathBuf,
    _disk: Disk,
}

impl Scene {
    async fn start(disk: Disk) -> Self {
        let sets = [
            "storage.journal_file_bytes=1048576",
            "storage.journal_files=2",
            &format!("storage.ballast_bytes={BALLAST_BYTES}"),
        ];
        let settings = Settings::new(&sets).with_data_dir(&disk.path().join("data"));
        let stranger = disk.path().join("not the broker's");
        fs::write(&stranger, vec![1; STRANGER_BYTES]).expect("there is space");
        let broker = settings.start();
        let client = settings.client();
        let admin = client.admin();
        let large = ("segment.bytes", "4194304");
        let os = ("durability", "os");
        let kept = [
            Kept::create(&admin, "synced", &[large]).await,
            Kept::create(&admin, "cached", &[large, os]).await,
        ];
        let mut victim = Kept::create(&admin, "victim", &[large, os]).await;
        victim.fill(&admin, 150, VALUE_BYTES).await;
        Self {
            settings,
            broker,
            client,
            kept,
            stranger,
            _disk: disk,
        }
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// Appends until both kinds of topic are refused for good: ext4 gives back what a failed allocation
    /// took only when its own journal has committed.
    async fn fill(&mut self) {
        let admin = self.admin();
        let mut refused = 0;
        for _ in 0..5_000 {
            for kept in &mut self.kept {
                match kept.append(&admin, VALUE_BYTES).await {
                    Ok(_) => refused = 0,
                    Err(error) => {
                        assert_eq!(error.code(), Code::StorageFull, "{error}");
                        assert!(error.is_retriable(), "{error}");
                        refused += 1;
                    }
                }
            }
            if refused >= REFUSED_IN_A_ROW {
                return;
            }
        }
        panic!("the disk never fills up");
    }

    /// Everybody is told, and what is there is served.
    async fn check_full(&mut self) {
        let mut kafka = Kafka::connect(&self.settings);
        for kept in &mut self.kept {
            let refused = kept.produce(&mut kafka, VALUE_BYTES).expect_err("full");
            assert_eq!(refused.code, KAFKA_STORAGE_ERROR, "{refused:?}");
            assert!(refused.message.contains("no space left"), "{refused:?}");
            for offset in [kept.first(), kept.last()] {
                let offset = i64::try_from(offset.0).expect("a small offset");
                let read = kafka.fetch(kept.topic, offset).expect("fetch goes on");
                assert!(read.len() > VALUE_BYTES, "{} at {offset}", kept.topic);
            }
        }
        self.check_kept().await;
        let line = "x".repeat(VALUE_BYTES) + "\n";
        let produce = ["topic", "produce", "synced", "-q", "--retry-timeout", "1s"];
        let produced = self.settings.cli(&produce, line.repeat(300).as_bytes());
        let said = &produced.stderr;
        assert!(said.starts_with("error[SW2003]: record "), "{said}");
        assert!(said.contains("SW5001: no space left"), "{said}");
        let http = self.broker.http();
        let (status, said, reason) = http.readyz();
        assert_eq!((status, said.as_str()), (503, "full"), "{reason}");
        assert!(reason.contains("records are refused"), "{reason}");
        assert_eq!(http.get("/livez").0, 200);
        assert_eq!(states(http), [0.0, 1.0, 0.0]);
        let refused = http.metric("sapwood_appends_without_space_total");
        assert!(refused > Some(1.0), "{refused:?} appends were refused");
    }

    /// By itself, without a restart.
    async fn check_recovers(&mut self) {
        let (status, _) = self.broker.http().wait_for("ready");
        assert_eq!(status, 200);
        assert_eq!(states(self.broker.http()), [1.0, 0.0, 0.0]);
        let mut kafka = Kafka::connect(&self.settings);
        let admin = self.admin();
        for kept in &mut self.kept {
            kept.fill(&admin, 1, VALUE_BYTES).await;
            let produced = kept.produce(&mut kafka, VALUE_BYTES);
            produced.expect("there is space again");
        }
        self.check_kept().await;
    }

    /// Everything that was acknowledged is there, and nothing that nobody was told of.
    async fn check_kept(&mut self) {
        for kept in &self.kept {
            kept.check(&self.client).await;
            let bounds = self.admin().bounds(kept.topic, PARTITION).await;
            let end = bounds.expect("the topic is there").high_watermark;
            assert_eq!(end, kept.last().add(1), "{}", kept.topic);
        }
        assert!(self.broker.is_running());
    }
}

/// Whether the disk is ok, full, read-only.
fn states(http: &Http) -> [f64; 3] {
    ["ok", "full", "read_only"].map(|state| {
        let series = format!("sapwood_disk_state{{state=\"{state}\"}}");
        http.metric(&series).expect("the state is a metric")
    })
}

async fn fill_and_free(disk: Result<Disk, String>) {
    let disk = match disk {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a small disk cannot be mounted: {reason}")),
    };
    let mut scene = Scene::start(disk).await;
    let admin = scene.admin();
    scene.fill().await;
    scene.check_full().await;

    // Offsets can be committed, also the first ones of all, with what the ballast gives up. Records
    // are refused as before: that space is not theirs.
    let mut kafka = Kafka::connect(&scene.settings);
    kafka
        .commit("group", "synced", 1)
        .expect("a commit on a full disk");
    assert_eq!(ballast(scene.broker.http()), 0.0, "the ballast is given up");
    scene.fill().await;
    scene.check_full().await;
    for offset in 0..200 {
        kafka
            .commit("group", "synced", offset)
            .expect("a commit on a full disk");
    }
    // What was not there can be made, and gets no records.
    let mut late = Kept::create(&admin, "late", &[]).await;
    let refused = late.append(&admin, VALUE_BYTES).await;
    assert_eq!(refused.expect_err("full").code(), Code::StorageFull);

    // Records can be deleted, and what they took is used again.
    let synced = &mut scene.kept[0];
    let middle = Offset(synced.last().0 / 4 * 3);
    let below = i64::try_from(middle.0).expect("a small offset");
    let start = kafka.delete_records("synced", below);
    assert_eq!(start, Ok(below), "records can be deleted on a full disk");
    synced.forget_below(middle);
    scene.check_recovers().await;

    // Killed and started on a full disk: everything is still there, and still full.
    scene.fill().await;
    scene.broker.restart_after_kill(&scene.settings);
    scene.check_kept().await;
    scene.fill().await;
    scene.check_full().await;

    // A topic can be deleted.
    admin
        .delete_topic("victim")
        .await
        .expect("a topic can be deleted on a full disk");
    scene.check_recovers().await;

    // Another program makes room.
    scene.fill().await;
    scene.check_full().await;
    fs::remove_file(&scene.stranger).expect("the file is ours");
    scene.check_recovers().await;
    let held = async {
        while ballast(scene.broker.http()) == 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held)
        .await
        .expect("the ballast is taken back");
    admin
        .create_topic(&NewTopic::new("last"))
        .await
        .expect("there is space");
    let records: usize = scene.kept.iter().map(Kept::len).sum();
    eprintln!("{records} records of {VALUE_BYTES} bytes are there");
    scene.broker.stop();
    scene.settings.verify();
}

fn ballast(http: &Http) -> f64 {
    let held = http.metric("sapwood_disk_ballast_bytes");
    held.expect("the ballast is a metric")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_memory_refuses_records_serves_what_it_has_and_recovers_by_itself() {
    fill_and_free(Disk::tmpfs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_ext4_refuses_records_serves_what_it_has_and_recovers_by_itself() {
    fill_and_free(Disk::ext4()).await;
}
