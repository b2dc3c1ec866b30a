//! `sapwood topic list` and `describe`.

use futures_util::{StreamExt, TryStreamExt, stream};
use sapwood_client::{Client, ConfigEntry, Error, Partition, Topic, TopicDescription};
use sapwood_model::Code;
use serde_json::{Value, json};

use super::{compaction_json, create::count, dirty_ratio, next_removal_json, next_removal_text};
use crate::{
    args::topic::{DescribeArgs, ListArgs},
    console::Console,
    error::{Exit, Outcome},
    output::{Column, Form, Listing, Row, bytes_text, print_text, print_value, thousands},
    session,
};

/// How many topics are described at a time.
const DESCRIBED_AT_ONCE: usize = 16;

const LIST_COLUMNS: &[Column] = &[
    Column::Text("NAME"),
    Column::Number("PARTITIONS"),
    Column::Number("RECORDS"),
    Column::Number("SIZE"),
    Column::Text("STATE"),
    Column::WideNumber("REPLICAS"),
    Column::WideText("ID"),
];

const PARTITION_COLUMNS: &[Column] = &[
    Column::Number("PARTITION"),
    Column::Number("START"),
    Column::Number("HIGH WATERMARK"),
    Column::Number("END"),
    Column::Number("SIZE"),
    Column::Text("STATE"),
    Column::Text("NEXT DELETED"),
    Column::WideNumber("SEGMENTS"),
    Column::WideNumber("EPOCH"),
];

const CONFIG_COLUMNS: &[Column] = &[
    Column::Text("CONFIG"),
    Column::Text("VALUE"),
    Column::Text("SOURCE"),
    Column::WideText("DEFAULT"),
];

