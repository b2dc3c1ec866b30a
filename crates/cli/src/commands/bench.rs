//! `sapwood bench`: measuring a broker from outside.

use std::{fs, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sapwood_bench::{Error, Keys, Load, NullBroker, Payload, Plan, Rate, Report, Sizes, Topic};
use sapwood_model::Code;
use serde_json::json;

use crate::{
    args::{
        Global,
        bench::{BenchCommand, CompareArgs, LoadArgs, NullArgs, ReportArgs, RunArgs},
        topic::{AcksArg, CompressionArg},
    },
    console::Console,
    error::{Exit, Failure, Outcome, io_failed},
    output::{Form, note, print_text, print_value, thousands},
};

/// What a run without an end is ended by.
const DURATION: Duration = Duration::from_secs(10);

type Run = fn(Plan, &mut dyn FnMut(u64)) -> Result<Report, Error>;

pub(super) fn run(command: BenchCommand, global: &Global, console: &Console) -> Outcome {
    match command {
        BenchCommand::Produce(args) => {
            let plan = plan(global, &args.run, Some(&args.load));
            measure(sapwood_bench::produce, plan, &args.run, console)
        }
        BenchCommand::Consume(args) => {
            let plan = plan(global, &args.run, None);
            measure(sapwood_bench::consume, plan, &args.run, console)
        }
        BenchCommand::E2e(args) => {
            let plan = plan(global, &args.run, Some(&args.load));
            measure(sapwood_bench::e2e, plan, &args.run, console)
        }
        BenchCommand::Compare(args) => compare(&args, console),
        BenchCommand::Report(args) => show(&args, console),
        BenchCommand::Null(args) => null(&args, console),
    }
}

fn plan(global: &Global, run: &RunArgs, load: Option<&LoadArgs>) -> Plan {
    let has_end = run.records.is_some() || run.duration.is_some() || load.is_none();
    Plan {
        brokers: global.brokers.clone(),
        protocol: run.protocol.into(),
        topic: Topic {
            name: run.topic.clone(),
            partitions: load.map_or(1, |load| load.partitions),
            config: load.map_or(Vec::new(), |load| load.config.clone()),
            fresh: load.is_some_and(|load| load.fresh),
            remove: run.remove,
        },
        load: Load {
            rate: load.map_or(Rate::Max, |load| load.rate),
            record_bytes: load.map_or(Sizes::Fixed(1024), |load| load.record_bytes),
            keys: load.map_or(Keys::None, |load| load.keys),
            payload: load.map_or(Payload::Random, |load| load.payload.into()),
            records: run.records,
            duration: if has_end {
                run.duration
            } else {
                Some(DURATION)
            },
            warm_up: load.map_or(Duration::ZERO, |load| load.warm_up),
            seed: load.map_or(0, |load| load.seed),
        },
        producers: load.map_or(1, |load| load.producers),
        consumers: run.consumers,
        acks: load.map_or(-1, |load| match load.acks {
            AcksArg::None => 0,
            AcksArg::Leader => 1,
            AcksArg::All => -1,
        }),
        batch_bytes: load.map_or(1 << 20, |load| load.batch_bytes),
        linger: load.map_or(Duration::ZERO, |load| load.linger),
        compression: load
            .map_or("none", |load| compression_name(load.compression))
            .to_owned(),
        in_flight: load.map_or(5, |load| load.in_flight),
        fan_out: run.fan_out,
        fetch_bytes: run.fetch_bytes,
        fetch_wait: run.fetch_wait,
        check: !run.no_check,
        broker_pid: run.broker_pid,
    }
}

fn compression_name(codec: CompressionArg) -> &'static str {
    match codec {
        CompressionArg::None => "none",
        CompressionArg::Gzip => "gzip",
        CompressionArg::Snappy => "snappy",
        CompressionArg::Lz4 => "lz4",
        CompressionArg::Zstd => "zstd",
    }
}

fn measure(run: Run, plan: Plan, args: &RunArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let bar = match console.shows_progress() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed}  {msg}") {
        bar.set_style(style);
    }
    let tick = &mut |records| {
        bar.set_message(format!("{} records", thousands(records)));
        bar.tick();
    };
    let report = run(plan, tick);
    bar.finish_and_clear();
    let report = report.map_err(|error| failure(&error))?;
    if let Some(path) = &args.html {
        write_page(&report, path)?;
    }
    print(&report, form)?;
    match report.is_sound() {
        true => Ok(Exit::Ok),
        // Some of the records are not as they should be, which the report says.
        false => Ok(Exit::Partial),
    }
}

fn print(report: &Report, form: Form) -> Outcome<()> {
    match form {
        Form::Table | Form::Wide | Form::Name => print_text(&report.to_text()),
        form => print_value(&json!(report), form),
    }
}

fn write_page(report: &Report, path: &Path) -> Outcome<()> {
    let page = report.to_html().map_err(|error| failure(&error))?;
    let written = fs::write(path, page);
    written.map_err(|error| io_failed(&error, format!("cannot write {}", path.display())))?;
    Ok(())
}

fn read(path: &Path) -> Outcome<Report> {
    let text = fs::read_to_string(path);
    let text =
        text.map_err(|error| io_failed(&error, format!("cannot read {}", path.display())))?;
    let report = Report::parse(&text);
    Ok(report.map_err(|error| failure(&error).at(path.display()))?)
}

fn compare(args: &CompareArgs, console: &Console) -> Outcome {
    let comparison = read(&args.before)?.compare(&read(&args.after)?);
    match console.form()? {
        Form::Table | Form::Wide | Form::Name => print_text(&comparison.to_text())?,
        form => print_value(&json!(comparison), form)?,
    }
    Ok(Exit::Ok)
}

fn show(args: &ReportArgs, console: &Console) -> Outcome {
    let report = read(&args.report)?;
    match &args.html {
        Some(path) => write_page(&report, path)?,
        None => print(&report, console.form()?)?,
    }
    Ok(Exit::Ok)
}

fn null(args: &NullArgs, console: &Console) -> Outcome {
    let broker = NullBroker::new(args.partitions.max(1)).delay(args.delay);
    let address = broker.start(&args.listen.to_string());
    let address =
        address.map_err(|error| io_failed(&error, format!("cannot listen on {}", args.listen)))?;
    match console.form()?.is_json() {
        true => print_text(&format!(
            "{}\n",
            json!({"listen": address.to_string(), "pid": std::process::id()})
        ))?,
        false => note(&format!("acknowledging on {address}; Ctrl-C ends it")),
    }
    loop {
        std::thread::park();
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Client(error) => error.into(),
        Error::Setting(_) => Failure::usage(error),
        Error::Connect { .. } => Failure::new(Code::Unreachable, error)
            .hint("Start one with `sapwood dev`, or name another with -b HOST:PORT."),
        Error::Broken { .. } => Failure::new(Code::Unreachable, error),
        Error::Report(_) => {
            Failure::usage(error).hint("Write one with `sapwood bench produce -o json > FILE`.")
        }
        Error::Refused { code, .. } => Failure::new(refusal(*code), error),
        _ => Failure::new(Code::Internal, error),
    }
}

/// What Kafka's error code means here.
fn refusal(code: i16) -> Code {
    match code {
        1 => Code::OffsetOutOfRange,
        3 => Code::UnknownTopic,
        10 | 18 => Code::RecordTooLarge,
        17 => Code::InvalidTopicName,
        36 => Code::TopicExists,
        37 => Code::InvalidPartitions,
        38 => Code::InvalidReplication,
        40 => Code::InvalidTopicConfig,
        56 => Code::StorageFull,
        _ => Code::Internal,
    }
}
