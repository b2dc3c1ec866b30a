//! `sapwood topic`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{parse_pair, parse_position, parse_range};
use crate::{
    duration,
    output::template::Template,
    pace::Rate,
    position::{Position, Range},
};

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List topics
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a topic's partitions and configuration
    #[command(visible_alias = "info")]
    Describe(DescribeArgs),
    /// Change a topic's configuration or add partitions
    Alter(AlterArgs),
    /// Delete topics with everything in them
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Write records from standard input or files
    Produce(Box<ProduceArgs>),
    /// Read records
    Consume(Box<ConsumeArgs>),
    /// Delete the records before a position
    Trim(TrimArgs),
}

/// `topic create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The topic's name
    pub(crate) name: String,
    /// Number of partitions; without it, the broker's default
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: Option<u32>,
    /// Replication factor; without it, the broker's default
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replication_factor: Option<u32>,
    /// A configuration of the topic, Kafka's names and `durability`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Accept a topic of this name as it is
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Check only; create nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `topic list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only topics whose name begins with this
    pub(crate) prefix: Option<String>,
}

/// `topic describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The topics' names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Show every configuration key, also those at their default
    #[arg(long)]
    pub(crate) all_configs: bool,
}

/// `topic alter`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true)
    .args(["set", "unset", "partitions"]))]
pub(crate) struct AlterArgs {
    /// The topic's name
    pub(crate) name: String,
    /// Set a configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Return a configuration to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) unset: Vec<String>,
    /// Grow to this many partitions
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: Option<u32>,
    /// Check and print the plan; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `topic delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The topics' names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not complain about topics that are not there
    #[arg(long)]
    pub(crate) if_exists: bool,
    /// Print the plan; delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `topic trim`.
#[derive(Debug, Args)]
pub(crate) struct TrimArgs {
    /// The topic's name
    pub(crate) name: String,
    /// Delete what is before this position: 42, end, -1000, @-7d
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_position)]
    pub(crate) before: Position,
    /// Only these partitions, separated by commas
    #[arg(short, long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) partitions: Vec<u32>,
    /// Print the plan; delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How the input of `topic produce` is cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// One record a line.
    Lines,
    /// A header line, then one record a line; the value is the whole line.
    Csv,
    /// One JSON object a line: value, key, headers, partition, timestamp.
    Jsonl,
    /// Each file is one record.
    File,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksArg {
    /// As durable as the topic says.
    All,
    /// In the broker's page cache.
    #[value(alias = "1")]
    Leader,
    /// Nobody waits.
    #[value(alias = "0")]
    None,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// `topic produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// The topic's name
    pub(crate) topic: String,
    /// Files to read, `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) files: Vec<PathBuf>,
    /// How the input is cut into records
    #[arg(short = 'F', long, value_name = "FORMAT", default_value = "lines")]
    pub(crate) format: InputFormat,
    /// csv: the column whose field is the key; an empty field is no key
    #[arg(long, value_name = "NAME")]
    pub(crate) key_column: Option<String>,
    /// csv: what stands between fields; \t is a tab
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// lines: what stands before this is the key; \t is a tab
    #[arg(short, long, value_name = "TEXT", value_parser = parse_separator)]
    pub(crate) key_separator: Option<String>,
    /// The key of every record that has none of its own
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["key_column", "key_separator"])]
    pub(crate) key: Option<String>,
    /// A header for every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) headers: Vec<(String, String)>,
    /// Send everything to this partition
    #[arg(short, long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// jsonl: choose partitions by key, not as the records say
    #[arg(long, conflicts_with = "partition")]
    pub(crate) repartition: bool,
    /// At most so many records: 500/s, 10k/s, 30/m
    #[arg(long, value_name = "N/s")]
    pub(crate) rate: Option<Rate>,
    /// Compression of the batches
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    pub(crate) compression: CompressionArg,
    /// What to wait for
    #[arg(long, value_name = "WHAT", default_value = "all")]
    pub(crate) acks: AcksArg,
    /// How long a batch waits for more records
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "5ms")]
    pub(crate) linger: Duration,
    /// How large a batch may grow, in bytes before compression
    #[arg(long, value_name = "BYTES", default_value = "262144")]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=(64 << 20)))]
    pub(crate) batch_bytes: u32,
    /// How long to retry while the broker does not answer
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "2m")]
    pub(crate) retry_timeout: Duration,
}

/// `topic consume`.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic's name
    pub(crate) topic: String,
    /// Where to begin, or a range a..b: start, end, 42, -10 (the last ten of each partition), @-1h
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_range)]
    pub(crate) from: Option<Range>,
    /// Only these partitions, separated by commas
    #[arg(short, long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) partitions: Vec<u32>,
    /// Stop at what is the end now
    #[arg(short, long)]
    pub(crate) exit_at_end: bool,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Read as a member of this group, which commits what was printed; --from counts where it has
    /// committed nothing
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["partitions", "exit_at_end"])]
    pub(crate) group: Option<String>,
    /// kcat's format: %v value, %k key, %t topic, %p partition, %o offset, %T time, %h headers
    #[arg(short, long, value_name = "FORMAT", value_parser = parse_template)]
    pub(crate) format: Option<Template>,
}

fn parse_template(text: &str) -> Result<Template, String> {
    text.parse()
}

/// One byte, or `\t`.
fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("a delimiter is one byte, not a quote or a newline; \\t is a tab".into()),
    }
}

/// Text of at least one byte; `\t` is a tab.
fn parse_separator(text: &str) -> Result<String, String> {
    match text.replace("\\t", "\t") {
        empty if empty.is_empty() => Err("a separator has at least one byte".into()),
        separator => Ok(separator),
    }
}
