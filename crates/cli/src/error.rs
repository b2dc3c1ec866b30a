//! What went wrong, as people and scripts see it: a stable code, the cause, the next command, and
//! an exit code.

use std::{fmt::Display, io};

use sapwood_model::Code;
use serde_json::json;

/// How the process ends. The numbers are stable: scripts test them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Ok = 0,
    /// It failed, for a reason that none of the others names.
    Failed = 1,
    /// The command, a flag or a value is not valid.
    Usage = 2,
    /// A topic, partition, offset or code does not exist.
    NotFound = 3,
    /// Nothing answers at the address.
    Unreachable = 4,
    /// Not allowed: by the broker, or by the file system.
    NotAllowed = 5,
    /// Something is there already, or somebody else was first.
    Conflict = 6,
    /// The deadline passed.
    TimedOut = 7,
    /// Some of it was done, some was not.
    Partial = 8,
    /// It runs, or it could be read, but it is damaged or degraded.
    Unhealthy = 10,
}

impl Exit {
    /// The exit code of an error code.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument
            | Code::InvalidConfig
            | Code::UnknownConfig
            | Code::InsecureListen
            | Code::InvalidTopicName
            | Code::InvalidTopicConfig
            | Code::UnknownTopicConfig
            | Code::InvalidPartitions
            | Code::InvalidReplication
            | Code::InvalidGroupId
            | Code::UnknownAssignor
            | Code::InvalidTopicRegex
            | Code::OffsetMetadataTooLarge => Self::Usage,
            Code::UnknownTopic
            | Code::UnknownPartition
            | Code::OffsetOutOfRange
            | Code::UnknownGroup
            | Code::UnknownMember => Self::NotFound,
            Code::Unreachable | Code::Draining => Self::Unreachable,
            Code::NoPermission => Self::NotAllowed,
            Code::PortInUse
            | Code::DirectoryInUse
            | Code::TopicExists
            | Code::ExpectedEndConflict
            | Code::OutOfSequence
            | Code::ProducerFenced
            | Code::MemberFenced
            | Code::StaleMemberEpoch
            | Code::InstanceFenced
            | Code::InstanceInUse
            | Code::GroupNotEmpty
            | Code::OtherGroupKind
            | Code::GroupReadsTopic
            | Code::GroupRebalancing => Self::Conflict,
            Code::TimedOut => Self::TimedOut,
            Code::PartitionOffline | Code::ReadOnly | Code::CatalogDamaged | Code::FileDamaged => {
                Self::Unhealthy
            }
            _ => Self::Failed,
        }
    }
}

/// Why a command ended before it was done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Box<Failure>),
    /// The reader of our standard output went away (`| head`). Not an error: the process ends
    /// quietly with 0.
    PipeClosed,
}

/// What a command returns.
pub(crate) type Outcome<T = Exit> = Result<T, Stop>;

/// One failure, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The stable error code.
    pub(crate) code: Code,
    /// What happened, in one line.
    pub(crate) message: String,
    cause: Option<String>,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// A failure with the code's own cause and next step. `message` is lowercase, with value and
    /// limit.
    pub(crate) fn new(code: Code, message: impl Display) -> Self {
        let message = message.to_string();
        Self {
            code,
            message,
            cause: None,
            hint: None,
            exit: Exit::of(code),
        }
    }

    /// A value on the command line or in the input that cannot be taken.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Replaces the code's general cause by what is known about this case.
    pub(crate) fn cause(mut self, cause: impl Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Replaces the code's general next step by one that fits this case.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Ends the process with another code than the error code's own.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Puts a place before the message: `line 7: ...`.
    pub(crate) fn at(mut self, place: impl Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The code of the process.
    pub(crate) fn exit_code(&self) -> Exit {
        self.exit
    }

    fn cause_text(&self) -> &str {
        self.cause.as_deref().unwrap_or(self.code.info().cause)
    }

    fn hint_text(&self) -> &str {
        self.hint.as_deref().unwrap_or(self.code.info().next)
    }

    /// The form for people, several lines without a newline at the end, with terminal styles.
    pub(crate) fn to_text(&self) -> String {
        use owo_colors::OwoColorize;
        let head = format!("error[{}]", self.code);
        format!(
            "{}: {}\n  cause: {}\n  try:   {}\n  more:  sapwood explain {}",
            head.red().bold(),
            self.message,
            self.cause_text(),
            self.hint_text(),
            self.code
        )
    }

    /// The form for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({
            "error": {
                "code": self.code.to_string(),
                "message": self.message,
                "cause": self.cause_text(),
                "try": self.hint_text(),
                "more": format!("sapwood explain {}", self.code),
                "exit": self.exit as u8,
            }
        })
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// A failed write to standard output: a closed pipe is a quiet end, anything else a failure.
pub(crate) fn stdout_failed(error: &io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::PipeClosed,
        _ => io_failed(error, "cannot write to standard output").into(),
    }
}

/// A failed operation on a file of the user's: `doing` says which, `cannot read "a.csv"`.
pub(crate) fn io_failed(error: &io::Error, doing: impl Display) -> Failure {
    let (code, exit, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            Code::InvalidArgument,
            Exit::NotFound,
            "Check the path; `-` is standard input.",
        ),
        io::ErrorKind::PermissionDenied => (
            Code::NoPermission,
            Exit::NotAllowed,
            "Change its permissions or its owner.",
        ),
        io::ErrorKind::StorageFull => (Code::StorageFull, Exit::Failed, "Free space, then retry."),
        io::ErrorKind::IsADirectory => (
            Code::InvalidArgument,
            Exit::Usage,
            "Name the files in it one by one.",
        ),
        _ => (Code::IoFailed, Exit::Failed, Code::IoFailed.info().next),
    };
    Failure::new(code, format!("{doing}: {error}"))
        .cause("The operating system refused it.")
        .hint(hint)
        .exit(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_code_cause_next_step_and_where_to_read_more() {
        let failure = Failure::new(Code::TopicExists, "topic \"orders\" already exists")
            .cause("it was made")
            .hint("sapwood topic delete orders");
        let text = anstream::adapter::strip_str(&failure.to_text()).to_string();
        assert_eq!(
            text,
            "error[SW3006]: topic \"orders\" already exists\n  cause: it was made\n  \
             try:   sapwood topic delete orders\n  more:  sapwood explain SW3006"
        );
        assert_eq!(failure.to_json()["error"]["code"], "SW3006");
        assert_eq!(failure.to_json()["error"]["exit"], 6);
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(stdout_failed(&closed), Stop::PipeClosed));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(stdout_failed(&full), Stop::Failed(_)));
    }
}
