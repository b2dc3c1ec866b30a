//! What goes wrong with the simulated disk when a test asks for it: torn sectors, write-back, reads that
//! fail, a disk that fills up, damage at rest.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sapwood_log::io::{Disk, File, OpenMode, TailKind};
use sapwood_sim::{
    PAGE_BYTES, ReadFault, Rng, SECTOR_BYTES, SimDisk, StepKind, TailSwitch, WriteFault,
};

const FILE: &str = "/file";
const OTHER: &str = "/other";
const PAGE: usize = PAGE_BYTES as usize;
const SECTOR: usize = SECTOR_BYTES as usize;

/// A disk with one file of `pages` synced pages of ones, its name synced too.
fn disk_with_file(pages: usize) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
    file.write_at(&[&vec![1; pages * PAGE]], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

/// The first byte of each sector; each sector is uniform.
fn sectors(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks(SECTOR)
        .map(|sector| {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a torn sector"
            );
            sector[0]
        })
        .collect()
}

fn eio(error: &io::Error) -> bool {
    error.raw_os_error() == Some(5)
}

#[test]
fn a_dirty_page_survives_a_power_cut_in_any_subset_of_its_sectors() {
    let (disk, file) = disk_with_file(1);
    file.write_at(&[&[2; PAGE]], 0).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..12_000 {
        let disk = disk.fork();
        disk.power_cut(&mut Rng::new(seed));
        seen.insert(sectors(&content(&disk, FILE)));
    }
    assert_eq!(seen.len(), 256, "all subsets of eight sectors");
    let injected = disk.injected();
    assert_eq!(injected.power_cuts, 12_000);
    assert!(injected.pages_torn > 1000 && injected.pages_kept > 1000 && injected.pages_lost > 1000);
}

#[test]
fn a_failed_sync_tears_pages_too() {
    let mut torn = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
        file.write_at(&[&[1; PAGE]], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[&[2; PAGE]], 0).unwrap();
        disk.fail_sync(disk.syncs());
        assert!(eio(&file.sync_data().unwrap_err()));
        disk.power_cut(&mut Rng::new(seed));
        let found: BTreeSet<u8> = sectors(&content(&disk, FILE)).into_iter().collect();
        torn += usize::from(found.len() == 2);
    }
    assert!((10..150).contains(&torn), "{torn} of 200 pages were torn");
}

