//! `sapwood topic produce`: input to records, records to the producer, results to a summary.
//!
//! A thread reads the input; this side sends and keeps the receipts in the order of the input, so
//! that it can say how many records were acknowledged and which one failed first.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use sapwood_client::{Acks, Client, Codec, Error, Producer, Receipt, Record, RecordHeader};
use sapwood_model::PartitionId;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    args::topic::{AcksArg, CompressionArg, InputFormat, ProduceArgs},
    console::Console,
    error::{Exit, Failure, Outcome, io_failed},
    input::{self, Format, InputBatch, InputRecord, ReadSummary, Source},
    output::{Form, counted, print_value, thousands},
    pace::Pacer,
    progress::Progress,
    session::Interrupt,
};

/// How many batches of input (256 KiB each) are read ahead.
const INPUT_BATCHES_AHEAD: usize = 8;

/// How many receipts are kept before the oldest is waited for. More than any buffer of records holds
/// at once; it bounds memory when one partition does not answer and others go on.
const RECEIPTS_MAX: usize = 1 << 20;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What the reading thread says.
enum Read {
    Batch(InputBatch),
    End(Result<ReadSummary, Failure>),
}

/// Sends all input to a topic. 0 when every record was acknowledged.
pub(super) async fn run(client: Client, args: ProduceArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let format = input_format(&args)?;
    let sources: Vec<Source> = args
        .files
        .iter()
        .map(|path| Source::from_path(path))
        .collect();
    let mut interrupt = Interrupt::listen();
    let producer = client
        .producer()
        .acks(acks(args.acks))
        .compression(codec(args.compression))
        .linger(args.linger)
        .batch_bytes(args.batch_bytes as usize)
        .delivery_timeout(args.retry_timeout)
        .build()
        .await?;
    let progress = Progress::new(console, &sources);
    let mut input = start_reading(sources, format)?;
    let mut sender = Sender {
        shape: Shape::new(&args),
        pacer: args.rate.map(Pacer::new),
        started: Instant::now(),
        receipts: VecDeque::new(),
        sent: 0,
        acknowledged: 0,
        progress,
        shown: Instant::now(),
    };
    let read = tokio::select! {
        read = sender.send_all(&producer, &mut input) => read,
        () = interrupt.wait() => Err(Failure::usage("interrupted; the rest of the input was not read")
            .cause("Ctrl-C was pressed.")
            .hint("What had been read by then is still sent; press it again to leave at once.")
            .exit(Exit::Partial)),
    };
    let finished = sender.finish(&producer).await;
    // What the receipts say comes first: it is nearer to the cause than the end of the input.
    let outcome = finished.and(read);
    sender.progress.end();
    let closed = producer.close().await;
    let summary = sender.summary(outcome.as_ref().ok().copied().unwrap_or_default());
    if form.is_json() || form == Form::Yaml {
        print_value(&summary.to_json(), form)?;
    } else {
        console.say(&summary.to_text());
    }
    // With acks=none there are no receipts to tell of a failure: closing does.
    let closed = closed.map_err(|error| Failure::from(&error));
    match outcome.and(closed) {
        Ok(()) => Ok(Exit::Ok),
        Err(failure) if summary.acknowledged > 0 => Err(failure.exit(Exit::Partial).into()),
        Err(failure) => Err(failure.into()),
    }
}

fn input_format(args: &ProduceArgs) -> Result<Format, Failure> {
    let only = |flag: &str, format: &str| {
        Failure::usage(format!("{flag} goes with --format {format}"))
            .cause("The other formats have no use for it.")
            .hint(format!("Add --format {format}, or leave out {flag}."))
    };
    if args.key_column.is_some() && args.format != InputFormat::Csv {
        return Err(only("--key-column", "csv"));
    }
    if args.key_separator.is_some() && args.format != InputFormat::Lines {
        return Err(only("--key-separator", "lines"));
    }
    if args.repartition && args.format != InputFormat::Jsonl {
        return Err(only("--repartition", "jsonl"));
    }
    Ok(match args.format {
        InputFormat::Lines => Format::Lines {
            key_separator: args.key_separator.clone(),
        },
        InputFormat::Csv => Format::Csv {
            key_column: args.key_column.clone(),
            delimiter: args.delimiter,
        },
        InputFormat::Jsonl => Format::Jsonl,
        InputFormat::File => Format::WholeFile,
    })
}

