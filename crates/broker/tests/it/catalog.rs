//! The catalog's file as a broker meets it.

use std::{fs, path::PathBuf};

use sapwood_broker::NewTopic;
use sapwood_model::Code;
use tempfile::tempdir;

use crate::support::*;

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("catalog/catalog.log")
}

async fn refusal(dir: &tempfile::TempDir) -> sapwood_broker::OpenError {
    try_open(options(dir.path())).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_stops_the_start_and_nothing_is_deleted() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    produce(&broker, to("t", batch(&["x"]))).await.unwrap();
    drop(broker);
    let kept = fs::read(file(&dir)).unwrap();
    fs::remove_file(file(&dir)).unwrap();
    let error = refusal(&dir).await;
    assert_eq!(error.code(), Code::CatalogDamaged);
    assert!(error.to_string().contains("t-0"), "{error}");
    fs::write(file(&dir), kept).unwrap();
    let broker = open(dir.path()).await;
    assert_eq!(read_all(&broker, "t").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_catalog_stops_the_start_with_file_and_position() {
    let dir = tempdir().unwrap();
    let broker = open(dir.path()).await;
    create(&broker, "t", &[]).await;
    drop(broker);
    let whole = fs::read(file(&dir)).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for position in [0, 20, 60, end - 20, end - 1] {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x40;
        fs::write(file(&dir), damaged).unwrap();
        let error = refusal(&dir).await;
        assert_eq!(error.code(), Code::CatalogDamaged, "byte {position}");
        let text = error.to_string();
        assert!(
            text.contains("catalog.log") && text.contains("byte "),
            "{text}"
        );
    }
    fs::write(file(&dir), &whole).unwrap();
    let broker = open(dir.path()).await;
    assert!(broker.topic("t").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_another_directory_is_refused() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    for dir in [&dir, &other] {
        create(&open(dir.path()).await, "t", &[]).await;
    }
    fs::copy(file(&other), file(&dir)).unwrap();
    assert_eq!(refusal(&dir).await.code(), Code::CatalogDamaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_change_survives_a_power_cut_at_every_sync() {
    // Count the durability events of one run, then stop at each.
    let syncs = run_until(None).await;
    for sync in 0..syncs {
        run_until(Some(sync)).await;
    }
}

/// Creates, deletes and creates again, stops at durability event `stop`, cuts the power, opens what
/// is left, and compares it with what was acknowledged. Says how many durability events there were.
async fn run_until(stop: Option<u64>) -> u64 {
    let machine = sapwood_sim::Machine::new(11);
    if let Some(stop) = stop {
        machine.disk.stop_at(sapwood_sim::Stop::Sync(stop));
    }
    // Name, whether it must be there; the one in flight may or may not be.
    let mut expected: Vec<(String, bool)> = Vec::new();
    let mut in_flight = None;
    if let Ok(broker) = open_on(&machine, &machine.disk.boot_id()).await {
        'run: for n in 0..4 {
            let name = format!("topic-{n}");
            in_flight = Some(name.clone());
            if broker.create_topic(NewTopic::named(&name)).await.is_err() {
                break 'run;
            }
            expected.push((name.clone(), true));
            if n % 2 == 0 {
                if broker.delete_topic(&name).await.is_err() {
                    break 'run;
                }
                expected.pop();
                expected.push((name, false));
            }
            in_flight = None;
        }
    }
    let syncs = machine.disk.syncs();
    for survivor in 0..4 {
        let machine = machine.fork();
        let mut rng = sapwood_sim::Rng::new(survivor);
        machine.disk.power_cut(&mut rng);
        let broker = open_on(&machine, &machine.disk.boot_id()).await;
        let broker = broker.unwrap_or_else(|e| panic!("stop {stop:?} survivor {survivor}: {e}"));
        for (name, there) in &expected {
            if in_flight.as_ref() == Some(name) {
                continue;
            }
            let found = broker.topic(name).is_some();
            assert_eq!(found, *there, "stop {stop:?} survivor {survivor}: {name}");
        }
        // Whatever there is can be written and read.
        for topic in broker.topics() {
            produce(&broker, to(topic.name.as_str(), batch(&["x"])))
                .await
                .unwrap();
        }
    }
    syncs
}
