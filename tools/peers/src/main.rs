//! Loads Redis Streams and NATS JetStream as `sapwood bench` loads Kafka and Sapwood, with the same flags and
//! the same JSON, so that `run.py` beside it can set them side by side.
//!
//! `produce` makes the topic anew and sends; `consume` reads what `produce` left, from the start; `e2e` makes
//! a topic, sends and reads at once. Records carry who sent them, their number and when they were due, so
//! that order and completeness are checked. Without a rate, latency counts from the write; with one, from
//! when the record was due.

mod consume;
mod load;
mod nats;
mod pace;
mod peer;
mod produce;
mod record;
mod redis;
mod report;
mod wire;

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};

use crate::{
    load::Load,
    nats::Nats,
    pace::Clock,
    peer::{Peer, Topic},
    record::{HEADER_BYTES, PRODUCERS_MAX},
    redis::Redis,
};

/// Most partitions of a topic: their numbers have five digits.
const PARTITIONS_MAX: u64 = 99_999;

/// Load Redis Streams or NATS JetStream and print what was seen as JSON
#[derive(Debug, Parser)]
#[command(name = "peer-load")]
struct Args {
    /// What to do
    work: Work,
    /// What the server speaks
    #[arg(long)]
    protocol: Protocol,
    /// The server's address
    #[arg(short, long, value_name = "HOST:PORT")]
    brokers: String,
    /// The name of the keys and streams, to which the number of a partition is added
    #[arg(long, default_value = "bench")]
    topic: String,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=PARTITIONS_MAX))]
    partitions: u64,
    /// Records a second, or max
    #[arg(long, default_value = "max", value_parser = rate)]
    rate: Rate,
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..=1 << 20))]
    record_bytes: u32,
    /// End after so many records
    #[arg(long, default_value_t = u64::MAX, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// End after this time: 30s, 500ms
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..PRODUCERS_MAX))]
    producers: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..PRODUCERS_MAX))]
    consumers: u64,
    /// Records of one producer that may wait for their answers
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// The server's process, to look at what it uses
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Only json is known
    #[arg(short, long, default_value = "json")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Work {
    Produce,
    Consume,
    E2e,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Redis,
    Nats,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
}

/// Records a second; None is as many as go.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<u64>);

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate(None)),
        _ => match text.parse() {
            Ok(rate) if rate > 0 => Ok(Rate(Some(rate))),
            _ => Err("is neither max nor a number of records a second".to_owned()),
        },
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, millis) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1000),
    };
    let count: Option<u64> = digits.parse().ok();
    let millis = count
        .and_then(|count| count.checked_mul(millis))
        .filter(|millis| *millis > 0);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "is no time such as 30s or 500ms".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peer-load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let clock = Clock::start();
    let address = args.brokers.clone();
    let peer: Box<dyn Peer> = match args.protocol {
        Protocol::Redis => Box::new(Redis::new(address, clock)),
        Protocol::Nats => Box::new(Nats::new(address, clock)),
    };
    let load = Load {
        topic: Topic {
            name: args.topic.clone(),
            partitions: args.partitions,
            record_bytes: args.record_bytes as usize,
        },
        rate: args.rate.0,
        records: args.records,
        duration: args.duration,
        producers: args.producers,
        consumers: args.consumers.min(args.partitions),
        in_flight: args.in_flight,
    };
    let began = Instant::now();
    if !matches!(args.work, Work::Consume) {
        peer.create(&load.topic)?;
    }
    let created = began.elapsed();
    let peer = peer.as_ref();
    let (seen, cost) = report::watch(args.broker_pid, || match args.work {
        Work::Produce => load::produce(peer, &load, clock),
        Work::Consume => load::consume(peer, &load, clock),
        Work::E2e => load::end_to_end(peer, &load, clock),
    })?;
    let Output::Json = args.output;
    println!(
        "{}",
        report::json(&seen, load.topic.record_bytes, created, cost)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, rate};

    #[test]
    fn times_and_rates_are_read_as_they_are_written() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "s", "0s", "5m", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(matches!(rate("max"), Ok(rate) if rate.0.is_none()));
        assert!(matches!(rate("10000"), Ok(rate) if rate.0 == Some(10_000)));
        assert!(rate("0").is_err() && rate("many").is_err());
    }
}
