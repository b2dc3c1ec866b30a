//! One record as a JSON object on a line: what `topic consume -o jsonl` prints and
//! `topic produce --format jsonl` reads.
//!
//! ```json
//! {"topic":"t","partition":0,"offset":7,"timestamp":1795341600000,"key":null,"value":"text",
//!  "headers":[{"key":"trace","value":"1"}]}
//! ```
//!
//! Bytes that are not UTF-8 are given in base64 under `key_base64` and `value_base64` instead. For
//! input only `value` is needed; `null` is a tombstone. A value or key that is JSON but not a string
//! is taken as its JSON text. `topic` and `offset` are read over, so that one topic's output can be
//! another's input.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sapwood_client::RecordHeader;
use sapwood_model::{PartitionId, Timestamp};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::InputRecord;
use crate::{error::Failure, position};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, rename = "topic")]
    _topic: IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default, borrow)]
    timestamp: Option<Moment<'a>>,
    #[serde(default, borrow, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(default, borrow)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default, borrow)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    headers: Vec<LineHeader<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineHeader<'a> {
    key: String,
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default, borrow)]
    value_base64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Moment<'a> {
    Millis(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// Keeps `null` (a value) apart from a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one line.
///
/// # Errors
/// Says what is wrong with it; the caller knows the line's number.
pub(crate) fn parse(line: &[u8]) -> Result<InputRecord, Failure> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        Failure::usage(format!("not a record in JSON: {error}"))
            .cause("Each line is an object with value, and key, headers, partition, timestamp if wanted.")
            .hint("To send each line as it is, leave out --format jsonl.")
    })?;
    let value = bytes_of("value", line.value, line.value_base64.as_deref())?.ok_or_else(|| {
        Failure::usage("the record has no \"value\"")
            .cause("A record that deletes its key says so: \"value\": null.")
            .hint("Add the field.")
    })?;
    let key = bytes_of("key", line.key, line.key_base64.as_deref())?.flatten();
    let timestamp = match line.timestamp {
        None => None,
        Some(Moment::Millis(millis)) => Some(Timestamp(millis)),
        Some(Moment::Text(text)) => Some(position::parse_timestamp(&text).map_err(Failure::usage)?),
    };
    let headers = line
        .headers
        .into_iter()
        .map(read_header)
        .collect::<Result<_, _>>()?;
    let partition = line.partition.map(PartitionId);
    Ok(InputRecord {
        key,
        value,
        headers,
        partition,
        timestamp,
    })
}

fn read_header(header: LineHeader<'_>) -> Result<RecordHeader, Failure> {
    let value = bytes_of("header value", header.value, header.value_base64.as_deref())?.flatten();
    Ok(RecordHeader {
        key: header.key.into_bytes().into(),
        value,
    })
}

/// `None`: the field is not there. `Some(None)`: it is null.
fn bytes_of(
    what: &str,
    raw: Option<&RawValue>,
    base64: Option<&str>,
) -> Result<Option<Option<Bytes>>, Failure> {
    let bytes = match (raw, base64) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!(
                "the {what} is given both as text and in base64"
            )));
        }
        (None, None) => return Ok(None),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| Failure::usage(format!("the {what} is not base64: {error}")))?,
        (Some(raw), None) => match raw.get() {
            "null" => return Ok(Some(None)),
            text if text.starts_with('"') => serde_json::from_str::<String>(text)
                .map_err(|error| Failure::usage(format!("the {what} is not a string: {error}")))?
                .into_bytes(),
            json => json.as_bytes().to_vec(),
        },
    };
    Ok(Some(Some(bytes.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static [u8]) -> Option<Bytes> {
        Some(Bytes::from_static(text))
    }

    #[test]
    fn all_fields_are_read() {
        let line = br#"{"topic":"t","partition":2,"offset":9,"timestamp":7,"key":"k\u00e9","value":"v",
            "headers":[{"key":"a","value":null},{"key":"a","value":"x"},{"key":"b","value_base64":"/w=="}]}"#;
        let header = |key: &'static str, value| RecordHeader {
            key: key.as_bytes().into(),
            value,
        };
        let expected = InputRecord {
            key: bytes("ké".as_bytes()),
            value: bytes(b"v"),
            headers: vec![
                header("a", None),
                header("a", bytes(b"x")),
                header("b", bytes(b"\xff")),
            ],
            partition: Some(PartitionId(2)),
            timestamp: Some(Timestamp(7)),
        };
        assert_eq!(parse(line), Ok(expected));
    }

    #[test]
    fn null_is_a_tombstone_and_a_missing_value_an_error() {
        assert_eq!(
            parse(br#"{"key":"k","value":null}"#).map(|r| r.value),
            Ok(None)
        );
        assert_eq!(
            parse(br#"{"key":null,"value":""}"#).map(|r| r.key),
            Ok(None)
        );
        assert_eq!(
            parse(br#"{"key":"","value":""}"#).map(|r| r.key),
            Ok(bytes(b""))
        );
        assert!(
            parse(br#"{"key":"k"}"#)
                .unwrap_err()
                .message
                .contains("no \"value\"")
        );
    }

    #[test]
    fn json_that_is_not_a_string_is_taken_as_its_text() {
        let record = parse(br#"{"key":5,"value":{"b":1, "a":[1.50]}}"#).unwrap();
        assert_eq!(record.value, bytes(br#"{"b":1, "a":[1.50]}"#));
        assert_eq!(record.key, bytes(b"5"));
    }

    #[test]
    fn times_may_be_text() {
        let record = parse(br#"{"value":"","timestamp":"2026-11-22T10:00Z"}"#).unwrap();
        assert_eq!(record.timestamp, Some(Timestamp(1_795_341_600_000)));
    }

    #[test]
    fn lines_that_are_not_records_are_refused() {
        for line in [
            "",
            "5",
            "[]",
            "{",
            "{\"value\":\"a\"} x",
            "{\"id\":1}",
            "{\"value\":1,\"value\":2}",
            "{\"value\":\"\\ud800\"}",
            "{\"value\":\"a\",\"value_base64\":\"\"}",
            "{\"value_base64\":\"*\"}",
            "{\"value\":\"\",\"partition\":-1}",
            "{\"value\":\"\",\"timestamp\":\"noon\"}",
            "{\"value\":\"\",\"headers\":[{}]}",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(&[b'['; 100_000]).is_err());
    }
}
