//! Which APIs are served, in which versions, and by whom: one table.

use std::{
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use bytes::{Buf, Bytes};
use sapwood_kafka_wire::{
    Message, Reader, RequestHeader,
    messages::{
        AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest,
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
        DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
        DescribeTopicPartitionsRequest, ElectLeadersRequest, FetchRequest, FindCoordinatorRequest,
        HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
        LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
        ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest,
        OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        SyncGroupRequest,
    },
};

use crate::{
    api,
    connection::{Connection, Disconnect, FRAME_BYTES_MIN},
    context::{CallHeader, Context},
    fetched::Held,
    kafka::Shared,
};

const MIB: usize = 1 << 20;
/// The largest request of any kind.
pub(crate) const FRAME_BYTES_MAX: usize = 100 * MIB;
/// The largest request of a kind that carries no records.
pub(crate) const FRAME_BYTES_USUAL: usize = 8 * MIB;
/// The largest request that administers topics or names partitions to read: room for 10,000 topics or
/// 50,000 partitions. Such requests are lists of short entries, which take many times their frame when
/// they are taken apart. No API takes less.
pub(crate) const FRAME_BYTES_LISTS: usize = 2 * MIB;

/// One API.
#[derive(Debug)]
pub(crate) struct Api {
    /// Its key.
    pub(crate) key: i16,
    /// Kafka's name for it.
    pub(crate) name: &'static str,
    /// The versions that are served.
    pub(crate) versions: RangeInclusive<i16>,
    /// The largest request, without its length word.
    pub(crate) frame_bytes_max: usize,
    handle: Handle,
}

type Handle = fn(Context, Reader) -> Boxed<Reply>;
type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Disconnect>> + Send>>;

/// What the first stage of a request leads to.
pub(crate) enum Reply {
    /// The client wants no answer.
    None,
    /// The answer.
    Ready(Vec<Bytes>),
    /// The second stage. It is awaited when the requests before it are answered, and holds nothing of
    /// the request's frame.
    Later {
        answer: Boxed<Answer>,
        /// Bytes of the request that it took apart and keeps until then.
        request_bytes: usize,
    },
}

/// An answer on its way to the client.
pub(crate) struct Answer {
    /// Its frame.
    pub(crate) parts: Vec<Bytes>,
    /// What is to be given back once it is with the client.
    pub(crate) held: Option<Held>,
}

impl From<Vec<Bytes>> for Answer {
    fn from(parts: Vec<Bytes>) -> Self {
        Self { parts, held: None }
    }
}

impl Reply {
    /// Bytes that it holds while it waits for its turn.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Ready(parts) => parts.iter().map(Bytes::len).sum(),
            Self::Later { request_bytes, .. } => *request_bytes,
        }
    }

    /// A second stage that keeps next to nothing of its request.
    pub(crate) fn later(
        answer: impl Future<Output = Result<Answer, Disconnect>> + Send + 'static,
    ) -> Self {
        Self::Later {
            answer: Box::pin(answer),
            request_bytes: 0,
        }
    }

    /// The answer, once.
    pub(crate) fn poll(
        &mut self,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<Answer, Disconnect>> {
        match self {
            Self::None => Poll::Ready(Ok(Vec::new().into())),
            Self::Ready(parts) => Poll::Ready(Ok(std::mem::take(parts).into())),
            Self::Later { answer, .. } => answer.as_mut().poll(context),
        }
    }
}

/// A row whose handler takes a request and gives its response.
macro_rules! api {
    ($name:literal, $request:ty, $versions:expr, $handler:path) => {
        api!($name, $request, $versions, FRAME_BYTES_USUAL, $handler)
    };
    ($name:literal, $request:ty, $versions:expr, $frame_bytes_max:expr, $handler:path) => {
        Api {
            key: <$request as Message>::KEY,
            name: $name,
            versions: $versions,
            frame_bytes_max: $frame_bytes_max,
            handle: |context, body| {
                Box::pin(async move {
                    let request: $request = context.decode(body)?;
                    let response = $handler(&context, request, context.version()).await;
                    Ok(Reply::Ready(context.encode(&response)?))
                })
            },
        }
    };
}

