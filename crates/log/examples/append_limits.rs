//! What the machine allows: appends of 64 KiB chunks into fresh allocated files, with each way to write
//! that a tail could use, beside the tails themselves.
//!
//! ```text
//! cargo run --release -p sapwood-log --example append_limits -- [DIRECTORY [ROUNDS [MIB...]]]
//! ```
//!
//! Every round runs every way once, in turn, each on a new file that is removed afterwards; what is
//! printed are medians. Wall time and CPU time are those of the loop of stores alone: allocation,
//! mapping and removal are outside, as they are off the append path in the log.
#![allow(unsafe_code)] // the bare loops that the tails are compared with

use std::env;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use sapwood_log::io::{Disk, OpenMode, RealDisk, TailKind};

const CHUNK_BYTES: usize = 64 * 1024;
/// How far ahead of the stores pages are populated at a time.
const POPULATE_BYTES: usize = 2 * 1024 * 1024;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Debug, Clone, Copy)]
enum Way {
    Pwrite,
    Mapped {
        huge: bool,
        populate: bool,
    },
    /// As a log grows: the mapping is for a large segment, and blocks are allocated in steps from 64 KiB,
    /// doubling to 32 MiB, just before they are needed. `huge_from` is where huge pages are asked for.
    Steps {
        huge_from: Option<usize>,
        populate: bool,
    },
    Tail {
        kind: TailKind,
    },
}

const SEGMENT_BYTES: usize = 1 << 30;

const WAYS: [(&str, Way); 11] = [
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
        "steps",
        Way::Steps {
            huge_from: None,
            populate: false,
        },
    ),
    (
        "steps, huge from 0",
        Way::Steps {
            huge_from: Some(0),
            populate: false,
        },
    ),
    (
        "steps, huge from 2 MiB",
        Way::Steps {
            huge_from: Some(2 << 20),
            populate: false,
        },
    ),
    (
        "steps, huge 2, populated",
        Way::Steps {
            huge_from: Some(2 << 20),
            populate: true,
        },
    ),
    (
        "tail, pwrite",
        Way::Tail {
            kind: TailKind::Pwrite,
        },
    ),
    (
        "tail, mapped",
        Way::Tail {
            kind: TailKind::Mmap,
        },
    ),
];

