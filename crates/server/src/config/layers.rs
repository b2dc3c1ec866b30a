//! The layers above the defaults, each as a list of what it sets and where.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Flags, Origin, Problem};

/// One key that a layer sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The dotted key as it was written.
    pub(super) key: String,
    /// The value as text.
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What the TOML document `text` sets, in the order of its lines.
pub(super) fn from_file(path: &Path, text: &str) -> (Vec<Given>, Vec<Problem>) {
    match DeTable::parse(text) {
        Ok(document) => {
            let mut file = FileLayer {
                path,
                text,
                given: Vec::new(),
                problems: Vec::new(),
            };
            file.table("", document.get_ref());
            file.given.sort_by_key(|given| line_of(&given.origin));
            (file.given, file.problems)
        }
        Err(error) => {
            let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            let problem = Problem::Syntax {
                path: path.to_owned(),
                line,
                column,
                message,
            };
            (Vec::new(), vec![problem])
        }
    }
}

struct FileLayer<'a> {
    path: &'a Path,
    text: &'a str,
    given: Vec<Given>,
    problems: Vec<Problem>,
}

impl FileLayer<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let (line, _) = line_and_column(self.text, name.span().start);
            let origin = Origin::File {
                path: self.path.to_owned(),
                line,
            };
            let text = match value.get_ref() {
                DeValue::Table(inner) => {
                    self.table(&key, inner);
                    continue;
                }
                DeValue::String(text) => text.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                other => {
                    self.problems.push(Problem::InvalidValue {
                        key,
                        value: self.text[value.span()].to_owned(),
                        origin,
                        reason: format!("a {} is not taken here", other.type_str()),
                    });
                    continue;
                }
            };
            self.given.push(Given { key, text, origin });
        }
    }
}

fn line_of(origin: &Origin) -> usize {
    match origin {
        Origin::File { line, .. } => *line,
        _ => 0,
    }
}

/// The line and the character in it, both counted from 1, of a byte of `text`.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |rest| rest.chars().count())
        + 1;
    (line, column)
}

/// What the environment sets: `SAPWOOD_LIMITS__REQUEST_BYTES` is `limits.request_bytes`. Variables
/// without a double underscore belong to others (`SAPWOOD_BROKERS` is the command line's).
pub(super) fn from_environment(variables: &[(String, String)]) -> Vec<Given> {
    let mut given: Vec<Given> = variables
        .iter()
        .filter_map(|(variable, value)| {
            let name = variable.strip_prefix("SAPWOOD_")?;
            if !name.contains("__") {
                return None;
            }
            let key = name
                .split("__")
                .collect::<Vec<_>>()
                .join(".")
                .to_ascii_lowercase();
            let origin = Origin::Environment(variable.clone());
            Some(Given {
                key,
                text: value.clone(),
                origin,
            })
        })
        .collect();
    // The order of the environment means nothing: sort, so that problems come out the same each time.
    given.sort_by(|a, b| a.key.cmp(&b.key));
    given
}

/// What the flags set. `only_listener` is the name of the listener that `--listen` means, or `None`
/// when the other layers define several.
pub(super) fn from_flags(flags: &Flags, only_listener: Option<&str>) -> (Vec<Given>, Vec<Problem>) {
    let mut given = Vec::new();
    let mut problems = Vec::new();
    let mut shorthand = |flag: &str, key: String, text: &Option<String>| {
        if let Some(text) = text {
            let origin = Origin::Flag(flag.to_owned());
            given.push(Given {
                key,
                text: text.clone(),
                origin,
            });
        }
    };
    shorthand("--data-dir", "storage.data_dir".to_owned(), &flags.data_dir);
    shorthand(
        "--http-listen",
        "http.address".to_owned(),
        &flags.http_listen,
    );
    let insecure = flags.insecure.then(|| "true".to_owned());
    shorthand("--insecure", "security.insecure".to_owned(), &insecure);
    for (flag, part, text) in [
        ("--listen", "address", &flags.listen),
        ("--advertised", "advertised", &flags.advertised),
    ] {
        match only_listener {
            Some(name) => shorthand(flag, format!("listeners.{name}.{part}"), text),
            None if text.is_some() => problems.push(Problem::InvalidFlag {
                flag: flag.to_owned(),
                reason: format!(
                    "several listeners are configured; use --set listeners.NAME.{part}=HOST:PORT"
                ),
            }),
            None => {}
        }
    }
    for set in &flags.set {
        match set.split_once('=') {
            Some((key, text)) if !key.trim().is_empty() => given.push(Given {
                key: key.trim().to_owned(),
                text: text.trim().to_owned(),
                origin: Origin::Flag("--set".to_owned()),
            }),
            _ => problems.push(Problem::InvalidFlag {
                flag: format!("--set {set}"),
                reason: "it must be section.key=value".to_owned(),
            }),
        }
    }
    (given, problems)
}
