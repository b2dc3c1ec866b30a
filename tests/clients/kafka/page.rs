//! docs/compatibility.md, which the clients' runs write.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{Mutex, PoisonError},
};

use super::program::Report;
use crate::harness::root;

const PATH: &str = "docs/compatibility.md";

/// The clients in their order on the page, by the first word of what they call themselves.
const CLIENTS: [&str; 8] = [
    "kcat",
    "confluent-kafka",
    "kafka-python",
    "aiokafka",
    "kafkajs",
    "rdkafka",
    "kafka-clients",
    "franz-go",
];

/// The checks in their order, each with what it says about a client that passes it.
const CHECKS: [(&str, &str); 39] = [
    (
        "describe-cluster",
        "describes the cluster, at the address that was connected to",
    ),
    (
        "create-topic",
        "creates a topic, and is told when it exists",
    ),
    (
        "round-trip-none",
        "10,000 keyed records with headers, uncompressed, idempotent: read back equal",
    ),
    ("round-trip-gzip", "the same with gzip"),
    ("round-trip-snappy", "the same with snappy"),
    ("round-trip-lz4", "the same with lz4"),
    ("round-trip-zstd", "the same with zstd"),
    (
        "idempotence",
        "three idempotent producers one after the other: nothing twice",
    ),
    ("acks", "acks=0 and acks=1"),
    (
        "null-and-empty",
        "null and empty keys, values and headers, and bytes that are no text",
    ),
    (
        "own-partitions",
        "its consumer reads partitions that it names, without a group",
    ),
    (
        "seek-by-timestamp",
        "finds offsets by time, and reads there",
    ),
    (
        "seek-by-offset",
        "reads at any offset, and is told when it is out of range",
    ),
    ("watermarks", "asks for the first offset and the end"),
    (
        "read-configs",
        "reads a topic's configuration with Kafka's defaults",
    ),
    (
        "alter-configs",
        "sets and resets keys, and is told what is not valid",
    ),
    (
        "add-partitions",
        "adds partitions, writes to and reads from a new one",
    ),
    (
        "delete-records",
        "deletes records, and sees the log start there",
    ),
    (
        "recreate-topic",
        "deletes a topic, creates it anew, and finds it empty",
    ),
    ("auto-creation", "writes to a topic that nobody created"),
    (
        "record-too-large",
        "is told that a record is too large, and goes on",
    ),
    (
        "unknown-topic",
        "is told that a topic is unknown, and does not create it",
    ),
    ("invalid-topic", "is told that a topic's name is not valid"),
    (
        "transactions-refused",
        "is told at once that there are no transactions",
    ),
    (
        "group-share-eager",
        "two members of a group share six partitions evenly, by the range assignor",
    ),
    ("group-share-cooperative", "the same, cooperative-sticky"),
    (
        "group-share-kip848",
        "the same in the newer kind of group (KIP-848), where the broker assigns",
    ),
    (
        "group-takeover-eager",
        "one of two members is killed (kill -9); the other goes on where it had committed",
    ),
    ("group-takeover-cooperative", "the same, cooperative-sticky"),
    ("group-takeover-kip848", "the same, KIP-848"),
    (
        "group-offsets-eager",
        "through all that nothing is lost, and what is committed ends at the end",
    ),
    ("group-offsets-cooperative", "the same, cooperative-sticky"),
    ("group-offsets-kip848", "the same, KIP-848"),
    (
        "group-static-eager",
        "a static member restarts: it gets its partitions back, and the other is not disturbed",
    ),
    ("group-static-cooperative", "the same, cooperative-sticky"),
    ("group-static-kip848", "the same, KIP-848"),
    (
        "group-regex-eager",
        "a pattern finds a topic that is made later",
    ),
    ("group-regex-cooperative", "the same, cooperative-sticky"),
    ("group-regex-kip848", "the same, KIP-848"),
];

/// One client's column.
#[derive(Debug, PartialEq, Eq)]
struct Column {
    /// The client's name and version.
    heading: String,
    /// Whether it can do each of [`CHECKS`].
    cells: Vec<bool>,
    /// What it cannot do, and why.
    gaps: Vec<String>,
}

/// The columns that are there, by their place in [`CLIENTS`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    columns: BTreeMap<usize, Column>,
}

impl Page {
    /// Fails unless the page says of a client what its run has shown. With `SAPWOOD_BLESS` the page
    /// is made to say so.
    pub(super) fn hold(report: &Report) {
        // Clients run side by side, and each writes only its own column.
        static PAGE: Mutex<()> = Mutex::new(());
        let _guard = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
        let path = root().join(PATH);
        let current = fs::read_to_string(&path).unwrap_or_default();
        let mut page = Self::parse(&current);
        page.set(report);
        let expected = page.render();
        if std::env::var_os("SAPWOOD_BLESS").is_some() {
            fs::write(&path, &expected).expect("docs can be written");
        } else {
            assert!(
                current == expected,
                "{PATH} does not say what {} has shown: SAPWOOD_BLESS=1 cargo test -p sapwood-tests unmodified",
                report.client
            );
        }
    }

