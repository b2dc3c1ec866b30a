//! `sapwood group watch`: how far a group is behind, again and again.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    time::Duration,
};

use sapwood_client::{Client, GroupDescription, TopicPartition};
use sapwood_model::{Code, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    show::missing,
    text::{self, Summary},
};
use crate::{
    args::group::WatchArgs,
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Form, print_text, print_value, thousands},
    position::show_timestamp,
    session::{self, Interrupt},
};

/// Moves to the top left of a terminal and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows a group until it is enough. A broker that does not answer for a while does not end it; a group
/// that is gone does.
pub(super) async fn run(client: Client, args: WatchArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let admin = client.admin();
    let mut interrupt = Interrupt::listen();
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let on_screen = io::stdout().is_terminal() && matches!(form, Form::Table | Form::Wide);
    let mut before: Option<Look> = None;
    let mut looks = 0;
    while args.count.is_none_or(|count| looks < count) {
        let answer = tokio::select! {
            () = interrupt.wait() => return Ok(Exit::Ok),
            answer = async {
                ticks.tick().await;
                admin.describe_group(&args.group).await
            } => answer,
        };
        looks += 1;
        let group = match answer {
            Ok(group) => group,
            Err(error) if error.code() == Code::UnknownGroup => {
                return Err(missing(&args.group).into());
            }
            Err(error) if before.is_none() => return Err(error.into()),
            Err(error) => {
                console.say(&Failure::from(&error).to_text());
                continue;
            }
        };
        let look = Look::new(group);
        let rates = before.as_ref().and_then(|before| look.since(before));
        show(&look, rates, form, on_screen)?;
        before = Some(look);
    }
    Ok(Exit::Ok)
}

fn show(look: &Look, rates: Option<Rates>, form: Form, on_screen: bool) -> Outcome<()> {
    match form {
        Form::Table | Form::Wide if on_screen => {
            let description = text::describe(&look.group, form == Form::Wide);
            let rates = rates.map_or_else(String::new, |rates| rates.text(look.lag()));
            print_text(&format!(
                "{CLEAR}{}  {rates}\n{description}",
                show_timestamp(look.at)
            ))
        }
        Form::Table | Form::Wide => print_text(&format!("{}\n", look.line(rates))),
        Form::Name => print_text(&format!("{}\n", look.group.group.name)),
        // One value a look: a line each, so that whoever reads them can go by lines.
        Form::Json | Form::Jsonl => print_value(&look.to_json(rates), Form::Jsonl),
        Form::Yaml => {
            print_text("---\n")?;
            print_value(&look.to_json(rates), form)
        }
    }
}

/// A group as it was at one moment.
struct Look {
    at: Timestamp,
    seen: Instant,
    group: GroupDescription,
}

/// Records a second between two looks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rates {
    /// Read by the group, as it commits them. Below 0 when it was sent back.
    read: f64,
    /// Written to what it reads.
    written: f64,
}

impl Look {
    fn new(group: GroupDescription) -> Self {
        Self {
            at: session::now(),
            seen: Instant::now(),
            group,
        }
    }

    fn lag(&self) -> Option<u64> {
        Summary::of(&self.group).lag
    }

    /// What happened since another look, in the partitions that are in both.
    fn since(&self, before: &Self) -> Option<Rates> {
        let seconds = self
            .seen
            .saturating_duration_since(before.seen)
            .as_secs_f64();
        let earlier: HashMap<_, _> = ends(&before.group).collect();
        let (mut read, mut written) = (0_i128, 0_i128);
        for (partition, (committed, end)) in ends(&self.group) {
            if let Some((committed_before, end_before)) = earlier.get(partition) {
                read += i128::from(committed) - i128::from(*committed_before);
                written += i128::from(end) - i128::from(*end_before);
            }
        }
        (seconds > 0.0).then_some(Rates {
            read: read as f64 / seconds,
            written: written as f64 / seconds,
        })
    }

    /// One line.
    fn line(&self, rates: Option<Rates>) -> String {
        let summary = Summary::of(&self.group);
        let group = &self.group.group;
        let rates = rates.map_or_else(String::new, |rates| {
            format!("  {}", rates.text(summary.lag))
        });
        format!(
            "{}  {}  {}  MEMBERS {}  {}{rates}",
            show_timestamp(self.at),
            group.name,
            text::state(group.state),
            group.members,
            summary.text()
        )
    }

    fn to_json(&self, rates: Option<Rates>) -> Value {
        let mut value = json!({
            "at_ms": self.at.0,
            "read_per_second": rates.map(|rates| rates.read),
            "written_per_second": rates.map(|rates| rates.written),
        });
        if let (Value::Object(look), Value::Object(group)) =
            (&mut value, text::to_json(&self.group))
        {
            look.extend(group);
        }
        value
    }
}

/// Where the group stands and where each partition ends.
fn ends(group: &GroupDescription) -> impl Iterator<Item = (&TopicPartition, (u64, u64))> {
    group.partitions.iter().filter_map(|row| {
        let committed = row.committed.as_ref()?.offset.0;
        Some((&row.partition, (committed, row.bounds?.high_watermark.0)))
    })
}

impl Rates {
    /// `READ 1,200/s  WRITTEN 900/s  CATCHES UP IN 2m40s`.
    fn text(self, lag: Option<u64>) -> String {
        let rate = |rate: f64| {
            let sign = if rate <= -0.5 { "-" } else { "" };
            // Rounded, and never near 2^64.
            format!("{sign}{}/s", thousands(rate.abs().round() as u64))
        };
        let mut text = format!("READ {}  WRITTEN {}", rate(self.read), rate(self.written));
        if let Some(left) = self.catches_up(lag) {
            text += &format!("  CATCHES UP IN {}", text::age(left));
        }
        text
    }

    /// How long it takes at this rate until nothing is unread; none if it does not get nearer to that,
    /// or is there.
    fn catches_up(self, lag: Option<u64>) -> Option<Duration> {
        let lag = lag.filter(|lag| *lag > 0)?;
        let nearer = self.read - self.written;
        Duration::try_from_secs_f64(lag as f64 / nearer)
            .ok()
            .filter(|_| nearer >= 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_say_when_the_group_catches_up() {
        let rates = |read, written| Rates { read, written };
        assert_eq!(
            rates(1_200.4, 200.0).text(Some(160_000)),
            "READ 1,200/s  WRITTEN 200/s  CATCHES UP IN 2m39s"
        );
        assert_eq!(rates(10.0, 20.0).text(Some(5)), "READ 10/s  WRITTEN 20/s");
        assert_eq!(rates(10.0, 0.0).text(Some(0)), "READ 10/s  WRITTEN 0/s");
        assert_eq!(rates(0.0, 0.0).text(Some(7)), "READ 0/s  WRITTEN 0/s");
        assert_eq!(rates(-500.0, 0.0).text(None), "READ -500/s  WRITTEN 0/s");
    }
}
