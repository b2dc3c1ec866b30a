//! `kill -9` at random moments, with the producers left to retry.

use std::time::Duration;

use super::{
    longest_run, rounds,
    workload::{SMALL, Workload},
};
use crate::harness::{Random, Settings, seed};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_of_an_fsync_topic_survive_kill_9_once_and_in_order() {
    kill_again_and_again("fsync", "auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_of_an_os_topic_survive_kill_9_once_and_in_order() {
    kill_again_and_again("os", "auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_kill_9_without_mappings_too() {
    kill_again_and_again("fsync", "pwrite").await;
}

async fn kill_again_and_again(durability: &str, tail: &str) {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 40);
    let settings = Settings::new(SMALL).set(format!("storage.tail={tail}"));
    let mut broker = settings.start();
    let client = settings.client();
    let workload = Workload::start(&client, durability, seed).await;
    for round in 0..rounds() {
        let longest = u64::try_from(longest_run().as_millis())
            .unwrap_or(u64::MAX)
            .max(2);
        tokio::time::sleep(Duration::from_millis(random.within(1..longest))).await;
        broker.kill();
        while random.one_in(3) {
            // Killed while it recovers, perhaps again and again.
            let starting = settings.spawn();
            tokio::time::sleep(Duration::from_millis(random.within(0..150))).await;
            starting.kill();
        }
        broker = settings.start();
        eprintln!("round {round}: killed and ready again");
    }
    workload.settle(&client).await;
    broker.stop();
    settings.verify();
}
