//! Runs one of the hot paths for valgrind to count its instructions: `tools/instructions.sh` does that.
//!
//! ```text
//! instructions            prints the names, and what one run gets done
//! instructions NAME       runs it a few times to warm up, and once more in [`counted`]
//! instructions --cpu      prints what may be chosen by at run time of what the processor can do
//! ```

mod workloads;

use std::{env, process::ExitCode};

use workloads::{Done, Work, all};

const WARM_UPS: usize = 3;

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        None => {
            for workload in all() {
                let (count, unit) = match workload.done {
                    Done::Bytes(count) => (count, "byte"),
                    Done::Events(count) => (count, "event"),
                };
                println!("{}\t{count}\t{unit}", workload.name);
            }
        }
        Some("--cpu") => println!("{}", processor()),
        Some(name) => {
            let Some(workload) = all().find(|workload| workload.name == name) else {
                eprintln!("there is no {name:?}");
                return ExitCode::FAILURE;
            };
            let mut work = (workload.prepare)();
            // What is found out once, as what the processor can do, and what is allocated once.
            for _ in 0..WARM_UPS {
                work.run();
                work.settle();
            }
            counted(&mut *work);
        }
    }
    ExitCode::SUCCESS
}

/// What happens in here is counted: callgrind is told this function's name.
#[inline(never)]
fn counted(work: &mut dyn Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    let features = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ];
    let there = features.iter().filter(|(_, is_there)| *is_there);
    let names: Vec<&str> = there.map(|(name, _)| *name).collect();
    format!("x86_64 {}", names.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    env::consts::ARCH.to_owned()
}
