//! What each command does.

mod bench;
mod broker;
mod config;
mod explain;
mod generate;
mod group;
mod storage;
mod topic;

use sapwood_server::config::{LogConfig, LogFormat};

use crate::{
    args::{Cli, Command},
    console::Console,
    error::{Failure, Outcome},
};

/// Carries out a command and answers with the process's exit code.
pub(crate) fn run(cli: Cli) -> Outcome {
    let console = Console::new(&cli.global)?;
    // The broker has a log of its own, by its configuration.
    if !matches!(cli.command, Command::Dev(_) | Command::Serve(_)) {
        log(cli.global.verbose)?;
    }
    match cli.command {
        Command::Dev(args) => broker::dev(args, &cli.global, &console),
        Command::Serve(args) => broker::serve(args, &cli.global, &console),
        Command::Topic(command) => topic::run(command, &cli.global, &console),
        Command::Group(command) => group::run(command, &cli.global, &console),
        Command::Config(command) => config::run(command, &console),
        Command::Storage(command) => storage::run(command, &cli.global, &console),
        Command::Bench(command) => bench::run(command, &cli.global, &console),
        Command::Explain(args) => explain::run(&args, &console),
        Command::Generate(command) => generate::run(&command),
    }
}

/// What the libraries have to say goes to standard error when `-v` asks for it.
fn log(verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => return Ok(()),
        1 => "info",
        2 => "info,sapwood_client=debug",
        _ => "debug",
    };
    let config = LogConfig {
        level: level.into(),
        format: LogFormat::Text,
    };
    sapwood_server::logging::install(&config)
        .map(drop)
        .map_err(Failure::usage)
}
