//! CSV with a header line (RFC 4180 with a delimiter of choice). The record's value is the line as
//! it stands, so only two things are needed: where it ends, and what one of its fields says.

use bytes::{Bytes, BytesMut};
use sapwood_model::Code;

use super::{InputRecord, frame::Framing};
use crate::error::Failure;

/// Where the scanner is inside a record.
///
/// `FieldStart -> Quoted` at a quote, `-> Plain` at anything else; `Quoted -> QuoteSeen` at a
/// quote; `QuoteSeen -> Quoted` at a second one (an escaped quote), `-> Plain` otherwise. A
/// delimiter outside `Quoted` leads to `FieldStart`. A quote inside `Plain` is an ordinary byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    QuoteSeen,
}

impl State {
    fn after(self, byte: u8, delimiter: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::QuoteSeen,
            (Self::Quoted, _) => Self::Quoted,
            (Self::FieldStart | Self::QuoteSeen, b'"') => Self::Quoted,
            (_, byte) if byte == delimiter => Self::FieldStart,
            _ => Self::Plain,
        }
    }
}

/// A frame is a line, or several when a quoted field holds newlines.
#[derive(Debug)]
pub(crate) struct CsvFraming {
    delimiter: u8,
    state: State,
    /// Nothing of the current record has been seen.
    fresh: bool,
}

impl CsvFraming {
    /// Fields are separated by `delimiter`.
    pub(crate) fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            state: State::FieldStart,
            fresh: true,
        }
    }
}

impl Framing for CsvFraming {
    fn frame_end(&mut self, unseen: &[u8]) -> Option<usize> {
        // Most records have no quote: then the first newline ends them.
        if self.fresh
            && let Some(newline) = memchr::memchr(b'\n', unseen)
            && memchr::memchr(b'"', &unseen[..newline]).is_none()
        {
            return Some(newline);
        }
        for (at, byte) in unseen.iter().enumerate() {
            if *byte == b'\n' && self.state != State::Quoted {
                (self.state, self.fresh) = (State::FieldStart, true);
                return Some(at);
            }
            self.state = self.state.after(*byte, self.delimiter);
            self.fresh = false;
        }
        None
    }
}

/// One CSV file: the header line, then records.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    key_column: Option<&'a str>,
    delimiter: u8,
    header: Option<Header>,
    blank_lines: u64,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    columns: usize,
    /// The key column's place, from 0.
    key: Option<usize>,
}

impl<'a> Table<'a> {
    /// The column whose field is each record's key, if any.
    pub(crate) fn new(key_column: Option<&'a str>, delimiter: u8) -> Self {
        Self {
            key_column,
            delimiter,
            header: None,
            blank_lines: 0,
        }
    }

    /// Takes the next line. `None` for the header and for blank lines.
    ///
    /// # Errors
    /// The header does not name the key column; a record ends before it; a quote is left open.
    pub(crate) fn parse(&mut self, line: Bytes) -> Result<Option<InputRecord>, Failure> {
        let Some(header) = self.header else {
            self.header = Some(self.read_header(&line)?);
            return Ok(None);
        };
        if line.is_empty() || line.as_ref() == b"\r" {
            self.blank_lines += 1;
            return Ok(None);
        }
        // Only the rest of the input can follow an open quote: it is never taken for one record.
        if memchr::memchr(b'"', &line).is_some()
            && Fields::new(&line, self.delimiter).any(|field| field.unclosed)
        {
            return Err(Failure::usage("a quoted field is never closed")
                .cause("The quote at its beginning has no partner up to the end of the input.")
                .hint("Correct the input, or name its --delimiter."));
        }
        let key = match header.key {
            Some(column) => self.field(&line, column, header)?,
            None => None,
        };
        Ok(Some(InputRecord {
            key,
            value: Some(line),
            ..InputRecord::default()
        }))
    }

