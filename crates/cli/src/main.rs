//! The `sapwood` binary: the broker (`dev`, `serve`) and the command line of its users.
//!
//! Data goes to standard output and everything else to standard error; exit codes are in
//! [`error::Exit`], the forms of output in [`output`].

mod args;
mod commands;
mod console;
mod duration;
mod error;
mod input;
mod output;
mod pace;
mod position;
mod progress;
mod session;

use std::process::ExitCode;

use anstream::ColorChoice;
use args::{Cli, ColorWhen};
use clap::Parser;
use error::{Exit, Failure, Stop};
use sapwood_model::Code;

// Per-record allocations of the client and the broker come and go on different threads, which the
// system's allocator answers with contention and with memory that it keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit(usage_failed(&error)),
    };
    match cli.global.color {
        ColorWhen::Auto => {}
        ColorWhen::Always => ColorChoice::Always.write_global(),
        ColorWhen::Never => ColorChoice::Never.write_global(),
    }
    let json = wants_json();
    exit(match commands::run(cli) {
        Ok(code) => code,
        Err(Stop::PipeClosed) => Exit::Ok,
        Err(Stop::Failed(failure)) => {
            show(&failure, json);
            failure.exit_code()
        }
    })
}

fn exit(code: Exit) -> ExitCode {
    ExitCode::from(code as u8)
}

fn show(failure: &Failure, json: bool) {
    if json {
        output::note(&failure.to_json().to_string());
    } else {
        output::note(&failure.to_text());
    }
}

/// Shows what clap has to say: help and version as they are, errors with a code as all others.
fn usage_failed(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // A reader of the help that went away has seen what it wanted.
        let _: std::io::Result<()> = error.print();
        return Exit::Ok;
    }
    let text = error.render();
    if wants_json() {
        let plain = text.to_string();
        let message = plain
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        show(
            &Failure::usage(message).hint("Read `sapwood COMMAND --help`."),
            true,
        );
    } else {
        let code = format!("error[{}]:", Code::InvalidArgument);
        output::note(
            text.ansi()
                .to_string()
                .replacen("error:", &code, 1)
                .trim_end(),
        );
    }
    Exit::Usage
}

/// Whether `-o json` or `-o jsonl` is among the arguments. Looked up by hand, so that the errors of
/// a command line that cannot be parsed are JSON too.
fn wants_json() -> bool {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let is_json = |value: &str| matches!(value.trim_start_matches('='), "json" | "jsonl");
    args.windows(2)
        .any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && is_json(&pair[1]))
        || args.iter().any(|arg| {
            let value = arg
                .strip_prefix("--output=")
                .or_else(|| arg.strip_prefix("-o"));
            value.is_some_and(is_json)
        })
}
