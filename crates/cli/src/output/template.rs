//! kcat's format strings: `%k\t%v\n`.

use std::{io::Write, str::FromStr};

use super::record::RecordView;

/// A format string, read once and applied to each record.
///
/// `%v %s` value, `%k` key, `%t` topic, `%p` partition, `%o` offset, `%T` timestamp in
/// milliseconds, `%h` headers as `a=1,b=2`, `%S` length of the value and `%K` of the key in bytes
/// (-1 when null), `%R` the value's length as 4 bytes big-endian, `%%` a per cent sign; `\n \r \t
/// \\ \0 \xHH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Value,
    ValueLength,
    ValueLengthBinary,
    Key,
    KeyLength,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Headers,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\\' => literal.push(read_escape(&mut rest)?),
                '%' => match read_directive(rest.next())? {
                    None => literal.push(b'%'),
                    Some(piece) => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                        }
                        pieces.push(piece);
                    }
                },
                other => {
                    let mut utf8 = [0; 4];
                    literal.extend_from_slice(other.encode_utf8(&mut utf8).as_bytes());
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }
}

fn read_escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('\\') => Ok(b'\\'),
        Some('0') => Ok(0),
        Some('x') => {
            let mut digit = || rest.next().and_then(|c| c.to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
                _ => Err("\\x needs two hexadecimal digits, as in \\x1e".into()),
            }
        }
        Some(other) => Err(format!(
            "\\{other} is not an escape; these are: \\n \\r \\t \\\\ \\0 \\xHH"
        )),
        None => Err("the format ends in a single backslash".into()),
    }
}

/// `None` is a literal per cent sign.
fn read_directive(letter: Option<char>) -> Result<Option<Piece>, String> {
    Ok(Some(match letter {
        Some('%') => return Ok(None),
        Some('v' | 's') => Piece::Value,
        Some('S') => Piece::ValueLength,
        Some('R') => Piece::ValueLengthBinary,
        Some('k') => Piece::Key,
        Some('K') => Piece::KeyLength,
        Some('t') => Piece::Topic,
        Some('p') => Piece::Partition,
        Some('o') => Piece::Offset,
        Some('T') => Piece::Timestamp,
        Some('h') => Piece::Headers,
        Some(other) => {
            return Err(format!(
                "%{other} is not known; these are: %v %s %k %t %p %o %T %h %S %K %R %%"
            ));
        }
        None => return Err("the format ends in a single per cent sign; %% prints one".into()),
    }))
}

impl Template {
    /// Writes one record. A null key or value is written as nothing.
    pub(crate) fn write(&self, record: &RecordView<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            let number = match piece {
                Piece::Literal(bytes) => {
                    out.extend_from_slice(bytes);
                    continue;
                }
                Piece::Value => {
                    out.extend_from_slice(record.value.unwrap_or_default());
                    continue;
                }
                Piece::Key => {
                    out.extend_from_slice(record.key.unwrap_or_default());
                    continue;
                }
                Piece::Topic => {
                    out.extend_from_slice(record.topic.as_bytes());
                    continue;
                }
                Piece::Headers => {
                    write_headers(record, out);
                    continue;
                }
                Piece::ValueLengthBinary => {
                    let length = record.value.map_or(-1, |value| value.len() as i32);
                    out.extend_from_slice(&length.to_be_bytes());
                    continue;
                }
                Piece::ValueLength => length_of(record.value),
                Piece::KeyLength => length_of(record.key),
                Piece::Partition => i64::from(record.partition),
                Piece::Offset => record.offset.cast_signed(),
                Piece::Timestamp => record.timestamp.0,
            };
            write!(out, "{number}").expect("writing to a Vec cannot fail");
        }
    }
}

fn length_of(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn write_headers(record: &RecordView<'_>, out: &mut Vec<u8>) {
    for (at, header) in record.headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.key);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or(b"NULL"));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sapwood_client::RecordHeader;
    use sapwood_model::Timestamp;

    use super::*;

    fn show(format: &str, value: Option<&[u8]>) -> Vec<u8> {
        let header = |key, value: Option<&'static [u8]>| RecordHeader {
            key,
            value: value.map(Bytes::from_static),
        };
        let headers = &[
            header(Bytes::from_static(b"a"), Some(b"1")),
            header(Bytes::from_static(b"b"), None),
        ];
        let record = RecordView {
            topic: "t",
            partition: 3,
            offset: 42,
            timestamp: Timestamp(7),
            key: Some(b"key"),
            value,
            headers,
        };
        let mut out = Vec::new();
        format.parse::<Template>().unwrap().write(&record, &mut out);
        out
    }

    #[test]
    fn every_directive_and_escape_is_written() {
        assert_eq!(show("%k\\t%v\\n", Some(b"v")), b"key\tv\n");
        assert_eq!(show("%t %p %o %T %s", Some(b"v")), b"t 3 42 7 v");
        assert_eq!(show("%h", None), b"a=1,b=NULL");
        assert_eq!(show("%K %S|%R", Some(b"ab")), b"3 2|\0\0\0\x02");
        assert_eq!(show("%S[%v]", None), b"-1[]");
        assert_eq!(
            show("100%% \\\\ \\x1e\\0 é", None),
            "100% \\ \x1e\0 é".as_bytes()
        );
        assert_eq!(show("", None), b"");
    }

    #[test]
    fn unknown_directives_and_escapes_are_refused() {
        for format in ["%", "%z", "\\", "\\q", "\\x1", "\\xzz", "abc%"] {
            assert!(format.parse::<Template>().is_err(), "{format}");
        }
    }
}
