//! The broker's errors as typed errors of the API.

use std::fmt::Display;

use sapwood_broker::{
    AlterTopicError, AppendError, BudgetError, CreateTopicError, FetchError, GroupRequestError,
    LookupError, LookupReadError, OfflineReason, ProduceError, ProducerIdError, ReadError,
    SeekError, TopicConfigError, TrimError, group::GroupError,
};
use sapwood_model::{Code, PartitionId};
use sapwood_rpc::{status, v1};
use tonic::Status;

/// An error that says what, why and what next, on its way to a status or to an item of an answer.
#[derive(Debug)]
pub(crate) struct Failure(Box<v1::Error>, Code);

impl Failure {
    pub(crate) fn new(code: Code, message: impl Display) -> Self {
        let info = code.info();
        let error = v1::Error {
            code: code.to_string(),
            message: message.to_string(),
            cause: info.cause.to_owned(),
            hint: info.next.to_owned(),
            fields: Default::default(),
            retriable: is_retriable(code),
        };
        Self(Box::new(error), code)
    }

    /// Adds a value that a program may want.
    pub(crate) fn field(mut self, key: &str, value: impl Display) -> Self {
        self.0.fields.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says which partition it is about.
    pub(crate) fn about(self, topic: &str, partition: PartitionId) -> Self {
        self.field("topic", topic).field("partition", partition)
    }

    pub(crate) fn code(&self) -> Code {
        self.1
    }

    pub(crate) fn into_status(self) -> Status {
        status::pack(grpc_code(self.1), &self.0)
    }

    pub(crate) fn into_error(self) -> v1::Error {
        *self.0
    }

    /// The broker shuts down.
    pub(crate) fn draining() -> Self {
        Self::new(Code::Draining, "the broker is shutting down")
    }

    fn read(error: &ReadError) -> Self {
        let failure = Self::new(error.code(), error);
        match error {
            ReadError::OutOfRange { available, .. } => failure
                .field("log_start_offset", available.start)
                .field("log_end_offset", available.end),
            _ => failure,
        }
    }

    fn config(error: &TopicConfigError) -> Self {
        let failure = Self::new(error.code(), error);
        match error {
            TopicConfigError::UnknownKey {
                suggestion: Some(suggestion),
                ..
            } => failure.field("suggestion", suggestion),
            _ => failure,
        }
    }
}

/// May the same request succeed later, unchanged? A full disk gets room, a broker comes back.
fn is_retriable(code: Code) -> bool {
    matches!(
        code,
        Code::TimedOut
            | Code::Overloaded
            | Code::Draining
            | Code::Loading
            | Code::StaleMemberEpoch
            | Code::GroupRebalancing
            | Code::StorageFull
            | Code::ReadOnly
            | Code::TooFewDescriptors
    )
}

fn grpc_code(code: Code) -> tonic::Code {
    use tonic::Code as Grpc;
    match code {
        Code::InvalidArgument
        | Code::InvalidConfig
        | Code::UnknownConfig
        | Code::InvalidTopicName
        | Code::InvalidTopicConfig
        | Code::UnknownTopicConfig
        | Code::InvalidPartitions
        | Code::InvalidReplication
        | Code::RecordTooLarge
        | Code::CorruptBatch
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidGroupId
        | Code::UnknownAssignor
        | Code::InvalidTopicRegex
        | Code::OffsetMetadataTooLarge => Grpc::InvalidArgument,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownGroup | Code::UnknownMember => {
            Grpc::NotFound
        }
        Code::TopicExists | Code::InstanceInUse => Grpc::AlreadyExists,
        Code::OffsetOutOfRange => Grpc::OutOfRange,
        Code::ExpectedEndConflict
        | Code::ProducerFenced
        | Code::MemberFenced
        | Code::StaleMemberEpoch
        | Code::InstanceFenced
        | Code::GroupRebalancing => Grpc::Aborted,
        Code::OutOfSequence
        | Code::ReadOnly
        | Code::GroupNotEmpty
        | Code::OtherGroupKind
        | Code::GroupReadsTopic => Grpc::FailedPrecondition,
        Code::Overloaded | Code::StorageFull | Code::TooFewDescriptors | Code::GroupFull => {
            Grpc::ResourceExhausted
        }
        Code::TimedOut => Grpc::DeadlineExceeded,
        Code::Draining | Code::Loading | Code::Unreachable | Code::PartitionOffline => {
            Grpc::Unavailable
        }
        Code::NoPermission => Grpc::PermissionDenied,
        Code::IoFailed | Code::CatalogDamaged | Code::FileDamaged => Grpc::DataLoss,
        // What only a start or a command can meet.
        _ => Grpc::Internal,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.into_status()
    }
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        let failure = Self::new(error.code(), &error);
        match error {
            ProduceError::Append(AppendError::ExpectedEnd { expected, actual }) => failure
                .field("expected_end_offset", expected)
                .field("actual_end_offset", actual),
            _ => failure,
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match &error {
            FetchError::Read(read) => Self::read(read),
            _ => Self::new(error.code(), &error),
        }
    }
}

impl From<LookupReadError> for Failure {
    fn from(error: LookupReadError) -> Self {
        match &error {
            LookupReadError::Read(read) => Self::read(read),
            _ => Self::new(error.code(), &error),
        }
    }
}

impl From<CreateTopicError> for Failure {
    fn from(error: CreateTopicError) -> Self {
        match &error {
            CreateTopicError::Config(config) => Self::config(config),
            _ => Self::new(error.code(), &error),
        }
    }
}

impl From<AlterTopicError> for Failure {
    fn from(error: AlterTopicError) -> Self {
        match &error {
            AlterTopicError::Config(config) => Self::config(config),
            _ => Self::new(error.code(), &error),
        }
    }
}

impl From<TrimError> for Failure {
    fn from(error: TrimError) -> Self {
        Self::new(error.code(), &error)
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        Self::new(error.code(), &error)
    }
}

impl From<ProducerIdError> for Failure {
    fn from(error: ProducerIdError) -> Self {
        Self::new(error.code(), &error)
    }
}

impl From<BudgetError> for Failure {
    fn from(error: BudgetError) -> Self {
        Self::new(error.code(), &error)
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        let failure = Self::new(error.code(), &error);
        match error {
            GroupError::UnknownPartition { topic, partition } => {
                failure.about(topic.as_str(), partition)
            }
            GroupError::SubscribedToTopic { topic } => failure.field("topic", topic),
            _ => failure,
        }
    }
}

impl From<GroupRequestError> for Failure {
    fn from(error: GroupRequestError) -> Self {
        match error {
            GroupRequestError::Group(error) => error.into(),
            GroupRequestError::Coordinator(_) | GroupRequestError::Topic(_) => {
                Self::new(error.code(), &error)
            }
        }
    }
}

impl From<SeekError> for Failure {
    fn from(error: SeekError) -> Self {
        let failure = Self::new(error.code(), &error);
        match error {
            SeekError::Group(error) => error.into(),
            SeekError::Lookup(error) => error.into(),
            SeekError::Read { partition, .. }
            | SeekError::NothingCommitted { partition }
            | SeekError::Twice { partition } => {
                failure.about(partition.topic.as_str(), partition.partition)
            }
            SeekError::OutOfRange {
                partition, bounds, ..
            } => failure
                .about(partition.topic.as_str(), partition.partition)
                .field("log_start_offset", bounds.log_start)
                .field("log_end_offset", bounds.high_watermark),
        }
    }
}

/// Why a partition is offline.
pub(crate) fn offline(reason: &OfflineReason) -> v1::Error {
    Failure::new(Code::PartitionOffline, reason).into_error()
}

/// What tonic found wrong with a request's bytes, as a typed error.
pub(crate) fn intake(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let code = match status.code() {
        // A message above the limit.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Code::RecordTooLarge,
        // Not protobuf, or a broken frame.
        tonic::Code::Internal => Code::InvalidArgument,
        // The client went away: nobody reads this.
        _ => return status,
    };
    Failure::new(
        code,
        format_args!("the request cannot be read: {}", status.message()),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_code_cause_hint_and_fields_in_its_status() {
        let failure = Failure::new(Code::TopicExists, "topic \"a\" exists").field("topic", "a");
        let status = failure.into_status();
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        let error = status::unpack(&status).unwrap();
        assert_eq!(error.code, "SW3006");
        assert_eq!(error.cause, Code::TopicExists.info().cause);
        assert_eq!(error.hint, Code::TopicExists.info().next);
        assert_eq!(error.fields["topic"], "a");
        assert!(!error.retriable);
    }

    #[test]
    fn a_full_disk_and_a_draining_broker_are_worth_another_try() {
        for code in [Code::StorageFull, Code::Draining, Code::Overloaded] {
            assert!(Failure::new(code, "x").into_error().retriable, "{code}");
        }
        for code in [
            Code::CorruptBatch,
            Code::ExpectedEndConflict,
            Code::UnknownTopic,
        ] {
            assert!(!Failure::new(code, "x").into_error().retriable, "{code}");
        }
    }

    #[test]
    fn what_tonic_finds_wrong_gets_a_code_and_typed_statuses_stay() {
        let too_large = intake(Status::out_of_range("too large"));
        assert_eq!(
            status::unpack(&too_large).unwrap().code,
            Code::RecordTooLarge.to_string()
        );
        let garbage = intake(Status::internal("failed to decode"));
        assert_eq!(
            status::unpack(&garbage).unwrap().code,
            Code::InvalidArgument.to_string()
        );
        let typed = intake(Failure::new(Code::Overloaded, "x").into_status());
        assert_eq!(
            status::unpack(&typed).unwrap().code,
            Code::Overloaded.to_string()
        );
    }
}
