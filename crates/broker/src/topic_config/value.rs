//! What a configuration value may be.

use std::fmt;

use super::keys::ValueKind;

/// The longest value of any key, in bytes.
const VALUE_BYTES_MAX: usize = 32 * 1024;

/// The rule that a key's values follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `true` or `false`.
    Boolean,
    /// A boolean that can only be `false`.
    Off,
    /// A whole number within bounds, both inclusive.
    Whole { kind: ValueKind, min: i64, max: i64 },
    /// A 32-bit number within bounds, both inclusive, or one other.
    WholeOr { other: i64, min: i64, max: i64 },
    /// A number from 0 to 1.
    Fraction,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, with commas.
    ListOf(&'static [&'static str]),
    /// `partition:broker` pairs, or `*`.
    Throttled,
    /// A number of replicas, at least 1. Whether more than 1 is accepted is the broker's policy.
    Replicas,
}

impl Rule {
    /// The kind of value, as clients see it.
    pub(crate) fn kind(self) -> ValueKind {
        match self {
            Self::Boolean | Self::Off => ValueKind::Boolean,
            Self::Whole { kind, .. } => kind,
            Self::WholeOr { .. } | Self::Replicas => ValueKind::Int,
            Self::Fraction => ValueKind::Double,
            Self::OneOf(_) => ValueKind::Text,
            Self::ListOf(_) | Self::Throttled => ValueKind::List,
        }
    }

    /// Whether a value follows the rule; the error says what would.
    pub(crate) fn check(self, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("text of at most {VALUE_BYTES_MAX} bytes"));
        }
        let good = match self {
            Self::Boolean => ["true", "false"].contains(&&*self.normal(value)),
            Self::Off => self.normal(value) == "false",
            Self::Whole { min, max, .. } => whole(value).is_some_and(|n| (min..=max).contains(&n)),
            Self::WholeOr { other, min, max } => {
                whole(value).is_some_and(|n| n == other || (min..=max).contains(&n))
            }
            Self::Fraction => value
                .trim()
                .parse::<f64>()
                .is_ok_and(|fraction| (0.0..=1.0).contains(&fraction)),
            Self::OneOf(words) => words.contains(&value),
            Self::ListOf(words) => {
                !value.is_empty() && list(value).all(|word| words.contains(&word))
            }
            Self::Throttled => {
                value.is_empty() || value == "*" || list(value).all(is_throttled_replica)
            }
            Self::Replicas => whole(value).is_some_and(|n| (1..=i64::from(i32::MAX)).contains(&n)),
        };
        if good { Ok(()) } else { Err(self.to_string()) }
    }
}

impl Rule {
    /// The form in which a value that passes [`Rule::check`] is kept: spaces around numbers and items
    /// gone, booleans in lower case, no item of a list twice.
    pub(crate) fn normal(self, value: &str) -> String {
        match self {
            Self::OneOf(_) => value.to_owned(),
            Self::Boolean | Self::Off => value.trim().to_ascii_lowercase(),
            Self::Whole { .. } | Self::WholeOr { .. } | Self::Replicas | Self::Fraction => {
                value.trim().to_owned()
            }
            Self::ListOf(_) | Self::Throttled => {
                let mut items: Vec<&str> = Vec::new();
                for item in list(value) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
                items.join(",")
            }
        }
    }
}

/// Says what values are allowed.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("true or false"),
            Self::Off => f.write_str("false"),
            Self::Whole { min, max, .. } => write!(f, "a whole number from {min} to {max}"),
            Self::WholeOr { other, min, max } => {
                write!(f, "{other} or a whole number from {min} to {max}")
            }
            Self::Fraction => f.write_str("a number from 0 to 1"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::ListOf(words) => write!(f, "a list of {}", words.join(", ")),
            Self::Throttled => f.write_str("a list of partition:broker, or *"),
            Self::Replicas => write!(f, "a whole number from 1 to {}", i32::MAX),
        }
    }
}

/// The items of a list value.
pub(crate) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// A number as Kafka reads it: decimal digits, perhaps with a sign, spaces around it ignored.
pub(crate) fn whole(value: &str) -> Option<i64> {
    value.trim().parse().ok()
}

fn is_throttled_replica(item: &str) -> bool {
    item.split_once(':').is_some_and(|(partition, broker)| {
        partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_their_bounds_pass_and_beyond_do_not() {
        let rule = Rule::Whole {
            kind: ValueKind::Long,
            min: -1,
            max: 10,
        };
        for good in ["-1", "0", "10", " 10 "] {
            assert_eq!(rule.check(good), Ok(()), "{good}");
        }
        for bad in ["-2", "11", "", "1.5", "ten", "99999999999999999999"] {
            assert_eq!(
                rule.check(bad),
                Err("a whole number from -1 to 10".into()),
                "{bad}"
            );
        }
    }

    #[test]
    fn lists_take_known_words_only() {
        let rule = Rule::ListOf(&["delete", "compact"]);
        assert_eq!(rule.check("compact, delete"), Ok(()));
        for bad in ["", "compact,", "compact,erase", "Compact"] {
            assert!(rule.check(bad).is_err(), "{bad}");
        }
        assert_eq!(Rule::Throttled.check("0:1,1:1"), Ok(()));
        assert!(Rule::Throttled.check("0:1,1").is_err());
    }

    #[test]
    fn values_are_kept_in_one_form() {
        assert_eq!(Rule::Boolean.check("True"), Ok(()));
        assert_eq!(Rule::Boolean.normal(" True"), "true");
        assert!(Rule::Boolean.check("yes").is_err());
        assert!(Rule::Off.check("TRUE").is_err());
        assert_eq!(Rule::Replicas.normal(" 1 "), "1");
        let policies = Rule::ListOf(&["delete", "compact"]);
        assert_eq!(policies.normal("compact, delete,compact"), "compact,delete");
        assert_eq!(Rule::Throttled.normal(""), "");
    }

    #[test]
    fn fractions_exclude_what_is_not_a_number() {
        for good in ["0", "1", "0.25"] {
            assert_eq!(Rule::Fraction.check(good), Ok(()), "{good}");
        }
        for bad in ["NaN", "inf", "-0.1", "1.1", ""] {
            assert!(Rule::Fraction.check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_without_end_is_refused() {
        let long = "0:1,".repeat(VALUE_BYTES_MAX);
        assert!(Rule::Throttled.check(&long).unwrap_err().contains("32768"));
    }
}
