//! `durability` changed on a live topic, both ways, again and again, under load and through crashes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sapwood_client::{Admin, Client, ConfigChange, Offset, PartitionId};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{
    kept::{Kept, PARTITION},
    longest_run,
    power::{boot, lose_pages},
    rounds,
    workload::{PARTITIONS, SMALL, TOPIC, Workload},
};
use crate::harness::{Random, Settings, seed};

const BYTES: usize = 2_000;

/// Waits between two changes at most.
const PAUSE_MS: u64 = 40;

async fn set(admin: &Admin, topic: &str, durability: &str) -> bool {
    let change = ConfigChange::Set("durability".to_owned(), durability.to_owned());
    admin.alter_topic(topic, &[change]).await.is_ok()
}

/// Somebody who cannot make up their mind.
struct Switcher {
    stop: Arc<AtomicBool>,
    /// Held while the durability is changed.
    turn: Arc<Mutex<()>>,
    /// How many changes there were, and how many of them had no answer.
    task: JoinHandle<(u64, u64)>,
}

impl Switcher {
    fn start(client: &Client, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let turn = Arc::new(Mutex::new(()));
        let (stopped, turns, admin) = (Arc::clone(&stop), Arc::clone(&turn), client.admin());
        let task = tokio::spawn(async move {
            let (mut changed, mut unknown) = (0, 0);
            let mut to_fsync = false;
            while !stopped.load(Ordering::Relaxed) {
                let turn = turns.lock().await;
                match set(&admin, TOPIC, if to_fsync { "fsync" } else { "os" }).await {
                    true => changed += 1,
                    false => unknown += 1,
                }
                drop(turn);
                to_fsync = !to_fsync;
                let pause = Duration::from_millis(random.within(0..PAUSE_MS));
                tokio::time::sleep(pause).await;
            }
            (changed, unknown)
        });
        Self { stop, turn, task }
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the switcher does not panic")
    }
}

/// Somebody who looks at the high watermarks.
fn watch(client: &Client) -> JoinHandle<()> {
    let admin = client.admin();
    tokio::spawn(async move {
        let mut seen = BTreeMap::<u32, Offset>::new();
        loop {
            for partition in 0..PARTITIONS {
                // The broker may be away.
                let Ok(bounds) = admin.bounds(TOPIC, PartitionId(partition)).await else {
                    continue;
                };
                let before = seen.entry(partition).or_default();
                let now = bounds.high_watermark;
                assert!(
                    now >= *before,
                    "partition {partition}: {before}, then {now}"
                );
                *before = now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// Kills in the midst of changes, and power cuts while the topic is fsync, so that every acknowledgement
/// holds. Producers are idempotent; everything they were told is there once and in order, and so is
/// everything that the reader saw.
#[tokio::test(flavor = "multi_thread")]
async fn durability_changes_under_load_through_kills_and_power_cuts_and_nothing_is_lost() {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 43);
    let settings = Settings::new(SMALL);
    let boot_id = settings.scratch().join("boot_id");
    let settings = settings.set(format!("storage.boot_id_file={}", boot_id.display()));
    let mut boots = 0;
    boot(&boot_id, &mut boots);
    let mut broker = settings.start();
    let client = settings.client();
    let workload = Workload::start(&client, "fsync", seed).await;
    let watcher = watch(&client);
    let switcher = Switcher::start(&client, Random::new(seed, 1 << 44));
    let (mut cuts, mut lost) = (0, 0);
    for round in 0..rounds() * 2 {
        let longest = u64::try_from(longest_run().as_millis()).unwrap_or(u64::MAX);
        let run = Duration::from_millis(random.within(1..longest.max(2)));
        if round % 2 == 0 {
            tokio::time::sleep(run).await;
            broker.restart_after_kill(&settings);
            continue;
        }
        let turn = switcher.turn.lock().await;
        while !set(&client.admin(), TOPIC, "fsync").await {}
        tokio::time::sleep(run / 4).await;
        broker.restart_after(&settings, || {
            lost += lose_pages(settings.data_dir(), &mut random);
            boot(&boot_id, &mut boots);
        });
        cuts += 1;
        drop(turn);
        assert!(!watcher.is_finished(), "the high watermark fell");
    }
    let (changes, failed) = switcher.stop().await;
    let records = workload.settle(&client).await;
    assert!(!watcher.is_finished(), "the high watermark fell");
    watcher.abort();
    eprintln!(
        "{} kills, {cuts} of them power cuts with {lost} pages lost; {changes} changes of durability, \
         {failed} with no answer; {records} records",
        rounds() * 2
    );
    assert!(changes > 0);
    broker.stop();
    settings.verify();
}

/// A power cut may take what was acknowledged as os, and nothing else. What was acknowledged as os before
/// the topic became fsync is synced by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_but_what_was_acknowledged_as_os_since_the_last_change() {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 45);
    // Checkpoints of os topics would keep more than is promised.
    let slow = "storage.os_checkpoint_interval_ms=60000";
    let settings = Settings::new(&[SMALL, &[slow]].concat());
    let boot_id = settings.scratch().join("boot_id");
    let settings = settings.set(format!("storage.boot_id_file={}", boot_id.display()));
    let mut boots = 0;
    boot(&boot_id, &mut boots);
    let mut broker = settings.start();
    let client = settings.client();
    let admin = client.admin();
    let mut kept = Kept::create(&admin, "kept", &[]).await;
    let (mut lost, mut changes) = (0, 0);
    for round in 0..rounds() * 5 {
        let mut safe = kept.len();
        for _ in 0..random.within(1..4) {
            let records = usize::try_from(random.within(1..12)).expect("a few");
            kept.fill(&admin, records, BYTES).await;
            safe = kept.len();
            assert!(set(&admin, "kept", "os").await, "a broker that runs");
            let records = usize::try_from(random.within(1..12)).expect("a few");
            kept.fill(&admin, records, BYTES).await;
            changes += 1;
            if random.one_in(3) {
                break;
            }
            assert!(set(&admin, "kept", "fsync").await, "a broker that runs");
            safe = kept.len();
            changes += 1;
        }
        broker.restart_after(&settings, || {
            lose_pages(settings.data_dir(), &mut random);
            boot(&boot_id, &mut boots);
        });
        let bounds = admin.bounds("kept", PARTITION).await.expect("it is online");
        let end = usize::try_from(bounds.high_watermark.0).expect("a small offset");
        assert!(
            end >= safe,
            "round {round}: {safe} records are safe, {end} are there"
        );
        lost += kept.len() - end.min(kept.len());
        kept.forget_from(bounds.high_watermark);
        kept.check(&client).await;
        assert!(set(&admin, "kept", "fsync").await, "a broker that runs");
    }
    eprintln!("{changes} changes; {lost} records that were acknowledged as os were lost");
    broker.stop();
    settings.verify();
}
