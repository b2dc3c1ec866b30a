//! `sapwood group`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};

use super::parse_position;
use crate::{duration, position::Position};

const DESCRIBE_EXAMPLES: &str = "Examples:
  sapwood group describe billing
  sapwood group describe billing -o json | jq .lag
  sapwood group describe billing --export > positions.csv";

const SEEK_EXAMPLES: &str = "Positions: start, end, 42, -10 (the last ten of each partition), \
    @-1h, @2026-11-22T10:00Z. An offset that is not in the log is refused; all else ends at its ends.

Examples:
  sapwood group seek billing --to @2026-11-22T10:00Z --dry-run
  sapwood group seek billing --back 1h --yes
  sapwood group seek billing --topic orders/2 --to 912004
  sapwood group seek billing --topic orders --by -100
  sapwood group seek billing --from-file positions.csv";

const DELETE_EXAMPLES: &str = "Examples:
  sapwood group delete billing
  sapwood group delete billing --topic orders    (the group stays, its offsets of orders go)";

const WATCH_EXAMPLES: &str = "Examples:
  sapwood group watch billing
  sapwood group watch billing --interval 10s -n 6 -o jsonl";

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups, with how far they are behind
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show who is in a group and how far it has read, in records and in time
    #[command(visible_alias = "info", after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),
    /// Send a group to another place in its topics
    #[command(after_help = SEEK_EXAMPLES)]
    Seek(SeekArgs),
    /// Forget groups, or their offsets of some topics
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
    /// Show how far a group is behind, again and again
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
}

/// `group list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only groups whose name begins with this
    pub(crate) prefix: Option<String>,
}

/// `group describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The groups' names
    #[arg(required = true, value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Print the committed offsets as lines of topic,partition,offset, for `seek --from-file`
    #[arg(long)]
    pub(crate) export: bool,
}

/// `group seek`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("place").required(true).args(["to", "by", "back", "from_file"]))]
pub(crate) struct SeekArgs {
    /// The group's name; it need not exist if topics are named
    pub(crate) group: String,
    /// Only this topic, or this partition of it; may be repeated. Without it, every partition that the
    /// group has committed an offset for
    #[arg(
        long = "topic",
        value_name = "TOPIC[/PARTITION]",
        conflicts_with = "from_file"
    )]
    pub(crate) topics: Vec<Place>,
    /// To this position
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_position)]
    pub(crate) to: Option<Position>,
    /// So many records on, or back: 100, -100
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) by: Option<i64>,
    /// Back to the first record of the last so much time: 90s, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) back: Option<Duration>,
    /// To the positions in this file: lines of topic,partition,position; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
    /// Print the plan; move nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `group delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The groups' names
    #[arg(required = true, value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Keep the groups, and forget what they have committed for this topic, or this partition of it;
    /// may be repeated
    #[arg(long = "topic", value_name = "TOPIC[/PARTITION]")]
    pub(crate) topics: Vec<Place>,
    /// Do not complain about groups that are not there
    #[arg(long)]
    pub(crate) if_exists: bool,
    /// Print the plan; delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `group watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The group's name
    pub(crate) group: String,
    /// How often to look
    #[arg(short, long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
    pub(crate) interval: Duration,
    /// Stop after so many looks
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// A topic, or one partition of it: `orders`, `orders/2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The topic's name.
    pub(crate) topic: String,
    /// Its partition; none means all of them.
    pub(crate) partition: Option<u32>,
}

impl FromStr for Place {
    type Err = String;

    /// A topic's name never has a slash.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not TOPIC or TOPIC/PARTITION, such as orders or orders/2");
        let (topic, partition) = match text.split_once('/') {
            None => (text, None),
            Some((topic, number)) => (topic, Some(parse_partition(number).ok_or_else(wrong)?)),
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            topic: topic.to_owned(),
            partition,
        })
    }
}

/// Reads a partition's number: digits only.
pub(crate) fn parse_partition(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Reads how often to look: at least every 100 ms, so that a slip does not flood a broker.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    if interval < Duration::from_millis(100) {
        return Err(format!("{text:?} is too short; at least 100ms"));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_topics_or_partitions() {
        let place = |topic: &str, partition| {
            let topic = topic.to_owned();
            Ok(Place { topic, partition })
        };
        assert_eq!("orders".parse(), place("orders", None));
        assert_eq!("orders/2".parse(), place("orders", Some(2)));
        for wrong in [
            "",
            "/",
            "/2",
            "orders/",
            "orders/x",
            "orders/-1",
            "orders/+1",
            "a/1/2",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
        assert!("orders/4294967296".parse::<Place>().is_err());
    }
}
