//! Groups of a broker that is opened, closed, and opened again.

use std::{path::Path, sync::Arc, time::Duration};

use sapwood_broker::{
    Broker,
    group::{Commit, Committer, Presence},
};
use sapwood_model::Code;
use sapwood_sim::{Capture, Machine, Rng};
use tempfile::TempDir;

use crate::{
    group_changes::{beat, joins},
    groups::{commit, committed, join, loaded, try_commit},
    support::{create, open, open_on, open_with, options},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_broker_has_let_go_of_its_directory() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    let topic = create(&broker, "t", &[]).await;
    for number in 0..200 {
        try_commit(&broker, commit(&format!("g{number}"), &topic, 1)).await;
    }
    broker.drain_and_close().await.unwrap();
    drop(broker);
    for round in 0..30 {
        let opened = Broker::open(options(dir.path()), Arc::default()).await;
        let broker = opened.unwrap_or_else(|e| panic!("round {round}: {e}"));
        match round % 3 {
            // In the middle of the load, after it, or with members who wait.
            0 => {}
            1 => drop(loaded(&broker).await),
            _ => {
                loaded(&broker).await;
                let groups = broker.groups();
                tokio::spawn(async move { groups.join(join("g")).await });
                tokio::task::yield_now().await;
            }
        }
        let (first, second) = tokio::join!(broker.drain_and_close(), broker.drain_and_close());
        first.and(second).unwrap();
        drop(broker);
    }
}

#[tokio::test]
async fn the_first_request_of_all_waits_for_the_topic_of_groups_and_is_answered() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.groups.initial_rebalance_delay_ms = 0;
    let broker = open_with(options).await;
    let topic = create(&broker, "t", &[]).await;
    let groups = broker.groups();
    let (one, other, joined) = tokio::join!(
        groups.commit(commit("g", &topic, 7)),
        groups.commit(commit("h", &topic, 8)),
        groups.join(join("m")),
    );
    assert_eq!(one.unwrap(), [Ok(())]);
    assert_eq!(other.unwrap(), [Ok(())]);
    joined.unwrap();
}

/// A commit, and then the topic is deleted and made anew while the power fails at any step of that.
#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_power_fails_an_offset_belongs_to_the_topic_that_it_was_committed_for() {
    let machine = Machine::new(7);
    let boot = machine.disk.boot_id();
    let broker = open_on(&machine, &boot).await.unwrap();
    let old = create(&broker, "t", &[]).await;
    let kept = create(&broker, "kept", &[]).await;
    try_commit(&broker, commit("g", &old, 5)).await;
    try_commit(&broker, commit("g", &kept, 6)).await;
    let before = machine.fork();
    machine.disk.capture(Some(Capture::Syncs));
    broker.delete_topic("t").await.unwrap();
    create(&broker, "t", &[]).await;
    committed(&broker, "g").await;
    // The disk is copied just before each sync: one more for those before it.
    create(&broker, "later", &[]).await;
    machine.disk.capture(None);
    let captured = machine.disk.take_captured();
    let mut rng = Rng::new(7);
    let mut seen = [0; 3];
    // Of what was not synced another part survives each time.
    let disks = captured.iter().map(|captured| &captured.disk);
    for disk in disks.chain([&before.disk]).flat_map(|disk| [disk; 4]) {
        let survivor = Machine {
            disk: disk.fork(),
            ..machine.fork()
        };
        survivor.disk.power_cut(&mut rng);
        let broker = open_on(&survivor, &survivor.disk.boot_id()).await.unwrap();
        assert_eq!(loaded(&broker).await.failed, 0);
        let is_old = broker.topic("t").map(|topic| topic.id == old.id);
        seen[is_old.map_or(0, |is_old| 1 + usize::from(is_old))] += 1;
        let mut expected = vec![(kept.name.clone(), 6)];
        if is_old == Some(true) {
            expected.push((old.name.clone(), 5));
        }
        assert_eq!(committed(&broker, "g").await, expected, "{is_old:?}");
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "none, new, old: {seen:?}"
    );
}

#[tokio::test]
async fn a_loading_partition_says_so() {
    // A directory with a group, whose load cannot have begun yet when the broker is open.
    let dir = TempDir::new().unwrap();
    let broker = open(Path::new(dir.path())).await;
    let topic = create(&broker, "t", &[]).await;
    try_commit(&broker, commit("g", &topic, 7)).await;
    broker.drain_and_close().await.unwrap();
    drop(broker);
    let broker = open(dir.path()).await;
    let early = broker.groups().find("g".into()).await.unwrap_err();
    assert_eq!(early.code(), Code::Loading);
    // A partition without records does not.
    assert!(broker.groups().find("a".into()).await.unwrap().is_none());
    loaded(&broker).await;
    assert!(broker.groups().find("g".into()).await.unwrap().is_some());
}

#[tokio::test]
async fn offsets_of_a_group_that_has_emptied_expire_by_the_clock_whatever_restarts() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let machine = Machine::new(1);
    let broker = open_on(&machine, "boot-1").await.unwrap();
    let topic = create(&broker, "t", &[]).await;
    let groups = broker.groups();
    let joined = groups.consumer_heartbeat(joins("g", "m", &topic)).await;
    let Presence::Stay(epoch) = joined.unwrap().presence else {
        panic!("it stays");
    };
    let by_member = Commit {
        by: Committer::Member {
            member_id: "m".into(),
            instance_id: None,
            generation_or_epoch: Some(epoch.0),
        },
        ..commit("g", &topic, 5)
    };
    try_commit(&broker, by_member).await;
    let stays = async || {
        let beat = beat("g", "m", Presence::Stay(epoch));
        groups.consumer_heartbeat(beat).await.unwrap();
    };
    // Five days with members, of which the offset's age says nothing.
    for _ in 0..(5 * 24 * 120) {
        machine.clock.advance(DAY / (24 * 120));
        stays().await;
    }
    let leaves = beat("g", "m", Presence::Leave);
    groups.consumer_heartbeat(leaves).await.unwrap();
    let mut left = machine;
    for days in [4, 3] {
        left.clock.advance(DAY * days - Duration::from_secs(3600));
        let survivor = left.fork();
        survivor.disk.kill();
        let broker = open_on(&survivor, "boot-1").await.unwrap();
        loaded(&broker).await;
        assert_eq!(committed(&broker, "g").await.len(), 1);
        left = survivor;
        left.clock.advance(Duration::from_secs(3600));
        committed(&broker, "g").await;
        let there = committed(&broker, "g").await.len();
        assert_eq!(there, usize::from(days == 4), "7 days after it emptied");
    }
}
