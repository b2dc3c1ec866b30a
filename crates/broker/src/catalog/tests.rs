//! The catalog's file on a simulated disk.

use std::{collections::BTreeMap, path::Path};

use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_sim::{Machine, Rng, Stop};

use super::*;

const DIRECTORY: DirectoryId = DirectoryId(7);

fn data() -> &'static Path {
    Path::new("/data")
}

fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    let environment = machine.environment();
    environment.disk.create_dir(data()).unwrap();
    environment.disk.sync_dir(Path::new("/")).unwrap();
    machine
}

fn open(machine: &Machine) -> Result<Catalog, CatalogOpenError> {
    Catalog::open(machine.environment(), data(), DIRECTORY)
}

fn create(number: u32) -> Command {
    Command::CreateTopic(NewTopicRecord {
        id: TopicId(u128::from(number) + 1),
        name: TopicName::new(&format!("topic-{number}")).unwrap(),
        created_at: Timestamp(0),
        partitions: 1,
        configs: BTreeMap::new(),
    })
}

fn state(catalog: &Catalog) -> State {
    catalog.read(Clone::clone)
}

#[test]
fn commands_that_are_proposed_together_share_a_sync_and_are_answered_one_by_one() {
    let machine = machine(1);
    let catalog = open(&machine).unwrap();
    let (number, syncs) = (catalog.next_number(), machine.disk.syncs());
    let answers = catalog.propose_all(vec![create(1), create(1), create(2)]);
    let accepted: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, false, true]);
    assert_eq!(
        (catalog.next_number(), machine.disk.syncs()),
        (number + 1, syncs + 1)
    );
    assert!(catalog.propose_all(Vec::new()).is_empty());
    assert_eq!(state(&catalog).topics().len(), 2);
}

#[test]
fn what_was_applied_is_there_after_every_kind_of_stop() {
    let machine = machine(1);
    let catalog = open(&machine).unwrap();
    for number in 0..50 {
        catalog.propose(create(number)).unwrap();
    }
    let expected = state(&catalog);
    for survivor in 0..20 {
        let machine = machine.fork();
        match survivor {
            0 => machine.disk.kill(),
            _ => machine.disk.power_cut(&mut Rng::new(survivor)),
        }
        assert_eq!(
            state(&open(&machine).unwrap()),
            expected,
            "survivor {survivor}"
        );
    }
}

#[test]
fn proposals_that_come_together_share_a_sync_and_are_decided_one_after_the_other() {
    let machine = machine(2);
    let catalog = open(&machine).unwrap();
    let before = machine.disk.syncs();
    let rejected: usize = std::thread::scope(|scope| {
        // Everybody queues up behind this.
        let writing = catalog.inner.lock();
        let propose = |number: u32| {
            let catalog = &catalog;
            // Two proposers for each name: one of them must be rejected.
            scope.spawn(move || usize::from(catalog.propose(create(number / 2)).is_err()))
        };
        let proposers: Vec<_> = (0..64).map(propose).collect();
        while catalog.proposed.lock().len() < 64 {
            std::thread::yield_now();
        }
        drop(writing);
        proposers
            .into_iter()
            .map(|proposer| proposer.join().unwrap())
            .sum()
    });
    assert_eq!(rejected, 32);
    assert_eq!(state(&catalog).topics().len(), 32);
    assert_eq!(machine.disk.syncs() - before, 1);
    drop(catalog);
    assert_eq!(state(&open(&machine).unwrap()).topics().len(), 32);
}

#[test]
fn a_full_disk_is_said_and_is_over_when_there_is_space() {
    let machine = machine(3);
    let catalog = open(&machine).unwrap();
    let space = machine.environment().disk.space(data()).unwrap();
    machine
        .disk
        .set_capacity(Some(space.total_bytes - space.free_bytes));
    let mut number = 0;
    let refused = loop {
        match catalog.propose(create(number)) {
            Ok(_) => number += 1,
            Err(e) => break e,
        }
        assert!(number < 100_000);
    };
    assert!(
        matches!(refused, ProposeError::Catalog(CatalogError::NoSpace)),
        "{refused}"
    );
    assert_eq!(state(&catalog).topics().len(), number as usize);
    assert!(catalog.failed().is_none());
    machine.disk.set_capacity(None);
    catalog.propose(create(number)).unwrap();
    let expected = state(&catalog);
    machine.disk.power_cut(&mut Rng::new(1));
    assert_eq!(state(&open(&machine).unwrap()), expected);
}

