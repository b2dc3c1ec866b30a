//! Kafka's error codes, and the one place where the broker's errors become them.

use std::fmt;

use sapwood_broker::{
    AlterTopicError, AppendError, CoordinatorError, CreateTopicError, FetchError,
    GroupRequestError, LookupError, LookupReadError, ProduceError, ProducerIdError, ReadError,
    TrimError, group::GroupError,
};
use sapwood_model::Code;
use sapwood_record::BatchError;

macro_rules! error_codes {
    ($($name:ident = $number:literal, $text:literal;)+) => {
        /// An error code of Kafka's protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`")] $name = $number,)+
        }

        impl ErrorCode {
            /// Every code that this broker knows, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Kafka's own name: `OFFSET_OUT_OF_RANGE`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR";
    None = 0, "NONE";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE";
    CorruptMessage = 2, "CORRUPT_MESSAGE";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE";
    NetworkException = 13, "NETWORK_EXCEPTION";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE";
    NotCoordinator = 16, "NOT_COORDINATOR";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS";
    IllegalGeneration = 22, "ILLEGAL_GENERATION";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL";
    InvalidGroupId = 24, "INVALID_GROUP_ID";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS";
    InvalidPartitions = 37, "INVALID_PARTITIONS";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT";
    InvalidConfig = 40, "INVALID_CONFIG";
    NotController = 41, "NOT_CONTROLLER";
    InvalidRequest = 42, "INVALID_REQUEST";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT";
    PolicyViolation = 44, "POLICY_VIOLATION";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH";
    InvalidTxnState = 48, "INVALID_TXN_STATE";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    SecurityDisabled = 54, "SECURITY_DISABLED";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC";
    InvalidRecord = 87, "INVALID_RECORD";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED";
    ProducerFenced = 90, "PRODUCER_FENCED";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND";
    DuplicateResource = 92, "DUPLICATE_RESOURCE";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The code with this number, if this broker knows it.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Broker errors as Kafka's codes.
pub(crate) trait AsKafka: fmt::Display {
    /// The code that makes clients do the right thing: retry, look metadata up again, or give up.
    fn kafka(&self) -> ErrorCode;
}

/// What a stable code is when nothing more is known about it.
fn of(code: Code) -> ErrorCode {
    match code {
        Code::InvalidArgument => ErrorCode::InvalidRequest,
        Code::UnknownTopic | Code::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        Code::InvalidTopicName => ErrorCode::InvalidTopicException,
        Code::InvalidTopicConfig | Code::UnknownTopicConfig => ErrorCode::InvalidConfig,
        Code::TopicExists => ErrorCode::TopicAlreadyExists,
        Code::InvalidPartitions => ErrorCode::InvalidPartitions,
        Code::InvalidReplication => ErrorCode::InvalidReplicationFactor,
        Code::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        Code::RecordTooLarge => ErrorCode::MessageTooLarge,
        Code::CorruptBatch => ErrorCode::CorruptMessage,
        Code::OutOfSequence => ErrorCode::OutOfOrderSequenceNumber,
        Code::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        Code::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        Code::InvalidRecord => ErrorCode::InvalidRecord,
        // Clients look metadata up again and retry, until the broker is back or the disk has room.
        Code::Draining => ErrorCode::NotLeaderOrFollower,
        Code::StorageFull
        | Code::PartitionOffline
        | Code::ReadOnly
        | Code::IoFailed
        | Code::CatalogDamaged
        | Code::FileDamaged
        | Code::TooFewDescriptors => ErrorCode::KafkaStorageError,
        Code::Loading => ErrorCode::CoordinatorLoadInProgress,
        Code::TimedOut => ErrorCode::RequestTimedOut,
        Code::Overloaded => ErrorCode::ThrottlingQuotaExceeded,
        Code::UnknownGroup | Code::OtherGroupKind => ErrorCode::GroupIdNotFound,
        Code::UnknownMember => ErrorCode::UnknownMemberId,
        Code::MemberFenced => ErrorCode::FencedMemberEpoch,
        Code::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        Code::InstanceFenced => ErrorCode::FencedInstanceId,
        Code::InstanceInUse => ErrorCode::UnreleasedInstanceId,
        Code::GroupNotEmpty => ErrorCode::NonEmptyGroup,
        Code::InvalidGroupId => ErrorCode::InvalidGroupId,
        Code::UnknownAssignor => ErrorCode::UnsupportedAssignor,
        Code::InvalidTopicRegex => ErrorCode::InvalidRegularExpression,
        Code::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        Code::GroupFull => ErrorCode::GroupMaxSizeReached,
        Code::GroupReadsTopic => ErrorCode::GroupSubscribedToTopic,
        Code::GroupRebalancing => ErrorCode::RebalanceInProgress,
        Code::InvalidConfig
        | Code::UnknownConfig
        | Code::PortInUse
        | Code::Unreachable
        | Code::InsecureListen
        | Code::ExpectedEndConflict
        | Code::DirectoryInUse
        | Code::DirectoryNewer
        | Code::NotADirectory
        | Code::NoPermission
        | Code::Internal => ErrorCode::UnknownServerError,
    }
}

/// As [`of`] for changes of topics, which in Kafka are the controller's.
fn of_change(code: Code) -> ErrorCode {
    match code {
        Code::Draining => ErrorCode::NotController,
        other => of(other),
    }
}

impl AsKafka for BatchError {
    fn kafka(&self) -> ErrorCode {
        match self {
            // Damaged on its way: sending it again helps.
            Self::HeaderTruncated { .. }
            | Self::LengthTooSmall { .. }
            | Self::Truncated { .. }
            | Self::Crc { .. } => ErrorCode::CorruptMessage,
            Self::UnknownCodec { .. } => ErrorCode::UnsupportedCompressionType,
            // As it was built: sending it again does not help.
            Self::TrailingBytes { .. }
            | Self::Magic { .. }
            | Self::NegativeCount { .. }
            | Self::Empty
            | Self::CountMismatch { .. }
            | Self::ProducerStamp { .. }
            | Self::Record { .. }
            | Self::RecordsTrailing { .. }
            | Self::Decompress { .. } => ErrorCode::InvalidRecord,
            other => of(other.code()),
        }
    }
}

impl AsKafka for ProduceError {
    fn kafka(&self) -> ErrorCode {
        match self {
            Self::Batch(error) => error.kafka(),
            Self::Append(error) => error.kafka(),
            other => of(other.code()),
        }
    }
}

macro_rules! by_code {
    ($of:path: $($error:ty),+) => {
        $(impl AsKafka for $error {
            fn kafka(&self) -> ErrorCode {
                $of(self.code())
            }
        })+
    };
}

by_code!(of: AppendError, ReadError, FetchError, LookupError, LookupReadError);
by_code!(of_change: CreateTopicError, AlterTopicError, TrimError);

impl AsKafka for ProducerIdError {
    fn kafka(&self) -> ErrorCode {
        match self {
            // Any code that is not one of a coordinator's ends an idempotent producer.
            Self::Draining => ErrorCode::CoordinatorNotAvailable,
            other => of(other.code()),
        }
    }
}

impl AsKafka for GroupError {
    fn kafka(&self) -> ErrorCode {
        match self {
            Self::InvalidRequest(_) => ErrorCode::InvalidRequest,
            Self::InvalidGroupId { .. } => ErrorCode::InvalidGroupId,
            Self::GroupNotFound => ErrorCode::GroupIdNotFound,
            Self::UnknownMember => ErrorCode::UnknownMemberId,
            Self::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
            Self::IllegalGeneration { .. } => ErrorCode::IllegalGeneration,
            Self::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            Self::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            Self::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
            Self::FencedInstance => ErrorCode::FencedInstanceId,
            Self::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
            Self::GroupFull { .. } => ErrorCode::GroupMaxSizeReached,
            Self::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            Self::FencedMemberEpoch { .. } => ErrorCode::FencedMemberEpoch,
            Self::StaleMemberEpoch { .. } => ErrorCode::StaleMemberEpoch,
            Self::UnsupportedAssignor { .. } => ErrorCode::UnsupportedAssignor,
            Self::InvalidRegularExpression { .. } => ErrorCode::InvalidRegularExpression,
            Self::SubscribedToTopic { .. } => ErrorCode::GroupSubscribedToTopic,
            Self::UnknownPartition { .. } => ErrorCode::UnknownTopicOrPartition,
            Self::MetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
        }
    }
}

impl AsKafka for CoordinatorError {
    fn kafka(&self) -> ErrorCode {
        match self {
            Self::Loading { .. } => ErrorCode::CoordinatorLoadInProgress,
            // Clients look for the coordinator again and retry, until it is back or the disk has room.
            Self::Append(_) | Self::Failed { .. } | Self::Draining => {
                ErrorCode::CoordinatorNotAvailable
            }
            // A retry does not help; this is what Kafka says when a group has grown too large.
            Self::TooLarge { .. } => ErrorCode::UnknownServerError,
            Self::Unwritable { .. } => ErrorCode::InvalidRequest,
        }
    }
}

impl AsKafka for GroupRequestError {
    fn kafka(&self) -> ErrorCode {
        match self {
            Self::Group(error) => error.kafka(),
            Self::Coordinator(error) => error.kafka(),
            Self::Topic(_) => ErrorCode::CoordinatorNotAvailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_are_found_again() {
        let numbers: Vec<i16> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(ErrorCode::from_number(-2), None);
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!(
            ErrorCode::OffsetOutOfRange.to_string(),
            "OFFSET_OUT_OF_RANGE"
        );
        assert_eq!(ErrorCode::FencedLeaderEpoch.number(), 74);
        assert_eq!(ErrorCode::UnknownTopicId.number(), 100);
    }

    #[test]
    fn what_a_retry_mends_is_told_from_what_it_does_not() {
        let crc = BatchError::Crc {
            stored: 1,
            computed: 2,
        };
        assert_eq!(crc.kafka(), ErrorCode::CorruptMessage);
        assert_eq!(BatchError::Empty.kafka(), ErrorCode::InvalidRecord);
        let full = AppendError::NoSpace { bytes: 1 };
        assert_eq!(full.kafka(), ErrorCode::KafkaStorageError);
        assert_eq!(
            ProduceError::Draining.kafka(),
            ErrorCode::NotLeaderOrFollower
        );
        assert_eq!(AlterTopicError::Draining.kafka(), ErrorCode::NotController);
    }
}
