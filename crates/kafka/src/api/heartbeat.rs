//! Heartbeat: staying a member of a classic group, and learning that it rebalances.

use sapwood_broker::group::Heartbeat;
use sapwood_kafka_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use super::groups;
use crate::context::Context;

pub(crate) async fn handle(
    context: &Context,
    request: HeartbeatRequest,
    _version: i16,
) -> HeartbeatResponse {
    let beat = Heartbeat {
        group: request.group_id.into(),
        member_id: request.member_id.into(),
        instance_id: groups::instance_id(request.group_instance_id),
        generation: groups::generation(request.generation_id),
    };
    let beaten = context.broker().groups().heartbeat(beat).await;
    HeartbeatResponse {
        error_code: beaten.map_or_else(|error| context.failed(&error), |()| 0),
        ..HeartbeatResponse::default()
    }
}
