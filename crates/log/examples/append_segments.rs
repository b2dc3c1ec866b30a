//! What an append costs: 64 KiB batches through `Partition::append` into fresh segments, beside the
//! bare loops of stores and writes into fresh allocated files that it is built on.
//!
//! ```text
//! cargo run --release -p sapwood-log --example append_segments -- [DIRECTORY [ROUNDS [MIB [WAY]]]]
//! ```
//!
//! Every round runs every way (or those whose name has WAY in it) once, in turn, each into new files that
//! are removed afterwards; what is printed are medians, and of the ratios of each round the median: what
//! disturbs a machine for a second disturbs both sides of it. Everything is synced before it is removed, so that each way finds the same
//! kind of free memory. The bare loops have their blocks allocated before; the partition (durability os,
//! segments of 1 GiB) allocates, indexes, starts write-out and rolls as it does in production, with its
//! store's threads running. `thread` is the CPU time of the appending thread, `process` that of all.
#![allow(unsafe_code)] // the bare loops that the partition is compared with

use std::env;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::time::ClockId;
use sapwood_log::io::{Environment, TailKind};
use sapwood_log::{
    AppendOptions, DataDir, Known, LogConfig, PartitionSpec, Progress, Store, StoreOptions,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};

const BATCH_BYTES: usize = 64 * 1024;
/// How far ahead of the stores pages are populated at a time.
const POPULATE_BYTES: usize = 2 * 1024 * 1024;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Debug, Clone, Copy)]
enum Way {
    Pwrite,
    Mapped { huge: bool, populate: bool },
    Partition { tail: TailKind },
}

const WAYS: [(&str, Way); 7] = [
    ("pwrite", Way::Pwrite),
    (
        "mapped",
        Way::Mapped {
            huge: false,
            populate: false,
        },
    ),
    (
        "mapped, populated",
        Way::Mapped {
            huge: false,
            populate: true,
        },
    ),
    (
        "mapped, huge pages",
        Way::Mapped {
            huge: true,
            populate: false,
        },
    ),
    (
        "mapped, huge, populated",
        Way::Mapped {
            huge: true,
            populate: true,
        },
    ),
    (
        "partition, mapped",
        Way::Partition {
            tail: TailKind::Mmap,
        },
    ),
    (
        "partition, pwrite",
        Way::Partition {
            tail: TailKind::Pwrite,
        },
    ),
];

#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    thread: Duration,
    process: Duration,
}

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    let rounds: usize = arguments.next().map_or(Ok(9), |rounds| rounds.parse())?;
    let bytes = arguments
        .next()
        .map_or(Ok(256), |mib| mib.parse::<usize>())?
        << 20;
    let wanted = arguments.next().unwrap_or_default();
    let dir = tempfile::TempDir::new_in(dir)?;
    let batch = batch()?;
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); WAYS.len()];
    for _ in 0..rounds {
        let ways = WAYS.iter().zip(&mut costs);
        for ((_, way), costs) in ways.filter(|((name, _), _)| name.contains(&wanted)) {
            costs.push(match *way {
                Way::Partition { tail } => partition(dir.path(), tail, bytes, &batch)?,
                Way::Mapped { huge, populate } => {
                    mapped(dir.path(), bytes, &batch, huge, populate)?
                }
                Way::Pwrite => pwrite(dir.path(), bytes, &batch)?,
            });
        }
    }
    println!(
        "{} MiB in batches of {BATCH_BYTES} bytes, {rounds} rounds, medians",
        bytes >> 20
    );
    let gigabytes = bytes as f64 / 1e9;
    let measured = || {
        WAYS.iter()
            .zip(&costs)
            .filter(|(_, costs)| !costs.is_empty())
    };
    let bare = measured().filter(|((_, way), _)| matches!(way, Way::Mapped { .. }));
    let best_bare = bare.min_by_key(|(_, costs)| median(costs.iter().map(|cost| cost.wall)));
    for ((name, way), costs) in measured() {
        let wall = median(costs.iter().map(|cost| cost.wall));
        let best = costs.iter().map(|cost| cost.wall).min().unwrap_or_default();
        let rate = |time: Duration| gigabytes / time.as_secs_f64();
        let thread = median(costs.iter().map(|cost| cost.thread)).as_secs_f64() / gigabytes;
        let process = median(costs.iter().map(|cost| cost.process)).as_secs_f64() / gigabytes;
        print!(
            "  {name:24} {:6.2} GB/s ({:5.2} best)  {thread:6.3} thread  {process:6.3} process CPU s/GB",
            rate(wall),
            rate(best)
        );
        if let (Way::Partition { .. }, Some((_, bare))) = (way, best_bare) {
            let of_medians = median(bare.iter().map(|cost| cost.wall)).div_duration_f64(wall);
            let pairs = bare.iter().zip(costs);
            let ratios = pairs.map(|(bare, cost)| bare.wall.div_duration_f64(cost.wall));
            let mut ratios: Vec<f64> = ratios.collect();
            ratios.sort_by(f64::total_cmp);
            let of_rounds = ratios[ratios.len() / 2];
            print!("  {of_medians:5.2} of the best bare stores, {of_rounds:.2} round by round");
        }
        println!();
    }
    Ok(())
}

