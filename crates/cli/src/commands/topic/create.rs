//! `sapwood topic create`.

use sapwood_client::{Client, NewTopic, Topic};
use sapwood_model::Code;
use serde_json::json;

use crate::{
    args::topic::CreateArgs,
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Form, counted, print_text, print_value},
};

/// Creates a topic; durable when it is said to be there.
pub(super) async fn create(client: Client, args: CreateArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let request = NewTopic {
        name: args.name,
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        configs: args.set,
        validate_only: args.dry_run,
    };
    let (done, topic) = match admin.create_topic(&request).await {
        Ok(topic) if args.dry_run => ("would create", topic),
        Ok(topic) => ("created", topic),
        Err(error) if error.code() == Code::TopicExists => {
            let existing = admin.describe_topic(&request.name).await?.topic;
            if !args.if_not_exists {
                return Err(exists(&existing, &request).into());
            }
            if request
                .partitions
                .is_some_and(|wanted| wanted != existing.partitions)
            {
                console.say(&format!(
                    "topic {:?} has {}, not {}",
                    existing.name,
                    count(existing.partitions),
                    request.partitions.unwrap_or_default()
                ));
            }
            ("exists", existing)
        }
        Err(error) => return Err(error.into()),
    };
    match form {
        Form::Table | Form::Wide => {
            print_text(&format!(
                "{done} {} ({})\n",
                topic.name,
                count(topic.partitions)
            ))?;
        }
        Form::Name => print_text(&format!("{}\n", topic.name))?,
        Form::Json | Form::Jsonl | Form::Yaml => {
            let mut value = json!({
                "name": topic.name,
                "partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "created": done == "created",
            });
            if !args.dry_run {
                value["id"] = topic.id.into();
            }
            print_value(&value, form)?;
        }
    }
    Ok(Exit::Ok)
}

fn exists(existing: &Topic, request: &NewTopic) -> Failure {
    let partitions = existing.partitions;
    let yours = match request.partitions {
        Some(wanted) if wanted != partitions => format!(", yours asked for {wanted}"),
        _ => String::new(),
    };
    let flag = request
        .partitions
        .map(|wanted| format!(" -p {wanted}"))
        .unwrap_or_default();
    Failure::new(
        Code::TopicExists,
        format!(
            "topic {:?} already exists ({}{yours})",
            existing.name,
            count(partitions)
        ),
    )
    .cause("partitions can be added, never removed")
    .hint(format!(
        "sapwood topic create {}-v2{flag}     or --if-not-exists to accept {partitions}",
        existing.name
    ))
}

/// `1 partition`, `12 partitions`.
pub(super) fn count(partitions: u32) -> String {
    counted(partitions.into(), "partition")
}
