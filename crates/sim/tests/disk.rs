//! What the simulated disk keeps, loses and reports.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sapwood_log::io::{Disk, File, OpenMode, TailKind};
use sapwood_sim::{Capture, Machine, PAGE_BYTES, Rng, SimDisk, Stop, WriteFault, is_off};

const FILE: &str = "/file";
const PAGE: usize = PAGE_BYTES as usize;

fn path() -> &'static Path {
    Path::new(FILE)
}

/// A disk with one file of `pages` synced pages of ones, its name synced too.
fn disk_with_file(pages: usize) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1);
    let file = disk.open(path(), OpenMode::CreateNew).unwrap();
    file.write_at(&[&vec![1; pages * PAGE]], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

/// The content of a file after each of many power cuts.
fn survivors(disk: &SimDisk, cuts: u64) -> Vec<Option<Vec<u8>>> {
    (0..cuts)
        .map(|seed| {
            let disk = disk.fork();
            disk.power_cut(&mut Rng::new(seed));
            content(&disk)
        })
        .collect()
}

/// `None` without the file.
fn content(disk: &SimDisk) -> Option<Vec<u8>> {
    let file = match disk.open(path(), OpenMode::Read) {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            return None;
        }
    };
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// The first byte of each page.
fn pages(content: &Option<Vec<u8>>) -> Vec<u8> {
    content
        .as_ref()
        .unwrap()
        .chunks(PAGE)
        .map(|page| page[0])
        .collect()
}

#[test]
fn synced_pages_survive_every_power_cut() {
    let (disk, _file) = disk_with_file(3);
    for content in survivors(&disk, 50) {
        assert_eq!(content, Some(vec![1; 3 * PAGE]));
    }
}

#[test]
fn any_subset_of_unsynced_pages_survives_and_the_others_hold_their_old_content() {
    let (disk, file) = disk_with_file(3);
    file.write_at(&[&[2; 3 * PAGE]], 0).unwrap();
    let seen: BTreeSet<Vec<u8>> = survivors(&disk, 300).iter().map(pages).collect();
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn a_page_that_is_written_again_with_the_same_bytes_is_dirty_again() {
    // A failed sync loses a page; equal bytes in the cache must not hide that. Writing them again and
    // syncing must bring them to the device.
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[&[5; PAGE]], 0).unwrap();
        disk.fail_sync(disk.syncs());
        assert!(file.sync_data().is_err());
        file.write_at(&[&[5; PAGE]], 0).unwrap();
        file.sync_data().unwrap();
        disk.power_cut(&mut Rng::new(seed));
        assert_eq!(content(&disk), Some(vec![5; PAGE]));
    }
}

#[test]
fn after_a_failed_sync_everything_can_be_read_and_no_later_sync_writes_it() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        file.write_at(&[&[1; 4 * PAGE]], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[&[2; 4 * PAGE]], 0).unwrap();
        disk.fail_sync(disk.syncs());
        assert!(file.sync_data().is_err());
        assert_eq!(content(&disk), Some(vec![2; 4 * PAGE]));
        file.sync_data().unwrap();
        disk.power_cut(&mut Rng::new(seed));
        let left = content(&disk);
        assert!(pages(&left).iter().all(|byte| [1, 2].contains(byte)));
        lost += usize::from(pages(&left).contains(&1));
    }
    assert!(
        (1..50).contains(&lost),
        "pages were lost in {lost} of 50 runs"
    );
}

#[test]
fn dropping_caches_reveals_what_a_failed_sync_lost() {
    let (disk, file) = disk_with_file(64);
    file.write_at(&[&[2; 64 * PAGE]], 0).unwrap();
    disk.fail_sync(disk.syncs());
    assert!(file.sync_data().is_err());
    file.write_at(&[&[3; PAGE]], 0).unwrap();
    disk.drop_caches();
    let after = pages(&content(&disk));
    assert_eq!(after[0], 3, "a dirty page is never dropped");
    assert!(after[1..].iter().all(|byte| [1, 2].contains(byte)));
    let durable = pages(&survivors(&disk, 1)[0]);
    assert_eq!(after[1..], durable[1..]);
}