/// A row whose handler takes a request and gives its response when its turn comes: what it asks for may
/// change what the requests behind it see, and it waits for a disk or for other clients. Meanwhile
/// further requests are read. The request must hold nothing of its frame: texts and numbers only.
macro_rules! in_turn {
    ($name:literal, $request:ty, $versions:expr, $handler:path) => {
        Api {
            key: <$request as Message>::KEY,
            name: $name,
            versions: $versions,
            frame_bytes_max: FRAME_BYTES_LISTS,
            handle: |context, body| {
                Box::pin(async move {
                    let request_bytes = body.remaining();
                    let request: $request = context.decode(body)?;
                    let answer = async move {
                        let response = $handler(&context, request, context.version()).await;
                        Ok(Answer::from(context.encode(&response)?))
                    };
                    Ok(Reply::Later {
                        answer: Box::pin(answer),
                        request_bytes,
                    })
                })
            },
        }
    };
}

/// A row whose handler makes the reply itself: it has two stages, or reads the body on its own.
macro_rules! staged {
    ($name:literal, $request:ty, $versions:expr, $frame_bytes_max:expr, $handler:path) => {
        Api {
            key: <$request as Message>::KEY,
            name: $name,
            versions: $versions,
            frame_bytes_max: $frame_bytes_max,
            handle: |context, body| Box::pin($handler(context, body)),
        }
    };
}

/// Every API that is served, by its key, with the versions that clients are told.
#[rustfmt::skip]
pub(crate) static APIS: &[Api] = &[
    staged!("Produce", ProduceRequest, 0..=13, FRAME_BYTES_MAX, api::produce::handle),
    staged!("Fetch", FetchRequest, 4..=18, FRAME_BYTES_LISTS, api::fetch::handle),
    api!("ListOffsets", ListOffsetsRequest, 1..=10, api::list_offsets::handle),
    api!("Metadata", MetadataRequest, 0..=13, api::metadata::handle),
    in_turn!("OffsetCommit", OffsetCommitRequest, 2..=9, api::offset_commit::handle),
    in_turn!("OffsetFetch", OffsetFetchRequest, 1..=9, api::offset_fetch::handle),
    api!("FindCoordinator", FindCoordinatorRequest, 0..=6, FRAME_BYTES_LISTS, api::find_coordinator::handle),
    staged!("JoinGroup", JoinGroupRequest, 0..=9, FRAME_BYTES_USUAL, api::join_group::handle),
    in_turn!("Heartbeat", HeartbeatRequest, 0..=4, api::heartbeat::handle),
    in_turn!("LeaveGroup", LeaveGroupRequest, 0..=5, api::leave_group::handle),
    staged!("SyncGroup", SyncGroupRequest, 0..=5, FRAME_BYTES_USUAL, api::sync_group::handle),
    in_turn!("DescribeGroups", DescribeGroupsRequest, 0..=6, api::describe_groups::handle),
    in_turn!("ListGroups", ListGroupsRequest, 0..=5, api::list_groups::handle),
    api!("ApiVersions", ApiVersionsRequest, 0..=4, api::api_versions::handle),
    api!("CreateTopics", CreateTopicsRequest, 2..=7, FRAME_BYTES_LISTS, api::create_topics::handle),
    api!("DeleteTopics", DeleteTopicsRequest, 1..=6, FRAME_BYTES_LISTS, api::delete_topics::handle),
    api!("DeleteRecords", DeleteRecordsRequest, 0..=2, FRAME_BYTES_LISTS, api::delete_records::handle),
    api!("InitProducerId", InitProducerIdRequest, 0..=5, api::init_producer_id::handle),
    api!("OffsetForLeaderEpoch", OffsetForLeaderEpochRequest, 2..=4, api::offset_for_leader_epoch::handle),
    api!("DescribeConfigs", DescribeConfigsRequest, 1..=4, FRAME_BYTES_LISTS, api::describe_configs::handle),
    api!("AlterConfigs", AlterConfigsRequest, 0..=2, FRAME_BYTES_LISTS, api::alter_configs::handle),
    api!("DescribeLogDirs", DescribeLogDirsRequest, 1..=4, FRAME_BYTES_LISTS, api::describe_log_dirs::handle),
    api!("CreatePartitions", CreatePartitionsRequest, 0..=3, FRAME_BYTES_LISTS, api::create_partitions::handle),
    in_turn!("DeleteGroups", DeleteGroupsRequest, 0..=2, api::delete_groups::handle),
    api!("ElectLeaders", ElectLeadersRequest, 0..=2, FRAME_BYTES_LISTS, api::elect_leaders::handle),
    api!("IncrementalAlterConfigs", IncrementalAlterConfigsRequest, 0..=1, FRAME_BYTES_LISTS, api::incremental_alter_configs::handle),
    api!("AlterPartitionReassignments", AlterPartitionReassignmentsRequest, 0..=1, FRAME_BYTES_LISTS, api::alter_partition_reassignments::handle),
    api!("ListPartitionReassignments", ListPartitionReassignmentsRequest, 0..=0, FRAME_BYTES_LISTS, api::list_partition_reassignments::handle),
    in_turn!("OffsetDelete", OffsetDeleteRequest, 0..=0, api::offset_delete::handle),
    api!("DescribeQuorum", DescribeQuorumRequest, 0..=2, FRAME_BYTES_LISTS, api::describe_quorum::handle),
    api!("DescribeCluster", DescribeClusterRequest, 0..=2, FRAME_BYTES_LISTS, api::describe_cluster::handle),
    api!("DescribeProducers", DescribeProducersRequest, 0..=0, FRAME_BYTES_LISTS, api::describe_producers::handle),
    in_turn!("ConsumerGroupHeartbeat", ConsumerGroupHeartbeatRequest, 0..=1, api::consumer_group_heartbeat::handle),
    in_turn!("ConsumerGroupDescribe", ConsumerGroupDescribeRequest, 0..=1, api::consumer_group_describe::handle),
    api!("ListConfigResources", ListConfigResourcesRequest, 0..=1, FRAME_BYTES_LISTS, api::list_config_resources::handle),
    api!("DescribeTopicPartitions", DescribeTopicPartitionsRequest, 0..=0, FRAME_BYTES_LISTS, api::describe_topic_partitions::handle),
];

