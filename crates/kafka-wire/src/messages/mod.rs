//! The messages, one file an API.
//!
//! Fields have Kafka's names. A struct inside of a message has the message's name before its own:
//! [`MetadataResponse`] has brokers, [`MetadataResponseBroker`]. The versions are those that Kafka 4.1
//! knows, but for the ones that it has not released. Codes and kinds are numbers here; what they mean
//! is the business of who sends them.

mod alter_configs;
mod alter_partition_reassignments;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

use std::ops::RangeInclusive;

use crate::Request;

pub use alter_configs::*;
pub use alter_partition_reassignments::*;
pub use api_versions::*;
pub use consumer_group_describe::*;
pub use consumer_group_heartbeat::*;
pub use create_partitions::*;
pub use create_topics::*;
pub use delete_groups::*;
pub use delete_records::*;
pub use delete_topics::*;
pub use describe_cluster::*;
pub use describe_configs::*;
pub use describe_groups::*;
pub use describe_log_dirs::*;
pub use describe_producers::*;
pub use describe_quorum::*;
pub use describe_topic_partitions::*;
pub use elect_leaders::*;
pub use fetch::*;
pub use find_coordinator::*;
pub use heartbeat::*;
pub use incremental_alter_configs::*;
pub use init_producer_id::*;
pub use join_group::*;
pub use leave_group::*;
pub use list_config_resources::*;
pub use list_groups::*;
pub use list_offsets::*;
pub use list_partition_reassignments::*;
pub use metadata::*;
pub use offset_commit::*;
pub use offset_delete::*;
pub use offset_fetch::*;
pub use offset_for_leader_epoch::*;
pub use produce::*;
pub use sync_group::*;

/// Calls a macro with the types of all requests, separated by commas, in the order of their keys:
///
/// ```
/// use sapwood_kafka_wire::{Message, messages::*};
///
/// macro_rules! keys {
///     ($($request:ident),*) => { [$(<$request as Message>::KEY),*] };
/// }
/// assert!(sapwood_kafka_wire::for_each_request!(keys).is_sorted());
/// ```
#[macro_export]
macro_rules! for_each_request {
    ($callback:ident) => {
        $callback! {
            ProduceRequest,
            FetchRequest,
            ListOffsetsRequest,
            MetadataRequest,
            OffsetCommitRequest,
            OffsetFetchRequest,
            FindCoordinatorRequest,
            JoinGroupRequest,
            HeartbeatRequest,
            LeaveGroupRequest,
            SyncGroupRequest,
            DescribeGroupsRequest,
            ListGroupsRequest,
            ApiVersionsRequest,
            CreateTopicsRequest,
            DeleteTopicsRequest,
            DeleteRecordsRequest,
            InitProducerIdRequest,
            OffsetForLeaderEpochRequest,
            DescribeConfigsRequest,
            AlterConfigsRequest,
            DescribeLogDirsRequest,
            CreatePartitionsRequest,
            DeleteGroupsRequest,
            ElectLeadersRequest,
            IncrementalAlterConfigsRequest,
            AlterPartitionReassignmentsRequest,
            ListPartitionReassignmentsRequest,
            OffsetDeleteRequest,
            DescribeQuorumRequest,
            DescribeClusterRequest,
            DescribeProducersRequest,
            ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribeRequest,
            ListConfigResourcesRequest,
            DescribeTopicPartitionsRequest
        }
    };
}

macro_rules! apis {
    ($($request:ident),*) => {
        /// Every API, by its key.
        pub const APIS: &[Api] = &[$(Api::of::<$request>(stringify!($request))),*];
    };
}
for_each_request!(apis);

/// What there is to know of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// Its name, as in `Metadata`.
    pub name: &'static str,
    /// The versions that the codec knows.
    pub versions: RangeInclusive<i16>,
    /// The first version with compact lengths and tagged fields, if there is one.
    pub flexible_from: Option<i16>,
}

impl Api {
    const fn of<R: Request>(request: &'static str) -> Self {
        let (name, _) = request.split_at(request.len() - "Request".len());
        Self {
            key: R::KEY,
            name,
            versions: R::VERSIONS,
            flexible_from: R::FLEXIBLE_FROM,
        }
    }
}

/// The API of a key, if this crate has its messages.
pub fn api(key: i16) -> Option<&'static Api> {
    let index = APIS.binary_search_by_key(&key, |api| api.key).ok()?;
    APIS.get(index)
}

/// The first flexible version of the API of a key, if there are both.
pub(crate) fn flexible_from(key: i16) -> Option<i16> {
    api(key)?.flexible_from
}
