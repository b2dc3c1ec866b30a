//! `sapwood topic consume --group`: the command as a member of a consumer group.
//!
//! A record is acknowledged once it was written to standard output, so one that the reader behind a
//! pipe never got comes again.

use std::time::Instant;

use futures_util::FutureExt;
use sapwood_client::{Client, GroupConsumer, GroupEvent, GroupMessage, Position as Place};

use super::consume::{Printer, failed_on};
use crate::{
    args::topic::ConsumeArgs,
    console::Console,
    error::{Exit, Failure, Outcome},
    output::note,
    position::Range,
    session::{self, Interrupt},
};

/// Where a new group begins. A member does not know when the others are done, so it cannot have an end.
pub(super) fn from(range: Range) -> Outcome<Place> {
    if range.until.is_some() {
        let failure = Failure::usage("--group and a range with an end exclude each other")
            .cause("The partitions of a group are shared: no member knows where all have ended.")
            .hint("Say where to begin only, and stop with Ctrl-C or after -n records.");
        return Err(failure.into());
    }
    Ok(range.from.to_client(session::now()))
}

/// Reads until the count or Ctrl-C, commits, and leaves the group.
pub(super) async fn run(
    client: &Client,
    group: &str,
    args: &ConsumeArgs,
    from: Place,
    mut printer: Printer,
    console: &Console,
) -> Outcome {
    let builder = client.group_consumer(group).topic(&args.topic).from(from);
    let mut consumer = builder.build().await?;
    let started = Instant::now();
    let read = pump(&mut consumer, &mut printer, args.count, console).await;
    // What was printed counts, whatever ended it.
    let closed = consumer.close().await;
    printer.sum_up(started, console);
    read?;
    closed?;
    Ok(Exit::Ok)
}

async fn pump(
    consumer: &mut GroupConsumer,
    printer: &mut Printer,
    count: Option<u64>,
    console: &Console,
) -> Outcome<()> {
    let mut interrupt = Interrupt::listen();
    let mut printed: Vec<GroupMessage> = Vec::new();
    printer.begin();
    while count.is_none_or(|count| printer.records < count) && !interrupt.is_set() {
        // Unconstrained: tokio's budget would end each run of messages after some 100 of them.
        let ready = tokio::task::unconstrained(consumer.next_event()).now_or_never();
        let next = match ready {
            Some(next) => next,
            None => {
                printer.flush()?;
                acknowledge(&mut printed);
                tokio::select! {
                    next = consumer.next_event() => next,
                    () = interrupt.wait() => break,
                }
            }
        };
        match next {
            None => break,
            Some(Ok(GroupEvent::Message(message))) => {
                printer.print(&message)?;
                printed.push(message);
            }
            Some(Ok(event)) => {
                // What is being given up waits for what was printed of it.
                printer.flush()?;
                tell(&event, console);
            }
            Some(Err(error)) if error.field("partition").is_some() => {
                note(&failed_on(&error).to_text());
            }
            Some(Err(error)) => {
                printer.flush()?;
                acknowledge(&mut printed);
                return Err(failed_on(&error).into());
            }
        }
        if printer.is_flushed() {
            acknowledge(&mut printed);
        }
    }
    printer.end()?;
    acknowledge(&mut printed);
    Ok(())
}

fn acknowledge(printed: &mut Vec<GroupMessage>) {
    for message in printed.drain(..) {
        message.ack();
    }
}

/// Says on a terminal what happens to the member.
fn tell(event: &GroupEvent, console: &Console) {
    let of = |partitions: &[sapwood_client::TopicPartition]| {
        let named = partitions.iter().map(ToString::to_string);
        named.collect::<Vec<_>>().join(", ")
    };
    let text = match event {
        GroupEvent::Assigned(partitions) => format!("reading {}", of(partitions)),
        GroupEvent::Revoking(revocation) => format!("giving up {}", of(revocation.partitions())),
        GroupEvent::Lost { partitions, error } => format!("lost {}: {error}", of(partitions)),
        GroupEvent::Reset { partition, .. } => {
            format!(
                "{partition} does not have what comes next any more; it is read from where a new group begins"
            )
        }
        _ => return,
    };
    if console.shows_progress()
        || matches!(event, GroupEvent::Lost { .. } | GroupEvent::Reset { .. })
    {
        note(&text);
    }
}