/// Lists topics by name. With `-o name` each is only named; otherwise each is looked into.
pub(super) async fn list(client: Client, args: ListArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut topics = admin.list_topics().await?;
    if let Some(prefix) = &args.prefix {
        topics.retain(|topic| topic.name.starts_with(prefix));
    }
    if form == Form::Name {
        print_text(
            &topics
                .iter()
                .map(|topic| format!("{}\n", topic.name))
                .collect::<String>(),
        )?;
        return Ok(Exit::Ok);
    }
    let described: Vec<Option<TopicDescription>> = stream::iter(topics)
        .map(|topic| {
            let admin = admin.clone();
            async move {
                match admin.describe_topic(&topic.name).await {
                    Ok(description) => Ok(Some(description)),
                    // Deleted since it was listed.
                    Err(error) if error.code() == Code::UnknownTopic => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
        .buffered(DESCRIBED_AT_ONCE)
        .try_collect()
        .await?;
    let mut listing = Listing::new(LIST_COLUMNS);
    for description in described.iter().flatten() {
        listing.push(list_row(description));
    }
    if described.is_empty() {
        console.say("no topics");
    }
    listing.print(form)?;
    Ok(Exit::Ok)
}

fn list_row(description: &TopicDescription) -> Row {
    let Topic {
        name,
        id,
        partitions,
        replication_factor,
        ..
    } = &description.topic;
    let records: u64 = description.partitions.iter().map(records_in).sum();
    let size: u64 = description
        .partitions
        .iter()
        .map(|partition| partition.size_bytes)
        .sum();
    let offline = description
        .partitions
        .iter()
        .filter(|one| one.offline.is_some())
        .count();
    let state = match offline {
        0 => "online".to_owned(),
        some => format!("{some} offline"),
    };
    Row {
        name: name.clone(),
        cells: vec![
            name.clone(),
            partitions.to_string(),
            thousands(records),
            bytes_text(size),
            state,
            replication_factor.to_string(),
            id.clone(),
        ],
        value: json!({
            "name": name,
            "id": id,
            "partitions": partitions,
            "replication_factor": replication_factor,
            "records": records,
            "size_bytes": size,
            "offline_partitions": offline,
        }),
    }
}

/// Records that can be read. Counted by offsets, so compacted ones are counted too.
pub(super) fn records_in(partition: &Partition) -> u64 {
    let bounds = partition.bounds;
    bounds.high_watermark.0.saturating_sub(bounds.log_start.0)
}

/// Describes topics: one as an object, several as a list.
pub(super) async fn describe(client: Client, args: DescribeArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut descriptions = Vec::with_capacity(args.names.len());
    for name in &args.names {
        descriptions.push(admin.describe_topic(name).await?);
    }
    match form {
        Form::Table | Form::Wide => {
            let texts: Vec<String> = descriptions
                .iter()
                .map(|one| describe_text(one, form == Form::Wide, args.all_configs))
                .collect();
            print_text(&texts.join("\n"))?;
        }
        Form::Name => print_text(
            &args
                .names
                .iter()
                .map(|n| format!("{n}\n"))
                .collect::<String>(),
        )?,
        Form::Jsonl => {
            for description in &descriptions {
                print_value(&to_json(description), form)?;
            }
        }
        Form::Json | Form::Yaml => match descriptions.as_slice() {
            [only] => print_value(&to_json(only), form)?,
            several => print_value(&several.iter().map(to_json).collect(), form)?,
        },
    }
    Ok(Exit::Ok)
}

fn describe_text(description: &TopicDescription, wide: bool, all_configs: bool) -> String {
    let TopicDescription {
        topic,
        partitions,
        configs,
    } = description;
    let head = format!(
        "TOPIC {}  ID {}  {}  REPLICAS {}\n",
        topic.name,
        topic.id,
        count(topic.partitions).to_uppercase(),
        topic.replication_factor
    );
    let mut table = Listing::new(PARTITION_COLUMNS);
    partitions
        .iter()
        .for_each(|partition| table.push(partition_row(partition)));
    let reasons: String = partitions
        .iter()
        .filter_map(|partition| {
            let error = partition.offline.as_ref()?;
            Some(format!(
                "partition {} is offline: {}: {error}\n",
                partition.partition,
                error.code()
            ))
        })
        .collect();
    let mut shown = Listing::new(CONFIG_COLUMNS);
    configs
        .iter()
        .filter(|entry| all_configs || entry.source == "topic" || entry.key == "durability")
        .for_each(|entry| shown.push(config_row(entry)));
    let compaction = compaction_text(partitions);
    format!(
        "{head}{}{reasons}{compaction}{}",
        table.table(wide),
        shown.table(wide)
    )
}

/// A line for each partition of a compacted topic.
fn compaction_text(partitions: &[Partition]) -> String {
    let lines = partitions.iter().filter_map(|partition| {
        let state = partition.compaction.as_ref()?;
        Some(format!(
            "partition {} is compacted up to {}; {:.0}% of its {} in full segments are new\n",
            partition.partition,
            thousands(state.clean_offset.0),
            dirty_ratio(state) * 100.0,
            bytes_text(state.clean_bytes + state.dirty_bytes),
        ))
    });
    lines.collect()
}

fn partition_row(partition: &Partition) -> Row {
    let bounds = partition.bounds;
    let state = if partition.offline.is_some() {
        "offline"
    } else {
        "online"
    };
    Row {
        name: partition.partition.to_string(),
        cells: vec![
            partition.partition.to_string(),
            thousands(bounds.log_start.0),
            thousands(bounds.high_watermark.0),
            thousands(bounds.log_end.0),
            bytes_text(partition.size_bytes),
            state.into(),
            next_removal_text(partition.next_removal.as_ref(), session::now()),
            partition.segments.to_string(),
            partition.leader_epoch.to_string(),
        ],
        value: partition_json(partition),
    }
}

fn config_row(entry: &ConfigEntry) -> Row {
    Row {
        name: entry.key.clone(),
        cells: vec![
            entry.key.clone(),
            entry.value.clone(),
            entry.source.clone(),
            entry.default_value.clone(),
        ],
        value: config_json(entry),
    }
}

fn to_json(description: &TopicDescription) -> Value {
    let TopicDescription {
        topic,
        partitions,
        configs,
    } = description;
    json!({
        "name": topic.name,
        "id": topic.id,
        "replication_factor": topic.replication_factor,
        "partitions": partitions.iter().map(partition_json).collect::<Vec<_>>(),
        "configs": configs.iter().map(config_json).collect::<Vec<_>>(),
    })
}

fn partition_json(partition: &Partition) -> Value {
    json!({
        "partition": partition.partition.0,
        "log_start_offset": partition.bounds.log_start.0,
        "high_watermark": partition.bounds.high_watermark.0,
        "log_end_offset": partition.bounds.log_end.0,
        "size_bytes": partition.size_bytes,
        "segments": partition.segments,
        "leader_epoch": partition.leader_epoch.0,
        "next_removal": partition.next_removal.as_ref().map(next_removal_json),
        "compaction": partition.compaction.as_ref().map(compaction_json),
        "offline": partition.offline.as_ref().map(offline_json),
    })
}

fn offline_json(error: &Error) -> Value {
    json!({ "code": error.code().to_string(), "message": error.to_string() })
}

fn config_json(entry: &ConfigEntry) -> Value {
    json!({
        "key": entry.key,
        "value": entry.value,
        "default": entry.default_value,
        "source": entry.source,
        "read_only": entry.read_only,
    })
}
