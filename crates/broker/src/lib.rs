//! The protocol-free core of Sapwood: catalog, partitions, produce, fetch, consumer groups.
//!
//! Front doors (Kafka, gRPC, HTTP) translate their protocol to the methods of [`Broker`] and know
//! nothing else. A program may also embed it: [`Broker::open`] runs everything in the process, in a
//! directory (see `examples/embedded.rs`).
//!
//! Nothing here blocks an async thread: what waits for a disk runs on tokio's blocking pool, and no
//! lock is held across an `.await`.

mod broker;
mod driver;
mod options;

mod catalog;
mod registry;
mod topic_config;
mod topics;

mod fetch;
mod produce;
mod reads;
mod waiters;

mod coordinator;
mod groups;

mod background;
mod drain;
mod limits;
mod metrics;
mod producer_ids;
mod throttle;

pub use background::{CompactError, Compacted, CompactionProgress, Retained};
pub use broker::{Broker, CloseError, OpenError};
pub use catalog::{CatalogError, CatalogOpenError, read_stopped_catalog};
pub use coordinator::{CoordinatorError, LoadProgress};
pub use drain::Status;
pub use driver::Driver;
pub use fetch::{Fetch, FetchError, FetchPartition, Fetched, FetchedPartition};
pub use groups::{
    GroupChanges, GroupCoordinator, GroupMetrics, GroupOverview, GroupRequestError, GroupSurvey,
    Listing, MemberOverview, PartitionOverview, SeekError, SeekPartitions, SeekPosition,
    SeekResult, SeekTarget, SurveyedGroup,
};
pub use limits::{Budget, BudgetError, ConnectionBudget, Permit};
pub use metrics::{
    CompactionLevels, CompactionMetrics, Metrics, MetricsSnapshot, PartitionMetrics, Results,
    RetentionMetrics, TaskMetrics, TaskProgress, TopicMetrics,
};
pub use options::{BrokerOptions, ReplicationPolicy};
pub use produce::{Pending, Produce, ProduceError, Produced};
pub use producer_ids::ProducerIdError;
pub use reads::{LookupReadError, PartitionLeader};
pub use registry::{CompactionState, LookupError, PartitionInfo, TopicInfo, TopicRef};
pub use throttle::Throttle;
pub use topic_config::{
    ConfigChange, ConfigEntry, ConfigKey, ConfigSource, Effect, TopicConfigError, ValueKind,
};
pub use topics::{AlterTopicError, CreateTopicError, NewTopic, TrimError, is_internal_topic};

/// Consumer groups: what is asked of them and what they answer.
pub use sapwood_group as group;

// What front doors need of the log, which they do not touch themselves.
pub use sapwood_log::{
    AppendError, BUCKET_BOUNDS_US, Bounds, Buffer, BufferPool, Counter, EpochStart, Histogram,
    JournalStep, OfflineReason, OpenError as StoreOpenError, PartitionState, PartitionStats,
    ProducerState, Progress, ReadError, RecoveryReport, StoreError, StoreMetrics, StoreOptions,
    TimestampedOffset, TrimError as LogTrimError,
    compaction::{CompactError as LogCompactError, CompactionStats},
    install_sigbus_handler,
    io::{Clock, Environment, Space, TailKind},
    retention::Upcoming,
};
