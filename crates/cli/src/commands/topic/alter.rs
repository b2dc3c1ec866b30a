//! `sapwood topic alter`: check everything, then do it, or only print the plan.

use sapwood_client::{Client, ConfigChange, TopicDescription};
use serde_json::{Value, json};

use crate::{
    args::topic::AlterArgs,
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, print_text, print_value},
};

const COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Text("SETTING"),
    Column::Text("NOW"),
    Column::Text("AFTER"),
    Column::Text("ACTION"),
];

/// Changes the configuration (all changes or none), then adds partitions. Both are checked before
/// either is done.
pub(super) async fn alter(client: Client, args: AlterArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let set = args
        .set
        .into_iter()
        .map(|(key, value)| ConfigChange::Set(key, value));
    let changes: Vec<_> = set
        .chain(args.unset.into_iter().map(ConfigChange::Unset))
        .collect();
    let alone = changes.is_empty() || args.partitions.is_none();
    if args.dry_run || !alone {
        if !changes.is_empty() {
            admin.validate_alter_topic(&args.name, &changes).await?;
        }
        if let Some(total) = args.partitions {
            admin.validate_add_partitions(&args.name, total).await?;
        }
    }
    if args.dry_run {
        let now = admin.describe_topic(&args.name).await?;
        plan(&now, &changes, args.partitions).print(form)?;
        return Ok(Exit::Ok);
    }
    if !changes.is_empty() {
        admin.alter_topic(&args.name, &changes).await?;
    }
    if let Some(total) = args.partitions
        && let Err(error) = admin.add_partitions(&args.name, total).await
    {
        let failure = Failure::from(&error);
        return Err(match changes.is_empty() {
            true => failure.into(),
            false => failure
                .at("the configuration was changed, but")
                .exit(Exit::Partial)
                .into(),
        });
    }
    match form {
        Form::Table | Form::Wide => print_text(&format!("altered {}\n", args.name))?,
        Form::Name => print_text(&format!("{}\n", args.name))?,
        Form::Json | Form::Jsonl | Form::Yaml => {
            print_value(&json!({ "name": args.name, "altered": true }), form)?;
        }
    }
    Ok(Exit::Ok)
}

/// What would change, setting by setting, in the order of the command line.
fn plan(now: &TopicDescription, changes: &[ConfigChange], partitions: Option<u32>) -> Listing {
    let mut listing = Listing::new(COLUMNS);
    for change in changes {
        let (key, after) = match change {
            ConfigChange::Set(key, value) => (key, Some(value)),
            ConfigChange::Unset(key) => (key, None),
        };
        let entry = now.configs.iter().find(|entry| entry.key == *key);
        let (before, default) = entry.map_or(("", ""), |entry| {
            (entry.value.as_str(), entry.default_value.as_str())
        });
        let after = after.map_or(default, String::as_str);
        listing.push(row(now, key, before, after));
    }
    if let Some(total) = partitions {
        let before = now.topic.partitions.to_string();
        listing.push(row(now, "partitions", &before, &total.to_string()));
    }
    listing
}

fn row(topic: &TopicDescription, setting: &str, now: &str, after: &str) -> Row {
    let name = &topic.topic.name;
    let action = if now == after {
        "nothing to do"
    } else {
        "would change"
    };
    let value: Value = json!({
        "name": name,
        "setting": setting,
        "now": now,
        "after": after,
        "action": action,
    });
    Row {
        name: name.clone(),
        cells: [name, setting, now, after, action]
            .map(str::to_owned)
            .into(),
        value,
    }
}