    /// After the last line.
    ///
    /// # Errors
    /// There was no header line.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        match self.header {
            Some(_) => Ok(()),
            None => Err(Failure::new(Code::InvalidArgument, "the input is empty")
                .cause("CSV begins with a header line that names its columns.")
                .hint("Check the file; --format lines takes lines without a header.")),
        }
    }

    /// Blank lines so far; they are not records.
    pub(crate) fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    fn read_header(&self, line: &Bytes) -> Result<Header, Failure> {
        // A byte order mark is no part of the first column's name.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => line.slice_ref(rest),
            None => line.clone(),
        };
        let names: Vec<String> = Fields::new(&line, self.delimiter)
            .map(|field| String::from_utf8_lossy(&unquote(&line, field)).into_owned())
            .collect();
        let columns = names.len();
        let Some(wanted) = self.key_column else {
            return Ok(Header { columns, key: None });
        };
        let mut places = names
            .iter()
            .enumerate()
            .filter(|(_, name)| name.as_str() == wanted);
        match (places.next(), places.next()) {
            (Some((key, _)), None) => Ok(Header {
                columns,
                key: Some(key),
            }),
            (Some(_), Some(_)) => Err(Failure::usage(format!(
                "the header names column {wanted:?} more than once"
            ))),
            (None, _) => Err(
                Failure::usage(format!("the header has no column {wanted:?}"))
                    .cause(format!("Its columns are: {}.", names.join(", ")))
                    .hint("Name one of them with --key-column."),
            ),
        }
    }

    fn field(&self, line: &Bytes, column: usize, header: Header) -> Result<Option<Bytes>, Failure> {
        match Fields::new(line, self.delimiter).nth(column) {
            Some(field) => {
                let key = unquote(line, field);
                Ok(if key.is_empty() { None } else { Some(key) })
            }
            None => {
                let count = Fields::new(line, self.delimiter).count();
                let columns = header.columns;
                Err(Failure::usage(format!(
                    "the line has {count} fields; the key is column {} of {columns}",
                    column + 1
                ))
                .cause("The line is not of the form that the header gives.")
                .hint("Correct the line, or name another --key-column."))
            }
        }
    }
}

/// One field's place in its line, quotes included.
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    quoted: bool,
    unclosed: bool,
}

/// The fields of one line.
struct Fields<'a> {
    line: &'a [u8],
    delimiter: u8,
    /// Where the next field begins; past the end when there is none.
    next: usize,
}

impl<'a> Fields<'a> {
    fn new(line: &'a [u8], delimiter: u8) -> Self {
        // The carriage return of a CRLF file belongs to the newline, not to the last field.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Self {
            line,
            delimiter,
            next: 0,
        }
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let start = self.next;
        let rest = self.line.get(start..)?;
        let quoted = rest.first() == Some(&b'"');
        let mut unclosed = false;
        let length = if quoted {
            let mut state = State::FieldStart;
            let mut ends = |byte: &u8| {
                let end = *byte == self.delimiter && state != State::Quoted;
                state = state.after(*byte, self.delimiter);
                end
            };
            let found = rest.iter().position(&mut ends);
            unclosed = found.is_none() && state == State::Quoted;
            found
        } else {
            memchr::memchr(self.delimiter, rest)
        };
        let end = length.map_or(self.line.len(), |length| start + length);
        self.next = end + 1;
        Some(Field {
            start,
            end,
            quoted,
            unclosed,
        })
    }
}

