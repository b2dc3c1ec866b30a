//! The real disk and its tails, on the file system that holds the temporary directory.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sapwood_log::io::{Disk, Environment, File, OpenMode, RealDisk, TailKind};
use tempfile::TempDir;

const KINDS: [TailKind; 2] = [TailKind::Mmap, TailKind::Pwrite];

struct Scratch {
    dir: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch {
            dir: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> Arc<dyn File> {
        RealDisk
            .open(&self.path(name), OpenMode::CreateNew)
            .unwrap()
    }
}

fn kind_of<T>(outcome: io::Result<T>) -> io::ErrorKind {
    outcome.err().expect("an error").kind()
}

#[test]
fn open_modes_make_and_refuse_as_they_say() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    assert_eq!(
        kind_of(RealDisk.open(&path, OpenMode::Read)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind_of(RealDisk.open(&path, OpenMode::Write)),
        io::ErrorKind::NotFound
    );
    RealDisk
        .open(&path, OpenMode::Create)
        .unwrap()
        .write_at(&[b"x"], 0)
        .unwrap();
    assert_eq!(
        RealDisk
            .open(&path, OpenMode::Create)
            .unwrap()
            .len()
            .unwrap(),
        1
    );
    assert_eq!(
        kind_of(RealDisk.open(&path, OpenMode::CreateNew)),
        io::ErrorKind::AlreadyExists
    );
    let read_only = RealDisk.open(&path, OpenMode::Read).unwrap();
    assert!(read_only.write_at(&[b"y"], 0).is_err());
}

#[test]
fn directories_list_sorted_and_renames_replace() {
    let scratch = Scratch::new();
    RealDisk.create_dir(&scratch.path("b")).unwrap();
    assert_eq!(
        kind_of(RealDisk.create_dir(&scratch.path("b"))),
        io::ErrorKind::AlreadyExists
    );
    scratch.file("c").write_at(&[b"new"], 0).unwrap();
    scratch.file("a").write_at(&[b"old"], 0).unwrap();
    RealDisk
        .rename(&scratch.path("c"), &scratch.path("a"))
        .unwrap();
    let entries = RealDisk.read_dir(scratch.dir.path()).unwrap();
    let names: Vec<(&str, bool)> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.is_dir))
        .collect();
    assert_eq!(names, [("a", false), ("b", true)]);
    let mut content = [0; 3];
    RealDisk
        .open(&scratch.path("a"), OpenMode::Read)
        .unwrap()
        .read_at(&mut content, 0)
        .unwrap();
    assert_eq!(&content, b"new");
    RealDisk.sync_dir(scratch.dir.path()).unwrap();
    RealDisk.sync_filesystem(scratch.dir.path()).unwrap();
    RealDisk.remove_file(&scratch.path("a")).unwrap();
    RealDisk.remove_dir(&scratch.path("b")).unwrap();
    assert!(RealDisk.read_dir(scratch.dir.path()).unwrap().is_empty());
}

#[test]
fn a_lock_is_held_until_it_is_dropped() {
    let scratch = Scratch::new();
    let lock = RealDisk.lock(&scratch.path("lock")).unwrap();
    assert_eq!(
        kind_of(RealDisk.lock(&scratch.path("lock"))),
        io::ErrorKind::WouldBlock
    );
    drop(lock);
    RealDisk.lock(&scratch.path("lock")).unwrap();
}

#[test]
fn more_buffers_than_one_system_call_takes_are_written_in_order() {
    let scratch = Scratch::new();
    let file = scratch.file("file");
    let words: Vec<[u8; 4]> = (0..5000_u32).map(u32::to_be_bytes).collect();
    let mut buffers: Vec<&[u8]> = words.iter().map(|word| word.as_slice()).collect();
    buffers.insert(1024, &[]);
    file.write_at(&buffers, 7).unwrap();
    let mut content = vec![0; 7 + 20_000];
    assert_eq!(file.read_at(&mut content, 0).unwrap(), content.len());
    assert_eq!(content[..7], [0; 7]);
    assert_eq!(content[7..], words.concat());
    assert_eq!(
        file.read_at(&mut content, 20_000).unwrap(),
        7,
        "short only at the end"
    );
    assert_eq!(
        file.read_resident_at(&mut content[..100], 0).unwrap(),
        Some(100)
    );
    file.start_write_out(0..20_007).unwrap();
    file.sync_data().unwrap();
    let before = content.clone();
    for range in [0..0, 5..5, 0..20_007, 4096..1 << 40] {
        file.give_up(range);
        assert_eq!(file.read_at(&mut content, 0).unwrap(), content.len());
        assert_eq!(content, before);
    }
}

