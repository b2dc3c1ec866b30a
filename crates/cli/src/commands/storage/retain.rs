//! `sapwood storage retain`: what retention deletes next of a topic, and deleting what is due at once.

use indicatif::{ProgressBar, ProgressStyle};
use sapwood_client::{Client, Error, Partition, Retained};
use serde_json::{Value, json};

use crate::{
    args::storage::RetainArgs,
    commands::topic::{chosen, next_removal_json, next_removal_text},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, counted, note, thousands},
    session,
};

const NEXT_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("START"),
    Column::Number("SIZE"),
    Column::Text("NEXT DELETED"),
];

const DONE_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("SEGMENTS"),
    Column::Number("SIZE"),
    Column::Number("START"),
];

/// Shows, or does.
pub(super) async fn run(client: Client, args: RetainArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let topic = admin.describe_topic(&args.name).await?;
    let wanted = chosen(&args.partition, &args.name, topic.topic.partitions)?;
    if !args.now {
        let mut listing = Listing::new(NEXT_COLUMNS);
        let shown = topic.partitions.iter();
        shown
            .filter(|one| wanted.contains(&one.partition))
            .for_each(|one| listing.push(next_row(&args.name, one)));
        listing.print(form)?;
        return Ok(Exit::Ok);
    }
    let bar = match console.shows_progress() {
        true => ProgressBar::new(wanted.len() as u64),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} partitions  {msg}") {
        bar.set_style(style);
    }
    let mut listing = Listing::new(DONE_COLUMNS);
    let (mut segments, mut bytes, mut done) = (0, 0, 0);
    let mut failed = None;
    for partition in &wanted {
        match admin.retain(&args.name, *partition).await {
            Ok(retained) if retained.failed => {
                let what = format!("retention failed for {}/{partition}", args.name);
                note(&format!("{what}; the broker's log says why"));
                failed.get_or_insert(Failure::new(sapwood_model::Code::Internal, what));
            }
            Ok(retained) => {
                segments += retained.segments;
                bytes += retained.size_bytes;
                done += 1;
                listing.push(done_row(&args.name, partition.0, &retained));
            }
            Err(error) => {
                note(&told(&error));
                failed.get_or_insert(Failure::from(&error));
            }
        }
        bar.set_message(format!("{} deleted", bytes_text(bytes)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    match form {
        Form::Table | Form::Wide => console.say(&format!(
            "deleted {} ({}) of {}",
            counted(segments, "segment"),
            bytes_text(bytes),
            counted(done, "partition"),
        )),
        _ => listing.print(form)?,
    }
    match failed {
        None => Ok(Exit::Ok),
        Some(failure) if done == 0 => Err(failure.into()),
        Some(failure) => {
            let all = counted(wanted.len() as u64, "partition");
            Err(failure
                .at(format!("{done} of {all} done"))
                .exit(Exit::Partial)
                .into())
        }
    }
}

fn told(error: &Error) -> String {
    Failure::from(error).to_text()
}

fn next_row(topic: &str, partition: &Partition) -> Row {
    let next = partition.next_removal.as_ref();
    Row {
        name: format!("{topic}/{}", partition.partition),
        cells: vec![
            topic.to_owned(),
            partition.partition.to_string(),
            thousands(partition.bounds.log_start.0),
            bytes_text(partition.size_bytes),
            next_removal_text(next, session::now()),
        ],
        value: json!({
            "topic": topic,
            "partition": partition.partition.0,
            "log_start_offset": partition.bounds.log_start.0,
            "size_bytes": partition.size_bytes,
            "next_removal": next.map_or(Value::Null, next_removal_json),
        }),
    }
}

fn done_row(topic: &str, partition: u32, retained: &Retained) -> Row {
    Row {
        name: format!("{topic}/{partition}"),
        cells: vec![
            topic.to_owned(),
            partition.to_string(),
            thousands(retained.segments),
            bytes_text(retained.size_bytes),
            thousands(retained.log_start.0),
        ],
        value: json!({
            "topic": topic,
            "partition": partition,
            "segments": retained.segments,
            "size_bytes": retained.size_bytes,
            "log_start_offset": retained.log_start.0,
        }),
    }
}
