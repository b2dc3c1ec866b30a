//! Repairing a stopped data directory: what is lost is what the plan named, and nothing else changes.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod crash;
mod random;
mod support;

use std::path::Path;

use sapwood_model::Offset;
use sapwood_record::{CRC_START, crc32c};
use sapwood_sim::Rng;
use support::*;

const NONE: std::ops::Range<u64> = 0..0;

#[test]
fn a_sound_directory_needs_nothing_and_is_left_as_it_is() {
    for clean in [true, false] {
        let dir = directory(clean);
        let before = dir.contents(Path::new(ROOT));
        let plan = plan(&dir);
        assert!(plan.is_empty(), "{plan:#?}");
        assert!(plan.left.is_empty(), "{plan:#?}");
        assert_eq!(plan.apply(&sapwood_log::Progress::default()).unwrap(), None);
        assert_eq!(dir.contents(Path::new(ROOT)), before);
    }
}

#[test]
fn one_damaged_batch_costs_its_own_records_and_no_others() {
    for clean in [true, false] {
        let dir = directory(clean);
        let file = dir.segment(1, 20);
        dir.change(&file, |bytes| bytes[5 * BATCH_BYTES + 100] ^= 1);
        let damaged = dir.read(&file).unwrap();
        let before = dir.contents(Path::new(ROOT));
        let plan = plan(&dir);
        assert_eq!(
            dir.contents(Path::new(ROOT)),
            before,
            "a plan changes nothing"
        );
        assert_eq!(plan.partitions.len(), 1, "{plan:#?}");
        let losses = &plan.partitions[0].losses;
        assert_eq!(losses.len(), 1, "{plan:#?}");
        assert_eq!(losses[0].offsets, Offset(25)..Offset(26));
        assert_eq!(losses[0].bytes, BATCH_BYTES as u64);
        assert!(losses[0].acknowledged);
        assert_eq!(losses[0].file, file);
        let done = apply(plan);
        let copy = done
            .copies
            .join("old/topics/topic-1-0")
            .join(file.file_name().unwrap());
        assert_eq!(dir.read(&copy).unwrap(), damaged);
        serves(&dir, [100, 100], [25..26, NONE]);
    }
}

/// Repairs, and demands that the plan named exactly these losses.
fn repair(dir: &World, lost: [Option<std::ops::Range<u64>>; 2]) {
    let plan = plan(dir);
    assert!(plan.left.is_empty(), "{plan:#?}");
    for (topic, lost) in ["topic-1", "topic-2"].into_iter().zip(lost) {
        let named: Vec<_> = plan
            .partitions
            .iter()
            .filter(|one| one.topic == topic)
            .flat_map(|one| &one.losses)
            .filter(|loss| loss.offsets_count() > 0)
            .map(|loss| loss.offsets.start.0..loss.offsets.end.0)
            .collect();
        assert_eq!(named, Vec::from_iter(lost), "{plan:#?}");
    }
    apply(plan);
}

#[test]
fn a_header_that_no_checksum_holds_is_set_right_by_its_neighbours() {
    for clean in [true, false] {
        for base in [0, 20, 40] {
            for (what, position, bit) in [
                ("offset", 6, 0x10),
                ("offset's sign", 0, 0x80),
                ("length", 10, 0x01),
                ("length", 8, 0x40),
                ("epoch", 14, 0x01),
                ("epoch's sign", 12, 0x80),
                ("magic", 16, 0x04),
            ] {
                for number in [0, 3, 9] {
                    let dir = directory(clean);
                    let file = dir.segment(1, base);
                    let at = usize::try_from(number).unwrap() * BATCH_BYTES + position;
                    dir.change(&file, |bytes| bytes[at] ^= bit);
                    if verify(&dir).is_sound() {
                        continue; // the journal has it, or nobody reads that bit
                    }
                    let restored: Vec<_> = plan(&dir)
                        .partitions
                        .iter()
                        .flat_map(|one| one.restored.clone())
                        .map(|restored| restored.offset.0)
                        .collect();
                    assert_eq!(restored, [base + number], "{what} {clean} {base}");
                    repair(&dir, [None, None]);
                    serves(&dir, [100, 100], [NONE, NONE]);
                }
            }
        }
    }
}

