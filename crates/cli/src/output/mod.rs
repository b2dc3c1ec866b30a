//! How results are shown: tables for people, JSON and YAML for programs, names for shells.

pub(crate) mod record;
pub(crate) mod template;

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::error::{Outcome, stdout_failed};

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// One JSON value, indented.
    Json,
    /// One JSON value a line.
    Jsonl,
    /// YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

impl Form {
    /// Whether a program reads it; errors are then JSON too.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// Which way a column leans, and in which tables it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text, always shown.
    Text(&'static str),
    /// Numbers, always shown, right-aligned.
    Number(&'static str),
    /// Text, only with `-o wide`.
    WideText(&'static str),
    /// Numbers, only with `-o wide`.
    WideNumber(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title)
            | Self::Number(title)
            | Self::WideText(title)
            | Self::WideNumber(title) => title,
        }
    }

    fn is_wide(self) -> bool {
        matches!(self, Self::WideText(_) | Self::WideNumber(_))
    }

    fn alignment(self) -> CellAlignment {
        match self {
            Self::Text(_) | Self::WideText(_) => CellAlignment::Left,
            Self::Number(_) | Self::WideNumber(_) => CellAlignment::Right,
        }
    }
}

/// A list of like things in every form that it can be asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    columns: &'static [Column],
    rows: Vec<Row>,
}

/// One thing of a [`Listing`].
#[derive(Debug)]
pub(crate) struct Row {
    /// What `-o name` prints.
    pub(crate) name: String,
    /// One for each column.
    pub(crate) cells: Vec<String>,
    /// What `-o json` prints.
    pub(crate) value: Value,
}

impl Listing {
    /// An empty list with these columns.
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When the row has another number of cells than the list has columns.
    pub(crate) fn push(&mut self, row: Row) {
        assert_eq!(
            row.cells.len(),
            self.columns.len(),
            "a cell for each column"
        );
        self.rows.push(row);
    }

    /// Prints the list on standard output; JSON and YAML as one array.
    ///
    /// # Errors
    /// Those of standard output.
    pub(crate) fn print(self, form: Form) -> Outcome<()> {
        match form {
            Form::Table => print_text(&self.table(false)),
            Form::Wide => print_text(&self.table(true)),
            Form::Name => print_text(
                &self
                    .rows
                    .iter()
                    .map(|row| format!("{}\n", row.name))
                    .collect::<String>(),
            ),
            Form::Jsonl => print_text(
                &self
                    .rows
                    .iter()
                    .map(|row| format!("{}\n", row.value))
                    .collect::<String>(),
            ),
            Form::Json | Form::Yaml => {
                print_value(&self.rows.into_iter().map(|row| row.value).collect(), form)
            }
        }
    }

    /// The table without borders, a newline after each row. Empty lists have no header either.
    pub(crate) fn table(&self, wide: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|at| wide || !self.columns[*at].is_wide())
            .collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(shown.iter().map(|at| self.columns[*at].title()));
        for row in &self.rows {
            table.add_row(shown.iter().map(|at| row.cells[*at].as_str()));
        }
        for (place, at) in shown.iter().enumerate() {
            if let Some(column) = table.column_mut(place) {
                column.set_padding((0, 2));
                column.set_cell_alignment(self.columns[*at].alignment());
            }
        }
        table
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

/// Prints one value as JSON or YAML.
///
/// # Errors
/// Those of standard output.
pub(crate) fn print_value(value: &Value, form: Form) -> Outcome<()> {
    match form {
        Form::Yaml => print_text(&to_yaml(value)),
        Form::Jsonl => print_text(&format!("{value}\n")),
        _ => print_text(&format!("{value:#}\n")),
    }
}

/// YAML of a JSON value, a newline at its end.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut text = serde_saphyr::to_string(value)
        .expect("a JSON value has only what YAML can say, and a string takes any length");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes text (its terminal styles only where they are wanted) to standard output and flushes it.
///
/// # Errors
/// Those of standard output; a closed pipe is [`crate::error::Stop::PipeClosed`].
pub(crate) fn print_text(text: &str) -> Outcome<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| stdout_failed(&error))
}

/// Writes a line to standard error; that it cannot be written is nobody's business.
pub(crate) fn note(text: &str) {
    let mut err = anstream::stderr();
    let _: io::Result<()> = writeln!(err, "{text}").and_then(|()| err.flush());
}

/// A number with a comma between thousands: `48,210`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 batch`, `12 partitions`, `3,000 records`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let ending = match thing {
        _ if number == 1 => "",
        _ if thing.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {thing}{ending}", thousands(number))
}

/// A number of bytes with a binary unit: `1.5 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::Text("NAME"),
        Column::Number("SIZE"),
        Column::WideText("ID"),
    ];

    fn listing() -> Listing {
        let mut listing = Listing::new(COLUMNS);
        for (name, size) in [("a", "10"), ("longer", "5")] {
            listing.push(Row {
                name: name.into(),
                cells: vec![name.into(), size.into(), "x".into()],
                value: json!({ "name": name }),
            });
        }
        listing
    }

    #[test]
    fn tables_have_no_borders_and_wide_ones_more_columns() {
        assert_eq!(
            listing().table(false),
            "NAME    SIZE\na         10\nlonger     5\n"
        );
        assert_eq!(
            listing().table(true),
            "NAME    SIZE  ID\na         10  x\nlonger     5  x\n"
        );
        assert_eq!(Listing::new(COLUMNS).table(true), "");
    }

    #[test]
    fn yaml_keeps_texts_that_look_like_other_things_texts() {
        let value = json!({"a": "true", "b": "1", "c": null, "d": ["x: y", ""], "e": "l\nm"});
        let yaml = to_yaml(&value);
        assert!(
            yaml.contains("a: \"true\"") || yaml.contains("a: 'true'"),
            "{yaml}"
        );
        assert!(yaml.contains("c: null") || yaml.contains("c: ~"), "{yaml}");
    }

    #[test]
    fn numbers_and_bytes_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(48_210), "48,210");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "batch"), "1 batch");
        assert_eq!(counted(0, "batch"), "0 batches");
        assert_eq!(counted(3_000, "record"), "3,000 records");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes_text(u64::MAX), "16.0 EiB");
    }
}
