//! `sapwood group list` and `describe`.

use futures_util::{StreamExt, TryStreamExt, stream};
use sapwood_client::{Admin, Client, Group, GroupDescription};
use sapwood_model::Code;
use serde_json::{Value, json};

use super::text::{self, Summary};
use crate::{
    args::group::{DescribeArgs, ListArgs},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, note, print_text, print_value, thousands},
};

/// How many groups are described at a time.
const DESCRIBED_AT_ONCE: usize = 16;

const COLUMNS: &[Column] = &[
    Column::Text("GROUP"),
    Column::Text("STATE"),
    Column::Number("MEMBERS"),
    Column::Number("LAG"),
    Column::Number("BEHIND"),
    Column::WideNumber("PARTITIONS"),
    Column::WideText("KIND"),
    Column::WideText("ASSIGNOR"),
    Column::WideText("PROTOCOL"),
];

/// Lists groups by name. With `-o name` each is only named; otherwise each is looked into.
pub(super) async fn list(client: Client, args: ListArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let listed = admin.list_groups().await?;
    let prefix = args.prefix.unwrap_or_default();
    let groups = listed.groups.into_iter();
    let groups: Vec<Group> = groups
        .filter(|group| group.name.starts_with(&prefix))
        .collect();
    let mut listing = Listing::new(COLUMNS);
    if form == Form::Name {
        print_text(
            &groups
                .iter()
                .map(|group| format!("{}\n", group.name))
                .collect::<String>(),
        )?;
    } else {
        let described: Vec<Option<GroupDescription>> = stream::iter(groups)
            .map(|group| {
                let admin = admin.clone();
                async move { find(&admin, &group.name).await }
            })
            .buffered(DESCRIBED_AT_ONCE)
            .try_collect()
            .await?;
        let described: Vec<_> = described.into_iter().flatten().collect();
        if described.is_empty() && listed.missing.is_empty() {
            console.say("no groups");
        }
        described.iter().for_each(|group| listing.push(row(group)));
        listing.print(form)?;
    }
    for error in &listed.missing {
        note(
            &Failure::from(error)
                .at("some groups may be missing")
                .to_text(),
        );
    }
    Ok(if listed.missing.is_empty() {
        Exit::Ok
    } else {
        Exit::Partial
    })
}

/// Describes a group; none if it is not there (any more).
pub(super) async fn find(
    admin: &Admin,
    group: &str,
) -> Result<Option<GroupDescription>, sapwood_client::Error> {
    match admin.describe_group(group).await {
        Ok(description) => Ok(Some(description)),
        Err(error) if error.code() == Code::UnknownGroup => Ok(None),
        Err(error) => Err(error),
    }
}

/// There is no such group.
pub(super) fn missing(group: &str) -> Failure {
    Failure::new(
        Code::UnknownGroup,
        format!("group {group:?} does not exist"),
    )
}

fn row(group: &GroupDescription) -> Row {
    let Group {
        name,
        kind,
        state,
        protocol_type,
        members,
    } = &group.group;
    let summary = Summary::of(group);
    let partitions = group.partitions.len() as u64;
    Row {
        name: name.clone(),
        cells: vec![
            name.clone(),
            text::state(*state).to_owned(),
            thousands(u64::from(*members)),
            summary.lag.map_or_else(text::unknown, thousands),
            summary.behind.map_or_else(text::unknown, text::age),
            thousands(partitions),
            kind.to_string(),
            group.assignor.clone(),
            protocol_type.clone(),
        ],
        value: json!({
            "group": name,
            "kind": kind.to_string(),
            "state": text::state(*state),
            "protocol_type": protocol_type,
            "assignor": group.assignor,
            "members": members,
            "partitions": partitions,
            "lag": summary.lag,
            "behind_ms": summary.behind.map(text::millis),
            "lost": summary.lost,
            "retention_headroom_ms": summary.loses.map(|(left, _)| text::millis(left)),
        }),
    }
}

/// Describes groups: one as an object, several as a list.
pub(super) async fn describe(client: Client, args: DescribeArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut groups = Vec::with_capacity(args.groups.len());
    for name in &args.groups {
        groups.push(find(&admin, name).await?.ok_or_else(|| missing(name))?);
    }
    if args.export {
        print_text(&export(&groups))?;
        return Ok(Exit::Ok);
    }
    match form {
        Form::Table | Form::Wide => {
            let texts = groups
                .iter()
                .map(|group| text::describe(group, form == Form::Wide));
            print_text(&texts.collect::<Vec<_>>().join("\n"))?;
        }
        Form::Name => {
            print_text(
                &args
                    .groups
                    .iter()
                    .map(|name| format!("{name}\n"))
                    .collect::<String>(),
            )?;
        }
        Form::Jsonl => {
            for group in &groups {
                print_value(&text::to_json(group), form)?;
            }
        }
        Form::Json | Form::Yaml => match groups.as_slice() {
            [only] => print_value(&text::to_json(only), form)?,
            several => print_value(&several.iter().map(text::to_json).collect::<Value>(), form)?,
        },
    }
    Ok(Exit::Ok)
}

/// What is committed, as lines that `seek --from-file` reads; several groups with their names.
fn export(groups: &[GroupDescription]) -> String {
    let mut lines = String::new();
    for group in groups {
        for row in &group.partitions {
            let Some(committed) = &row.committed else {
                continue;
            };
            if groups.len() > 1 {
                let name = group.group.name.replace('"', "\"\"");
                lines += &format!("\"{name}\",");
            }
            let (topic, partition) = (&row.partition.topic, row.partition.partition);
            lines += &format!("\"{topic}\",{partition},{}\n", committed.offset);
        }
    }
    lines
}