fn find(key: i16) -> Option<&'static Api> {
    let at = APIS.binary_search_by_key(&key, |api| api.key).ok()?;
    Some(&APIS[at])
}

/// The largest frame that a request with this key may have.
pub(crate) fn frame_bytes_max(key: i16) -> usize {
    find(key).map_or(FRAME_BYTES_USUAL, |api| api.frame_bytes_max)
}

/// Runs the first stage of a request. When this returns, nothing of its frame is held.
///
/// # Panics
/// When the frame is smaller than [`FRAME_BYTES_MIN`].
pub(crate) async fn dispatch(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    frame: Bytes,
) -> Result<(Context, Reply), Disconnect> {
    assert!(frame.len() >= FRAME_BYTES_MIN, "smaller frames are refused");
    let mut fixed = &frame[..FRAME_BYTES_MIN];
    let (key, version, correlation_id) = (fixed.get_i16(), fixed.get_i16(), fixed.get_i32());
    let api = find(key).ok_or(Disconnect::UnknownApi { key })?;
    let is_served = api.versions.contains(&version);
    if !is_served && key != ApiVersionsRequest::KEY {
        let api = api.name;
        return Err(Disconnect::UnknownVersion { api, version });
    }
    let mut call = CallHeader {
        api,
        version,
        correlation_id,
        client_id: None,
    };
    if !is_served {
        // What follows may be anything; the answer is one that every client can read.
        call.version = 0;
        let context = Context::new(shared, connection, call);
        let response = api::api_versions::unknown_version(&context, version);
        let reply = Reply::Ready(context.encode(&response)?);
        return Ok((context, reply));
    }
    let mut body = Reader::new(frame);
    let header = RequestHeader::decode(&mut body).map_err(|source| Disconnect::Malformed {
        api: api.name,
        version,
        source,
    })?;
    call.client_id = header.client_id;
    let context = Context::new(shared, connection, call);
    let reply = (api.handle)(context.clone(), body).await?;
    Ok((context, reply))
}

#[cfg(test)]
mod tests {
    use sapwood_kafka_wire::messages;

    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_apis_as_kafka_does() {
        let keys: Vec<i16> = APIS.iter().map(|api| api.key).collect();
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
        for api in APIS {
            let known = messages::api(api.key).expect("the codec knows it");
            assert_eq!(api.name, known.name);
            assert!(known.versions.contains(api.versions.end()), "{}", api.name);
        }
    }
}
