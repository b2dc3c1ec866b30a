//! ListPartitionReassignments: with one broker, no partition is ever being moved.

use sapwood_kafka_wire::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::Context;

pub(crate) async fn handle(
    _context: &Context,
    _request: ListPartitionReassignmentsRequest,
    _version: i16,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
