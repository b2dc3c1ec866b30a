//! `sapwood storage repair`: print the plan, ask, then do it.

use std::{fmt::Write, fs, io::IsTerminal, path::Path};

use sapwood_log::{
    Known, OpenError, Progress,
    io::Environment,
    repair::{self, Action, Loss, Options, PartitionRepair, Plan, Repaired, Restored},
};
use sapwood_model::{Code, PartitionId};
use serde_json::{Value, json};

use super::{finding_json, findings_text, show_progress};
use crate::{
    args::storage::{RepairArgs, StorageArgs},
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Form, bytes_text, counted, print_text, print_value, thousands},
};

/// Plans, and carries the plan out if that is wanted.
pub(super) fn run(args: &RepairArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let RepairArgs {
        storage: args,
        dry_run,
    } = args;
    let (catalog, problem) = read_catalog(&args.data_dir)?;
    let mut plan = make_plan(args, catalog.as_ref(), console)?;
    if let Some(topic) = &args.topic {
        look_for(topic, args.partition, &args.data_dir, catalog.as_ref())?;
    }
    let acts = !dry_run && (console.is_yes() || can_ask());
    if acts && let Some(number) = plan.interrupted {
        console.confirm_change(&format!("Finish repair {number}, which was interrupted?"))?;
        carry_out(plan, console)?;
        console.say(&format!("finished repair {number}"));
        plan = make_plan(args, catalog.as_ref(), console)?;
    }
    let damaged = !plan.left.is_empty() || problem.is_some();
    let mut shown = Shown::of(&plan, problem);
    if !acts || plan.is_empty() {
        if !plan.is_empty() {
            shown.next = Some(command(args));
        }
        shown.print(form)?;
        return Ok(match plan.is_empty() && !damaged {
            true => Exit::Ok,
            false => Exit::Unhealthy,
        });
    }
    console.say(shown.text.trim_end());
    let lost = plan.offsets_lost();
    let question = match lost {
        0 => "Repair it? Nothing is lost by it.".into(),
        lost => format!(
            "Repair it, and give up {} for good?",
            counted(lost, "offset")
        ),
    };
    match lost {
        0 => console.confirm_change(&question)?,
        _ => console.confirm(&question)?,
    }
    let repaired = carry_out(plan, console)?;
    shown.done(repaired.as_ref());
    shown.print(form)?;
    Ok(match damaged {
        true => Exit::Partial,
        false => Exit::Ok,
    })
}

fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What the catalog knows, or why it cannot be read.
fn read_catalog(data_dir: &Path) -> Result<(Option<Known>, Option<String>), Failure> {
    let environment = Environment::real();
    let id = repair::directory_id(&environment, data_dir).map_err(failed)?;
    match sapwood_server::read_stopped_catalog(&environment, data_dir, id) {
        Ok(known) => Ok((Some(known), None)),
        Err(error @ sapwood_server::CatalogOpenError::Newer { .. }) => {
            Err(Failure::new(error.code(), error))
        }
        Err(error) => Ok((None, Some(error.to_string()))),
    }
}

/// What was asked for is there.
fn look_for(
    topic: &str,
    partition: Option<u32>,
    data_dir: &Path,
    known: Option<&Known>,
) -> Result<(), Failure> {
    let folders = fs::read_dir(data_dir.join("topics"));
    let names: Vec<String> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .chain(
            known
                .iter()
                .flat_map(|known| &known.partitions)
                .map(|spec| format!("{}-{}", spec.topic, spec.partition)),
        )
        .collect();
    let of_topic = |name: &&String| {
        name.rsplit_once('-')
            .is_some_and(|(name, number)| name == topic && number.parse::<u32>().is_ok())
    };
    let hint = "List what is there: sapwood storage inspect";
    if !names.iter().any(|name| of_topic(&name)) {
        let message = format!("no partition of topic {topic:?} in {}", data_dir.display());
        return Err(Failure::new(Code::UnknownTopic, message).hint(hint));
    }
    match partition {
        Some(number) if !names.contains(&format!("{topic}-{number}")) => {
            let message = format!("topic {topic:?} has no partition {number}");
            Err(Failure::new(Code::UnknownPartition, message).hint(hint))
        }
        _ => Ok(()),
    }
}

