//! What can go wrong, with a stable code.

use std::{collections::BTreeMap, fmt, sync::Arc};

use sapwood_model::{Code, Offset};
use sapwood_rpc::{status, v1};
use tonic::Status;

/// A failure, with the same stable code that the broker's log, the command line and the
/// documentation use. Cheap to clone: one batch's failure is shared by all its records.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: String,
    cause: String,
    hint: String,
    fields: BTreeMap<String, String>,
    retriable: bool,
    transport: bool,
}

impl Error {
    /// The stable code. [`Code::Internal`] when a newer broker sent one that is not known here; the
    /// message then begins with it.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Why it happens, in a sentence. May be empty.
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What to do next. May be empty.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }

    /// A value that the error names, such as `topic`, `partition` or `suggestion`; the keys are
    /// listed in `proto/sapwood/v1/error.proto`.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.0.fields.get(key).map(String::as_str)
    }

    /// True when the same request may succeed later without being changed.
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// The partition's real end, of [`Code::ExpectedEndConflict`].
    pub fn actual_end(&self) -> Option<Offset> {
        self.field("actual_end_offset")?.parse().ok().map(Offset)
    }

    /// What can be read, half-open, of [`Code::OffsetOutOfRange`].
    pub fn available(&self) -> Option<std::ops::Range<Offset>> {
        let bound = |key| self.field(key)?.parse().ok().map(Offset);
        Some(bound("log_start_offset")?..bound("log_end_offset")?)
    }

    /// True when the connection failed, so that nothing is known about what the broker did.
    pub(crate) fn is_transport(&self) -> bool {
        self.0.transport
    }

    /// An error that the client found by itself.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        Self::build(code, message.into(), false, false)
    }

    /// The connection failed.
    pub(crate) fn transport(message: impl Into<String>) -> Self {
        Self::build(Code::Unreachable, message.into(), true, true)
    }

    fn build(code: Code, message: String, retriable: bool, transport: bool) -> Self {
        let info = code.info();
        Self(Arc::new(Inner {
            code,
            message,
            cause: info.cause.to_owned(),
            hint: info.next.to_owned(),
            fields: BTreeMap::new(),
            retriable,
            transport,
        }))
    }

    /// Adds what the error is about.
    pub(crate) fn about(mut self, topic: &str, partition: u32) -> Self {
        let fields = &mut Arc::make_mut(&mut self.0).fields;
        fields.entry("topic".into()).or_insert_with(|| topic.into());
        fields
            .entry("partition".into())
            .or_insert_with(|| partition.to_string());
        self
    }
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        let known = Code::parse(&error.code);
        let message = match known {
            Some(_) => error.message,
            None => format!("{}: {}", error.code, error.message),
        };
        Self(Arc::new(Inner {
            code: known.unwrap_or(Code::Internal),
            message,
            cause: error.cause,
            hint: error.hint,
            fields: error.fields,
            retriable: error.retriable,
            transport: false,
        }))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(error) = status::unpack(&status) {
            return error.into();
        }
        let message = describe(&status);
        match status.code() {
            tonic::Code::Unimplemented => Self::local(
                Code::Unreachable,
                format!("what answers at this address does not offer this call: {message}"),
            ),
            tonic::Code::DeadlineExceeded => Self::build(Code::TimedOut, message, true, true),
            tonic::Code::OutOfRange => Self::local(Code::RecordTooLarge, message),
            // Without a typed detail it did not come from a broker that was in its right mind: the
            // connection broke, or something between here and there spoke.
            _ => Self::transport(message),
        }
    }
}

/// The status and what lies beneath it: a bare "transport error" helps nobody.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = if text.is_empty() {
                next
            } else {
                format!("{text}: {next}")
            };
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_a_typed_detail_keeps_everything() {
        let sent = v1::Error {
            code: "SW4001".into(),
            message: "offset 9 is outside".into(),
            cause: "c".into(),
            hint: "h".into(),
            fields: [("log_start_offset", "3"), ("log_end_offset", "7")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            retriable: false,
        };
        let error = Error::from(status::pack(tonic::Code::OutOfRange, &sent));
        assert_eq!(error.code(), Code::OffsetOutOfRange);
        assert_eq!(error.available(), Some(Offset(3)..Offset(7)));
        assert_eq!((error.cause(), error.hint()), ("c", "h"));
        assert!(!error.is_retriable() && !error.is_transport());
    }

    #[test]
    fn a_code_of_a_newer_broker_is_shown_in_the_message() {
        let sent = v1::Error {
            code: "SW7999".into(),
            message: "new".into(),
            ..Default::default()
        };
        let error = Error::from(sent);
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(error.to_string(), "SW7999: new");
    }

    #[test]
    fn a_status_without_detail_is_a_broken_connection() {
        let error = Error::from(Status::unknown("h2 protocol error"));
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.is_transport() && error.is_retriable());
    }
}