#[test]
fn with_write_back_what_a_page_held_for_a_while_may_survive_and_synced_pages_do() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        disk.set_write_back(2);
        let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
        file.allocate(0..PAGE_BYTES).unwrap();
        file.write_at(&[&[1; PAGE]], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        for byte in 2..5 {
            file.write_at(&[&[byte; PAGE]], 0).unwrap();
        }
        disk.power_cut(&mut Rng::new(seed));
        let found = sectors(&content(&disk, FILE));
        assert!(found.iter().all(|byte| (1..5).contains(byte)));
        seen.insert(found[0]);
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn a_cut_inside_of_a_page_does_not_undo_what_was_written_behind_it_and_synced() {
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
        file.write_at(&[&[1; PAGE]], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.set_len(100).unwrap();
        file.write_at(&[&[2; PAGE - 100]], 100).unwrap();
        disk.set_write_back(1);
        for _ in 0..2 {
            disk.sync_dir(Path::new("/")).unwrap(); // a step, before which pages are written back
        }
        file.sync_data().unwrap();
        disk.power_cut(&mut Rng::new(seed));
        assert_eq!(content(&disk, FILE)[100..], [2; PAGE - 100]);
    }
}

#[test]
fn with_write_back_names_may_be_durable_before_anybody_syncs_them_and_never_out_of_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        disk.set_write_back(1);
        for name in ["/a", "/b"] {
            disk.open(Path::new(name), OpenMode::CreateNew).unwrap();
        }
        disk.set_write_back(0);
        disk.remove_file(Path::new("/a")).unwrap();
        disk.power_cut(&mut Rng::new(seed));
        let names: Vec<String> = disk
            .read_dir(Path::new("/"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        seen.insert(names.join(""));
    }
    let all = ["", "a", "b", "ab"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn a_read_can_fail_once_or_for_good() {
    let (disk, file) = disk_with_file(2);
    let mut byte = [0];
    disk.fail_read(disk.reads(), ReadFault::Once);
    assert!(eio(&file.read_at(&mut byte, 0).unwrap_err()));
    assert_eq!(file.read_at(&mut byte, 0).unwrap(), 1);
    disk.fail_read(disk.reads(), ReadFault::Sticky);
    assert!(eio(&file.read_at(&mut byte, PAGE_BYTES).unwrap_err()));
    for _ in 0..2 {
        assert!(eio(&file.read_at(&mut byte, PAGE_BYTES + 9).unwrap_err()));
        assert_eq!(file.read_at(&mut byte, 0).unwrap(), 1, "the other page");
    }
    disk.kill();
    let file = disk.open(Path::new(FILE), OpenMode::Read).unwrap();
    assert!(eio(&file.read_at(&mut byte, PAGE_BYTES).unwrap_err()));
    disk.make_readable();
    assert_eq!(file.read_at(&mut byte, PAGE_BYTES).unwrap(), 1);
    assert_eq!(disk.injected().failed_reads, 5);
}

#[test]
fn openings_and_listings_can_fail_once_or_for_good() {
    let (disk, _file) = disk_with_file(1);
    let (file, root) = (Path::new(FILE), Path::new("/"));
    disk.fail_read(disk.reads(), ReadFault::Once);
    assert!(eio(&disk.open(file, OpenMode::Read).unwrap_err()));
    disk.open(file, OpenMode::Read).unwrap();
    disk.fail_read(disk.reads(), ReadFault::Once);
    assert!(eio(&disk.read_dir(root).unwrap_err()));
    assert_eq!(disk.read_dir(root).unwrap().len(), 1);
    disk.fail_read(disk.reads(), ReadFault::Sticky);
    assert!(eio(&disk.open(file, OpenMode::Read).unwrap_err()));
    disk.fail_read(disk.reads(), ReadFault::Sticky);
    assert!(eio(&disk.read_dir(root).unwrap_err()));
    let hit = [FILE, "/", FILE, "/"].map(std::path::PathBuf::from);
    assert_eq!(disk.take_failed_places(), hit);
    disk.power_cut(&mut Rng::new(1));
    assert!(eio(&disk.open(file, OpenMode::Write).unwrap_err()));
    assert!(eio(&disk.read_dir(root).unwrap_err()));
    disk.make_readable();
    disk.open(file, OpenMode::Read).unwrap();
    disk.read_dir(root).unwrap();
}

#[test]
fn a_read_through_a_mapping_that_fails_is_an_error_of_the_tail() {
    let (disk, file) = disk_with_file(1);
    let (_, reader) = file.tail(TailKind::Mmap, PAGE_BYTES, 10).unwrap();
    assert_eq!(reader.bytes(0..10).unwrap(), [1; 10][..]);
    disk.fail_read(disk.reads(), ReadFault::Once);
    let error = reader.bytes(0..10).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_disk_fills_up_at_a_step_and_stays_full() {
    let (disk, file) = disk_with_file(1);
    disk.fill_at_step(disk.steps() + 1, 2);
    file.allocate(PAGE_BYTES..3 * PAGE_BYTES).unwrap();
    file.allocate(3 * PAGE_BYTES..5 * PAGE_BYTES).unwrap();
    for _ in 0..2 {
        let error = file.allocate(5 * PAGE_BYTES..6 * PAGE_BYTES).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    file.set_len(PAGE_BYTES).unwrap();
    file.allocate(PAGE_BYTES..2 * PAGE_BYTES).unwrap();
    assert_eq!(disk.injected().full, 2);
}

#[test]
fn steps_are_told_apart_by_what_they_do_and_each_can_fail() {
    let disk = SimDisk::new(1);
    disk.record_kinds();
    let work = |disk: &SimDisk| -> io::Result<()> {
        let file = disk.open(Path::new(FILE), OpenMode::Create)?;
        file.allocate(0..PAGE_BYTES)?;
        file.write_at(&[&[1]], 0)?;
        let (mut writer, _) = file.tail(TailKind::Mmap, PAGE_BYTES, 1)?;
        writer.write(1, &[&[2]])?;
        file.sync_data()?;
        file.set_len(1)?;
        disk.rename(Path::new(FILE), Path::new(OTHER))?;
        disk.remove_file(Path::new(OTHER))
    };
    work(&disk).unwrap();
    let kinds = disk.take_kinds();
    let all = [
        StepKind::Make,
        StepKind::Allocate,
        StepKind::Write,
        StepKind::Store,
        StepKind::Sync,
        StepKind::SetLen,
        StepKind::Rename,
        StepKind::Remove,
    ];
    assert_eq!(kinds, (0..8).zip(all).collect::<Vec<_>>());
    for (step, _) in kinds {
        let disk = SimDisk::new(1);
        disk.fail_step(step, WriteFault::Io);
        assert!(eio(&work(&disk).unwrap_err()), "step {step}");
        assert_eq!(disk.injected().failed_writes, 1);
    }
}

#[test]
fn a_mapped_tail_writes_long_batches_at_the_beginning_and_stores_the_rest() {
    let (disk, file) = disk_with_file(3);
    disk.set_tail_switch(TailSwitch {
        below: PAGE_BYTES,
        bytes_min: 100,
    });
    let (mut writer, reader) = file.tail(TailKind::Mmap, 3 * PAGE_BYTES, 0).unwrap();
    disk.record_kinds();
    writer.write(0, &[&[7; 40], &[8; 60]]).unwrap();
    writer.publish(0, [7; 4], 100).unwrap();
    writer.write(100, &[&[7; 99]]).unwrap();
    writer.publish(100, [7; 4], PAGE_BYTES).unwrap();
    writer.write(PAGE_BYTES, &[&[7; 100]]).unwrap();
    let kinds: Vec<StepKind> = disk
        .take_kinds()
        .into_iter()
        .map(|(_, kind)| kind)
        .collect();
    use StepKind::{Store, Write};
    assert_eq!(kinds, [Write, Store, Store, Store, Store]);
    assert_eq!(reader.bytes(38..42).unwrap(), [7, 7, 8, 8][..]);
    // Beyond the end of a file that was cut, a write would make it longer.
    disk.cut_from_outside(Path::new(FILE), 10).unwrap();
    let (mut writer, _) = file.tail(TailKind::Mmap, 3 * PAGE_BYTES, 0).unwrap();
    let error = writer.write(0, &[&[7; 100]]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn zeroed_and_misdirected_sectors_are_on_the_device_and_leave_nothing_dirty() {
    let (disk, file) = disk_with_file(2);
    let other = disk.open(Path::new(OTHER), OpenMode::CreateNew).unwrap();
    other.write_at(&[&[5; SECTOR], &[6; SECTOR]], 0).unwrap();
    other.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.zero_sectors(Path::new(FILE), 1..3).unwrap();
    disk.misdirect((Path::new(OTHER), 1), (Path::new(FILE), 9))
        .unwrap();
    disk.misdirect((Path::new(FILE), 9), (Path::new(FILE), 0))
        .unwrap();
    disk.zero_sectors(Path::new(FILE), 99..100).unwrap();
    let damaged = [6, 0, 0, 1, 1, 1, 1, 1, 1, 6, 1, 1, 1, 1, 1, 1];
    assert_eq!(sectors(&content(&disk, FILE)), damaged);
    drop((file, other));
    disk.power_cut(&mut Rng::new(1));
    assert_eq!(sectors(&content(&disk, FILE)), damaged);
    assert_eq!(
        sectors(&content(&disk, OTHER)),
        [5, 6],
        "the source is as it was"
    );
    let injected = disk.injected();
    let dirty = injected.pages_kept + injected.pages_lost + injected.pages_torn;
    assert_eq!(dirty, 0);
}