fn failed(error: OpenError) -> Failure {
    Failure::new(error.code(), &error)
}

fn make_plan(
    args: &StorageArgs,
    known: Option<&Known>,
    console: &Console,
) -> Result<Plan, Failure> {
    let boot_id = fs::read_to_string(&args.boot_id_file).ok();
    let options = Options {
        boot_id: boot_id.as_deref().map(str::trim),
        topic: args.topic.as_deref(),
        partition: args.partition.map(PartitionId),
        known,
    };
    let environment = Environment::real();
    with_progress(console, |progress| {
        repair::plan(&environment, &args.data_dir, &options, progress)
    })
}

fn carry_out(plan: Plan, console: &Console) -> Result<Option<Repaired>, Failure> {
    with_progress(console, |progress| plan.apply(progress))
}

fn with_progress<T: Send>(
    console: &Console,
    work: impl FnOnce(&Progress) -> Result<T, OpenError> + Send,
) -> Result<T, Failure> {
    let progress = Progress::default();
    let result = std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&progress));
        if console.shows_progress() {
            show_progress(&progress, || working.is_finished());
        }
        working.join()
    });
    match result {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(Failure::new(Code::Internal, "the repair ended by a panic")),
    }
}

/// The command that carries the plan out.
fn command(args: &StorageArgs) -> String {
    let mut text = format!(
        "sapwood storage repair --data-dir {}",
        args.data_dir.display()
    );
    if let Some(topic) = &args.topic {
        let _ = write!(text, " --topic {topic}");
    }
    if let Some(partition) = args.partition {
        let _ = write!(text, " -p {partition}");
    }
    text.push_str(" --yes");
    text
}

/// A plan and what became of it, in both forms.
struct Shown {
    text: String,
    value: Value,
    next: Option<String>,
}

impl Shown {
    fn of(plan: &Plan, catalog_problem: Option<String>) -> Self {
        let mut text = String::new();
        if let Some(number) = plan.interrupted {
            let _ = writeln!(
                text,
                "repair {number} was interrupted and has to be finished first"
            );
        }
        for partition in &plan.partitions {
            partition_text(partition, &mut text);
        }
        plan.actions
            .iter()
            .for_each(|action| action_text(action, &mut text));
        if let Some(problem) = &catalog_problem {
            let _ = writeln!(
                text,
                "NOT REPAIRED {problem}\n  the broker does not start without its catalog, and nothing else \
                 knows what it held: restore catalog/catalog.log from a backup of this directory"
            );
        }
        for line in findings_text(&plan.left).lines() {
            let _ = writeln!(text, "NOT REPAIRED {line}");
        }
        if plan.is_empty() {
            text.push_str("nothing to repair\n");
        } else if plan.interrupted.is_none() {
            let _ = writeln!(
                text,
                "{}, {} lost; takes {} of {} free",
                counted(plan.partitions.len() as u64, "partition"),
                counted(plan.offsets_lost(), "offset"),
                bytes_text(plan.bytes_needed),
                bytes_text(plan.bytes_free),
            );
        }
        let partitions: Vec<Value> = plan.partitions.iter().map(partition_json).collect();
        let value = json!({
            "path": plan.path,
            "interrupted": plan.interrupted,
            "partitions": partitions,
            "actions": plan.actions.iter().map(action_json).collect::<Vec<_>>(),
            "offsets_lost": plan.offsets_lost(),
            "not_repaired": plan.left.iter().map(finding_json).collect::<Vec<_>>(),
            "catalog_problem": catalog_problem,
            "bytes_needed": plan.bytes_needed,
            "bytes_free": plan.bytes_free,
            "repaired": null,
        });
        let next = None;
        Self { text, value, next }
    }