#[test]
fn a_segment_whose_end_is_rubbish_loses_its_end_and_the_next_goes_on() {
    for clean in [true, false] {
        for topic in [1, 2] {
            let dir = directory(clean);
            dir.change(&dir.segment(topic, 20), |bytes| {
                bytes[12 * BATCH_BYTES + 30..].fill(0x5a);
            });
            let lost = match topic {
                1 => [Some(32..40), None],
                _ => [None, Some(32..40)],
            };
            repair(&dir, lost.clone());
            serves(&dir, [100, 100], lost.map(Option::unwrap_or_default));
        }
    }
}

#[test]
fn a_missing_segment_becomes_a_hole_of_its_offsets() {
    for clean in [true, false] {
        for (base, lost) in [(0, 0..20), (20, 20..40)] {
            let dir = directory(clean);
            dir.remove(&dir.segment(2, base));
            repair(&dir, [None, Some(lost.clone())]);
            serves(&dir, [100, 100], [NONE, lost]);
        }
    }
    // The last one: its end is known from the checkpoint.
    let dir = directory(true);
    dir.remove(&dir.segment(1, 80));
    repair(&dir, [Some(80..100), None]);
    serves(&dir, [100, 100], [80..100, NONE]);
    // And what the journal has of it comes back.
    let dir = directory(false);
    dir.remove(&dir.segment(1, 40));
    repair(&dir, [Some(40..50), None]);
    serves(&dir, [100, 100], [40..50, NONE]);
}

#[test]
fn a_log_whose_first_segment_and_checkpoint_are_lost_still_begins_where_the_catalog_says() {
    for clean in [true, false] {
        let dir = directory(clean);
        dir.remove(&dir.segment(2, 0));
        dir.remove(&dir.path("checkpoint"));
        repair(&dir, [None, Some(0..20)]);
        serves(&dir, [100, 100], [NONE, 0..20]);
    }
}

#[test]
fn the_snapshot_of_a_segment_that_became_a_hole_goes_with_it() {
    let dir = directory(false);
    let snapshot = dir.folder(2).join("00000000000000000060.snapshot");
    dir.change(&snapshot, |bytes| bytes[15] ^= 8);
    dir.remove(&dir.segment(2, 60));
    repair(&dir, [None, Some(60..80)]);
    serves(&dir, [100, 100], [NONE, 60..80]);
}

#[test]
fn every_segment_gone_leaves_the_journal_and_the_end() {
    for cut in [false, true] {
        let dir = directory(false);
        for base in [0, 20, 40, 60, 80] {
            dir.remove(&dir.segment(1, base));
        }
        repair(&dir, [Some(0..50), None]);
        if cut {
            // The os topic, which was not repaired, loses what was never synced.
            dir.0.power_cut(&mut Rng::new(3));
            assert!(read_topic(&dir, 1).len() == 50);
        } else {
            serves(&dir, [100, 100], [0..50, NONE]);
        }
    }
}

#[test]
fn a_folder_that_is_gone_comes_back_with_what_the_journal_has() {
    let dir = directory(false);
    dir.remove(&dir.folder(1));
    repair(&dir, [Some(0..50), None]);
    serves(&dir, [100, 100], [0..50, NONE]);
}

#[test]
fn segments_that_bear_each_others_names_lose_nothing() {
    for clean in [true, false] {
        let dir = directory(clean);
        let (one, two) = (dir.segment(1, 0), dir.segment(1, 20));
        let bytes = dir.read(&one).unwrap();
        dir.rename(&two, &one);
        dir.write(&two, &bytes);
        repair(&dir, [None, None]);
        serves(&dir, [100, 100], [NONE, NONE]);
    }
}

