//! `sapwood storage compact`: how far a topic is compacted, and compacting it at once.

use indicatif::{ProgressBar, ProgressStyle};
use sapwood_client::{Client, Compacted, Partition};
use serde_json::{Value, json};

use crate::{
    args::storage::CompactArgs,
    commands::topic::{chosen, compaction_json, dirty_ratio},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, counted, note, thousands},
};

const STATE_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("CLEAN TO"),
    Column::Number("CLEAN"),
    Column::Number("DIRTY"),
    Column::Number("RATIO"),
];

const DONE_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("REMOVED"),
    Column::Number("SEGMENTS"),
    Column::Number("BEFORE"),
    Column::Number("AFTER"),
    Column::Number("CLEAN TO"),
];

/// Shows, or does: one partition after the other.
pub(super) async fn run(client: Client, args: CompactArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let topic = admin.describe_topic(&args.name).await?;
    let wanted = chosen(&args.partition, &args.name, topic.topic.partitions)?;
    if !args.now {
        let mut listing = Listing::new(STATE_COLUMNS);
        let shown = topic.partitions.iter();
        shown
            .filter(|one| wanted.contains(&one.partition))
            .for_each(|one| listing.push(state_row(&args.name, one)));
        listing.print(form)?;
        return Ok(Exit::Ok);
    }
    let bar = bar(console);
    let mut listing = Listing::new(DONE_COLUMNS);
    let (mut records, mut before, mut after, mut done) = (0, 0, 0, 0);
    let mut failed = None;
    for partition in &wanted {
        bar.set_message(format!("{}/{partition}", args.name));
        let compacted = admin.compact(&args.name, *partition, |progress| {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.done_bytes);
        });
        match compacted.await {
            Ok(compacted) => {
                records += compacted.removed_records;
                before += compacted.bytes_before;
                after += compacted.bytes_after;
                done += 1;
                listing.push(done_row(&args.name, partition.0, &compacted));
            }
            Err(error) => {
                bar.suspend(|| note(&Failure::from(&error).to_text()));
                failed.get_or_insert(Failure::from(&error));
            }
        }
    }
    bar.finish_and_clear();
    match form {
        Form::Table | Form::Wide => console.say(&format!(
            "removed {} of {}: {} became {}",
            counted(records, "record"),
            counted(done, "partition"),
            bytes_text(before),
            bytes_text(after),
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

fn bar(console: &Console) -> ProgressBar {
    let bar = match console.shows_progress() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    let template = "{bar:30} {binary_bytes}/{binary_total_bytes}  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn state_row(topic: &str, partition: &Partition) -> Row {
    let state = partition.compaction.as_ref();
    let cell = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    Row {
        name: format!("{topic}/{}", partition.partition),
        cells: vec![
            topic.to_owned(),
            partition.partition.to_string(),
            cell(state.map(|state| thousands(state.clean_offset.0))),
            cell(state.map(|state| bytes_text(state.clean_bytes))),
            cell(state.map(|state| bytes_text(state.dirty_bytes))),
            cell(state.map(|state| format!("{:.2}", dirty_ratio(state)))),
        ],
        value: json!({
            "topic": topic,
            "partition": partition.partition.0,
            "compaction": state.map_or(Value::Null, compaction_json),
        }),
    }
}

fn done_row(topic: &str, partition: u32, compacted: &Compacted) -> Row {
    Row {
        name: format!("{topic}/{partition}"),
        cells: vec![
            topic.to_owned(),
            partition.to_string(),
            thousands(compacted.removed_records),
            thousands(compacted.segments),
            bytes_text(compacted.bytes_before),
            bytes_text(compacted.bytes_after),
            thousands(compacted.clean_offset.0),
        ],
        value: json!({
            "topic": topic,
            "partition": partition,
            "removed_records": compacted.removed_records,
            "segments": compacted.segments,
            "bytes_before": compacted.bytes_before,
            "bytes_after": compacted.bytes_after,
            "read_bytes": compacted.read_bytes,
            "written_bytes": compacted.written_bytes,
            "unreadable_batches": compacted.unreadable_batches,
            "clean_offset": compacted.clean_offset.0,
        }),
    }
}
