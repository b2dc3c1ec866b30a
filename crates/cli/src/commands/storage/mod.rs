//! `sapwood storage`: what a running broker stores; what is in the data directory of a stopped one, and its
//! repair.

mod compact;
mod live;
mod repair;
mod retain;

use std::{fmt::Write, fs, path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sapwood_log::{
    Progress,
    inspect::{self, Finding, JournalSummary, Options, PartitionSummary, Report, Severity},
    io::Environment,
};
use sapwood_model::Code;
use serde_json::{Value, json};

use crate::{
    args::{
        Global,
        storage::{StorageArgs, StorageCommand},
    },
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, counted, print_text, print_value, thousands},
    position::show_timestamp,
    session,
};

const PARTITION_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("FIRST"),
    Column::Number("END"),
    Column::Number("CHECKPOINT"),
    Column::Number("JOURNAL END"),
    Column::Number("SEGMENTS"),
    Column::Number("BATCHES"),
    Column::Number("RECORDS"),
    Column::Number("SIZE"),
    Column::WideNumber("EPOCH"),
    Column::WideText("FOLDER"),
];

const SEGMENT_COLUMNS: &[Column] = &[
    Column::Text("SEGMENT"),
    Column::Number("BASE"),
    Column::Number("END"),
    Column::Number("BATCHES"),
    Column::Number("RECORDS"),
    Column::Number("SIZE"),
    Column::Number("FILE"),
    Column::Number("INDEX"),
    Column::Number("TIMEINDEX"),
    Column::Text("NEWEST"),
];

/// Carries out one of the commands.
pub(crate) fn run(command: StorageCommand, global: &Global, console: &Console) -> Outcome {
    let (args, verify) = match command {
        StorageCommand::Usage => {
            return session::run(global, |client| live::usage(client, console));
        }
        StorageCommand::Retain(args) => {
            return session::run(global, |client| retain::run(client, args, console));
        }
        StorageCommand::Compact(args) => {
            return session::run(global, |client| compact::run(client, args, console));
        }
        StorageCommand::Inspect(args) => (args, false),
        StorageCommand::Verify(args) => (args, true),
        StorageCommand::Repair(args) => return repair::run(&args, console),
    };
    let form = console.form()?;
    let mut report = look(&args, verify, console)?;
    keep(&mut report, &args)?;
    match form {
        Form::Table | Form::Wide if verify => print_text(&verify_text(&report))?,
        Form::Table | Form::Wide => print_text(&inspect_text(&report, form == Form::Wide))?,
        Form::Name => print_text(
            &report
                .partitions
                .iter()
                .map(|one| format!("{}\n", name(one)))
                .collect::<String>(),
        )?,
        Form::Json | Form::Jsonl | Form::Yaml => print_value(&to_json(&report), form)?,
    }
    Ok(if verify && !report.is_sound() {
        Exit::Unhealthy
    } else {
        Exit::Ok
    })
}

/// Walks the directory on a thread of its own, so that progress can be shown meanwhile.
fn look(args: &StorageArgs, checksums: bool, console: &Console) -> Result<Report, Failure> {
    // Without it the end of a log is judged less strictly; the report is right all the same.
    let boot_id = fs::read_to_string(&args.boot_id_file).ok();
    let options = Options {
        checksums,
        boot_id: boot_id.as_deref().map(str::trim),
    };
    let progress = Progress::default();
    let result = std::thread::scope(|scope| {
        let walk = scope
            .spawn(|| inspect::inspect(&Environment::real(), &args.data_dir, &options, &progress));
        if console.shows_progress() {
            show_progress(&progress, || walk.is_finished());
        }
        walk.join()
    });
    match result {
        Ok(result) => result.map_err(|error| Failure::new(error.code(), &error)),
        Err(_) => Err(Failure::new(
            Code::Internal,
            "the inspection ended by a panic",
        )),
    }
}

fn show_progress(progress: &Progress, finished: impl Fn() -> bool) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} partitions  {msg}") {
        bar.set_style(style);
    }
    while !finished() {
        bar.set_length(progress.total.load(Relaxed));
        bar.set_message(bytes_text(progress.bytes.load(Relaxed)));
        bar.set_position(progress.done.load(Relaxed));
        std::thread::sleep(Duration::from_millis(50));
    }
    bar.finish_and_clear();
}

