//! Medians, and the table that is printed.

use std::fmt;

/// The middle of some numbers; of an even count the higher one of the two.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a figure is held against.
pub(crate) enum Target {
    /// At least this.
    Min(f64),
    /// At most this.
    Max(f64),
    /// It is there for comparison.
    None,
}

struct Row {
    what: String,
    measured: f64,
    unit: &'static str,
    target: Target,
}

/// Figures in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        unit: &'static str,
        target: Target,
    ) {
        let row = Row {
            what: what.into(),
            measured,
            unit,
            target,
        };
        eprintln!("{row}");
        self.0.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            measured,
            unit,
            target,
        } = self;
        let (target, met) = match target {
            Target::Min(min) => (format!(">= {min}"), Some(measured >= min)),
            Target::Max(max) => (format!("<= {max}"), Some(measured <= max)),
            Target::None => (String::new(), None),
        };
        let met = met.map_or("", |met| if met { "met" } else { "MISSED" });
        let digits = if *measured >= 100.0 { 0 } else { 2 };
        write!(
            f,
            "{what:<60} {measured:>10.digits$} {unit:<6} {target:>10} {met}"
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
