//! One record in the forms that `topic consume` prints.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use sapwood_client::RecordHeader;
use sapwood_model::Timestamp;

use super::template::Template;
use crate::position::show_timestamp;

/// A record to be shown, borrowed from whatever holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordView<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: u32,
    /// Its offset.
    pub(crate) offset: u64,
    /// Milliseconds since 1970; -1 when it carries none.
    pub(crate) timestamp: Timestamp,
    /// `None` when it has none.
    pub(crate) key: Option<&'a [u8]>,
    /// `None` for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// In their order; names may repeat.
    pub(crate) headers: &'a [RecordHeader],
}

/// How records are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordForm {
    /// The value and a newline. A tombstone is an empty line.
    Value,
    /// As `-f` says.
    Template(Template),
    /// A JSON object a line; `topic produce --format jsonl` reads it back.
    Jsonl,
    /// One JSON array over all records.
    JsonArray,
    /// A YAML document each.
    Yaml,
    /// `topic/partition/offset` a line.
    Name,
    /// Tab-separated columns under a header: partition, offset, time, key, value; `wide` adds the
    /// topic and the headers. Bytes that would break the line are escaped.
    Table {
        /// With topic and headers.
        wide: bool,
    },
}

/// Writes records of one form into a buffer.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    form: RecordForm,
    any: bool,
}

impl RecordWriter {
    /// Nothing is written yet.
    pub(crate) fn new(form: RecordForm) -> Self {
        Self { form, any: false }
    }

    /// What stands before the first record.
    pub(crate) fn begin(&self, out: &mut Vec<u8>) {
        match &self.form {
            RecordForm::JsonArray => out.push(b'['),
            RecordForm::Table { wide: false } => {
                out.extend_from_slice(b"PARTITION\tOFFSET\tTIME\tKEY\tVALUE\n");
            }
            RecordForm::Table { wide: true } => {
                out.extend_from_slice(b"TOPIC\tPARTITION\tOFFSET\tTIME\tKEY\tVALUE\tHEADERS\n")
            }
            _ => {}
        }
    }

    /// One record.
    pub(crate) fn record(&mut self, record: &RecordView<'_>, out: &mut Vec<u8>) {
        let first = !std::mem::replace(&mut self.any, true);
        match &self.form {
            RecordForm::Value => {
                out.extend_from_slice(record.value.unwrap_or_default());
                out.push(b'\n');
            }
            RecordForm::Template(template) => template.write(record, out),
            RecordForm::Jsonl => {
                write_json(record, out);
                out.push(b'\n');
            }
            RecordForm::JsonArray => {
                out.extend_from_slice(if first { b"\n  " } else { b",\n  " });
                write_json(record, out);
            }
            RecordForm::Yaml => {
                let mut json = Vec::new();
                write_json(record, &mut json);
                let value = serde_json::from_slice(&json).expect("what was just written is JSON");
                out.extend_from_slice(b"---\n");
                out.extend_from_slice(super::to_yaml(&value).as_bytes());
            }
            RecordForm::Name => {
                write_number(out, format_args!("{}/", record.topic));
                write_number(
                    out,
                    format_args!("{}/{}\n", record.partition, record.offset),
                );
            }
            RecordForm::Table { wide } => write_row(record, *wide, out),
        }
    }

    /// What stands after the last record.
    pub(crate) fn end(&self, out: &mut Vec<u8>) {
        if self.form == RecordForm::JsonArray {
            out.extend_from_slice(if self.any { b"\n]\n" } else { b"]\n" });
        }
    }
}

fn write_number(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec cannot fail");
}

fn write_row(record: &RecordView<'_>, wide: bool, out: &mut Vec<u8>) {
    if wide {
        write_number(out, format_args!("{}\t", record.topic));
    }
    let time = show_timestamp(record.timestamp);
    write_number(
        out,
        format_args!("{}\t{}\t{time}\t", record.partition, record.offset),
    );
    write_cell(record.key, out);
    out.push(b'\t');
    write_cell(record.value, out);
    if wide {
        out.push(b'\t');
        for (at, header) in record.headers.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_cell(Some(&header.key), out);
            out.push(b'=');
            write_cell(header.value.as_deref(), out);
        }
    }
    out.push(b'\n');
}

/// Text as it is, anything that would break a row or a terminal escaped; null as `-`.
fn write_cell(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else {
        out.push(b'-');
        return;
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                write_number(out, format_args!("{}", character.escape_default()));
            } else {
                write_number(out, format_args!("{character}"));
            }
        }
        for byte in chunk.invalid() {
            write_number(out, format_args!("\\x{byte:02x}"));
        }
    }
}

