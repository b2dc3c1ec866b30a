//! `sapwood topic consume`: records to standard output.
//!
//! Records are gathered in a buffer that is written when it is full or when no record is there, so a
//! long read makes few system calls and a live one shows each record at once.

use std::{fs::File, io::Write, os::fd::AsFd, time::Instant};

use futures_util::FutureExt;
use sapwood_client::{
    Admin, Assignment, Client, Consumer, Error, Message, OffsetQuery, Position as Place,
};
use sapwood_model::{Code, PartitionId};

use super::{consume_in_group, destroy::chosen};
use crate::{
    args::topic::ConsumeArgs,
    console::Console,
    error::{Exit, Failure, Outcome, io_failed, stdout_failed},
    output::{
        Form, counted, note,
        record::{RecordForm, RecordView, RecordWriter},
    },
    position::{Position, Range},
    session::{self, Interrupt},
};

/// The buffer is written to standard output when it holds so much.
const WRITE_BYTES: usize = 128 << 10;

/// Reads until the end of the range, the count, or Ctrl-C.
pub(super) async fn run(client: Client, args: ConsumeArgs, console: &Console) -> Outcome {
    let (form, position) = console.form_and_position();
    let form = record_form(form, args.format.clone())?;
    let range = range(args.from, position)?;
    if let Some(group) = &args.group {
        let from = consume_in_group::from(range)?;
        let printer = Printer::new(form)?;
        return consume_in_group::run(&client, group, &args, from, printer, console).await;
    }
    let interrupt = Interrupt::listen();
    let admin = client.admin();
    let topic = admin.describe_topic(&args.topic).await?.topic;
    let partitions = chosen(&args.partitions, &topic.name, topic.partitions)?;
    let stops = stops(&admin, &args, &partitions, range).await?;
    let from = range.from.to_client(session::now());
    let mut builder = client.consumer();
    for (partition, until) in partitions.iter().zip(stops) {
        let topic = topic.name.as_str();
        let assignment = Assignment::new(topic, *partition).from(from);
        builder = builder.assign(Assignment {
            until,
            ..assignment
        });
    }
    let consumer = builder.build().await?;
    let mut printer = Printer::new(form)?;
    let started = Instant::now();
    let failed = pump(consumer, &mut printer, args.count, interrupt).await?;
    printer.sum_up(started, console);
    match failed {
        None => Ok(Exit::Ok),
        Some(failure) if printer.records > 0 => Err(failure.exit(Exit::Partial).into()),
        Some(failure) => Err(failure.into()),
    }
}

fn record_form(
    form: Option<Form>,
    template: Option<crate::output::template::Template>,
) -> Result<RecordForm, Failure> {
    Ok(match (form, template) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("-f and a form with -o exclude each other")
                .cause("Both say how a record is printed.")
                .hint("Leave one out; a position with -o may stay."));
        }
        (None, Some(template)) => RecordForm::Template(template),
        (None, None) => RecordForm::Value,
        (Some(Form::Table), _) => RecordForm::Table { wide: false },
        (Some(Form::Wide), _) => RecordForm::Table { wide: true },
        (Some(Form::Json), _) => RecordForm::JsonArray,
        (Some(Form::Jsonl), _) => RecordForm::Jsonl,
        (Some(Form::Yaml), _) => RecordForm::Yaml,
        (Some(Form::Name), _) => RecordForm::Name,
    })
}

/// `--from` and `-o` mean the same; without either everything is read, and what comes later.
fn range(from: Option<Range>, position: Option<Range>) -> Result<Range, Failure> {
    match (from, position) {
        (Some(_), Some(_)) => Err(Failure::usage(
            "--from and a position with -o exclude each other",
        )
        .cause("Both say where to begin.")
        .hint("Leave one out.")),
        (Some(range), None) | (None, Some(range)) => Ok(range),
        (None, None) => Ok(Range {
            from: Position::Start,
            until: None,
        }),
    }
}

