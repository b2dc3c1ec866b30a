//! `sapwood group delete`: print the plan, ask, then do it.

use std::collections::HashSet;

use sapwood_client::{Client, Error, GroupDescription, GroupPartition, TopicPartition};
use sapwood_model::Code;
use serde_json::json;

use super::{
    show::{self, missing},
    text,
};
use crate::{
    args::group::{DeleteArgs, Place},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, counted, note, thousands},
};

/// How many offsets the broker forgets in one request.
const OFFSETS_MAX: usize = 10_000;

const COLUMNS: &[Column] = &[
    Column::Text("GROUP"),
    Column::Text("STATE"),
    Column::Number("MEMBERS"),
    Column::Number("OFFSETS"),
    Column::Text("ACTION"),
];

/// A group and which of its offsets go; all of them with the group itself.
struct Step {
    group: GroupDescription,
    offsets: Vec<TopicPartition>,
}

/// Deletes groups, or their offsets of some topics.
pub(super) async fn run(client: Client, args: DeleteArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut plan = Vec::new();
    let mut seen = HashSet::new();
    for name in args.groups.iter().filter(|name| seen.insert(name.as_str())) {
        match show::find(&admin, name).await? {
            Some(group) => plan.push(Step::plan(group, &args.topics)?),
            None if args.if_exists => console.say(&format!("group {name:?} does not exist")),
            None => return Err(missing(name).into()),
        }
    }
    let whole = args.topics.is_empty();
    let what = if whole { "delete" } else { "forget" };
    let table = |action: &str, plan: &[Step]| {
        let mut listing = Listing::new(COLUMNS);
        plan.iter().for_each(|step| listing.push(step.row(action)));
        listing
    };
    if args.dry_run {
        table(&format!("would {what}"), &plan).print(form)?;
        return Ok(Exit::Ok);
    }
    plan.retain(|step| whole || !step.offsets.is_empty());
    if plan.is_empty() {
        console.say("nothing to do");
        return Ok(Exit::Ok);
    }
    console.say(table(what, &plan).table(false).trim_end());
    let groups = counted(plan.len() as u64, "group");
    console.confirm(&match whole {
        true => format!("Delete {groups} for good?"),
        false => format!("Forget these offsets of {groups} for good?"),
    })?;
    let total = plan.len();
    let (mut done, mut failed) = (Vec::new(), None);
    for step in plan {
        let name = &step.group.group.name;
        let outcome = match whole {
            true => admin.delete_group(name).await,
            false => forget(&client, name, &step.offsets).await,
        };
        match outcome {
            Ok(()) => done.push(step),
            Err(error) => {
                note(&Failure::from(&error).at(name).to_text());
                failed = failed.or(Some(error));
            }
        }
    }
    let did = if whole { "deleted" } else { "forgot" };
    match form {
        Form::Table | Form::Wide => done
            .iter()
            .for_each(|step| console.say(&format!("{did} {}", step.told(whole)))),
        _ => table(did, &done).print(form)?,
    }
    match (failed, done.len()) {
        (None, _) => Ok(Exit::Ok),
        (Some(error), 0) => Err(Failure::from(&error).into()),
        (Some(error), some) => Err(Failure::from(&error)
            .at(format!("{some} of {} done", counted(total as u64, "group")))
            .exit(Exit::Partial)
            .into()),
    }
}

/// Forgets offsets of one group. The first refusal counts; the others are told.
async fn forget(client: &Client, group: &str, offsets: &[TopicPartition]) -> Result<(), Error> {
    let admin = client.admin();
    let mut refused = None;
    for some in offsets.chunks(OFFSETS_MAX) {
        let results = admin.delete_offsets(group, some).await?;
        for (partition, result) in some.iter().zip(results) {
            let Err(error) = result else { continue };
            if refused.is_some() {
                note(&Failure::from(&error).at(partition).to_text());
            }
            refused = refused.or(Some(error));
        }
    }
    refused.map_or(Ok(()), Err)
}

impl Step {
    /// Decides what goes. A group with members is not deleted.
    fn plan(group: GroupDescription, topics: &[Place]) -> Result<Self, Failure> {
        let members = group.group.members;
        if topics.is_empty() && members > 0 {
            let name = &group.group.name;
            let members = counted(u64::from(members), "member");
            let failure = Failure::new(
                Code::GroupNotEmpty,
                format!("group {name:?} is running: it has {members}"),
            );
            let names = text::names(&group.members).join(", ");
            return Err(failure
                .cause(format!(
                    "Only a group without members can be deleted; there are {names}."
                ))
                .hint("Stop these consumers, then repeat this."));
        }
        let goes = |row: &&GroupPartition| {
            let at = &row.partition;
            let is_meant = |place: &Place| {
                place.topic == *at.topic && place.partition.is_none_or(|p| p == at.partition.0)
            };
            row.committed.is_some() && (topics.is_empty() || topics.iter().any(is_meant))
        };
        let offsets = group.partitions.iter().filter(goes);
        Ok(Self {
            offsets: offsets.map(|row| row.partition.clone()).collect(),
            group,
        })
    }

    /// What was done, in words.
    fn told(&self, whole: bool) -> String {
        let name = &self.group.group.name;
        match whole {
            true => name.clone(),
            false => format!("{} of {name}", counted(self.offsets.len() as u64, "offset")),
        }
    }

    fn row(&self, action: &str) -> Row {
        let group = &self.group.group;
        let offsets = self.offsets.len() as u64;
        Row {
            name: group.name.clone(),
            cells: vec![
                group.name.clone(),
                text::state(group.state).to_owned(),
                thousands(u64::from(group.members)),
                thousands(offsets),
                action.to_owned(),
            ],
            value: json!({
                "group": group.name,
                "state": text::state(group.state),
                "members": group.members,
                "offsets": offsets,
                "action": action,
            }),
        }
    }
}