fn acks(arg: AcksArg) -> Acks {
    match arg {
        AcksArg::All => Acks::All,
        AcksArg::Leader => Acks::Leader,
        AcksArg::None => Acks::None,
    }
}

fn codec(arg: CompressionArg) -> Codec {
    match arg {
        CompressionArg::None => Codec::None,
        CompressionArg::Gzip => Codec::Gzip,
        CompressionArg::Snappy => Codec::Snappy,
        CompressionArg::Lz4 => Codec::Lz4,
        CompressionArg::Zstd => Codec::Zstd,
    }
}

/// Reads on a thread of its own, which ends with the input or when nobody listens any more. A thread
/// that waits for standard input ends with the process.
fn start_reading(sources: Vec<Source>, format: Format) -> Result<mpsc::Receiver<Read>, Failure> {
    let (sender, receiver) = mpsc::channel(INPUT_BATCHES_AHEAD);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            let result = input::read(&sources, &format, |batch| {
                sender.blocking_send(Read::Batch(batch)).is_ok()
            });
            // Nobody listens any more when the command has ended before the input.
            let _: Result<(), _> = sender.blocking_send(Read::End(result));
        })
        .map_err(|error| io_failed(&error, "cannot start a thread"))?;
    Ok(receiver)
}

/// What the flags add to every record.
struct Shape {
    topic: Arc<str>,
    partition: Option<PartitionId>,
    repartition: bool,
    key: Option<Bytes>,
    headers: Vec<RecordHeader>,
}

impl Shape {
    fn new(args: &ProduceArgs) -> Self {
        let header = |(key, value): &(String, String)| RecordHeader {
            key: key.clone().into_bytes().into(),
            value: Some(value.clone().into_bytes().into()),
        };
        Self {
            topic: args.topic.as_str().into(),
            partition: args.partition.map(PartitionId),
            repartition: args.repartition,
            key: args.key.clone().map(|key| key.into_bytes().into()),
            headers: args.headers.iter().map(header).collect(),
        }
    }

    fn record(&self, input: InputRecord) -> Record {
        let own = if self.repartition {
            None
        } else {
            input.partition
        };
        let mut headers = input.headers;
        headers.extend(self.headers.iter().cloned());
        Record {
            topic: Arc::clone(&self.topic),
            partition: self.partition.or(own),
            key: input.key.or_else(|| self.key.clone()),
            value: input.value,
            headers,
            timestamp: input.timestamp,
        }
    }
}

/// Sends records and keeps account of them.
struct Sender {
    shape: Shape,
    pacer: Option<Pacer>,
    started: Instant,
    /// Of the records after the first `acknowledged`, in the order of the input.
    receipts: VecDeque<(u64, Receipt)>,
    sent: u64,
    acknowledged: u64,
    progress: Progress,
    shown: Instant,
}

impl Sender {
    /// Sends until the input ends.
    ///
    /// # Errors
    /// The first record that cannot be sent or was refused, and the first line that is none.
    async fn send_all(
        &mut self,
        producer: &Producer,
        input: &mut mpsc::Receiver<Read>,
    ) -> Result<ReadSummary, Failure> {
        loop {
            // While no input comes, the receipts are looked after all the same, so that a failure
            // is seen and progress shown when it happens.
            let read = tokio::select! {
                biased;
                read = input.recv() => read,
                settled = Self::settle_next(&mut self.receipts, &mut self.acknowledged) => {
                    settled?;
                    self.show();
                    continue;
                }
            };
            let batch = match read {
                Some(Read::Batch(batch)) => batch,
                Some(Read::End(result)) => return result,
                None => return Ok(ReadSummary::default()),
            };
            self.progress.read(batch.bytes);
            for record in batch.records {
                self.wait_for_turn().await?;
                let record = self.shape.record(record);
                let receipt = producer
                    .send(record)
                    .await
                    .map_err(|e| failed(self.sent + 1, &e))?;
                self.sent += 1;
                self.receipts.push_back((self.sent, receipt));
            }
            self.settle_ready()?;
            while self.receipts.len() > RECEIPTS_MAX {
                Self::settle_next(&mut self.receipts, &mut self.acknowledged).await?;
            }
            self.show();
        }
    }