/// Leaves out the partitions that were not asked for and what was found in their folders.
///
/// # Errors
/// What was asked for is not there.
fn keep(report: &mut Report, args: &StorageArgs) -> Result<(), Failure> {
    let Some(topic) = &args.topic else {
        return Ok(());
    };
    let wanted = |one: &PartitionSummary| {
        one.topic == *topic
            && args
                .partition
                .is_none_or(|number| one.partition.0 == number)
    };
    if !report.partitions.iter().any(|one| one.topic == *topic) {
        let message = format!("no folder of topic {topic:?} in {}", report.path.display());
        return Err(Failure::new(Code::UnknownTopic, message)
            .hint("List what is there: sapwood storage inspect"));
    }
    if !report.partitions.iter().any(wanted) {
        let number = args.partition.unwrap_or_default();
        let message = format!("topic {topic:?} has no folder of partition {number}");
        return Err(Failure::new(Code::UnknownPartition, message)
            .hint("List what is there: sapwood storage inspect"));
    }
    let (kept, left): (Vec<_>, Vec<_>) = report.partitions.drain(..).partition(wanted);
    report.partitions = kept;
    let folders: Vec<PathBuf> = left.into_iter().map(|one| one.folder).collect();
    report.findings.retain(|finding| {
        !folders
            .iter()
            .any(|folder| finding.file.starts_with(folder))
    });
    Ok(())
}

fn name(one: &PartitionSummary) -> String {
    format!("{}/{}", one.topic, one.partition)
}

fn verify_text(report: &Report) -> String {
    let batches: u64 = report
        .partitions
        .iter()
        .map(PartitionSummary::batches)
        .sum();
    let records: u64 = report
        .partitions
        .iter()
        .map(PartitionSummary::records)
        .sum();
    let bytes: u64 = report
        .partitions
        .iter()
        .map(PartitionSummary::batch_bytes)
        .sum();
    let verdict = if report.is_sound() {
        "sound"
    } else {
        "NOT SOUND"
    };
    format!(
        "{}{verdict}: {}, {}, {}, {}; journal {}; {}\n",
        findings_text(&report.findings),
        counted(report.partitions.len() as u64, "partition"),
        counted(batches, "batch"),
        counted(records, "record"),
        bytes_text(bytes),
        counted(
            report.journal.rounds.end - report.journal.rounds.start,
            "round"
        ),
        counts_text(report),
    )
}

fn counts_text(report: &Report) -> String {
    let count = |severity| report.count(severity);
    format!(
        "{} damaged, {} rebuildable, {} for the next start to settle",
        count(Severity::Damage),
        count(Severity::Rebuildable),
        count(Severity::Unsettled)
    )
}

fn findings_text(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect()
}

fn inspect_text(report: &Report, wide: bool) -> String {
    let mut text = format!(
        "DIRECTORY {}  ID {}  STOPPED {}\n",
        report.path.display(),
        report.id,
        if report.clean_stop {
            "cleanly"
        } else {
            "uncleanly"
        },
    );
    let mut line = |what: std::fmt::Arguments<'_>| {
        writeln!(text, "{what}").expect("writing to a String cannot fail");
    };
    let size = |bytes: Option<u64>| bytes.map_or("missing".into(), bytes_text);
    line(format_args!(
        "CATALOG {}  BALLAST {}",
        size(report.catalog_bytes),
        size(report.ballast_bytes)
    ));
    match &report.checkpoint {
        Some(checkpoint) => line(format_args!(
            "CHECKPOINT {} partitions  ROUNDS FROM {}  BOOT {}",
            checkpoint.partitions, checkpoint.first_round, checkpoint.boot_id
        )),
        None => line(format_args!("CHECKPOINT missing")),
    }
    let JournalSummary {
        files,
        rounds,
        entries,
        batch_bytes,
    } = &report.journal;
    line(format_args!(
        "JOURNAL {} files  ROUNDS NEEDED {}..{}  ENTRIES {}  {}",
        files.len(),
        rounds.start,
        rounds.end,
        thousands(*entries),
        bytes_text(*batch_bytes)
    ));
    if wide {
        for file in files {
            let generation = file
                .generation
                .map_or("-".into(), |number| number.to_string());
            line(format_args!(
                "  {}  {}  GENERATION {generation}  ROUNDS NEEDED {}",
                file.name,
                bytes_text(file.bytes),
                file.rounds_needed
            ));
        }
    }
    for name in &report.quarantined {
        line(format_args!("QUARANTINED {name}"));
    }
    let mut partitions = Listing::new(PARTITION_COLUMNS);
    report
        .partitions
        .iter()
        .for_each(|one| partitions.push(partition_row(one)));
    text.push_str(&partitions.table(wide));
    if wide {
        text.push_str(&segments(report).table(true));
    }
    text.push_str(&findings_text(&report.findings));
    text
}

