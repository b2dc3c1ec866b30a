//! `sapwood group seek`: show where each partition would go, ask, then go there.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sapwood_client::{
    Admin, Client, Error, SeekPartitions, SeekResult, SeekTarget, SeekTo, TopicPartition,
};
use sapwood_model::{Code, PartitionId, Timestamp};
use serde_json::json;

use super::{
    positions,
    show::{self, missing},
    text,
};
use crate::{
    args::group::{Place, SeekArgs},
    console::Console,
    error::{Exit, Failure, Outcome, Stop, io_failed},
    output::{Column, Form, Listing, Row, counted, thousands},
    position::Position,
    session,
};

/// How many targets the broker takes in one request.
const TARGETS_MAX: usize = 10_000;
/// How many members a refusal names.
const NAMED_MAX: usize = 5;

const COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("P"),
    Column::Number("FROM"),
    Column::Number("TO"),
    Column::WideNumber("START"),
    Column::WideNumber("END"),
    Column::Text("MEANS"),
];

/// Sends a group to other places.
pub(super) async fn run(client: Client, args: SeekArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let targets = targets(&args, session::now())?;
    let admin = client.admin();
    let group = args.group.as_str();
    let plan = match admin.seek_group(group, &targets, true).await {
        Ok(plan) => plan,
        Err(error) => return Err(refused(&admin, group, &error).await),
    };
    let table = |done: &str| {
        let mut listing = Listing::new(COLUMNS);
        plan.iter().for_each(|step| listing.push(row(step, done)));
        listing
    };
    if args.dry_run {
        if plan.is_empty() {
            console.say(&format!("group {group:?} has no committed offsets to move"));
        }
        table("planned").print(form)?;
        return Ok(Exit::Ok);
    }
    let moves: Vec<&SeekResult> = plan
        .iter()
        .filter(|step| step.from != Some(step.to))
        .collect();
    if !moves.is_empty() {
        if show::find(&admin, group).await?.is_none() {
            console.say(&format!(
                "group {group:?} does not exist yet: this makes it"
            ));
        }
        console.say(table("planned").table(false).trim_end());
        console.confirm_change(&format!(
            "Send group {group:?} there, in {}?",
            counted(moves.len() as u64, "partition")
        ))?;
        // What was shown is what is done, whatever has been written since.
        let exactly: Vec<SeekTarget> = match moves.len() {
            0..=TARGETS_MAX => moves.iter().map(|step| exactly(step)).collect(),
            _ => targets,
        };
        if let Err(error) = admin.seek_group(group, &exactly, false).await {
            return Err(refused(&admin, group, &error).await);
        }
    }
    match form {
        Form::Table | Form::Wide => console.say(&format!(
            "moved {group} in {} of {}",
            thousands(moves.len() as u64),
            counted(plan.len() as u64, "partition")
        )),
        _ => table("moved").print(form)?,
    }
    Ok(Exit::Ok)
}

/// Which partitions go where. Times ago are counted from `now`.
fn targets(args: &SeekArgs, now: Timestamp) -> Result<Vec<SeekTarget>, Failure> {
    let position = |position: Position| SeekTo::Position(position.to_client(now));
    let to = match (args.to, args.by, args.back, &args.from_file) {
        (Some(to), ..) => position(to),
        (_, Some(by), ..) => SeekTo::By(by),
        (_, _, Some(back), _) => position(Position::Ago(back)),
        (.., Some(file)) => {
            let read = positions::parse(&read(file)?, &args.group);
            let read = read.map_err(|failure| failure.at(file.display()))?;
            let targets = read.into_iter().map(|(place, to)| SeekTarget {
                partitions: meant(&place),
                to: position(to),
            });
            return limited(targets.collect());
        }
        (None, None, None, None) => unreachable!("clap asks for one of them"),
    };
    if args.topics.is_empty() {
        let partitions = SeekPartitions::Committed;
        return Ok(vec![SeekTarget { partitions, to }]);
    }
    let partitions = args.topics.iter().map(meant);
    limited(
        partitions
            .map(|partitions| SeekTarget { partitions, to })
            .collect(),
    )
}

fn limited(targets: Vec<SeekTarget>) -> Result<Vec<SeekTarget>, Failure> {
    if targets.len() <= TARGETS_MAX {
        return Ok(targets);
    }
    let places = targets.len();
    Err(Failure::usage(format!(
        "{places} places are given; the limit is {TARGETS_MAX}"
    ))
    .hint("Move the group in several goes."))
}

fn meant(place: &Place) -> SeekPartitions {
    let topic = place.topic.as_str();
    match place.partition {
        None => SeekPartitions::Topic(topic.into()),
        Some(partition) => SeekPartitions::One(TopicPartition::new(topic, PartitionId(partition))),
    }
}

fn exactly(step: &SeekResult) -> SeekTarget {
    SeekTarget {
        partitions: SeekPartitions::One(step.partition.clone()),
        to: SeekTo::Position(sapwood_client::Position::Offset(step.to)),
    }
}