    /// Holds the rate; meanwhile the receipts are looked after.
    ///
    /// # Errors
    /// A record that was refused meanwhile.
    async fn wait_for_turn(&mut self) -> Result<(), Failure> {
        let Some(pacer) = &mut self.pacer else {
            return Ok(());
        };
        let due = tokio::time::Instant::from_std(self.started + pacer.due());
        while tokio::time::Instant::now() < due {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                settled = Self::settle_next(&mut self.receipts, &mut self.acknowledged) => settled?,
            }
        }
        pacer.sent(self.started.elapsed());
        Ok(())
    }

    /// Takes the results that are there.
    fn settle_ready(&mut self) -> Result<(), Failure> {
        while let Some((number, receipt)) = self.receipts.front_mut() {
            let Some(result) = receipt.now_or_never() else {
                return Ok(());
            };
            let settled = result.map_err(|error| failed(*number, &error));
            // Also when it failed: a receipt gives its result once.
            self.receipts.pop_front();
            settled?;
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// Waits for the oldest result; for ever when none is outstanding. Cancel-safe.
    async fn settle_next(
        receipts: &mut VecDeque<(u64, Receipt)>,
        acknowledged: &mut u64,
    ) -> Result<(), Failure> {
        let Some((number, receipt)) = receipts.front_mut() else {
            return std::future::pending().await;
        };
        let result = receipt.await;
        let settled = result.map_err(|error| failed(*number, &error));
        receipts.pop_front();
        settled?;
        *acknowledged += 1;
        Ok(())
    }

    /// Sends what waits for more, and takes every result that is still outstanding.
    ///
    /// # Errors
    /// The first record that was refused.
    async fn finish(&mut self, producer: &Producer) -> Result<(), Failure> {
        // A failure is in its record's receipt too, which says which record it was.
        let (_, settled) = tokio::join!(producer.flush(), async {
            let mut first = Ok(());
            while !self.receipts.is_empty() {
                let settled = Self::settle_next(&mut self.receipts, &mut self.acknowledged).await;
                first = first.and(settled);
                self.show();
            }
            first
        });
        settled
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= PROGRESS_INTERVAL {
            self.shown = Instant::now();
            self.progress.acknowledged(self.acknowledged);
        }
    }

    fn summary(&self, read: ReadSummary) -> Summary {
        Summary {
            topic: Arc::clone(&self.shape.topic),
            acknowledged: self.acknowledged,
            failed: self.sent - self.acknowledged,
            bytes: self.progress.bytes(),
            seconds: self.started.elapsed().as_secs_f64(),
            blank_lines: read.blank_lines,
        }
    }
}

/// A record's failure, with its number in the input.
fn failed(number: u64, error: &Error) -> Failure {
    Failure::from(error).at(format!("record {}", thousands(number)))
}

/// What was done.
struct Summary {
    topic: Arc<str>,
    acknowledged: u64,
    /// Sent, and not acknowledged.
    failed: u64,
    /// Of input.
    bytes: u64,
    seconds: f64,
    blank_lines: u64,
}

impl Summary {
    fn to_text(&self) -> String {
        let seconds = self.seconds.max(1e-9);
        let mut text = format!(
            "{} acknowledged by {} in {:.2} s ({} records/s, {:.1} MB/s)",
            counted(self.acknowledged, "record"),
            self.topic,
            self.seconds,
            thousands((self.acknowledged as f64 / seconds) as u64),
            self.bytes as f64 / 1e6 / seconds,
        );
        if self.failed > 0 {
            text.push_str(&format!(", {} not acknowledged", thousands(self.failed)));
        }
        if self.blank_lines > 0 {
            text.push_str(&format!(
                ", {} blank lines passed over",
                thousands(self.blank_lines)
            ));
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "topic": &*self.topic,
            "acknowledged": self.acknowledged,
            "not_acknowledged": self.failed,
            "input_bytes": self.bytes,
            "seconds": self.seconds,
            "blank_lines": self.blank_lines,
        })
    }
}