/// The JSON form of a record, without a newline.
pub(crate) fn write_json(record: &RecordView<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    write_json_text(record.topic, out);
    write_number(
        out,
        format_args!(
            ",\"partition\":{},\"offset\":{}",
            record.partition, record.offset
        ),
    );
    if record.timestamp == Timestamp::NONE {
        out.extend_from_slice(b",\"timestamp\":null");
    } else {
        write_number(out, format_args!(",\"timestamp\":{}", record.timestamp));
    }
    write_json_bytes("key", record.key, out);
    write_json_bytes("value", record.value, out);
    out.extend_from_slice(b",\"headers\":[");
    for (at, header) in record.headers.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"key\":" } else { b"{\"key\":" });
        write_json_text(&String::from_utf8_lossy(&header.key), out);
        write_json_bytes("value", header.value.as_deref(), out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn write_json_bytes(name: &str, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let text = bytes.map(std::str::from_utf8);
    match (bytes, text) {
        (None, _) => write_number(out, format_args!(",\"{name}\":null")),
        (_, Some(Ok(text))) => {
            write_number(out, format_args!(",\"{name}\":"));
            write_json_text(text, out);
        }
        (Some(bytes), _) => {
            write_number(
                out,
                format_args!(",\"{name}_base64\":\"{}\"", STANDARD.encode(bytes)),
            );
        }
    }
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text is JSON, and writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn view<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> RecordView<'a> {
        let timestamp = Timestamp(1_795_341_600_007);
        RecordView {
            topic: "t",
            partition: 1,
            offset: 42,
            timestamp,
            key,
            value,
            headers: &[],
        }
    }

    fn show(form: RecordForm, records: &[RecordView<'_>]) -> String {
        let (mut writer, mut out) = (RecordWriter::new(form), Vec::new());
        writer.begin(&mut out);
        records
            .iter()
            .for_each(|record| writer.record(record, &mut out));
        writer.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_come_out_one_a_line() {
        let records = [
            view(Some(b"k"), Some(b"a")),
            view(None, None),
            view(None, Some(b"b")),
        ];
        assert_eq!(show(RecordForm::Value, &records), "a\n\nb\n");
    }

    #[test]
    fn json_lines_tell_null_text_and_bytes_apart() {
        assert_eq!(
            show(RecordForm::Jsonl, &[view(None, Some(b"a\"\n"))]),
            "{\"topic\":\"t\",\"partition\":1,\"offset\":42,\"timestamp\":1795341600007,\
             \"key\":null,\"value\":\"a\\\"\\n\",\"headers\":[]}\n"
        );
        let binary = show(RecordForm::Jsonl, &[view(Some(b"\xff"), None)]);
        assert!(
            binary.contains("\"key_base64\":\"/w==\",\"value\":null"),
            "{binary}"
        );
    }

    #[test]
    fn json_arrays_are_json_with_any_number_of_records() {
        let record = view(None, Some(b"a"));
        for count in 0..3 {
            let text = show(RecordForm::JsonArray, &vec![record; count]);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.as_array().map(Vec::len), Some(count), "{text}");
        }
    }

    #[test]
    fn json_lines_are_read_back_as_they_were() {
        let header = |value| RecordHeader {
            key: Bytes::from_static(b"h"),
            value,
        };
        let headers = &[header(None), header(Some(Bytes::from_static(b"\x00\xfe")))];
        for (key, value) in [
            (None, None),
            (Some(&b""[..]), Some(&b""[..])),
            (Some(&b"\xff\x00"[..]), Some(&b"null"[..])),
            (
                Some("é\u{1F600}\u{2028}".as_bytes()),
                Some(&b"{\"a\": 1}\n"[..]),
            ),
        ] {
            let record = RecordView {
                headers,
                ..view(key, value)
            };
            let line = show(RecordForm::Jsonl, &[record]);
            let mut read = Vec::new();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(line.as_bytes()).unwrap();
            let source = crate::input::Source::File(file.path().to_owned());
            crate::input::read(&[source], &crate::input::Format::Jsonl, |batch| {
                read.extend(batch.records);
                true
            })
            .unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].key.as_deref(), key);
            assert_eq!(read[0].value.as_deref(), value);
            assert_eq!(read[0].timestamp, Some(record.timestamp));
            assert_eq!(read[0].partition.map(|p| p.0), Some(record.partition));
            assert_eq!(read[0].headers, headers);
        }
    }

    #[test]
    fn table_rows_stay_on_one_line_and_cannot_steer_the_terminal() {
        let row = show(
            RecordForm::Table { wide: false },
            &[view(None, Some(b"a\tb\n\x1b[31m\xff"))],
        );
        let last = row.lines().last().unwrap_or_default();
        assert_eq!(
            last,
            "1\t42\t2026-11-22T10:00:00.007Z\t-\ta\\tb\\n\\u{1b}[31m\\xff"
        );
    }
}
