//! The command line: every command, flag and value, and nothing of what they do.

pub(crate) mod bench;
pub(crate) mod group;
pub(crate) mod server;
pub(crate) mod storage;
pub(crate) mod topic;

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};
use clap_complete::Shell;

use crate::{
    duration,
    output::Form,
    position::{self, Range},
};

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unreachable, \
    5 not allowed, 6 conflict, 7 timeout, 8 partial, 10 unhealthy.";

/// A Kafka-compatible log streaming platform: broker and command line in one.
#[derive(Debug, Parser)]
#[command(name = "sapwood", version, propagate_version = true, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Addresses of brokers, separated by commas
    #[arg(
        short,
        long,
        global = true,
        env = "SAPWOOD_BROKERS",
        value_name = "HOST:PORT"
    )]
    #[arg(
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    #[arg(value_parser = parse_broker)]
    pub(crate) brokers: Vec<String>,
    /// How to print results: table, wide, json, jsonl, yaml, name (for consume also a position)
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORM",
        allow_hyphen_values = true
    )]
    #[arg(value_parser = parse_output, action = ArgAction::Append, help_heading = "Global options")]
    pub(crate) output: Vec<Output>,
    /// Print results and errors, nothing else
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Log to standard error: -v what happens, -vv each request
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// Colours: auto follows the terminal and NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(help_heading = "Global options")]
    pub(crate) color: ColorWhen,
    /// How long to wait for an answer of the broker: 10s, 500ms, 1m
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    #[arg(default_value = "30s", help_heading = "Global options")]
    pub(crate) timeout: Duration,
    /// Do not ask before destroying something
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) yes: bool,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What `-o` takes: a form of output, or for `topic consume` a position (kcat's habit). The two
/// vocabularies do not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// How to print.
    Form(Form),
    /// Where to read from.
    Position(Range),
}

/// Checks the form of `HOST:PORT`; the port may be left out, an IPv6 address stands in brackets.
fn parse_broker(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if host.is_empty() || (host.contains(':') && !bracketed) || !port_is_good {
        return Err(format!(
            "{text:?} is not HOST:PORT; examples: localhost:9092, [::1]:9092"
        ));
    }
    Ok(text.to_owned())
}

/// Reads a value of `-o`.
fn parse_output(text: &str) -> Result<Output, String> {
    if let Ok(form) = Form::from_str(text, true) {
        return Ok(Output::Form(form));
    }
    text.parse::<Range>().map(Output::Position).map_err(|_| {
        let forms: Vec<String> = Form::value_variants()
            .iter()
            .filter_map(Form::to_possible_value)
            .map(|value: PossibleValue| value.get_name().to_owned())
            .collect();
        format!(
            "forms are {}; for consume also a position such as -10",
            forms.join(", ")
        )
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a broker for development: on loopback, topics created on first use
    Dev(server::DevArgs),
    /// Start a broker
    Serve(server::ServeArgs),
    /// Create, look at, fill and read topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Look at consumer groups, and move them
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Look at a broker's configuration
    #[command(subcommand)]
    Config(server::ConfigCommand),
    /// Look at what is stored, by a running broker or in the data directory of a stopped one
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Measure a broker: this one, or any other that speaks the Kafka protocol
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Say what an error code means
    Explain(ExplainArgs),
    /// Generate files for the shell
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// `sapwood explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, as in SW3006; without one, all of them
    pub(crate) code: Option<String>,
}

/// `sapwood generate`.
#[derive(Debug, Subcommand)]
pub(crate) enum GenerateCommand {
    /// A completion script for a shell, on standard output
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Reads a moment or a position for clap, which wants `String` errors.
pub(crate) fn parse_range(text: &str) -> Result<Range, String> {
    text.parse()
}

/// Reads a single position.
pub(crate) fn parse_position(text: &str) -> Result<position::Position, String> {
    text.parse()
}

/// Reads `key=value`. The value may be empty and may hold further equals signs.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn minus_o_takes_forms_and_positions() {
        let output = |args: &[&str]| {
            let all = ["sapwood", "topic", "consume", "t"].iter().chain(args);
            Cli::try_parse_from(all)
                .map(|cli| cli.global.output)
                .map_err(|error| error.to_string())
        };
        let last = Output::Position("-10".parse().unwrap_or_else(|error| panic!("{error}")));
        assert_eq!(
            output(&["-o", "jsonl"]),
            Ok(vec![Output::Form(Form::Jsonl)])
        );
        assert_eq!(output(&["-o", "-10"]), Ok(vec![last]));
        assert_eq!(
            output(&["-o", "-10", "-o", "json"]),
            Ok(vec![last, Output::Form(Form::Json)])
        );
        assert!(output(&["-o", "xml"]).is_err_and(|error| error.contains("forms are table, wide")));
    }

    #[test]
    fn broker_addresses_have_a_host_and_perhaps_a_port() {
        for good in [
            "localhost",
            "localhost:9092",
            "127.0.0.1:1",
            "[::1]:9092",
            "[::1]",
        ] {
            assert!(parse_broker(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":9092",
            "host:",
            "host:x",
            "host:0",
            "host:65536",
            "::1",
            "::1:9092",
        ] {
            assert!(parse_broker(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_need_a_key_and_an_equals_sign() {
        assert_eq!(parse_pair("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert_eq!(parse_pair("a="), Ok(("a".into(), String::new())));
        assert!(parse_pair("=x").is_err());
        assert!(parse_pair("a").is_err());
    }
}
