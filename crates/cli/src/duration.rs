//! Lengths of time as people type them, `10s`, `500ms`, `1h30m`, `2d`, and as they read them.

use std::time::Duration;

/// Units, longest name first where one is the beginning of another.
const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads one or more number-and-unit pairs (`ms`, `s`, `m`, `h`, `d`, `w`); a bare number is
/// seconds. Whole milliseconds, at most `i64::MAX` of them.
///
/// # Errors
/// Says what is wrong, in one line.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; examples: 10s, 500ms, 1h30m, 2d");
    let too_long = || format!("{text:?} is longer than can be counted in milliseconds");
    if let Ok(seconds) = text.parse::<u64>() {
        return within(seconds.checked_mul(1_000)).ok_or_else(too_long);
    }
    let mut rest = text;
    let mut total = Some(0u64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(wrong());
        }
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (name, after) = after.split_at(letters);
        let (_, millis) = UNITS
            .iter()
            .find(|(unit, _)| *unit == name)
            .ok_or_else(wrong)?;
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*millis));
        total = total
            .zip(part)
            .and_then(|(total, part)| total.checked_add(part));
        rest = after;
    }
    within(total).ok_or_else(too_long)
}

/// An age as people say it, in its two largest units: `0s`, `0.1s`, `42s`, `3m12s`, `5h40m`, `2d3h`.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, unit: &str, small: u64, unit_of_small: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{unit_of_small}"),
    };
    match seconds {
        _ if time.is_zero() => "0s".to_owned(),
        0..10 => format!("{:.1}s", time.as_secs_f64().max(0.1)),
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn within(millis: Option<u64>) -> Option<Duration> {
    millis
        .filter(|millis| i64::try_from(*millis).is_ok())
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, millis) in [
            ("0", 0),
            ("10", 10_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_never_overflows() {
        for text in [
            "",
            "s",
            "10x",
            "1h-1m",
            "-1s",
            "1.5s",
            "h1",
            "99999999999999999999s",
            "1h 1m",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("18446744073709551615").is_err());
        assert!(parse("18446744073709551615w").is_err());
    }
}
