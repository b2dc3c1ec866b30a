//! What `topic produce` reads: files or standard input, cut into records.
//!
//! Reading blocks, so it runs on a thread of its own ([`read`]) and hands over what one read of the
//! file brought, at once: a slow pipe is passed on line by line, a fast file in large batches.

mod csv;
mod frame;
mod jsonl;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sapwood_client::RecordHeader;
use sapwood_model::{Code, PartitionId, Timestamp};

use crate::error::{Failure, io_failed};
use frame::{Framer, Framing, LineFraming};

/// The largest record that is read, before the broker has its say (its default is 1 MiB). Bounds
/// the memory that a file without newlines can take.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;

/// One record of the input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct InputRecord {
    /// `None` is a record without a key.
    pub(crate) key: Option<Bytes>,
    /// `None` is a tombstone.
    pub(crate) value: Option<Bytes>,
    /// In the order given; names may repeat.
    pub(crate) headers: Vec<RecordHeader>,
    /// Where the input itself names a partition (jsonl).
    pub(crate) partition: Option<PartitionId>,
    /// Where the input itself names a time (jsonl); otherwise the time of sending.
    pub(crate) timestamp: Option<Timestamp>,
}

/// How the input is cut into records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// One record a line; with a separator, what stands before its first occurrence is the key.
    Lines {
        /// Not empty.
        key_separator: Option<String>,
    },
    /// One record a line (or several, inside quotes), after a header line; one column is the key.
    Csv {
        /// The column's name in the header line.
        key_column: Option<String>,
        /// Between the fields.
        delimiter: u8,
    },
    /// One JSON object a line, as `topic consume -o jsonl` prints them.
    Jsonl,
    /// Each file is one record.
    WholeFile,
}

/// Where the input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// `-` is standard input.
    pub(crate) fn from_path(path: &Path) -> Self {
        if path == Path::new("-") {
            Self::Stdin
        } else {
            Self::File(path.to_owned())
        }
    }

    /// How much there is to read; `None` when that is not known.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File(path) => path
                .metadata()
                .ok()
                .filter(|file| file.is_file())
                .map(|file| file.len()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".into(),
            Self::File(path) => format!("{:?}", path.display().to_string()),
        }
    }

    fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match self {
            Self::Stdin => Ok(Box::new(io::stdin().lock())),
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(io_failed(&error, format!("cannot read {}", self.name()))),
            },
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ReadSummary {
    /// Blank lines of a CSV file, which are not records.
    pub(crate) blank_lines: u64,
}

/// Some records, and how many bytes of input they were.
#[derive(Debug, Default)]
pub(crate) struct InputBatch {
    /// In the order of the input.
    pub(crate) records: Vec<InputRecord>,
    /// Bytes of input, newlines included.
    pub(crate) bytes: u64,
}

/// Reads all sources in order and hands their records to `sink`, until it answers `false`. Blocks
/// on the sources and in `sink`.
///
/// # Errors
/// The first source that cannot be read and the first line that is not a record; what came before
/// has been handed over by then.
pub(crate) fn read(
    sources: &[Source],
    format: &Format,
    mut sink: impl FnMut(InputBatch) -> bool,
) -> Result<ReadSummary, Failure> {
    let mut summary = ReadSummary::default();
    for source in sources {
        let reader = source.open()?;
        let go_on = match format {
            Format::WholeFile => {
                let value = read_whole(reader, source)?;
                let bytes = value.len() as u64;
                let record = InputRecord {
                    value: Some(value),
                    ..InputRecord::default()
                };
                sink(InputBatch {
                    records: vec![record],
                    bytes,
                })
            }
            Format::Lines { key_separator } => {
                let separator = key_separator.as_deref().map(memchr::memmem::Finder::new);
                let mut parse = |line: Bytes| Ok(Some(split_key(line, separator.as_ref())));
                read_records(reader, source, LineFraming, &mut parse, &mut sink)?
            }
            Format::Jsonl => {
                let mut parse = |line: Bytes| match line.iter().all(u8::is_ascii_whitespace) {
                    true => Ok(None),
                    false => jsonl::parse(&line).map(Some),
                };
                read_records(reader, source, LineFraming, &mut parse, &mut sink)?
            }
            Format::Csv {
                key_column,
                delimiter,
            } => {
                let mut table = csv::Table::new(key_column.as_deref(), *delimiter);
                let framing = csv::CsvFraming::new(*delimiter);
                let mut parse = |line: Bytes| table.parse(line);
                let go_on = read_records(reader, source, framing, &mut parse, &mut sink)?;
                table
                    .finish()
                    .map_err(|failure| failure.at(source.name()))?;
                summary.blank_lines += table.blank_lines();
                go_on
            }
        };
        if !go_on {
            break;
        }
    }
    Ok(summary)
}

/// The key is what stands before the first separator; a line without one is all value.
fn split_key(line: Bytes, separator: Option<&memchr::memmem::Finder<'_>>) -> InputRecord {
    let found = separator.and_then(|finder| Some((finder.find(&line)?, finder.needle().len())));
    match found {
        Some((at, length)) => InputRecord {
            key: Some(line.slice(..at)),
            value: Some(line.slice(at + length..)),
            ..InputRecord::default()
        },
        None => InputRecord {
            value: Some(line),
            ..InputRecord::default()
        },
    }
}

