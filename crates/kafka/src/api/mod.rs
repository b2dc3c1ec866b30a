//! What is done for each API, a file each: from a request to its response.
//!
//! A handler is `async fn handle(context: &Context, request: XRequest, version: i16) -> XResponse`;
//! errors are fields of the response, noted with [`Context::refuse`](crate::context::Context::refuse)
//! or `failed`, which give their numbers. A row in `dispatch` makes an API known to clients.

pub(crate) mod alter_configs;
pub(crate) mod alter_partition_reassignments;
pub(crate) mod api_versions;
pub(crate) mod consumer_group_describe;
pub(crate) mod consumer_group_heartbeat;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_quorum;
pub(crate) mod describe_topic_partitions;
pub(crate) mod elect_leaders;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_config_resources;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;

mod admin;
mod broker_configs;
mod configs;
mod groups;
mod lookup;
mod produce_refused;

/// The bit of an operation in `authorized_operations`, by Kafka's number of it.
const fn operations(numbers: &[u32]) -> i32 {
    let mut bits = 0;
    let mut at = 0;
    while at < numbers.len() {
        bits |= 1 << numbers[at];
        at += 1;
    }
    bits
}

/// What a client may do with a topic while authorization is off: read, write, create, delete, alter,
/// describe, and describe and alter configurations.
pub(crate) const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// What it may do with the cluster: create, alter, describe, act as a member, describe and alter
/// configurations, write idempotently.
pub(crate) const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);
/// What it may do with a group: read, delete, describe.
pub(crate) const GROUP_OPERATIONS: i32 = operations(&[3, 6, 8]);