    fn set(&mut self, report: &Report) {
        let name = report.client.split(' ').next().unwrap_or_default();
        let place = CLIENTS.iter().position(|known| *known == name);
        let place = place.unwrap_or_else(|| panic!("{name} is not among {CLIENTS:?}"));
        let outcomes = report.outcomes.iter().zip(CHECKS);
        for (outcome, (check, _)) in outcomes {
            assert_eq!(outcome.check, check, "the order of the checks of {name}");
        }
        assert_eq!(report.outcomes.len(), CHECKS.len(), "the checks of {name}");
        let mut gaps = BTreeMap::<&str, Vec<String>>::new();
        for outcome in report.outcomes.iter().filter(|o| !o.is_possible()) {
            let check = format!("`{}`", outcome.check);
            gaps.entry(&outcome.detail).or_default().push(check);
        }
        let gap =
            |(reason, checks): (&str, Vec<String>)| format!("{reason} ({})", checks.join(", "));
        let column = Column {
            heading: report.client.clone(),
            cells: report.outcomes.iter().map(|o| o.is_possible()).collect(),
            gaps: gaps.into_iter().map(gap).collect(),
        };
        self.columns.insert(place, column);
    }

    /// Reads what [`Page::render`] wrote; anything else counts as not said.
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let Some((headings, rows)) = rows.split_first() else {
            return page;
        };
        for (number, heading) in headings.iter().enumerate().skip(2) {
            let name = heading.split(' ').next().unwrap_or_default();
            let Some(place) = CLIENTS.iter().position(|known| *known == name) else {
                continue;
            };
            // The first row is the line under the headings.
            let cell = |row: &Vec<&str>| row.get(number) == Some(&"yes");
            let own = format!("- {name}: ");
            let gaps = text.lines().find_map(|line| line.strip_prefix(&own));
            let column = Column {
                heading: (*heading).to_owned(),
                cells: rows.iter().skip(1).map(cell).collect(),
                gaps: gaps
                    .into_iter()
                    .flat_map(|gaps| gaps.split("; "))
                    .map(str::to_owned)
                    .collect(),
            };
            page.columns.insert(place, column);
        }
        page
    }

    fn render(&self) -> String {
        let mut text = String::from(
            "# Compatibility\n\n\
             Clients of Kafka work with Sapwood as they are: name its address as the bootstrap server. \
             Each column is a\nrun of that client against the built binary, the same checks for all; \
             a \"no\" is what the client cannot do\nwith any broker, not what failed. This page is \
             written by `tests/clients/kafka/`.\n\n\
             Groups are of both kinds: the classic one, whose members assign, and the newer one \
             (KIP-848). There are no\ntransactions: a client that asks for one is told so at once.\n\n",
        );
        text.push_str("| Check | The client |");
        for column in self.columns.values() {
            let _ = write!(text, " {} |", column.heading);
        }
        text.push_str("\n|---|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        for (number, (check, says)) in CHECKS.iter().enumerate() {
            let _ = write!(text, "\n| `{check}` | {says} |");
            for column in self.columns.values() {
                let can = column.cells.get(number) == Some(&true);
                text.push_str(if can { " yes |" } else { " no |" });
            }
        }
        text.push_str("\n\nWhat clients cannot do:\n\n");
        for (place, column) in &self.columns {
            if !column.gaps.is_empty() {
                let _ = writeln!(text, "- {}: {}", CLIENTS[*place], column.gaps.join("; "));
            }
        }
        text
    }
}

#[test]
fn a_page_that_was_written_is_read_as_it_was() {
    let mut page = Page::default();
    let column = |heading: &str, gaps: &[&str]| Column {
        heading: heading.to_owned(),
        cells: (0..CHECKS.len()).map(|n| !n.is_multiple_of(3)).collect(),
        gaps: gaps.iter().map(|gap| (*gap).to_owned()).collect(),
    };
    page.columns.insert(
        0,
        column("kcat 1.7.1", &["it is small (`a`, `b`)", "it is old (`c`)"]),
    );
    page.columns
        .insert(5, column("rdkafka (librdkafka 2)", &[]));
    let text = page.render();
    assert_eq!(Page::parse(&text), page);
    let changed = text.replacen(" yes |", " no |", 1);
    assert_ne!(Page::parse(&changed), page);
}
