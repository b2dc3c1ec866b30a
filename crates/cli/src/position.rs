//! Positions in a log, one grammar for every command: `start`, `end`, `42`, `-10`, `@-1h`,
//! `@2026-11-22T10:00Z`, `@1763805600000`, and ranges `a..b`.

use std::{fmt, str::FromStr, time::Duration};

use sapwood_model::{Offset, Timestamp};

use crate::duration;

/// One place in each of the partitions that a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The first record that is still there.
    Start,
    /// After the last record that can be read.
    End,
    /// The record with this offset.
    Offset(Offset),
    /// So many records before the end of each partition.
    Last(u64),
    /// The first record at or after this moment.
    At(Timestamp),
    /// The first record of the last so much time.
    Ago(Duration),
}

/// From one position up to another, half-open. Without an end it goes on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first record.
    pub(crate) from: Position,
    /// The first record that no longer belongs to it.
    pub(crate) until: Option<Position>,
}

impl Position {
    /// The place as the broker understands it; `now` is what times ago are counted from.
    pub(crate) fn to_client(self, now: Timestamp) -> sapwood_client::Position {
        use sapwood_client::Position as Place;
        match self {
            Self::Start => Place::Start,
            Self::End => Place::End,
            Self::Offset(offset) => Place::Offset(offset),
            Self::Last(records) => Place::Last(records),
            Self::At(at) => Place::Time(at),
            Self::Ago(ago) => {
                let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Place::Time(Timestamp(now.0.saturating_sub(millis)))
            }
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" | "beginning" | "earliest" => return Ok(Self::Start),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time);
        }
        let offset_max = i64::MAX.unsigned_abs();
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|n| *n <= offset_max);
        let parsed = match text.strip_prefix('-') {
            Some(digits) => number(digits).filter(|_| is_digits(digits)).map(Self::Last),
            None => number(text)
                .filter(|_| is_digits(text))
                .map(|n| Self::Offset(Offset(n))),
        };
        parsed.ok_or_else(|| {
            format!(
                "{text:?} is not a position; positions are start, end, 42, -10 (the last ten), \
                 @-1h, @2026-11-22T10:00Z, and ranges a..b"
            )
        })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_time(text: &str) -> Result<Position, String> {
    if let Some(ago) = text.strip_prefix('-') {
        return duration::parse(ago).map(Position::Ago);
    }
    parse_timestamp(text).map(Position::At)
}

/// Reads a moment: milliseconds since 1970, or RFC 3339 (`2026-11-22T10:00Z`, seconds optional), or
/// a date and time without a zone, which is UTC, or a date alone.
///
/// # Errors
/// Says what is wrong, in one line.
pub(crate) fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    if is_digits(text)
        && let Ok(millis) = text.parse()
    {
        return Ok(Timestamp(millis));
    }
    let with_zone = text.parse::<jiff::Timestamp>().ok();
    let without_zone = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        jiff::tz::Offset::UTC.to_timestamp(civil).ok()
    };
    match with_zone.or_else(without_zone) {
        Some(moment) => Ok(Timestamp(moment.as_millisecond())),
        None => Err(format!(
            "{text:?} is not a time; examples: -1h, 2026-11-22T10:00Z, 2026-11-22, 1763805600000"
        )),
    }
}

/// A moment as RFC 3339 in UTC with milliseconds; the number itself when it is outside the years
/// that can be written so.
pub(crate) fn show_timestamp(timestamp: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(timestamp.0) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_) => timestamp.0.to_string(),
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((from, until)) = text.split_once("..") else {
            return Ok(Self {
                from: text.parse()?,
                until: None,
            });
        };
        let side = |text: &str, open: Position| {
            if text.is_empty() {
                Ok(open)
            } else {
                text.parse()
            }
        };
        let from = side(from, Position::Start)?;
        let until = side(until, Position::End)?;
        if let (Position::Offset(a), Position::Offset(b)) = (from, until)
            && b < a
        {
            return Err(format!("range {a}..{b} ends before it begins"));
        }
        Ok(Self {
            from,
            until: Some(until),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => offset.fmt(f),
            Self::Last(records) => write!(f, "-{records}"),
            Self::At(at) => write!(f, "@{}", show_timestamp(*at)),
            Self::Ago(ago) => write!(f, "@-{}ms", ago.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_of_a_position_is_read() {
        let hour = Duration::from_secs(3600);
        let ten = Timestamp(1_795_341_600_000);
        for (text, expected) in [
            ("start", Position::Start),
            ("end", Position::End),
            ("42", Position::Offset(Offset(42))),
            ("-10", Position::Last(10)),
            ("@-1h", Position::Ago(hour)),
            ("@2026-11-22T10:00Z", Position::At(ten)),
            ("@2026-11-22T10:00:00Z", Position::At(ten)),
            ("@2026-11-22T10:00", Position::At(ten)),
            ("@2026-11-22T11:00+01:00", Position::At(ten)),
            ("@2026-11-22", Position::At(Timestamp(ten.0 - 36_000_000))),
            ("@1795341600000", Position::At(ten)),
            (
                "9223372036854775807",
                Position::Offset(Offset(i64::MAX as u64)),
            ),
        ] {
            assert_eq!(position(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in [
            "",
            "-",
            "+5",
            "-+5",
            "1.5",
            "0x10",
            "@",
            "@-",
            "@yesterday",
            "@2026-13-01",
            "first",
            "9223372036854775808",
            "18446744073709551616",
            "--10",
            "a..b",
            " 1",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranges_are_half_open_and_either_side_may_be_left_out() {
        let range = |text: &str| text.parse::<Range>().map(|r| (r.from, r.until));
        let (five, ten) = (Position::Offset(Offset(5)), Position::Offset(Offset(10)));
        assert_eq!(range("5..10"), Ok((five, Some(ten))));
        assert_eq!(range("..10"), Ok((Position::Start, Some(ten))));
        assert_eq!(range("5.."), Ok((five, Some(Position::End))));
        assert_eq!(
            range("-10..end"),
            Ok((Position::Last(10), Some(Position::End)))
        );
        assert_eq!(range("5"), Ok((five, None)));
        assert!(range("10..5").is_err());
    }

    #[test]
    fn a_time_ago_is_counted_from_the_given_now() {
        use sapwood_client::Position as Place;
        let now = Timestamp(10_000_000);
        assert_eq!(
            position("@-1h").to_client(now),
            Place::Time(Timestamp(6_400_000))
        );
        assert_eq!(
            position("@1000").to_client(now),
            Place::Time(Timestamp(1000))
        );
        assert_eq!(position("-10").to_client(now), Place::Last(10));
        assert_eq!(position("end").to_client(now), Place::End);
    }

    #[test]
    fn timestamps_are_shown_in_utc_with_milliseconds() {
        assert_eq!(
            show_timestamp(Timestamp(1_795_341_600_007)),
            "2026-11-22T10:00:00.007Z"
        );
        assert_eq!(show_timestamp(Timestamp(i64::MIN)), i64::MIN.to_string());
    }
}