#[test]
fn unsynced_lengths_survive_as_any_moment_of_their_order() {
    let (disk, file) = disk_with_file(1);
    file.allocate(0..2 * PAGE_BYTES).unwrap();
    file.allocate(0..4 * PAGE_BYTES).unwrap();
    file.set_len(3 * PAGE_BYTES).unwrap();
    let lengths: BTreeSet<usize> = survivors(&disk, 200)
        .iter()
        .map(|content| content.as_ref().unwrap().len() / PAGE)
        .collect();
    assert_eq!(lengths, BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn allocated_ranges_read_as_zeros_also_where_an_older_tail_was_cut_off() {
    let (disk, file) = disk_with_file(4);
    file.set_len(PAGE_BYTES).unwrap();
    file.allocate(0..4 * PAGE_BYTES).unwrap();
    assert_eq!(pages(&content(&disk)), [1, 0, 0, 0]);
    file.write_at(&[&[7; PAGE]], 2 * PAGE_BYTES).unwrap();
    let seen: BTreeSet<Vec<u8>> = survivors(&disk, 300).iter().map(pages).collect();
    // The old blocks only with the old length, the new page only in the new blocks.
    let legal = [
        vec![1, 1, 1, 1],
        vec![1],
        vec![1, 0, 0, 0],
        vec![1, 0, 7, 0],
    ];
    assert_eq!(seen, BTreeSet::from(legal));
    file.sync_data().unwrap();
    assert_eq!(pages(&survivors(&disk, 1)[0]), [1, 0, 7, 0]);
}

#[test]
fn a_synced_file_whose_name_was_not_synced_may_be_lost() {
    let disk = SimDisk::new(1);
    let file = disk.open(path(), OpenMode::CreateNew).unwrap();
    file.write_at(&[&[1; PAGE]], 0).unwrap();
    file.sync_data().unwrap();
    let seen: BTreeSet<Option<Vec<u8>>> = survivors(&disk, 50).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([None, Some(vec![1; PAGE])]));
}

#[test]
fn an_unsynced_removal_may_come_back_with_the_durable_content() {
    let (disk, _file) = disk_with_file(1);
    disk.remove_file(path()).unwrap();
    let seen: BTreeSet<Option<Vec<u8>>> = survivors(&disk, 50).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([None, Some(vec![1; PAGE])]));
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(survivors(&disk, 1), [None]);
}

#[test]
fn a_rename_between_directories_is_two_changes() {
    let disk = SimDisk::new(1);
    for dir in ["/a", "/b"] {
        disk.create_dir(Path::new(dir)).unwrap();
    }
    disk.open(Path::new("/a/file"), OpenMode::CreateNew)
        .unwrap();
    disk.sync_filesystem(Path::new("/")).unwrap();
    disk.rename(Path::new("/a/file"), Path::new("/b/file"))
        .unwrap();
    let names = |disk: &SimDisk, dir| !disk.read_dir(Path::new(dir)).unwrap().is_empty();
    assert_eq!((names(&disk, "/a"), names(&disk, "/b")), (false, true));
    let seen: BTreeSet<(bool, bool)> = (0..100)
        .map(|seed| {
            let disk = disk.fork();
            disk.power_cut(&mut Rng::new(seed));
            (names(&disk, "/a"), names(&disk, "/b"))
        })
        .collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_failed_file_system_sync_is_reported_again_by_the_open_files_that_it_hit() {
    let mut reported = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        file.write_at(&[&[1; PAGE]], 0).unwrap();
        disk.fail_sync(disk.syncs());
        assert!(disk.sync_filesystem(Path::new("/")).is_err());
        match file.sync_data() {
            Err(_) => {
                reported += 1;
                file.sync_data().unwrap(); // once to each handle
            }
            Ok(()) => {
                disk.sync_dir(Path::new("/")).unwrap();
                assert_eq!(survivors(&disk, 1), [Some(vec![1; PAGE])]);
            }
        }
    }
    assert!((1..60).contains(&reported), "{reported} of 60");
}

