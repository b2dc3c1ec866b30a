//! A power cut, played on the real binary: it is killed, pages of its segments that no checkpoint
//! covers are wiped, and it finds another boot id, so that it must not trust what is there.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    longest_run, rounds,
    workload::{SMALL, Workload},
};
use crate::harness::{Broker, Random, Settings, seed};

const PAGE_BYTES: u64 = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_of_an_fsync_topic_survive_power_cuts_that_lose_unsynced_pages() {
    let seed = seed();
    let mut random = Random::new(seed, 1 << 41);
    let settings = Settings::new(SMALL);
    let boot_id = settings.scratch().join("boot_id");
    let settings = settings.set(format!("storage.boot_id_file={}", boot_id.display()));
    let mut boots = 0;
    boot(&boot_id, &mut boots);
    let mut broker = settings.start();
    let client = settings.client();
    let workload = Workload::start(&client, "fsync", seed).await;
    let mut lost = 0;
    let mut cut = |broker: Broker, random: &mut Random| {
        broker.kill();
        lost += lose_pages(settings.data_dir(), random);
        boot(&boot_id, &mut boots);
    };
    for round in 0..rounds() {
        let longest = u64::try_from(longest_run().as_millis())
            .unwrap_or(u64::MAX)
            .max(2);
        tokio::time::sleep(Duration::from_millis(random.within(1..longest))).await;
        cut(broker, &mut random);
        while random.one_in(3) {
            // Again while it recovers.
            let starting = settings.spawn();
            tokio::time::sleep(Duration::from_millis(random.within(0..150))).await;
            cut(starting, &mut random);
        }
        broker = settings.start();
        eprintln!("round {round}: power cut and ready again");
    }
    eprintln!("{lost} pages were lost");
    workload.settle(&client).await;
    broker.stop();
    settings.verify();
}

/// Whoever reads the file from now on sees another boot.
pub(super) fn boot(file: &Path, boots: &mut u64) {
    *boots += 1;
    fs::write(file, format!("00000000-0000-4000-8000-{boots:012}\n")).expect("the scratch folder");
}

/// Wipes some of the pages that no checkpoint covers, as if they had never reached the disk, and says
/// how many. The journal is left alone: which of its pages were synced cannot be seen from outside.
pub(super) fn lose_pages(data_dir: &Path, random: &mut Random) -> u64 {
    let synced = checkpoint(&data_dir.join("checkpoint"));
    let mut lost = 0;
    for folder in fs::read_dir(data_dir.join("topics")).expect("the folder of partitions") {
        let folder = folder.expect("the folder of partitions").path();
        // A folder that is being made has no number yet.
        let Some(synced_to) = partition_of(&folder).map(|key| synced.get(&key).copied()) else {
            continue;
        };
        for (base, path) in segments(&folder) {
            let from = match synced_to {
                Some((segment, _)) if base < segment => continue,
                Some((segment, position)) if base == segment => position,
                _ => 0,
            };
            lost += wipe(&path, from, random);
        }
    }
    lost
}

/// Wipes about half of the pages of a file that begin at or after `from`.
fn wipe(path: &Path, from: u64, random: &mut Random) -> u64 {
    let file = fs::File::options()
        .write(true)
        .open(path)
        .expect("a segment");
    let pages = file.metadata().expect("a segment").len() / PAGE_BYTES;
    let mut lost = 0;
    for page in from.div_ceil(PAGE_BYTES)..pages {
        if random.one_in(2) {
            let zeros = [0; PAGE_BYTES as usize];
            file.write_all_at(&zeros, page * PAGE_BYTES)
                .expect("a page");
            lost += 1;
        }
    }
    lost
}

/// Base offsets and files.
fn segments(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).expect("a partition's folder");
    let segment = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a partition's folder").path();
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        Some((name.parse().ok()?, path.clone()))
    };
    entries.filter_map(segment).collect()
}

/// Topic id, as it is written in `partition.metadata`, and number.
type Key = (String, u64);

fn partition_of(folder: &Path) -> Option<Key> {
    let metadata = fs::read_to_string(folder.join("partition.metadata")).ok()?;
    let id = metadata
        .lines()
        .find_map(|line| line.strip_prefix("topic_id: "))?;
    let number = folder
        .file_name()?
        .to_str()?
        .rsplit_once('-')?
        .1
        .parse()
        .ok()?;
    Some((id.to_owned(), number))
}

/// Reads docs/format.md's checkpoint: the segment and the position up to which each partition is
/// synced.
fn checkpoint(path: &Path) -> BTreeMap<Key, (u64, u64)> {
    const ENVELOPE_BYTES: usize = 20;
    let bytes = fs::read(path).expect("the checkpoint");
    assert_eq!(bytes[..4], *b"SWCP");
    let mut rest = &bytes[ENVELOPE_BYTES..];
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count);
        rest = after;
        taken
    };
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
    let length = |bytes: &[u8]| usize::try_from(number(bytes)).expect("a small number");
    // Boot id, first round, generation.
    let boot_id = length(take(8));
    take(boot_id + 16);
    let mut partitions = BTreeMap::new();
    for _ in 0..number(take(8)) {
        let id = base64(take(16));
        let partition = number(take(8));
        let boot_id = length(take(8));
        // And the end.
        take(boot_id + 8);
        let synced = (number(take(8)), number(take(8)));
        // Leader epoch, entries of both indexes.
        take(24);
        for _ in ["producers", "epochs"] {
            let bytes = length(take(8));
            take(bytes);
        }
        for _ in 0..number(take(8)) {
            let name = length(take(8));
            take(name);
        }
        partitions.insert((id, partition), synced);
    }
    assert!(
        rest.is_empty(),
        "docs/format.md says that the file ends here"
    );
    partitions
}

/// URL-safe base64 without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let padded = [
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for digit in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[test]
fn base64_is_the_one_of_topic_ids() {
    assert_eq!(
        base64(&(0..16).collect::<Vec<u8>>()),
        "AAECAwQFBgcICQoLDA0ODw"
    );
}
