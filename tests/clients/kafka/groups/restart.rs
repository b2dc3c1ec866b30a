//! `kill -9` of the broker under a group that goes on by itself.

use std::fs;

use super::{
    checks,
    members::{Members, PATIENCE, Said},
    shared::{self, Account, Feed},
};
use crate::{clients::kafka::program::Program, harness::skip};

const MEMBERS: usize = 4;
const PARTITIONS: u32 = 8;
const KILLS: usize = 3;

#[test]
fn a_classic_group_of_four_goes_on_by_itself_when_the_broker_is_killed() {
    kill_under_a_group("cooperative");
}

#[test]
fn a_group_of_four_of_the_newer_kind_goes_on_by_itself_when_the_broker_is_killed() {
    kill_under_a_group("consumer");
}

/// Each time that the broker is killed, records may be on their way to members, and commits on their way
/// back: a commit that was not durable did not happen, and its records come again if the partition
/// changes hands or the member asks where it was. A member that keeps its partitions keeps its
/// position with them and reads nothing twice. How many do come twice is printed.
fn kill_under_a_group(protocol: &str) {
    let program = Program::Python("confluent");
    let settings = checks::settings();
    if program.member(settings.scratch()).is_none() {
        skip("confluent-kafka is not installed; .ci/run installs it");
        return;
    }
    let mut broker = settings.start();
    shared::create(&settings, "ledger", PARTITIONS);
    let feed = Feed::start(&settings, "ledger");
    let scratch = settings.scratch().join("members");
    fs::create_dir(&scratch).expect("a folder for what members print");
    let mut members = Members::new(&format!("a group of four, {protocol}"), scratch);
    for _ in 0..MEMBERS {
        let mut command = program.member(settings.scratch()).expect("it is installed");
        command.arg(settings.address());
        command.args(["workers", "ledger", protocol]);
        members.start(command);
    }
    let share = usize::try_from(PARTITIONS).expect("a small number") / MEMBERS;
    members.wait("an even share", PATIENCE, |all| {
        all.iter()
            .all(|said| said.held.len() == share && said.reads_all_it_holds(0))
    });
    for round in 0..KILLS {
        broker.kill();
        // Nobody commits anything while there is no broker.
        let (committed, assignments) = members.ask(|all| {
            let committed: Vec<_> = all.iter().map(|said| said.committed.clone()).collect();
            (committed, count_assignments(all))
        });
        broker = settings.start();
        let kept = shared::committed(&settings, "workers");
        for (place, offset) in committed.iter().flatten() {
            let kept = kept.get(place).copied().unwrap_or_default();
            assert!(
                kept >= *offset,
                "{place:?}: {offset} was committed, {kept} is left"
            );
        }
        let mut further = shared::ends(&settings, "ledger");
        further.values_mut().for_each(|end| *end += 1);
        let took = members.wait("all partitions to be read on", PATIENCE, |all| {
            Account::of(all).covers(&further)
        });
        let told = members.ask(count_assignments) - assignments;
        eprintln!(
            "{protocol}, round {round}: read on within {took:?}; members were told {told} times what \
             they hold"
        );
    }
    feed.stop();
    let ends = shared::ends(&settings, "ledger");
    members.wait("everything", PATIENCE, |all| Account::of(all).covers(&ends));
    members.close(&(0..MEMBERS).collect::<Vec<_>>());
    assert_eq!(
        shared::committed(&settings, "workers"),
        ends,
        "committed, and the ends"
    );
    members.ask(|all| {
        let account = Account::of(all);
        account.check_bounds(&ends);
        let records: u64 = ends.values().sum();
        let twice = account.deliveries() - records;
        eprintln!("{protocol}: {twice} of {records} records were read twice, by {KILLS} kills of the broker");
    });
    broker.stop();
    settings.verify();
}

fn count_assignments(all: &[Said]) -> usize {
    all.iter().map(|said| said.assignments).sum()
}