fn read_whole(reader: Box<dyn Read>, source: &Source) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let limit = RECORD_BYTES_MAX as u64;
    reader
        .take(limit + 1)
        .read_to_end(&mut value)
        .map_err(|error| io_failed(&error, format!("cannot read {}", source.name())))?;
    if value.len() > RECORD_BYTES_MAX {
        return Err(too_large().at(source.name()));
    }
    Ok(value.into())
}

fn too_large() -> Failure {
    Failure::new(
        Code::RecordTooLarge,
        format!("the record is larger than {RECORD_BYTES_MAX} bytes, the limit of this command"),
    )
    .cause("No newline came before the limit, or the file is one large record.")
    .hint("Choose the --format that the input has, or split it.")
}

/// Cuts a source into frames, parses each, hands over what one read brought. `parse` answers
/// `None` for a frame that is no record (a header line, a blank one).
fn read_records<F: Framing>(
    reader: Box<dyn Read>,
    source: &Source,
    framing: F,
    parse: &mut dyn FnMut(Bytes) -> Result<Option<InputRecord>, Failure>,
    sink: &mut dyn FnMut(InputBatch) -> bool,
) -> Result<bool, Failure> {
    let mut framer = Framer::new(reader, framing, RECORD_BYTES_MAX);
    loop {
        let mut batch = InputBatch::default();
        let more = framer.fill().map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => {
                too_large().at(format!("{}, line {}", source.name(), framer.line()))
            }
            _ => io_failed(&error, format!("cannot read {}", source.name())),
        })?;
        let mut failure = None;
        while let Some(frame) = framer.next_frame() {
            batch.bytes += frame.len() as u64 + 1;
            match parse(frame) {
                Ok(Some(record)) => batch.records.push(record),
                Ok(None) => {}
                Err(error) => {
                    let place = format!("{}, line {}", source.name(), framer.frame_line());
                    failure = Some(error.at(place));
                    break;
                }
            }
        }
        let go_on = batch.records.is_empty() || sink(batch);
        match failure {
            Some(failure) => return Err(failure),
            None if !go_on => return Ok(false),
            None if !more => return Ok(true),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_text(text: &[u8], format: &Format) -> (Vec<InputRecord>, Result<ReadSummary, Failure>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let sources = [Source::File(file.path().to_owned())];
        let mut records = Vec::new();
        let result = read(&sources, format, |batch| {
            records.extend(batch.records);
            true
        });
        (records, result)
    }

    fn value(text: &'static str) -> InputRecord {
        InputRecord {
            value: Some(Bytes::from_static(text.as_bytes())),
            ..InputRecord::default()
        }
    }

    fn keyed(key: &'static str, text: &'static str) -> InputRecord {
        InputRecord {
            key: Some(Bytes::from_static(key.as_bytes())),
            ..value(text)
        }
    }

    #[test]
    fn each_line_is_a_value_without_its_newline_and_nothing_else_is_taken_off() {
        let (records, result) = read_text(
            b"a\n\n b \r\nlast",
            &Format::Lines {
                key_separator: None,
            },
        );
        assert_eq!(
            records,
            [value("a"), value(""), value(" b \r"), value("last")]
        );
        assert!(result.is_ok());
    }

    #[test]
    fn an_empty_input_has_no_records_and_a_final_newline_adds_none() {
        let lines = Format::Lines {
            key_separator: None,
        };
        assert_eq!(read_text(b"", &lines).0, []);
        assert_eq!(read_text(b"a\n", &lines).0, [value("a")]);
        assert_eq!(read_text(b"\n", &lines).0, [value("")]);
    }

    #[test]
    fn the_first_separator_ends_the_key() {
        let format = Format::Lines {
            key_separator: Some("=>".into()),
        };
        let (records, _) = read_text(b"k=>v=>w\nplain\n=>v\n", &format);
        assert_eq!(
            records,
            [keyed("k", "v=>w"), value("plain"), keyed("", "v")]
        );
    }

    #[test]
    fn csv_lines_are_values_byte_for_byte_and_the_column_is_the_key() {
        let format = Format::Csv {
            key_column: Some("tail".into()),
            delimiter: b',',
        };
        let text = b"year,tail,to\n2013,N1,\"a\nb\"\n2013,,x\n2013,\"N\"\"2\",y\n";
        let (records, result) = read_text(text, &format);
        let expected = [
            keyed("N1", "2013,N1,\"a\nb\""),
            value("2013,,x"),
            keyed("N\"2", "2013,\"N\"\"2\",y"),
        ];
        assert_eq!(records, expected);
        assert_eq!(result, Ok(ReadSummary::default()));
    }

    #[test]
    fn records_before_a_bad_line_are_handed_over_and_the_error_names_the_line() {
        let (records, result) = read_text(b"{\"value\":\"a\"}\n{\"value\":\n", &Format::Jsonl);
        assert_eq!(records, [value("a")]);
        let failure = result.unwrap_err();
        assert!(failure.message.contains("line 2"), "{}", failure.message);
    }

    #[test]
    fn a_missing_file_is_named() {
        let sources = [Source::File("/nonexistent/input.csv".into())];
        let failure = read(&sources, &Format::Jsonl, |_| true).unwrap_err();
        assert!(
            failure.message.contains("/nonexistent/input.csv"),
            "{}",
            failure.message
        );
        assert_eq!(failure.exit_code(), crate::error::Exit::NotFound);
    }
}