#[test]
fn batches_of_another_log_are_not_taken_for_its_own() {
    // They check, and have the right offsets and the right epoch.
    let other = |batch: &mut [u8]| {
        batch[BATCH_BYTES - 3] ^= 1;
        let crc = crc32c(&[&batch[CRC_START..]]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    };
    // One is enough: the others of its block cannot be told from it.
    for batches in [0..20, 5..6] {
        for clean in [true, false] {
            let dir = directory(clean);
            dir.change(&dir.segment(1, 20), |bytes| {
                let batches = batches.start * BATCH_BYTES..batches.end * BATCH_BYTES;
                bytes[batches].chunks_mut(BATCH_BYTES).for_each(other);
            });
            repair(&dir, [Some(20..40), None]);
            serves(&dir, [100, 100], [20..40, NONE]);
        }
    }
}

#[test]
fn a_truncated_segment_loses_what_was_cut_off() {
    for clean in [true, false] {
        for length in [0, 1, 61, 10 * BATCH_BYTES, 10 * BATCH_BYTES + 70] {
            let dir = directory(clean);
            dir.change(&dir.segment(2, 20), |bytes| bytes.truncate(length));
            let lost = 20 + (length / BATCH_BYTES) as u64..40;
            repair(&dir, [None, Some(lost.clone())]);
            serves(&dir, [100, 100], [NONE, lost]);
        }
    }
}

#[test]
fn indexes_and_snapshots_are_made_anew_and_nothing_is_lost() {
    for clean in [true, false] {
        for name in [
            "00000000000000000000.index",
            "00000000000000000000.timeindex",
            "00000000000000000020.index",
            "00000000000000000020.snapshot",
            "00000000000000000040.index",
            "00000000000000000040.timeindex",
            "00000000000000000080.index",
        ] {
            for remove in [false, true] {
                let dir = directory(clean);
                let path = dir.folder(1).join(name);
                if dir.read(&path).is_err() {
                    continue; // a checkpoint had not counted it yet
                }
                let segments = dir.contents(&dir.folder(1));
                match remove {
                    true => dir.remove(&path),
                    false => dir.change(&path, |bytes| {
                        bytes.iter_mut().for_each(|byte| *byte ^= 0x55)
                    }),
                }
                if verify(&dir).is_sound() {
                    continue; // the next start makes it anew by itself
                }
                repair(&dir, [None, None]);
                for (path, before) in segments {
                    if clean && path.to_str().unwrap().ends_with(".log") {
                        assert!(dir.read(&path).unwrap() == before, "{}", path.display());
                    }
                }
                serves(&dir, [100, 100], [NONE, NONE]);
            }
        }
    }
}

#[test]
fn a_lost_checkpoint_is_made_anew_from_segments_and_journal() {
    for clean in [true, false] {
        for cut in [false, true] {
            for remove in [true, false] {
                let dir = directory(clean);
                let path = dir.path("checkpoint");
                match remove {
                    true => dir.remove(&path),
                    false => dir.change(&path, |bytes| bytes[40] ^= 1),
                }
                assert!(try_open(&dir, known()).is_err());
                repair(&dir, [None, None]);
                if cut {
                    dir.0.power_cut(&mut Rng::new(3));
                }
                serves(&dir, [100, 100], [NONE, NONE]);
            }
        }
    }
}

#[test]
fn a_lost_journal_costs_only_what_the_segments_do_not_have() {
    for damage in 0..3 {
        let dir = directory(false);
        for number in 0..2 {
            let path = dir.path(&format!("journal/{number:02}.journal"));
            match damage {
                0 => dir.remove(&path),
                1 => dir.change(&path, |bytes| bytes[..8192].fill(0)),
                _ => dir.write(&path, b""),
            }
        }
        if damage == 2 {
            // The segments lost the same writes.
            dir.change(&dir.segment(1, 60), |bytes| {
                bytes[10 * BATCH_BYTES..].fill(0)
            });
            dir.remove(&dir.segment(1, 80));
        }
        assert!(!verify(&dir).is_sound());
        repair(&dir, [None, None]);
        dir.0.power_cut(&mut Rng::new(3));
        let end = if damage == 2 { 70 } else { 100 };
        serves(&dir, [end, 100], [NONE, NONE]);
    }
}