#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    let rounds: usize = arguments.next().map_or(Ok(7), |rounds| rounds.parse())?;
    let mut sizes_mib = arguments
        .map(|size| size.parse())
        .collect::<Result<Vec<usize>, _>>()?;
    if sizes_mib.is_empty() {
        sizes_mib = vec![1, 16, 256];
    }
    let dir = tempfile::TempDir::new_in(dir)?;
    let path = dir.path().join("segment");
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|index| index as u8).collect();
    for size_mib in sizes_mib {
        // Small files are too quick for the clock of CPU time: several of them make one measurement.
        let files = (64 / size_mib).max(1);
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); WAYS.len()];
        for _ in 0..rounds {
            for ((_, way), costs) in WAYS.iter().zip(&mut costs) {
                let mut sum = Cost {
                    wall: Duration::ZERO,
                    cpu: Duration::ZERO,
                };
                for _ in 0..files {
                    let cost = measure(*way, &path, size_mib << 20, &chunk)?;
                    sum = Cost {
                        wall: sum.wall + cost.wall,
                        cpu: sum.cpu + cost.cpu,
                    };
                }
                costs.push(sum);
            }
        }
        println!("files of {size_mib} MiB, {rounds} rounds");
        let gigabytes = (files * (size_mib << 20)) as f64 / 1e9;
        for ((name, _), costs) in WAYS.iter().zip(costs) {
            let wall = median(costs.iter().map(|cost| cost.wall).collect());
            let best = costs.iter().map(|cost| cost.wall).min().unwrap_or_default();
            let cpu = median(costs.iter().map(|cost| cost.cpu).collect());
            println!(
                "  {name:24} {:6.2} GB/s median  {:6.2} best  {:6.3} CPU s/GB",
                gigabytes / wall.as_secs_f64(),
                gigabytes / best.as_secs_f64(),
                cpu.as_secs_f64() / gigabytes,
            );
        }
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn measure(way: Way, path: &Path, size: usize, chunk: &[u8]) -> Outcome<Cost> {
    let cost = match way {
        Way::Pwrite => {
            let file = fresh(path, size)?;
            timed(|| {
                for position in (0..size).step_by(chunk.len()) {
                    file.write_all_at(chunk, position as u64)?;
                }
                Ok(())
            })?
        }
        Way::Mapped { huge, populate } => {
            let mapping = Mapping {
                size,
                huge_from: huge.then_some(0),
                populate,
                steps: false,
            };
            mapping.measure(&fresh(path, size)?, size, chunk)?
        }
        Way::Steps {
            huge_from,
            populate,
        } => {
            let mapping = Mapping {
                size: SEGMENT_BYTES,
                huge_from,
                populate,
                steps: true,
            };
            mapping.measure(&fresh(path, 0)?, size, chunk)?
        }
        Way::Tail { kind } => {
            let file = RealDisk.open(path, OpenMode::CreateNew)?;
            file.allocate(0..size as u64)?;
            let (mut writer, _reader) = file.tail(kind, size as u64, 0)?;
            timed(|| {
                for position in (0..size).step_by(chunk.len()) {
                    let start = position as u64;
                    // As a batch is written: all but the length word, then the word.
                    writer.write(start, &[&chunk[..8], &[0; 4], &chunk[12..]])?;
                    let word = [chunk[8], chunk[9], chunk[10], chunk[11]];
                    writer.publish(start + 8, word, start + chunk.len() as u64)?;
                }
                Ok(())
            })?
        }
    };
    std::fs::remove_file(path)?;
    Ok(cost)
}

fn fresh(path: &Path, size: usize) -> Outcome<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    if size > 0 {
        allocate(&file, 0, size)?;
    }
    Ok(file)
}

fn allocate(file: &File, from: usize, size: usize) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), from as u64, size as u64)
}

struct Mapping {
    size: usize,
    huge_from: Option<usize>,
    populate: bool,
    steps: bool,
}

impl Mapping {
    fn measure(&self, file: &File, size: usize, chunk: &[u8]) -> Outcome<Cost> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED;
        let mut allocated = if self.steps { 0 } else { size };
        // SAFETY: a fresh mapping that is unmapped below; every address used in between lies within it,
        // and every store below what is allocated.
        unsafe {
            let start = rustix::mm::mmap(ptr::null_mut(), self.size, protection, flags, file, 0)?;
            if let Some(from) = self.huge_from {
                let huge = start.cast::<u8>().add(from).cast();
                rustix::mm::madvise(huge, self.size - from, Advice::LinuxHugepage)?;
            }
            let cost = timed(|| {
                for position in (0..size).step_by(chunk.len()) {
                    let target = start.cast::<u8>().add(position);
                    if position == allocated {
                        let step = allocated.clamp(64 << 10, 32 << 20);
                        allocate(file, allocated, step)?;
                        allocated += step;
                    }
                    if self.populate && position.is_multiple_of(POPULATE_BYTES) {
                        let count = POPULATE_BYTES.min(allocated - position);
                        rustix::mm::madvise(target.cast(), count, Advice::LinuxPopulateWrite)?;
                    }
                    ptr::copy_nonoverlapping(chunk.as_ptr(), target, chunk.len());
                }
                Ok(())
            })?;
            rustix::mm::munmap(start, self.size)?;
            Ok(cost)
        }
    }
}

fn timed(run: impl FnOnce() -> Outcome<()>) -> Outcome<Cost> {
    let cpu = cpu_time();
    let wall = Instant::now();
    run()?;
    Ok(Cost {
        wall: wall.elapsed(),
        cpu: cpu_time() - cpu,
    })
}

/// User and system time of the process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
