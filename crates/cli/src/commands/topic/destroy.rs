//! `sapwood topic delete` and `trim`: print the plan, ask, then do it.

use sapwood_client::{Admin, Bounds, Client, Error, OffsetQuery, TopicDescription};
use sapwood_model::{Code, Offset, PartitionId};
use serde_json::{Value, json};

use super::{create::count, show::records_in};
use crate::{
    args::topic::{DeleteArgs, TrimArgs},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, counted, note, thousands},
    position::Position,
    session,
};

const DELETE_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITIONS"),
    Column::Number("RECORDS"),
    Column::Number("SIZE"),
    Column::Text("ACTION"),
];

const TRIM_COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("PARTITION"),
    Column::Number("START"),
    Column::Number("NEW START"),
    Column::Number("END"),
    Column::Number("DELETES"),
    Column::Text("ACTION"),
];

/// Deletes topics with everything in them.
pub(super) async fn delete(client: Client, args: DeleteArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut plan = Vec::new();
    let mut names = args.names;
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    for name in &names {
        match admin.describe_topic(name).await {
            Ok(description) => plan.push(description),
            Err(error) if error.code() == Code::UnknownTopic && args.if_exists => {
                console.say(&format!("topic {name:?} does not exist"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let table = |action: &str, plan: &[TopicDescription]| {
        let mut listing = Listing::new(DELETE_COLUMNS);
        plan.iter()
            .for_each(|one| listing.push(delete_row(one, action)));
        listing
    };
    if args.dry_run {
        table("would delete", &plan).print(form)?;
        return Ok(Exit::Ok);
    }
    if plan.is_empty() {
        return Ok(Exit::Ok);
    }
    console.say(table("delete", &plan).table(false).trim_end());
    console.confirm(&format!(
        "Delete {} for good?",
        counted(plan.len() as u64, "topic")
    ))?;
    let total = plan.len();
    let mut deleted = Vec::new();
    let mut failed = None;
    for description in plan {
        match admin.delete_topic(&description.topic.name).await {
            Ok(()) => deleted.push(description),
            Err(error) => {
                note(&Failure::from(&error).to_text());
                failed = failed.or(Some(error));
            }
        }
    }
    if form != Form::Table && form != Form::Wide {
        table("deleted", &deleted).print(form)?;
    } else {
        deleted
            .iter()
            .for_each(|one| console.say(&format!("deleted {}", one.topic.name)));
    }
    ended(failed.as_ref(), deleted.len(), total, "topic")
}

/// All, some, or none of `total` things were done.
fn ended(failed: Option<&Error>, done: usize, total: usize, thing: &str) -> Outcome {
    let Some(error) = failed else {
        return Ok(Exit::Ok);
    };
    let failure = Failure::from(error);
    Err(match done {
        0 => failure.into(),
        done => failure
            .at(format!("{done} of {} done", counted(total as u64, thing)))
            .exit(Exit::Partial)
            .into(),
    })
}

fn delete_row(description: &TopicDescription, action: &str) -> Row {
    let topic = &description.topic;
    let records: u64 = description.partitions.iter().map(records_in).sum();
    let size: u64 = description
        .partitions
        .iter()
        .map(|partition| partition.size_bytes)
        .sum();
    Row {
        name: topic.name.clone(),
        cells: vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            thousands(records),
            bytes_text(size),
            action.into(),
        ],
        value: json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "records": records,
            "size_bytes": size,
            "action": action,
        }),
    }
}

/// What trimming does to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    partition: PartitionId,
    bounds: Bounds,
    /// The log start afterwards.
    new_start: Offset,
}

impl Step {
    /// Decides for one partition. An offset before the log start deletes nothing.
    fn plan(partition: PartitionId, bounds: Bounds, before: Offset) -> Result<Self, Failure> {
        if before > bounds.high_watermark {
            let range = format!("{}..{}", bounds.log_start, bounds.high_watermark);
            return Err(Failure::new(
                Code::OffsetOutOfRange,
                format!("partition {partition} holds offsets {range}; cannot trim before {before}"),
            )
            .hint("Use `--before end` to delete all that is there now."));
        }
        Ok(Self {
            partition,
            bounds,
            new_start: before.max(bounds.log_start),
        })
    }

    fn deletes(&self) -> u64 {
        self.new_start.0 - self.bounds.log_start.0
    }

    fn row(&self, topic: &str, action: &str) -> Row {
        let action = if self.deletes() == 0 {
            "nothing to do"
        } else {
            action
        };
        Row {
            name: format!("{topic}/{}", self.partition),
            cells: vec![
                topic.into(),
                self.partition.to_string(),
                thousands(self.bounds.log_start.0),
                thousands(self.new_start.0),
                thousands(self.bounds.high_watermark.0),
                thousands(self.deletes()),
                action.into(),
            ],
            value: self.to_json(topic, action),
        }
    }

    fn to_json(self, topic: &str, action: &str) -> Value {
        json!({
            "topic": topic,
            "partition": self.partition.0,
            "log_start_offset": self.bounds.log_start.0,
            "new_log_start_offset": self.new_start.0,
            "high_watermark": self.bounds.high_watermark.0,
            "deletes": self.deletes(),
            "action": action,
        })
    }
}

/// Deletes the records before a position.
pub(super) async fn trim(client: Client, args: TrimArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let topic = admin.describe_topic(&args.name).await?.topic;
    let partitions = chosen(&args.partitions, topic.name.as_str(), topic.partitions)?;
    let steps = plan(&admin, &args.name, &partitions, args.before).await?;
    let table = |action: &str| {
        let mut listing = Listing::new(TRIM_COLUMNS);
        steps
            .iter()
            .for_each(|step| listing.push(step.row(&args.name, action)));
        listing
    };
    if args.dry_run {
        table("would trim").print(form)?;
        return Ok(Exit::Ok);
    }
    let wanted: Vec<&Step> = steps.iter().filter(|step| step.deletes() > 0).collect();
    if !wanted.is_empty() {
        let records: u64 = wanted.iter().map(|step| step.deletes()).sum();
        console.say(table("trim").table(false).trim_end());
        console.confirm(&format!(
            "Delete {} of {} for good?",
            counted(records, "record"),
            counted(wanted.len() as u64, "partition")
        ))?;
    }
    let request: Vec<_> = wanted
        .iter()
        .map(|step| (step.partition, Some(step.new_start)))
        .collect();
    let answers = match request.is_empty() {
        true => Vec::new(),
        false => admin.trim(&args.name, &request).await?,
    };
    let mut failed = None;
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        note(&Failure::from(error).to_text());
        failed = failed.or(Some(error));
    }
    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    match (form, failed) {
        (Form::Table | Form::Wide, _) => {
            console.say(&format!(
                "trimmed {} of {}",
                counted(done as u64, "partition"),
                args.name
            ));
        }
        (_, None) => table("trimmed").print(form)?,
        (_, Some(_)) => {}
    }
    ended(failed, done, request.len(), "partition")
}