fn partition_row(one: &PartitionSummary) -> Row {
    let offset = |offset: Option<sapwood_model::Offset>| {
        offset.map_or("-".into(), |offset| thousands(offset.0))
    };
    Row {
        name: name(one),
        cells: vec![
            one.topic.clone(),
            one.partition.to_string(),
            thousands(one.first_offset.0),
            thousands(one.end_offset.0),
            offset(one.checkpoint_end),
            offset(one.journal_end),
            one.segments.len().to_string(),
            thousands(one.batches()),
            thousands(one.records()),
            bytes_text(one.batch_bytes()),
            one.leader_epoch
                .map_or("-".into(), |epoch| epoch.to_string()),
            one.folder.display().to_string(),
        ],
        value: Value::Null,
    }
}

fn segments(report: &Report) -> Listing {
    let mut listing = Listing::new(SEGMENT_COLUMNS);
    for one in &report.partitions {
        for segment in &one.segments {
            listing.push(Row {
                name: name(one),
                cells: vec![
                    name(one),
                    thousands(segment.base_offset.0),
                    thousands(segment.end_offset.0),
                    thousands(segment.batches),
                    thousands(segment.records),
                    bytes_text(segment.batch_bytes),
                    bytes_text(segment.file_bytes),
                    thousands(segment.index_entries),
                    thousands(segment.time_index_entries),
                    segment.max_timestamp.map_or("-".into(), show_timestamp),
                ],
                value: Value::Null,
            });
        }
    }
    listing
}

fn to_json(report: &Report) -> Value {
    let journal = &report.journal;
    json!({
        "path": report.path,
        "id": report.id.to_string(),
        "sound": report.is_sound(),
        "clean_stop": report.clean_stop,
        "catalog_bytes": report.catalog_bytes,
        "ballast_bytes": report.ballast_bytes,
        "checkpoint": report.checkpoint.as_ref().map(|checkpoint| json!({
            "boot_id": checkpoint.boot_id,
            "first_round": checkpoint.first_round,
            "journal_generation": checkpoint.journal_generation,
            "partitions": checkpoint.partitions,
        })),
        "journal": {
            "rounds": { "start": journal.rounds.start, "end": journal.rounds.end },
            "entries": journal.entries,
            "batch_bytes": journal.batch_bytes,
            "files": journal.files.iter().map(|file| json!({
                "name": file.name,
                "bytes": file.bytes,
                "generation": file.generation,
                "rounds_needed": file.rounds_needed,
            })).collect::<Vec<_>>(),
        },
        "partitions": report.partitions.iter().map(partition_json).collect::<Vec<_>>(),
        "quarantined": report.quarantined,
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn partition_json(one: &PartitionSummary) -> Value {
    json!({
        "topic": one.topic,
        "partition": one.partition.0,
        "topic_id": one.topic_id.map(|id| id.to_string()),
        "folder": one.folder,
        "first_offset": one.first_offset.0,
        "end_offset": one.end_offset.0,
        "journal_end": one.journal_end.map(|offset| offset.0),
        "checkpoint_end": one.checkpoint_end.map(|offset| offset.0),
        "leader_epoch": one.leader_epoch.map(|epoch| epoch.0),
        "batches": one.batches(),
        "records": one.records(),
        "batch_bytes": one.batch_bytes(),
        "segments": one.segments.iter().map(|segment| json!({
            "base_offset": segment.base_offset.0,
            "end_offset": segment.end_offset.0,
            "batches": segment.batches,
            "records": segment.records,
            "batch_bytes": segment.batch_bytes,
            "file_bytes": segment.file_bytes,
            "max_timestamp": segment.max_timestamp.map(|timestamp| timestamp.0),
            "index_entries": segment.index_entries,
            "time_index_entries": segment.time_index_entries,
        })).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.to_string(),
        "file": finding.file,
        "position": finding.position,
        "offsets": finding.offsets.as_ref().map(|range| json!({
            "start": range.start.0,
            "end": range.end.0,
        })),
        "problem": finding.problem,
    })
}