/// Where to stop in each partition.
async fn stops(
    admin: &Admin,
    args: &ConsumeArgs,
    partitions: &[PartitionId],
    range: Range,
) -> Outcome<Vec<Option<Place>>> {
    let now = session::now();
    let until = match (range.until, args.exit_at_end) {
        // An offset past the end is waited for, unless the end is to end it.
        (Some(Position::Offset(until)), true) => {
            let query = |partition: &PartitionId| OffsetQuery {
                topic: args.topic.clone(),
                partition: *partition,
                at: None,
            };
            let queries: Vec<OffsetQuery> = partitions.iter().map(query).collect();
            let mut stops = Vec::with_capacity(partitions.len());
            for some in queries.chunks(10_000) {
                for answer in admin.offsets(some).await? {
                    stops.push(Some(Place::Offset(
                        until.min(answer?.bounds.high_watermark),
                    )));
                }
            }
            return Ok(stops);
        }
        (Some(until), _) => Some(until.to_client(now)),
        (None, true) => Some(Place::End),
        (None, false) => None,
    };
    Ok(vec![until; partitions.len()])
}

/// Takes messages until there are no more. Answers the first partition's failure that did not end
/// the others.
async fn pump(
    mut consumer: Consumer,
    printer: &mut Printer,
    count: Option<u64>,
    mut interrupt: Interrupt,
) -> Outcome<Option<Failure>> {
    let mut failed = None;
    printer.begin();
    while count.is_none_or(|count| printer.records < count) && !interrupt.is_set() {
        // Unconstrained: tokio's budget would end each run of messages after some 100 of them.
        let ready = tokio::task::unconstrained(consumer.next()).now_or_never();
        let next = match ready {
            Some(next) => next,
            None => {
                printer.flush()?;
                tokio::select! {
                    next = consumer.next() => next,
                    () = interrupt.wait() => break,
                }
            }
        };
        match next {
            None => break,
            Some(Ok(message)) => printer.print(&message)?,
            Some(Err(error)) => {
                let failure = failed_on(&error);
                if ends_all(&error) {
                    printer.flush()?;
                    return Err(failure.into());
                }
                note(&failure.to_text());
                failed = failed.or(Some(failure));
            }
        }
    }
    printer.end()?;
    Ok(failed)
}

pub(super) fn failed_on(error: &Error) -> Failure {
    let failure = Failure::from(error);
    match error.code() {
        Code::OffsetOutOfRange => {
            failure.hint("Begin with --from start or -N, or name the partition with -p.")
        }
        _ => failure,
    }
}

/// A partition that is offline is passed over; what the user got wrong, or a broker that is gone,
/// ends the command.
fn ends_all(error: &Error) -> bool {
    error.field("partition").is_none()
        || !matches!(Exit::of(error.code()), Exit::Unhealthy | Exit::Failed)
}

/// Gathers and writes.
pub(super) struct Printer {
    out: File,
    buffer: Vec<u8>,
    writer: RecordWriter,
    pub(super) records: u64,
}

impl Printer {
    fn new(form: RecordForm) -> Outcome<Self> {
        let out = std::io::stdout().as_fd().try_clone_to_owned();
        let out = out.map_err(|error| io_failed(&error, "cannot use standard output"))?;
        Ok(Self {
            out: File::from(out),
            buffer: Vec::with_capacity(2 * WRITE_BYTES),
            writer: RecordWriter::new(form),
            records: 0,
        })
    }

    /// How many records there were, for people.
    pub(super) fn sum_up(&self, started: Instant, console: &Console) {
        if console.shows_progress() {
            note(&format!(
                "{} in {:.2} s",
                counted(self.records, "record"),
                started.elapsed().as_secs_f64()
            ));
        }
    }

    /// Whether everything so far was written.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn begin(&mut self) {
        self.writer.begin(&mut self.buffer);
    }

    pub(super) fn print(&mut self, message: &Message) -> Outcome<()> {
        let view = RecordView {
            topic: &message.topic,
            partition: message.partition.0,
            offset: message.offset.0,
            timestamp: message.timestamp,
            key: message.key.as_deref(),
            value: message.value.as_deref(),
            headers: &message.headers,
        };
        self.writer.record(&view, &mut self.buffer);
        self.records += 1;
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    pub(super) fn end(&mut self) -> Outcome<()> {
        self.writer.end(&mut self.buffer);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> Outcome<()> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        // One huge record does not keep its memory.
        self.buffer.shrink_to(2 * WRITE_BYTES);
        written.map_err(|error| stdout_failed(&error))
    }
}