#[test]
fn a_failed_write_out_reaches_every_handle_that_is_open_and_is_forgotten_with_the_last() {
    let (disk, file) = disk_with_file(1);
    let second = disk.open(path(), OpenMode::Write).unwrap();
    file.write_at(&[&[2; PAGE]], 0).unwrap();
    disk.fail_write_out(path()).unwrap();
    let late = disk.open(path(), OpenMode::Write).unwrap();
    assert!(late.sync_data().is_err(), "nobody has seen it yet");
    assert!(file.sync_data().is_err());
    assert!(second.sync_data().is_err());
    let later = disk.open(path(), OpenMode::Write).unwrap();
    later.sync_data().unwrap();

    file.write_at(&[&[3; PAGE]], 0).unwrap();
    disk.fail_write_out(path()).unwrap();
    drop((file, second, late, later));
    let file = disk.open(path(), OpenMode::Write).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_kill_keeps_the_page_cache_the_dirt_and_the_boot_but_no_lock_and_no_handle() {
    let (disk, file) = disk_with_file(1);
    let boot = disk.boot_id();
    let lock = disk.lock(Path::new("/lock")).unwrap();
    assert_eq!(
        disk.lock(Path::new("/lock")).err().unwrap().kind(),
        io::ErrorKind::WouldBlock
    );
    file.write_at(&[&[2; PAGE]], 0).unwrap();
    disk.kill();
    assert_eq!(content(&disk), Some(vec![2; PAGE]));
    assert_eq!(
        survivors(&disk, 50)
            .iter()
            .map(pages)
            .collect::<BTreeSet<_>>()
            .len(),
        2
    );
    assert_eq!(disk.boot_id(), boot);
    assert!(is_off(&file.sync_data().unwrap_err()));
    let _again = disk.lock(Path::new("/lock")).unwrap();
    drop(lock); // of the dead process: releases nothing
    assert!(disk.lock(Path::new("/lock")).is_err());
    disk.power_cut(&mut Rng::new(1));
    assert_ne!(disk.boot_id(), boot);
}

#[test]
fn a_stopped_machine_fails_everything_until_it_is_killed() {
    let (disk, file) = disk_with_file(1);
    disk.stop_at(Stop::Sync(disk.syncs() + 1));
    file.write_at(&[&[2; PAGE]], 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[&[3; PAGE]], 0).unwrap();
    assert!(is_off(&file.sync_data().unwrap_err()));
    assert!(disk.is_off());
    assert!(is_off(&file.write_at(&[b"x"], 0).unwrap_err()));
    assert!(is_off(&disk.read_dir(Path::new("/")).unwrap_err()));
    assert!(is_off(&file.len().unwrap_err()));
    disk.kill();
    assert_eq!(pages(&content(&disk)), [3]);
    let firsts: BTreeSet<Vec<u8>> = survivors(&disk, 50).iter().map(pages).collect();
    assert_eq!(firsts, BTreeSet::from([vec![2], vec![3]]));
}

#[test]
fn a_write_that_is_stopped_has_put_a_part_of_its_pages_in_place() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        disk.stop_at(Stop::Step(disk.steps()));
        assert!(is_off(&file.write_at(&[&[1; 3 * PAGE]], 0).unwrap_err()));
        disk.kill();
        seen.insert(content(&disk).unwrap().len() / PAGE);
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
}

#[test]
fn processes_of_before_a_kill_cannot_touch_the_disk() {
    let disk = SimDisk::new(1);
    let process = disk.process();
    process.open(path(), OpenMode::CreateNew).unwrap();
    disk.kill();
    assert!(is_off(&process.open(path(), OpenMode::Read).err().unwrap()));
    assert!(is_off(&process.remove_file(path()).unwrap_err()));
    disk.process().open(path(), OpenMode::Read).unwrap();
}

#[test]
fn a_reserve_is_not_told_as_free_and_can_be_taken() {
    let (disk, file) = disk_with_file(1);
    disk.set_capacity(Some(4 * PAGE_BYTES));
    disk.set_reserve(2 * PAGE_BYTES);
    assert_eq!(disk.space(path()).unwrap().free_bytes, PAGE_BYTES);
    file.allocate(0..4 * PAGE_BYTES).unwrap();
    assert_eq!(disk.space(path()).unwrap().free_bytes, 0);
    assert!(file.allocate(0..5 * PAGE_BYTES).is_err());
}

