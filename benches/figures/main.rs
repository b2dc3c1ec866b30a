//! Measures a release build of `sapwood serve` as a process of its own, over gRPC: throughput, the cost of
//! syncing and of many partitions, start, idle time, memory and size. Everything that is compared is
//! measured in turns in one run; what is printed are medians.
//!
//! ```text
//! cargo build --release --bin sapwood
//! cargo run --release -p sapwood-benches --example figures -- target/release/sapwood [ROUNDS]
//! ```

mod broker;
mod footprint;
mod load;
mod table;

use std::{error::Error, path::PathBuf};

use table::Table;

/// How often everything that is compared is measured.
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().ok_or("usage: figures BINARY [ROUNDS]")?);
    let rounds = arguments
        .next()
        .map_or(Ok(ROUNDS), |rounds| rounds.parse())?
        .max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut table = Table::default();
    runtime.block_on(async {
        load::batches(&binary, rounds, &mut table).await?;
        load::partitions(&binary, rounds, &mut table).await?;
        load::single_records(&binary, rounds, &mut table).await?;
        footprint::start(&binary, rounds, &mut table).await?;
        footprint::idle(&binary, &mut table).await
    })?;
    footprint::size(&binary, &mut table)?;
    print!("{table}");
    Ok(())
}
