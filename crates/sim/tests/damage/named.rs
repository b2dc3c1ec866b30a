//! What the tables once found, one test for each.

use std::path::Path;

use crate::{
    cases::{Cases, Damage},
    outcome::{self, Class, Verdict},
    scene::{End, scenes},
};

/// The verdicts on these cases of one scene, none of which may break a promise.
fn verdicts(end: End, wanted: impl Fn(&Cases, Damage) -> bool) -> Vec<Verdict> {
    let scene = scenes(1)
        .into_iter()
        .find(|scene| scene.end == end)
        .unwrap();
    let cases = Cases::of(&scene, 1);
    let sound = outcome::sound(&scene);
    let chosen = cases
        .damages
        .iter()
        .filter(|damage| wanted(&cases, **damage));
    let verdicts: Vec<Verdict> = chosen
        .map(|damage| {
            let verdict = outcome::run(&scene, &cases, &sound, *damage);
            assert_eq!(
                verdict.violations,
                Vec::<String>::new(),
                "{}",
                cases.describe(*damage)
            );
            verdict
        })
        .collect();
    assert!(!verdicts.is_empty(), "there is no such case");
    verdicts
}

fn at(cases: &Cases, damage: Damage, path: &str) -> bool {
    let place = damage.places()[0];
    cases.places[place].path == Path::new("/data").join(path)
}

#[test]
fn a_partition_that_is_offline_for_a_damaged_journal_stays_offline_at_the_next_start() {
    let verdicts = verdicts(End::PowerCut, |cases, damage| {
        let in_journal = cases.kind(damage) == "journal file";
        in_journal && matches!(damage, Damage::ZeroPage { .. })
    });
    let offline = verdicts.iter().filter(|v| v.class == Class::OfflineAtStart);
    assert!(offline.count() > 3);
}

#[test]
fn a_directory_that_lost_its_identity_does_not_get_another_one() {
    for end in End::ALL {
        let verdicts = verdicts(end, |cases, damage| {
            at(cases, damage, "sapwood.meta") && matches!(damage, Damage::Remove { .. })
        });
        assert_eq!(verdicts[0].class, Class::Refused);
    }
}

#[test]
fn an_unreadable_page_of_the_journal_stops_the_start_where_rounds_may_be_and_is_named() {
    for end in End::ALL {
        let verdicts = verdicts(end, |cases, damage| {
            let in_journal = cases.kind(damage) == "journal file";
            in_journal && matches!(damage, Damage::Unreadable { .. })
        });
        let refused = |verdict: &&Verdict| verdict.class == Class::Refused;
        let refused = verdicts.iter().filter(refused).count();
        // The two copies of a header never, and after a clean stop nothing.
        assert!(refused < verdicts.len(), "{refused} of {}", verdicts.len());
        assert_eq!(refused == 0, end == End::CleanStop);
    }
}

#[test]
fn a_log_without_the_segment_of_its_start_is_offline() {
    for path in ["topics/oak-0", "topics/pine-0"] {
        let path = format!("{path}/00000000000000000000.log");
        let verdicts = verdicts(End::CleanStop, |cases, damage| {
            at(cases, damage, &path) && matches!(damage, Damage::Remove { .. })
        });
        assert_eq!(verdicts[0].class, Class::OfflineAtStart);
    }
}

#[test]
fn a_damaged_index_costs_nothing_but_its_rebuilding() {
    let verdicts = verdicts(End::CleanStop, |cases, damage| {
        let is_index = [".index", ".timeindex"].contains(&cases.kind(damage));
        let at_16 = |at: usize| at % 16 == 15;
        is_index
            && match damage {
                Damage::Flip { at, mask, .. } => at_16(at) || mask == 0x80,
                Damage::Cut { len, .. } => at_16(len),
                _ => true,
            }
    });
    assert!(verdicts.iter().all(|verdict| verdict.class == Class::Whole));
}

#[test]
fn the_folders_of_one_topic_are_not_taken_for_each_other() {
    let verdicts = verdicts(End::CleanStop, |cases, damage| match damage {
        Damage::Swap { one, two } => {
            let name = |place: usize| cases.places[place].path.ends_with("pine-0");
            let other = |place: usize| cases.places[place].path.ends_with("pine-1");
            name(one) && other(two)
        }
        _ => false,
    });
    assert_eq!(verdicts[0].class, Class::OfflineAtStart);
}

#[test]
fn an_older_checkpoint_is_not_taken_for_that_of_the_clean_stop() {
    let verdicts = verdicts(End::CleanStop, |cases, damage| {
        at(cases, damage, "checkpoint") && matches!(damage, Damage::Older { .. })
    });
    assert!(verdicts.iter().any(|verdict| verdict.class == Class::Whole));
}

#[test]
fn a_negative_offset_leader_epoch_or_count_is_damage() {
    for byte in [0, 12, 57] {
        let path = "topics/pine-0/00000000000000000000.log";
        let verdicts = verdicts(End::CleanStop, |cases, damage| {
            let sign = |at, mask| at == byte && mask == 0x80;
            at(cases, damage, path)
                && matches!(damage, Damage::Flip { at, mask, .. } if sign(at, mask))
        });
        assert_eq!(verdicts[0].class, Class::OfflineAtRead);
    }
}

#[test]
fn a_batch_that_a_flipped_bit_leaves_without_records_is_not_passed_over() {
    // The last bits of a number of records that is 1 or 2: first in the log, and behind other batches.
    for (path, byte, mask) in [
        ("topics/pine-0/00000000000000000000.log", 60, 1),
        ("topics/pine-0/00000000000000000024.log", 60, 1),
        ("topics/pine-0/00000000000000000024.log", 682, 2),
        ("topics/elm-0/00000000000000000000.log", 60, 2),
    ] {
        let verdicts = verdicts(End::CleanStop, |cases, damage| {
            at(cases, damage, path)
                && matches!(damage, Damage::Flip { at, mask: flipped, .. } if (at, flipped) == (byte, mask))
        });
        assert_eq!(verdicts[0].class, Class::OfflineAtRead, "{path}");
    }
}
