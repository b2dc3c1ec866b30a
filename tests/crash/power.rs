//! A power cut, played on the real binary: it is killed and finds another boot id, so that it must
//! not trust the page cache, and takes from the segments only what is known to be synced.

use std::{fs, path::Path, time::Duration};

use super::{
    longest_run, rounds,
    workload::{SMALL, Workload},
};
use crate::harness::{Random, Settings, seed};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_of_an_fsync_topic_survive_a_power_cut() {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 41);
    let settings = Settings::new(SMALL);
    let boot_id = settings.scratch().join("boot_id");
    let settings = settings.set(format!("storage.boot_id_file={}", boot_id.display()));
    boot(&boot_id, 0);
    let mut broker = settings.start();
    let client = settings.client();
    let workload = Workload::start(&client, "fsync", seed).await;
    for round in 1..=rounds() {
        let longest = u64::try_from(longest_run().as_millis())
            .unwrap_or(u64::MAX)
            .max(2);
        tokio::time::sleep(Duration::from_millis(random.within(1..longest))).await;
        broker.kill();
        boot(&boot_id, round);
        broker = settings.start();
        eprintln!("round {round}: power cut and ready again");
    }
    workload.settle(&client).await;
    broker.stop();
    settings.verify();
}

fn boot(file: &Path, number: u64) {
    fs::write(file, format!("00000000-0000-4000-8000-{number:012}\n")).expect("the scratch folder");
}