#[test]
fn a_full_disk_is_opened_again_without_more_space() {
    let machine = machine(4);
    let catalog = open(&machine).unwrap();
    catalog.propose(create(0)).unwrap();
    let expected = state(&catalog);
    drop(catalog);
    let space = machine.environment().disk.space(data()).unwrap();
    machine
        .disk
        .set_capacity(Some(space.total_bytes - space.free_bytes));
    assert_eq!(state(&open(&machine).unwrap()), expected);
}

#[test]
fn after_a_failed_sync_nothing_is_applied_until_the_catalog_is_opened_again() {
    let machine = machine(5);
    let catalog = open(&machine).unwrap();
    catalog.propose(create(0)).unwrap();
    let before = state(&catalog);
    machine.disk.fail_sync(machine.disk.syncs());
    for number in 1..4 {
        let refused = catalog.propose(create(number)).unwrap_err();
        assert!(matches!(
            &refused,
            ProposeError::Catalog(CatalogError::ReadOnly { .. })
        ));
    }
    assert_eq!(state(&catalog), before);
    assert!(catalog.failed().is_some());
    // After a kill the page cache shows what the disk may not hold. Whatever the next process
    // goes by has to be on the disk for good then.
    for survivor in 0..20 {
        let machine = machine.fork();
        machine.disk.kill();
        let seen = state(&open(&machine).unwrap());
        machine.disk.power_cut(&mut Rng::new(survivor));
        assert_eq!(state(&open(&machine).unwrap()), seen, "survivor {survivor}");
    }
}

#[test]
fn a_grown_file_is_replaced_by_a_snapshot_and_no_stop_in_between_loses_anything() {
    // Some of these are longer than the threshold lets the file grow.
    let commands = || {
        let topic = TopicId(2);
        let log_start = Offset(5);
        let moved = Command::MoveLogStart {
            topic,
            partition: PartitionId(0),
            log_start,
        };
        let mut commands = vec![
            create(0),
            create(1),
            Command::DeleteTopic { topic: TopicId(1) },
        ];
        commands.push(moved);
        commands.extend((0..10).map(|_| Command::ReserveProducerIds { count: 1 }));
        commands
    };
    let run = |machine: &Machine| {
        let mut states = vec![State::default()];
        let Ok(catalog) = open(machine) else {
            return (states, 0);
        };
        let mut replaced = 0;
        for command in commands() {
            let salt = {
                let mut inner = catalog.inner.lock();
                inner.compact_at = inner.compact_at.min(400);
                inner.salt
            };
            // What is proposed and not acknowledged may be there all the same.
            let mut next = state(&catalog);
            next.apply(&command);
            let acknowledged = catalog.propose(command).is_ok();
            states.push(next);
            if !acknowledged {
                break;
            }
            replaced += usize::from(catalog.inner.lock().salt != salt);
        }
        (states, replaced)
    };
    let whole = machine(6);
    let (states, replaced) = run(&whole);
    assert!(replaced >= 2, "{replaced} times");
    assert_eq!(state(&open(&whole).unwrap()), *states.last().unwrap());

    for step in machine(6).disk.steps()..whole.disk.steps() {
        let machine = machine(6);
        machine.disk.stop_at(Stop::Step(step));
        let (states, _) = run(&machine);
        let acknowledged = states.len().saturating_sub(2);
        for survivor in 0..4 {
            let machine = machine.fork();
            machine.disk.power_cut(&mut Rng::new(survivor));
            let found = state(&open(&machine).unwrap());
            assert!(
                states[acknowledged..].contains(&found),
                "step {step} survivor {survivor}"
            );
        }
    }
}
