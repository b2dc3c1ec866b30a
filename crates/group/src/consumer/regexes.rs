//! Subscriptions by regular expression: checked, and turned into topics.
//!
//! The syntax is that of the `regex` crate, which is RE2's but for corners; its engine takes time
//! linear in pattern and text whatever the pattern.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use crate::{Context, GroupError, ResolvedRegex};

/// How long a pattern may be, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

/// How much memory a compiled pattern may take, in bytes: `(a{1000}){1000}` is short.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The topics that a pattern stands for at this moment; it has to match a whole name.
///
/// # Errors
/// [`GroupError::InvalidRegularExpression`].
pub(super) fn resolve(pattern: &str, context: &Context<'_>) -> Result<ResolvedRegex, GroupError> {
    let regex = compile(pattern)?;
    let mut topics = BTreeSet::new();
    context.topics.each_name(&mut |name| {
        if regex.is_match(name.as_str()) {
            topics.insert(name.clone());
        }
    });
    Ok(ResolvedRegex {
        topics,
        version: context.topics.version(),
        timestamp: context.now,
    })
}

fn compile(pattern: &str) -> Result<Regex, GroupError> {
    let refuse = |reason: String| GroupError::InvalidRegularExpression { reason };
    if pattern.len() > PATTERN_BYTES_MAX {
        let length = pattern.len();
        return Err(refuse(format!(
            "it is {length} bytes; the limit is {PATTERN_BYTES_MAX} bytes"
        )));
    }
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
    };
    // Alone first: `a)|(b` becomes something else inside of a group.
    build(pattern).map_err(|error| refuse(error.to_string()))?;
    build(&format!("^(?:{pattern})$")).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        let regex = compile("a|bc.*").unwrap();
        for (name, matches) in [
            ("a", true),
            ("ab", false),
            ("bc", true),
            ("bcd", true),
            ("xbc", false),
        ] {
            assert_eq!(regex.is_match(name), matches, "{name}");
        }
    }

    #[test]
    fn patterns_that_do_not_parse_or_would_be_too_big_are_refused() {
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        for pattern in ["(", "a)|(b", "[", "(a{1000}){1000}", "\\1", &long] {
            let refused = matches!(
                compile(pattern),
                Err(GroupError::InvalidRegularExpression { .. })
            );
            assert!(refused, "{pattern}");
        }
    }
}
