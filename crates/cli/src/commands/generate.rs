//! `sapwood generate`: files for the shell.

use clap::CommandFactory;

use crate::{
    args::{Cli, GenerateCommand},
    error::{Exit, Outcome},
    output::print_text,
};

/// Prints what was asked for on standard output.
pub(crate) fn run(command: &GenerateCommand) -> Outcome {
    match command {
        GenerateCommand::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "sapwood", &mut script);
            print_text(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(Exit::Ok)
}
