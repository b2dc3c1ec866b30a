//! Brokers that are killed, lose power, or run out of disk.

mod descriptors;
mod disk_full;
mod durability;
mod flights;
mod io_errors;
mod kept;
mod kill;
mod power;
mod truncated;
mod workload;

use std::time::Duration;

/// How many times a broker is killed in one test: `SAPWOOD_CRASH_ROUNDS`, 4 by default.
pub(crate) fn rounds() -> u64 {
    number("SAPWOOD_CRASH_ROUNDS").unwrap_or(4)
}

/// The longest time between two kills: `SAPWOOD_CRASH_SECONDS`, 1 by default.
pub(crate) fn longest_run() -> Duration {
    Duration::from_secs(number("SAPWOOD_CRASH_SECONDS").unwrap_or(1))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{variable} is {text:?}: {e}")),
    )
}