/// A file of positions, or standard input for `-`.
fn read(path: &Path) -> Result<String, Failure> {
    let doing = || format!("cannot read {:?}", path.display().to_string());
    let failed = |error: io::Error| io_failed(&error, doing());
    let mut text = Vec::new();
    let limit = positions::FILE_BYTES_MAX;
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path).map_err(failed)?),
    };
    source
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(
            Failure::usage(format!("{} is larger than {limit} bytes", path.display()))
                .cause("A file of positions has a short line for each partition."),
        );
    }
    String::from_utf8(text).map_err(|_| Failure::usage(format!("{} is not UTF-8", path.display())))
}

/// What a refusal means here: a running group is named with its members and the ways out.
async fn refused(admin: &Admin, group: &str, error: &Error) -> Stop {
    let failure = Failure::from(error);
    match error.code() {
        Code::GroupNotEmpty => {
            // The group may be gone by now; then what was said before has to do.
            let Ok(Some(found)) = show::find(admin, group).await else {
                return failure.into();
            };
            let names = text::names(&found.members);
            let named = found.members.iter().zip(&names).take(NAMED_MAX);
            let named: Vec<String> = named
                .map(|(member, name)| format!("{name} ({})", text::host(member)))
                .collect();
            let more = match names.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let members = counted(names.len() as u64, "member");
            let message = format!("group {group:?} is running: it has {members}");
            Failure::new(Code::GroupNotEmpty, message)
                .cause(format!(
                    "Only a group without members can be moved; there are {}{more}.",
                    named.join(", ")
                ))
                .hint(
                    "Stop these consumers and repeat this, or send a group of another name there \
                     and start consumers in it.",
                )
                .into()
        }
        Code::UnknownGroup => missing(group)
            .hint(format!(
                "List groups with `sapwood group list`; name topics to make one: \
                 sapwood group seek {group} --topic TOPIC --to start"
            ))
            .into(),
        Code::OffsetOutOfRange => failure
            .hint("Use --to start or --to end for the nearest record that is there.")
            .into(),
        _ => failure.into(),
    }
}

/// How many records a step skips, and how many the group reads that it had read before. Only what is
/// still there counts.
fn distance(step: &SeekResult) -> Option<(u64, u64)> {
    let from = step
        .from?
        .max(step.bounds.log_start)
        .min(step.bounds.high_watermark);
    Some((
        step.to.0.saturating_sub(from.0),
        from.0.saturating_sub(step.to.0),
    ))
}

fn row(step: &SeekResult, action: &str) -> Row {
    let left = step.bounds.high_watermark.0.saturating_sub(step.to.0);
    let distance = distance(step);
    let means = match distance {
        _ if step.from == Some(step.to) => "stays".to_owned(),
        None => format!("begins, {} to read", counted(left, "record")),
        Some((0, 0)) => format!("goes on, {} to read", counted(left, "record")),
        Some((skipped, 0)) => format!("skips {}", counted(skipped, "record")),
        Some((_, again)) => format!("reads {} again", counted(again, "record")),
    };
    let (topic, partition) = (&step.partition.topic, step.partition.partition);
    Row {
        name: step.partition.to_string(),
        cells: vec![
            topic.to_string(),
            partition.to_string(),
            step.from
                .map_or_else(text::unknown, |from| thousands(from.0)),
            thousands(step.to.0),
            thousands(step.bounds.log_start.0),
            thousands(step.bounds.high_watermark.0),
            means,
        ],
        value: json!({
            "topic": &**topic,
            "partition": partition.0,
            "from_offset": step.from.map(|from| from.0),
            "to_offset": step.to.0,
            "log_start_offset": step.bounds.log_start.0,
            "high_watermark": step.bounds.high_watermark.0,
            "skips": distance.map(|(skips, _)| skips),
            "reads_again": distance.map(|(_, again)| again),
            "lag": left,
            "action": action,
        }),
    }
}

#[cfg(test)]
mod tests {
    use sapwood_client::Bounds;
    use sapwood_model::Offset;

    use super::*;

    #[test]
    fn a_step_says_what_it_means() {
        let means = |from: Option<u64>, to: u64| {
            let step = SeekResult {
                partition: TopicPartition::new("t", PartitionId(0)),
                from: from.map(Offset),
                to: Offset(to),
                bounds: Bounds {
                    log_start: Offset(10),
                    high_watermark: Offset(30),
                    log_end: Offset(31),
                },
            };
            row(&step, "planned").cells.remove(6)
        };
        assert_eq!(means(Some(20), 25), "skips 5 records");
        assert_eq!(means(Some(20), 19), "reads 1 record again");
        assert_eq!(means(Some(20), 20), "stays");
        assert_eq!(means(None, 10), "begins, 20 records to read");
        // Records 3 to 9 are gone: going to the log start skips nothing that is there.
        assert_eq!(means(Some(3), 10), "goes on, 20 records to read");
        assert_eq!(means(Some(3), 12), "skips 2 records");
        assert_eq!(means(Some(40), 28), "reads 2 records again");
    }
}