/// The field's text: a slice of the line, or a copy where quotes have to go.
fn unquote(line: &Bytes, field: Field) -> Bytes {
    if !field.quoted {
        return line.slice(field.start..field.end);
    }
    let mut text = BytesMut::with_capacity(field.end - field.start);
    let mut state = State::FieldStart;
    for byte in &line[field.start..field.end] {
        // Delimiters inside a field are quoted, so none is special here; a newline is as good as any.
        let next = state.after(*byte, b'\n');
        let opens_or_may_close = matches!(
            (state, next),
            (State::FieldStart, State::Quoted) | (State::Quoted, State::QuoteSeen)
        );
        if !opens_or_may_close {
            text.extend_from_slice(&[*byte]);
        }
        state = next;
    }
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &'static str) -> Vec<String> {
        let line = Bytes::from_static(line.as_bytes());
        Fields::new(&line, b',')
            .map(|field| String::from_utf8_lossy(&unquote(&line, field)).into_owned())
            .collect()
    }

    #[test]
    fn fields_are_cut_and_unquoted_as_rfc_4180_says() {
        assert_eq!(texts("a,b,c"), ["a", "b", "c"]);
        assert_eq!(texts("a,,"), ["a", "", ""]);
        assert_eq!(texts("\"a,b\",\"c\"\"d\",e\r"), ["a,b", "c\"d", "e"]);
        assert_eq!(texts("5\" pipe,\"\""), ["5\" pipe", ""]);
        assert_eq!(texts(""), [""]);
    }

    #[test]
    fn random_tables_are_read_as_the_csv_crate_reads_them() {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("seed {seed}");
        let mut state = seed | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..2_000 {
            let alphabet = [b'a', b'b', b',', b'"', b'\n', b' '];
            let rows: Vec<Vec<Vec<u8>>> = (0..1 + random(4))
                .map(|_| {
                    (0..3)
                        .map(|_| {
                            let length = random(5);
                            (0..length).map(|_| alphabet[random(6) as usize]).collect()
                        })
                        .collect()
                })
                .collect();
            let mut writer = csv::WriterBuilder::new()
                .has_headers(false)
                .from_writer(Vec::new());
            writer.write_record(["x", "y", "z"]).unwrap();
            rows.iter()
                .for_each(|row| writer.write_record(row).unwrap());
            let text = writer.into_inner().unwrap();
            let column = random(3) as usize;
            let keys = keys_of(&text, ["x", "y", "z"][column], 1 + random(9) as usize);
            let expected: Vec<Vec<u8>> = rows.iter().map(|row| row[column].clone()).collect();
            assert_eq!(keys, expected, "{}", String::from_utf8_lossy(&text));
        }
    }

    /// The keys of a file that arrives in pieces of `step` bytes; an absent key as an empty one.
    fn keys_of(text: &[u8], column: &str, step: usize) -> Vec<Vec<u8>> {
        let mut table = Table::new(Some(column), b',');
        let mut framing = CsvFraming::new(b',');
        let (mut keys, mut frame) = (Vec::new(), Vec::new());
        for mut piece in text.chunks(step) {
            while let Some(end) = framing.frame_end(piece) {
                frame.extend_from_slice(&piece[..end]);
                piece = &piece[end + 1..];
                if let Some(record) = table.parse(std::mem::take(&mut frame).into()).unwrap() {
                    keys.push(record.key.unwrap_or_default().to_vec());
                }
            }
            frame.extend_from_slice(piece);
        }
        assert_eq!(frame, b"");
        keys
    }

    #[test]
    fn an_unknown_key_column_lists_those_that_are_there() {
        let mut table = Table::new(Some("tailnumber"), b',');
        let failure = table
            .parse(Bytes::from_static(b"year,tailnum\r"))
            .unwrap_err();
        assert!(failure.message.contains("no column \"tailnumber\""));
        assert!(failure.to_text().contains("year, tailnum."));
    }

    #[test]
    fn a_short_line_and_an_open_quote_are_errors() {
        let mut table = Table::new(Some("c"), b',');
        table
            .parse(Bytes::from_static(b"\xef\xbb\xbfa,b,c"))
            .unwrap();
        let short = table.parse(Bytes::from_static(b"1,2")).unwrap_err();
        assert!(short.message.contains("2 fields"), "{}", short.message);
        let open = table
            .parse(Bytes::from_static(b"1,\"2,3\n4,5,6"))
            .unwrap_err();
        assert!(open.message.contains("never closed"), "{}", open.message);
    }

    #[test]
    fn blank_lines_are_counted_and_are_not_records() {
        let mut table = Table::new(None, b',');
        table.parse(Bytes::from_static(b"a,b")).unwrap();
        assert_eq!(table.parse(Bytes::new()).unwrap(), None);
        assert_eq!(table.parse(Bytes::from_static(b"\r")).unwrap(), None);
        assert_eq!(table.blank_lines(), 2);
        assert!(Table::new(None, b',').finish().is_err());
    }
}