#[test]
fn allocation_takes_real_blocks_that_read_as_zeros() {
    let scratch = Scratch::new();
    let file = scratch.file("file");
    file.allocate(0..0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.allocate(0..1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 20);
    let blocks =
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(scratch.path("file")).unwrap());
    assert!(blocks * 512 >= 1 << 20, "{blocks} blocks of 512 bytes");
    let mut content = [1; 4096];
    file.read_at(&mut content, 500_000).unwrap();
    assert_eq!(content, [0; 4096]);
}

#[test]
fn an_allocation_that_does_not_fit_leaves_the_length_as_it_was() {
    let scratch = Scratch::new();
    let file = scratch.file("file");
    file.allocate(0..4096).unwrap();
    let free_bytes = RealDisk.space(scratch.dir.path()).unwrap().free_bytes;
    // More than there is, yet allowed as a file size on ext4 (16 TiB) and others.
    let too_much = (free_bytes * 2).min(15 << 40);
    let error = file.allocate(4096..too_much).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge
        ),
        "{error}"
    );
    assert_eq!(file.len().unwrap(), 4096);
    let now_free = RealDisk.space(scratch.dir.path()).unwrap().free_bytes;
    assert!(
        now_free > free_bytes / 2,
        "a failed allocation kept {}",
        free_bytes - now_free
    );
}

#[test]
fn published_bytes_are_in_the_file_and_unpublished_ones_are_not_readable() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let file = scratch.file("file");
        file.allocate(0..8192).unwrap();
        let (mut writer, reader) = file.tail(kind, 1 << 20, 0).unwrap();
        writer.write(0, &[b"head"]).unwrap();
        writer.write(8, &[b"body"]).unwrap();
        assert_eq!(reader.end(), 0);
        assert_eq!(kind_of(reader.bytes(0..1)), io::ErrorKind::InvalidInput);
        writer.publish(4, *b"WORD", 12).unwrap();
        assert_eq!(reader.end(), 12);
        assert_eq!(reader.bytes(0..12).unwrap().as_ref(), b"headWORDbody");
        assert_eq!(reader.bytes(5..5).unwrap().as_ref(), b"");
        let mut content = [0; 12];
        file.read_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"headWORDbody");
        file.sync_data().unwrap();
    }
}

#[test]
fn long_and_short_writes_at_any_place_arrive_whole() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let file = scratch.file("file");
        file.allocate(0..4 << 20).unwrap();
        let (mut writer, reader) = file.tail(kind, 4 << 20, 0).unwrap();
        let mut expected = Vec::new();
        let piece = 64 << 10;
        for bytes in [
            12,
            1023,
            1024,
            piece - 1,
            piece,
            piece + 1,
            13,
            3 * piece + 7,
            1 << 20,
        ] {
            let start = expected.len();
            let batch: Vec<u8> = (0..bytes).map(|at| (start + at / 3) as u8).collect();
            let (head, body) = batch.split_at(9);
            writer.write(start as u64, &[head, &[], body]).unwrap();
            expected.extend_from_slice(&batch);
            let word = [1, 2, 3, start as u8];
            expected[start + 8..start + 12].copy_from_slice(&word);
            let end = expected.len() as u64;
            writer.publish(start as u64 + 8, word, end).unwrap();
        }
        let end = expected.len() as u64;
        assert!(
            reader.bytes(0..end).unwrap().as_ref() == expected,
            "{kind:?}"
        );
        let mut content = vec![0; expected.len()];
        file.read_at(&mut content, 0).unwrap();
        assert!(content == expected, "{kind:?}: the file");
    }
}