    /// The plan was carried out; it was said before.
    fn done(&mut self, repaired: Option<&Repaired>) {
        let Some(Repaired {
            copies,
            files_copied,
            bytes_copied,
            files_changed,
        }) = repaired
        else {
            return;
        };
        self.text = format!(
            "repaired: {} changed; {} copied before, {}, to {}\n",
            counted(*files_changed, "file"),
            thousands(*files_copied),
            bytes_text(*bytes_copied),
            copies.display()
        );
        self.value["repaired"] = json!({
            "copies": copies,
            "files_copied": files_copied,
            "bytes_copied": bytes_copied,
            "files_changed": files_changed,
        });
    }

    fn print(&self, form: Form) -> Outcome<()> {
        match form {
            Form::Table | Form::Wide => {
                let next = self
                    .next
                    .as_ref()
                    .map(|command| format!("Nothing was changed. To carry it out: {command}\n"));
                print_text(&format!("{}{}", self.text, next.unwrap_or_default()))
            }
            Form::Name => {
                let names = self.value["partitions"].as_array().into_iter().flatten();
                let name = |one: &Value| {
                    let topic = one["topic"].as_str().unwrap_or_default();
                    format!("{topic}/{}\n", one["partition"])
                };
                print_text(&names.map(name).collect::<String>())
            }
            Form::Json | Form::Jsonl | Form::Yaml => {
                let mut value = self.value.clone();
                value["command"] = json!(self.next);
                print_value(&value, form)
            }
        }
    }
}

fn partition_text(one: &PartitionRepair, text: &mut String) {
    let _ = writeln!(
        text,
        "{}/{}  offsets {} to {} afterwards, {} lost",
        one.topic,
        one.partition,
        one.offsets.start,
        one.offsets.end,
        thousands(one.offsets_lost()),
    );
    for loss in &one.losses {
        loss_text(loss, text);
    }
    for Restored {
        file,
        position,
        offset,
    } in &one.restored
    {
        let _ = writeln!(
            text,
            "  set right  the header of the batch of offset {offset}, {} at byte {position}",
            file.display()
        );
    }
    if one.replayed > 0 {
        let _ = writeln!(
            text,
            "  journal    {} are taken from it",
            counted(one.replayed, "batch")
        );
    }
    for action in &one.actions {
        text.push_str("  ");
        action_text(action, text);
    }
}

fn loss_text(loss: &Loss, text: &mut String) {
    let count = loss.offsets_count();
    let what = match (count, loss.acknowledged) {
        (0, _) => "cut off    what was never published".into(),
        (_, true) => format!(
            "LOST       offsets {} to {} ({}, which were durable)",
            loss.offsets.start,
            loss.offsets.end,
            counted(count, "offset")
        ),
        (_, false) => format!(
            "LOST       offsets {} to {} ({}, perhaps acknowledged, not durable)",
            loss.offsets.start,
            loss.offsets.end,
            counted(count, "offset")
        ),
    };
    let _ = writeln!(
        text,
        "  {what}: {} at byte {}, {}: {}",
        loss.file.display(),
        loss.position,
        counted(loss.bytes, "byte"),
        loss.problem
    );
}

fn action_text(action: &Action, text: &mut String) {
    let Action { file, kind, why } = action;
    let _ = writeln!(text, "{:9}  {}: {why}", kind.as_str(), file.display());
}

fn action_json(action: &Action) -> Value {
    json!({ "file": action.file, "action": action.kind.as_str(), "why": action.why })
}

fn partition_json(one: &PartitionRepair) -> Value {
    json!({
        "topic": one.topic,
        "partition": one.partition.0,
        "folder": one.folder,
        "start_offset": one.offsets.start.0,
        "end_offset": one.offsets.end.0,
        "offsets_lost": one.offsets_lost(),
        "losses": one.losses.iter().map(|loss| json!({
            "file": loss.file,
            "position": loss.position,
            "offsets": { "start": loss.offsets.start.0, "end": loss.offsets.end.0 },
            "bytes": loss.bytes,
            "durable": loss.acknowledged,
            "problem": loss.problem,
        })).collect::<Vec<_>>(),
        "headers_set_right": one.restored.iter().map(|restored| json!({
            "file": restored.file,
            "position": restored.position,
            "offset": restored.offset.0,
        })).collect::<Vec<_>>(),
        "batches_from_journal": one.replayed,
        "actions": one.actions.iter().map(action_json).collect::<Vec<_>>(),
    })
}
