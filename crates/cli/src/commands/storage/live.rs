//! `sapwood storage usage`: what takes space on a running broker, and how its background work is going.

use sapwood_client::{BackgroundTask, Client, StorageUsage, TopicUsage};
use sapwood_model::Timestamp;
use serde_json::{Value, json};

use crate::{
    console::Console,
    duration::age,
    error::{Exit, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, print_text, print_value, thousands},
    position::show_timestamp,
    session,
};

const TOPIC_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITIONS"),
    Column::Number("SEGMENTS"),
    Column::Number("SIZE"),
];

const TASK_COLUMNS: &[Column] = &[
    Column::Text("BACKGROUND"),
    Column::Text("STATE"),
    Column::Number("RUNS"),
    Column::Number("FAILED"),
    Column::Text("LAST RUN"),
    Column::Text("TOOK"),
    Column::Text("NEXT RUN"),
    Column::WideText("INTERVAL"),
    Column::WideText("TRIGGER"),
    Column::WideText("THROTTLE"),
    Column::WideText("DOES"),
];

/// Shows everything. Names alone are those of topics.
pub(super) async fn usage(client: Client, console: &Console) -> Outcome {
    let form = console.form()?;
    let usage = client.admin().storage_usage().await?;
    match form {
        Form::Table | Form::Wide => print_text(&text(&usage, form == Form::Wide, session::now()))?,
        Form::Name => print_text(
            &usage
                .topics
                .iter()
                .map(|topic| format!("{}\n", topic.name))
                .collect::<String>(),
        )?,
        Form::Json | Form::Jsonl | Form::Yaml => print_value(&to_json(&usage), form)?,
    }
    Ok(Exit::Ok)
}

fn text(usage: &StorageUsage, wide: bool, now: Timestamp) -> String {
    let size = |bytes: Option<u64>| bytes.map_or("?".into(), bytes_text);
    let batches: u64 = usage.topics.iter().map(|topic| topic.size_bytes).sum();
    let head = format!(
        "DISK {} free of {}  STATE {}  BALLAST {}  BATCHES {}\n",
        size(usage.free_bytes),
        size(usage.total_bytes),
        usage.state,
        bytes_text(usage.ballast_bytes),
        bytes_text(batches),
    );
    let mut topics = Listing::new(TOPIC_COLUMNS);
    usage
        .topics
        .iter()
        .for_each(|topic| topics.push(topic_row(topic)));
    let mut tasks = Listing::new(TASK_COLUMNS);
    usage
        .tasks
        .iter()
        .for_each(|task| tasks.push(task_row(task, now)));
    let errors: String = usage
        .tasks
        .iter()
        .filter_map(|task| {
            let (at, error) = task.last_error.as_ref()?;
            let (name, at) = (&task.name, show_timestamp(*at));
            Some(format!("{name} failed at {at}: {error}\n"))
        })
        .collect();
    format!("{head}{}{}{errors}", topics.table(wide), tasks.table(wide))
}

fn topic_row(topic: &TopicUsage) -> Row {
    Row {
        name: topic.name.clone(),
        cells: vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            thousands(topic.segments),
            bytes_text(topic.size_bytes),
        ],
        value: Value::Null,
    }
}

fn task_row(task: &BackgroundTask, now: Timestamp) -> Row {
    let dash = || "-".to_owned();
    let state = match (&task.progress, task.is_running, &task.last_run) {
        (Some((done, total)), ..) => {
            format!("{} of {} partitions", thousands(*done), thousands(*total))
        }
        (None, true, _) => "running".to_owned(),
        (None, false, None) => "not yet".to_owned(),
        (None, false, Some(_)) => "waits".to_owned(),
    };
    let until = |at: Timestamp| match millis_between(now, at) {
        0 => "now".to_owned(),
        left => format!("in {}", age(std::time::Duration::from_millis(left))),
    };
    let since = |at: Timestamp| {
        let ms = millis_between(at, now);
        format!("{} ago", age(std::time::Duration::from_millis(ms)))
    };
    Row {
        name: task.name.clone(),
        cells: vec![
            task.name.clone(),
            state,
            thousands(task.runs),
            thousands(task.failures),
            task.last_run.map_or_else(dash, since),
            format!("{:.1} ms", task.last_took.as_secs_f64() * 1000.0),
            task.next_run
                .map_or_else(|| "when triggered".to_owned(), until),
            task.interval.map_or_else(dash, age),
            task.trigger.clone().unwrap_or_else(dash),
            task.bytes_per_second
                .map_or_else(dash, |rate| format!("{}/s", bytes_text(rate))),
            task.about.clone(),
        ],
        value: Value::Null,
    }
}

/// 0 when `to` is not later.
fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0)
}

fn to_json(usage: &StorageUsage) -> Value {
    json!({
        "free_bytes": usage.free_bytes,
        "total_bytes": usage.total_bytes,
        "ballast_bytes": usage.ballast_bytes,
        "state": usage.state,
        "topics": usage.topics.iter().map(|topic| json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "segments": topic.segments,
            "size_bytes": topic.size_bytes,
        })).collect::<Vec<_>>(),
        "background": usage.tasks.iter().map(|task| json!({
            "name": task.name,
            "about": task.about,
            "trigger": task.trigger,
            "interval_ms": task.interval.map(|interval| interval.as_millis() as u64),
            "bytes_per_second": task.bytes_per_second,
            "runs": task.runs,
            "failures": task.failures,
            "running": task.is_running,
            "last_run": task.last_run.map(|at| at.0),
            "last_took_us": task.last_took.as_micros() as u64,
            "next_run": task.next_run.map(|at| at.0),
            "last_error": task.last_error.as_ref().map(|(at, error)| json!({
                "at": at.0,
                "message": error,
            })),
            "progress": task.progress.map(|(done, total)| json!({
                "partitions_done": done,
                "partitions": total,
            })),
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_the_reader() {
        assert_eq!(millis_between(Timestamp(5), Timestamp(12)), 7);
        assert_eq!(millis_between(Timestamp(12), Timestamp(5)), 0);
        assert_eq!(
            millis_between(Timestamp(i64::MIN), Timestamp(i64::MAX)),
            u64::MAX / 2
        );
    }
}
