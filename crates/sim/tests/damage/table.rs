//! What came of how many cases.

use std::{collections::BTreeMap, fmt};

use crate::{
    cases::{DAMAGES, Damage},
    outcome::{CLASSES, Class, Verdict, Verified},
    scene::End,
};

/// Counts by file kind, damage and outcome.
#[derive(Debug, Default)]
pub(crate) struct Table {
    counts: BTreeMap<(&'static str, &'static str), [u64; CLASSES.len()]>,
    ends: BTreeMap<&'static str, [u64; CLASSES.len()]>,
    /// What `verify` said, by outcome.
    verified: BTreeMap<(Class, Verified), u64>,
    /// Damage that it reported although nothing was lost, and the other way round, by file kind.
    by_kind: BTreeMap<(&'static str, Class, Verified), u64>,
}

impl Table {
    pub(crate) fn count(
        &mut self,
        end: End,
        kind: &'static str,
        damage: Damage,
        verdict: &Verdict,
    ) {
        let class = CLASSES
            .iter()
            .position(|(class, _)| *class == verdict.class);
        let class = class.unwrap();
        self.counts.entry((kind, damage.name())).or_default()[class] += 1;
        self.ends.entry(end.name()).or_default()[class] += 1;
        let key = (verdict.class, verdict.verified);
        *self.verified.entry(key).or_default() += 1;
        let key = (kind, verdict.class, verdict.verified);
        *self.by_kind.entry(key).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Table) {
        for (key, counts) in other.counts {
            let ours = self.counts.entry(key).or_default();
            ours.iter_mut()
                .zip(counts)
                .for_each(|(ours, more)| *ours += more);
        }
        for (key, counts) in other.ends {
            let ours = self.ends.entry(key).or_default();
            ours.iter_mut()
                .zip(counts)
                .for_each(|(ours, more)| *ours += more);
        }
        for (key, count) in other.verified {
            *self.verified.entry(key).or_default() += count;
        }
        for (key, count) in other.by_kind {
            *self.by_kind.entry(key).or_default() += count;
        }
    }

    fn head(f: &mut fmt::Formatter<'_>, first: &str) -> fmt::Result {
        write!(f, "| {first} | cases |")?;
        for (_, name) in CLASSES {
            write!(f, " {name} |")?;
        }
        writeln!(f)?;
        let columns = first.split('|').count() + 1 + CLASSES.len();
        writeln!(f, "|{}", "---|".repeat(columns))
    }

    fn verify_head(f: &mut fmt::Formatter<'_>, first: &str) -> fmt::Result {
        writeln!(
            f,
            "| {first} | verify: damage | rebuildable | unsettled | nothing |"
        )?;
        writeln!(f, "|---|---|---|---|---|")
    }

    fn verify_row(
        f: &mut fmt::Formatter<'_>,
        first: &str,
        count: impl Fn(Verified) -> u64,
    ) -> fmt::Result {
        use Verified::{Damage, Nothing, Rebuildable, Unsettled};
        let counts = [Damage, Rebuildable, Unsettled, Nothing].map(count);
        let [damage, rebuildable, unsettled, nothing] = counts;
        writeln!(
            f,
            "| {first} | {damage} | {rebuildable} | {unsettled} | {nothing} |"
        )
    }

    fn row(f: &mut fmt::Formatter<'_>, first: &str, counts: &[u64]) -> fmt::Result {
        write!(f, "| {first} | {} |", counts.iter().sum::<u64>())?;
        for count in counts {
            match count {
                0 => write!(f, " |")?,
                count => write!(f, " {count} |")?,
            }
        }
        writeln!(f)
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::head(f, "file | damage")?;
        let mut kinds: Vec<&str> = self.counts.keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        for kind in kinds {
            for damage in DAMAGES {
                if let Some(counts) = self.counts.get(&(kind, damage)) {
                    Self::row(f, &format!("{kind} | {damage}"), counts)?;
                }
            }
        }
        writeln!(f)?;
        Self::head(f, "after")?;
        let mut all = [0; CLASSES.len()];
        for end in End::ALL {
            let counts = self.ends.get(end.name()).copied().unwrap_or_default();
            Self::row(f, end.name(), &counts)?;
            all.iter_mut()
                .zip(counts)
                .for_each(|(all, more)| *all += more);
        }
        Self::row(f, "all", &all)?;
        writeln!(f)?;
        Self::verify_head(f, "outcome")?;
        for (class, name) in CLASSES {
            let count = |verified| self.verified.get(&(class, verified)).copied().unwrap_or(0);
            Self::verify_row(f, name, count)?;
        }
        writeln!(f)?;
        Self::verify_head(f, "served whole: file")?;
        let mut kinds: Vec<&str> = self.by_kind.keys().map(|(kind, ..)| *kind).collect();
        kinds.dedup();
        for kind in kinds {
            let count = |verified| {
                let key = (kind, Class::Whole, verified);
                self.by_kind.get(&key).copied().unwrap_or(0)
            };
            Self::verify_row(f, kind, count)?;
        }
        Ok(())
    }
}