fn batch() -> Outcome<Batch> {
    let build = |value_bytes: usize| {
        let value = vec![b'x'; value_bytes];
        let mut builder = BatchBuilder::new(Codec::None);
        let timestamp = Timestamp(1_700_000_000_000);
        builder.push(RecordInput {
            timestamp,
            key: None,
            value: Some(&value),
            headers: &[],
        })?;
        builder.build()
    };
    let overhead = build(BATCH_BYTES / 2)?.size_bytes() - BATCH_BYTES / 2;
    let batch = build(BATCH_BYTES - overhead)?;
    assert_eq!(batch.size_bytes(), BATCH_BYTES);
    Ok(batch)
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() / 2]
}

fn partition(dir: &Path, tail: TailKind, bytes: usize, batch: &Batch) -> Outcome<Cost> {
    let root = dir.join("data");
    let options = StoreOptions {
        tail: Some(tail),
        ballast_bytes: 0,
        boot_id: "measurement".to_owned(),
        // An os topic has no use for the journal, which would be written ahead meanwhile.
        journal_file_bytes: 64 << 10,
        journal_files: 2,
        // No checkpoint in the middle: its sync is the disk's time, not the append's.
        os_checkpoint_bytes: u64::MAX,
        os_checkpoint_interval: Duration::from_secs(3600),
        ..StoreOptions::default()
    };
    let data_dir = DataDir::open(Environment::real(), &root)?;
    let (store, _) = Store::open(data_dir, options, Known::default(), &Progress::default())?;
    store.start();
    let partition = store.create_partition(PartitionSpec {
        topic: TopicName::new("measured")?,
        topic_id: TopicId(1),
        partition: PartitionId(0),
        log_start: Offset(0),
        config: LogConfig {
            durability: Durability::Os,
            ..LogConfig::default()
        },
    })?;
    let clock = Environment::real().clock;
    let cost = timed(|| {
        for _ in 0..bytes / BATCH_BYTES {
            partition.append(batch, AppendOptions::default(), clock.now())?;
        }
        Ok(())
    })?;
    drop(partition);
    store.close()?;
    if let Some(store) = Arc::into_inner(store) {
        drop(store);
    }
    std::fs::remove_dir_all(&root)?;
    Ok(cost)
}

fn pwrite(dir: &Path, bytes: usize, batch: &Batch) -> Outcome<Cost> {
    let path = dir.join("bare");
    let file = fresh(&path, bytes)?;
    let chunk = batch.to_bytes();
    let cost = timed(|| {
        for position in (0..bytes).step_by(BATCH_BYTES) {
            file.write_all_at(&chunk, position as u64)?;
        }
        Ok(())
    })?;
    file.sync_data()?;
    std::fs::remove_file(path)?;
    Ok(cost)
}

fn mapped(dir: &Path, bytes: usize, batch: &Batch, huge: bool, populate: bool) -> Outcome<Cost> {
    let path = dir.join("bare");
    let file = fresh(&path, bytes)?;
    let chunk = batch.to_bytes();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping of an allocated file, unmapped below; every store lies within it.
    let cost = unsafe {
        let start = rustix::mm::mmap(
            ptr::null_mut(),
            bytes,
            protection,
            MapFlags::SHARED,
            &file,
            0,
        )?;
        if huge {
            rustix::mm::madvise(start, bytes, Advice::LinuxHugepage)?;
        }
        let cost = timed(|| {
            for position in (0..bytes).step_by(BATCH_BYTES) {
                let target = start.cast::<u8>().add(position);
                if populate && position.is_multiple_of(POPULATE_BYTES) {
                    let count = POPULATE_BYTES.min(bytes - position);
                    rustix::mm::madvise(target.cast(), count, Advice::LinuxPopulateWrite)?;
                }
                ptr::copy_nonoverlapping(chunk.as_ptr(), target, chunk.len());
            }
            Ok(())
        })?;
        rustix::mm::munmap(start, bytes)?;
        cost
    };
    file.sync_data()?;
    std::fs::remove_file(path)?;
    Ok(cost)
}

fn fresh(path: &Path, bytes: usize) -> Outcome<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
    Ok(file)
}

fn timed(run: impl FnOnce() -> Outcome<()>) -> Outcome<Cost> {
    let cpu = |id| {
        let time = rustix::time::clock_gettime(id);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (thread, process) = (cpu(ClockId::ThreadCPUTime), cpu(ClockId::ProcessCPUTime));
    let wall = Instant::now();
    run()?;
    Ok(Cost {
        wall: wall.elapsed(),
        thread: cpu(ClockId::ThreadCPUTime) - thread,
        process: cpu(ClockId::ProcessCPUTime) - process,
    })
}