#[test]
fn the_writer_stays_above_the_published_end_and_below_the_capacity() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let file = scratch.file("file");
        file.allocate(0..8192).unwrap();
        assert_eq!(
            kind_of(file.tail(kind, 10, 11)),
            io::ErrorKind::InvalidInput
        );
        let (mut writer, reader) = file.tail(kind, 8192, 100).unwrap();
        assert_eq!(reader.end(), 100);
        let refused = [
            writer.write(99, &[b"x"]),
            writer.write(8192, &[b"x"]),
            writer.write(u64::MAX, &[b"x"]),
            writer.publish(98, [0; 4], 200),
            writer.publish(100, [0; 4], 103),
            writer.publish(100, [0; 4], 8193),
        ];
        for outcome in refused {
            assert_eq!(kind_of(outcome), io::ErrorKind::InvalidInput);
        }
        assert_eq!(reader.end(), 100);
        writer.write(8191, &[b"x"]).unwrap();
        let reversed = std::ops::Range { start: 60, end: 50 };
        assert_eq!(kind_of(reader.bytes(reversed)), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn slices_outlive_their_tail_and_a_removed_file() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let file = scratch.file("file");
        file.allocate(0..1 << 20).unwrap();
        let (mut writer, reader) = file.tail(kind, 1 << 20, 0).unwrap();
        writer.write(4, &[&[7; 100_000]]).unwrap();
        writer.publish(0, [7; 4], 100_004).unwrap();
        let bytes = reader.bytes(0..100_004).unwrap();
        let part = bytes.slice(50_000..);
        drop((writer, reader, file, bytes));
        RealDisk.remove_file(&scratch.path("file")).unwrap();
        assert!(part.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn readers_see_only_whole_published_batches_while_the_writer_goes_on() {
    const BATCH_BYTES: u64 = 1003; // so that words lie at odd addresses and across pages
    const BATCHES: u64 = 5000;
    for kind in KINDS {
        let scratch = Scratch::new();
        let file = scratch.file("file");
        file.allocate(0..BATCH_BYTES * BATCHES).unwrap();
        let (mut writer, reader) = file.tail(kind, BATCH_BYTES * BATCHES, 0).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                let reader = Arc::clone(&reader);
                scope.spawn(move || {
                    let mut seen = 0;
                    while seen < BATCHES {
                        let end = reader.end();
                        assert_eq!(end % BATCH_BYTES, 0);
                        if end / BATCH_BYTES == seen {
                            thread::yield_now();
                            continue;
                        }
                        seen = end / BATCH_BYTES;
                        let last = reader.bytes(end - BATCH_BYTES..end).unwrap();
                        let expected = (seen - 1) as u8 | 1;
                        assert!(last.iter().all(|byte| *byte == expected));
                    }
                });
            }
            for batch in 0..BATCHES {
                let start = batch * BATCH_BYTES;
                let fill = batch as u8 | 1;
                writer
                    .write(start + 4, &[&vec![fill; BATCH_BYTES as usize - 4]])
                    .unwrap();
                writer
                    .publish(start, [fill; 4], start + BATCH_BYTES)
                    .unwrap();
            }
        });
    }
}

#[test]
fn a_mapped_tail_says_what_is_in_memory() {
    const SIZE: u64 = 8 << 20;
    let scratch = Scratch::new();
    let file = scratch.file("file");
    file.allocate(0..SIZE).unwrap();
    file.write_at(&[&vec![7; SIZE as usize]], 0).unwrap();
    file.sync_data().unwrap();
    let (_writer, reader) = file.tail(TailKind::Pwrite, SIZE, SIZE).unwrap();
    assert!(!reader.is_resident(0..SIZE), "it would be copied");
    // Before it is mapped: pages that a mapping has are not dropped.
    let opened = std::fs::File::open(scratch.path("file")).unwrap();
    rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let (_writer, reader) = file.tail(TailKind::Mmap, SIZE, SIZE).unwrap();
    let half = SIZE / 2 + 1000;
    assert!(!reader.is_resident(0..SIZE));
    assert!(!reader.is_resident(half..half + 1));
    file.read_at(&mut vec![0; SIZE as usize], 0).unwrap();
    assert!(reader.is_resident(0..SIZE));
    assert!(reader.is_resident(half..half + 5_000));
    assert!(!reader.is_resident(half..SIZE + 1), "behind the end");
}

#[test]
fn the_kind_of_a_tail_is_pwrite_where_the_file_system_is_not_known() {
    assert_eq!(RealDisk.tail_kind(Path::new("/proc")), TailKind::Pwrite);
    assert_eq!(
        RealDisk.tail_kind(Path::new("/no/such/place")),
        TailKind::Pwrite
    );
}

#[test]
fn the_real_environment_has_time_and_randomness() {
    let environment = Environment::real();
    assert!(environment.clock.now().0 > 1_700_000_000_000);
    let elapsed = environment.clock.elapsed();
    assert!(environment.clock.elapsed() >= elapsed);
    assert_ne!(environment.entropy.u128(), environment.entropy.u128());
}
