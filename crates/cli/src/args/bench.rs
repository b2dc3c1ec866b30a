//! `sapwood bench`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use sapwood_bench::{Keys, Payload, Protocol, Rate, Sizes};

use super::{
    parse_pair,
    topic::{AcksArg, CompressionArg},
};
use crate::duration;

/// Measures a broker.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure producing
    ///
    /// With a rate the load is open-loop: each record is due at a time that does not depend on the broker, and
    /// its latency counts from then until it is acknowledged. Without one (--rate max) records are made as fast as
    /// the broker takes them. In the end the records are read again, outside of the measurement, and checked.
    #[command(verbatim_doc_comment)]
    Produce(ProduceArgs),
    /// Measure consuming: read a topic from its start to its end, as fast as possible
    Consume(ConsumeArgs),
    /// Measure end to end: produce and consume at once; a latency counts from when a record was due to when a
    /// consumer has it
    E2e(E2eArgs),
    /// Say how two reports differ, and what of it is more than noise
    Compare(CompareArgs),
    /// Show a report that was written before, or make a page of it
    Report(ReportArgs),
    /// Start a listener that only acknowledges, to measure the generator itself against it
    ///
    /// It speaks as much of the Kafka protocol as `bench produce --no-check` needs, and drops the records.
    #[command(verbatim_doc_comment)]
    Null(NullArgs),
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolArg {
    /// Kafka's, by the generator's own client: any broker that speaks it.
    Kafka,
    /// gRPC, by Sapwood's Rust client.
    Grpc,
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Kafka => Self::Kafka,
            ProtocolArg::Grpc => Self::Grpc,
        }
    }
}

/// What values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadArg {
    /// Bytes drawn by chance, which no codec makes smaller.
    Random,
    /// Lines of JSON.
    Json,
}

impl From<PayloadArg> for Payload {
    fn from(payload: PayloadArg) -> Self {
        match payload {
            PayloadArg::Random => Self::Random,
            PayloadArg::Json => Self::Json,
        }
    }
}

/// Flags of every run.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// What to speak
    #[arg(long, value_name = "PROTOCOL", default_value = "kafka")]
    pub(crate) protocol: ProtocolArg,
    /// The topic; it is made if it is not there
    #[arg(short, long, value_name = "NAME", default_value = "sapwood-bench")]
    pub(crate) topic: String,
    /// How many consumers, each with a connection; the partitions are dealt out
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) consumers: u32,
    /// How many bytes of a partition a consumer asks for at a time
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) fetch_bytes: u32,
    /// How long the broker may wait for records before it answers a fetch with none
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "500ms")]
    pub(crate) fetch_wait: Duration,
    /// Let each consumer read all partitions, instead of dealing them out
    #[arg(long)]
    pub(crate) fan_out: bool,
    /// Neither number, checksum nor check records
    #[arg(long)]
    pub(crate) no_check: bool,
    /// The broker's process, for its CPU time and memory; found by its port when it is on this machine
    #[arg(long, value_name = "PID")]
    pub(crate) broker_pid: Option<u32>,
    /// End after so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) records: Option<u64>,
    /// End after so long
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Delete the topic in the end
    #[arg(long)]
    pub(crate) remove: bool,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Flags of a run that sends.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Records a second of all producers together, or max
    #[arg(long, value_name = "N|max", default_value = "max")]
    pub(crate) rate: Rate,
    /// Bytes of a record's value: 1024, 100..2000 (evenly), log:100..100000 (each factor of ten alike)
    #[arg(long, value_name = "SIZES", default_value = "1024")]
    pub(crate) record_bytes: Sizes,
    /// Keys: none, 100000 (so many, evenly), zipf:100000 (few hot ones)
    #[arg(long, value_name = "KEYS", default_value = "none")]
    pub(crate) keys: Keys,
    /// What values are made of
    #[arg(long, value_name = "KIND", default_value = "random")]
    pub(crate) payload: PayloadArg,
    /// How many producers, each with a connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) producers: u32,
    /// When the broker acknowledges
    #[arg(long, value_name = "WHAT", default_value = "all")]
    pub(crate) acks: AcksArg,
    /// At how many bytes before compression a batch is full
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub(crate) batch_bytes: u32,
    /// How long a batch that is not full waits for more records
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "0ms")]
    pub(crate) linger: Duration,
    /// How batches are compressed
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    pub(crate) compression: CompressionArg,
    /// How many requests of a connection may be unanswered; over gRPC so many batches are buffered
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) in_flight: u32,
    /// How long to run before the measurement begins
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "1s")]
    pub(crate) warm_up: Duration,
    /// Partitions of the topic if it is made
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub(crate) partitions: u32,
    /// Configuration of the topic if it is made
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) config: Vec<(String, String)>,
    /// Delete a topic of this name first
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Where everything that is drawn by chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `bench produce`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// `bench e2e`.
#[derive(Debug, Clone, Args)]
pub(crate) struct E2eArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// `bench consume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `bench compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// A report, printed with -o json
    pub(crate) before: PathBuf,
    /// Another one
    pub(crate) after: PathBuf,
}

/// `bench report`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// A report, printed with -o json
    pub(crate) report: PathBuf,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// `bench null`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NullArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9192")]
    pub(crate) listen: SocketAddr,
    /// How many partitions every topic has
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub(crate) partitions: u32,
    /// How long after its request each answer goes out
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "0ms")]
    pub(crate) delay: Duration,
}