#[test]
fn a_full_disk_refuses_to_allocate_and_cuts_writes_short() {
    let (disk, file) = disk_with_file(1);
    disk.set_capacity(Some(3 * PAGE_BYTES));
    let full = file.allocate(0..4 * PAGE_BYTES).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), PAGE_BYTES);
    let full = file.write_at(&[&[2; 4 * PAGE]], 0).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(pages(&content(&disk)), [2, 2, 2]);
    file.write_at(&[&[3; 3 * PAGE]], 0).unwrap(); // blocks that are there cost nothing
    assert_eq!(disk.space(path()).unwrap().free_bytes, 0);
    // A removed file gives its blocks back when the last handle is closed.
    disk.remove_file(path()).unwrap();
    assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 0);
    drop(file);
    assert_eq!(
        disk.space(Path::new("/")).unwrap().free_bytes,
        3 * PAGE_BYTES
    );
}

#[test]
fn an_injected_fault_hits_one_step_and_leaves_a_part_of_it() {
    let (disk, file) = disk_with_file(2);
    disk.fail_step(disk.steps(), WriteFault::Io);
    let error = file.write_at(&[&[2; 2 * PAGE]], 0).unwrap_err();
    assert!(!is_off(&error));
    assert!(
        pages(&content(&disk))
            .iter()
            .all(|byte| [1, 2].contains(byte))
    );
    file.write_at(&[&[2; 2 * PAGE]], 0).unwrap();
    disk.fail_step(disk.steps(), WriteFault::NoSpace);
    let error = disk.rename(path(), Path::new("/other")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(content(&disk).is_some());
}

#[test]
fn an_unreadable_page_is_an_error_until_it_is_written_as_a_whole() {
    let (disk, file) = disk_with_file(3);
    disk.make_unreadable(path(), PAGE_BYTES..PAGE_BYTES + 1)
        .unwrap();
    let mut page = [0; PAGE];
    assert_eq!(file.read_at(&mut page, 0).unwrap(), PAGE);
    assert!(file.read_at(&mut page, 1).is_err());
    assert!(file.read_resident_at(&mut page, PAGE_BYTES).is_err());
    file.write_at(&[&[9; PAGE]], PAGE_BYTES).unwrap();
    assert_eq!(file.read_at(&mut page, PAGE_BYTES).unwrap(), PAGE);
}

#[test]
fn corruption_is_on_the_device_and_leaves_nothing_dirty() {
    let (disk, _file) = disk_with_file(1);
    disk.corrupt(path(), 10, 0x80).unwrap();
    let expected = content(&disk);
    assert_eq!(expected.as_ref().unwrap()[10], 0x81);
    for content in survivors(&disk, 10) {
        assert_eq!(content, expected);
    }
}

#[test]
fn pages_are_cold_after_a_power_cut_until_somebody_reads_them() {
    let (disk, _file) = disk_with_file(2);
    disk.power_cut(&mut Rng::new(1));
    let file = disk.open(path(), OpenMode::Read).unwrap();
    let mut bytes = [0; 2 * PAGE];
    file.read_at(&mut bytes[..PAGE], 0).unwrap();
    assert_eq!(
        file.read_resident_at(&mut bytes[..PAGE], 0).unwrap(),
        Some(PAGE)
    );
    assert_eq!(file.read_resident_at(&mut bytes, 0).unwrap(), None);
    assert_eq!(
        file.read_resident_at(&mut bytes, 0).unwrap(),
        Some(2 * PAGE),
        "read-ahead"
    );
}

#[test]
fn a_tail_shows_what_was_published_and_syncs_with_its_file() {
    for kind in [TailKind::Mmap, TailKind::Pwrite] {
        let disk = SimDisk::new(1);
        let file = disk.open(path(), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.allocate(0..PAGE_BYTES).unwrap();
        let (mut writer, reader) = file.tail(kind, 2 * PAGE_BYTES, 0).unwrap();
        writer.write(0, &[b"body"]).unwrap();
        assert!(reader.bytes(0..4).is_err());
        writer.write(8, &[b"more"]).unwrap();
        writer.publish(4, *b"word", 12).unwrap();
        assert_eq!(reader.end(), 12);
        assert_eq!(reader.bytes(0..12).unwrap().as_ref(), b"bodywordmore");
        assert!(writer.write(11, &[b"x"]).is_err(), "readers own it");
        file.sync_data().unwrap();
        assert_eq!(
            &survivors(&disk, 1)[0].as_ref().unwrap()[..12],
            b"bodywordmore"
        );
    }
}

#[test]
#[should_panic(expected = "SIGBUS")]
fn a_store_beyond_the_end_of_the_file_is_a_bug_that_cannot_be_overlooked() {
    let (_disk, file) = disk_with_file(1);
    let (mut writer, _) = file.tail(TailKind::Mmap, 4 * PAGE_BYTES, 0).unwrap();
    let _ = writer.write(PAGE_BYTES - 1, &[b"xx"]);
}

#[test]
fn a_file_cut_from_outside_is_an_error_of_its_tail() {
    let (disk, file) = disk_with_file(2);
    let (mut writer, reader) = file
        .tail(TailKind::Mmap, 2 * PAGE_BYTES, PAGE_BYTES)
        .unwrap();
    disk.cut_from_outside(path(), 0).unwrap();
    assert!(writer.write(PAGE_BYTES, &[b"x"]).is_err());
    assert!(reader.bytes(0..1).is_err());
}

#[test]
fn the_same_seed_and_calls_give_the_same_survivor() {
    let run = || {
        let machine = Machine::new(42);
        let file = machine.disk.open(path(), OpenMode::CreateNew).unwrap();
        for page in 0..32 {
            file.write_at(&[&[page as u8; PAGE]], page * PAGE_BYTES)
                .unwrap();
        }
        machine.disk.sync_dir(Path::new("/")).unwrap();
        machine.disk.power_cut(&mut Rng::new(7));
        content(&machine.disk)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_fork_shares_nothing_with_its_origin() {
    let (disk, file) = disk_with_file(1);
    let fork = disk.fork();
    file.write_at(&[&[2; PAGE]], 0).unwrap();
    fork.remove_file(path()).unwrap();
    assert_eq!(content(&disk), Some(vec![2; PAGE]));
    assert_eq!(content(&fork), None);
}

#[test]
fn recorded_steps_name_what_happened() {
    let disk = SimDisk::new(1);
    disk.record();
    let file = disk.open(path(), OpenMode::CreateNew).unwrap();
    file.write_at(&[b"abc"], 5).unwrap();
    file.sync_data().unwrap();
    let history = disk.take_history();
    assert_eq!(
        history,
        [
            "step 0: create /file",
            "step 1: write 3 bytes at 5 of /file",
            "step 2 (sync 0): sync /file"
        ]
    );
}

#[test]
fn captures_show_the_disk_just_before_each_event() {
    let (disk, file) = disk_with_file(1);
    disk.capture(Some(Capture::Syncs));
    for value in [2, 3] {
        file.write_at(&[&[value; PAGE]], 0).unwrap();
        file.sync_data().unwrap();
    }
    let captured = disk.take_captured();
    let syncs: Vec<Option<u64>> = captured.iter().map(|captured| captured.sync).collect();
    assert_eq!(syncs, [Some(2), Some(3)]);
    for (captured, value) in captured.iter().zip([2, 3]) {
        assert_eq!(pages(&content(&captured.disk)), [value]);
        let seen: BTreeSet<Vec<u8>> = survivors(&captured.disk, 50).iter().map(pages).collect();
        assert_eq!(seen, BTreeSet::from([vec![value - 1], vec![value]]));
    }
    assert!(disk.take_captured().is_empty());
    disk.capture(Some(Capture::Steps));
    file.write_at(&[&[4; PAGE]], 0).unwrap();
    assert_eq!(disk.take_captured().len(), 1);
    assert_eq!(pages(&content(&disk)), [4]);
}