async fn plan(
    admin: &Admin,
    topic: &str,
    partitions: &[PartitionId],
    before: Position,
) -> Outcome<Vec<Step>> {
    // An offset is compared with the bounds here; all else is looked up by the broker.
    let at = match before {
        Position::Offset(_) => None,
        other => Some(other.to_client(session::now())),
    };
    let query = |partition: &PartitionId| OffsetQuery {
        topic: topic.into(),
        partition: *partition,
        at,
    };
    let queries: Vec<OffsetQuery> = partitions.iter().map(query).collect();
    let mut steps = Vec::with_capacity(queries.len());
    // The broker answers at most 10,000 at a time.
    for some in queries.chunks(10_000) {
        for (query, answer) in some.iter().zip(admin.offsets(some).await?) {
            let answer = answer?;
            let place = match before {
                Position::Offset(offset) => offset,
                _ => answer.offset.unwrap_or(answer.bounds.high_watermark),
            };
            steps.push(Step::plan(query.partition, answer.bounds, place)?);
        }
    }
    Ok(steps)
}

/// The partitions named, or all of them.
///
/// # Errors
/// One that the topic does not have.
pub(crate) fn chosen(
    named: &[u32],
    topic: &str,
    partitions: u32,
) -> Result<Vec<PartitionId>, Failure> {
    if named.is_empty() {
        return Ok((0..partitions).map(PartitionId).collect());
    }
    if let Some(wrong) = named.iter().find(|partition| **partition >= partitions) {
        return Err(Failure::new(
            Code::UnknownPartition,
            format!(
                "topic {topic:?} has {}; there is no partition {wrong}",
                count(partitions)
            ),
        ));
    }
    let mut named: Vec<PartitionId> = named.iter().copied().map(PartitionId).collect();
    named.sort();
    named.dedup();
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        log_start: Offset(5),
        high_watermark: Offset(50),
        log_end: Offset(60),
    };

    #[test]
    fn trimming_deletes_up_to_the_position_and_never_past_what_can_be_read() {
        let deletes =
            |before| Step::plan(PartitionId(0), BOUNDS, Offset(before)).map(|step| step.deletes());
        assert_eq!(deletes(20), Ok(15));
        assert_eq!(deletes(50), Ok(45));
        assert_eq!(deletes(3), Ok(0));
        let failure = deletes(51).unwrap_err();
        assert_eq!(failure.code, Code::OffsetOutOfRange);
        assert!(failure.message.contains("5..50"), "{}", failure.message);
    }

    #[test]
    fn partitions_are_checked_sorted_and_named_once() {
        assert_eq!(
            chosen(&[], "t", 2),
            Ok(vec![PartitionId(0), PartitionId(1)])
        );
        assert_eq!(
            chosen(&[1, 0, 1], "t", 2),
            Ok(vec![PartitionId(0), PartitionId(1)])
        );
        let failure = chosen(&[0, 2], "t", 2).unwrap_err();
        assert_eq!(
            failure.message,
            "topic \"t\" has 2 partitions; there is no partition 2"
        );
    }
}
