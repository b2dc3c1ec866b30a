//! SyncGroup: who gets what in a generation of a classic group. The answer waits for the leader.

use bytes::Bytes;
use sapwood_broker::{
    GroupRequestError,
    group::{GroupError, MemberId, Sync},
};
use sapwood_kafka_wire::{
    Reader,
    messages::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse},
};

use super::groups;
use crate::{
    connection::Disconnect,
    context::Context,
    dispatch::{Answer, Reply},
};

/// From this version on a member says which protocol it means, and has to.
const NAMES_PROTOCOL_FROM: i16 = 5;

/// The first stage: nothing but taking the request apart. What is kept of it are copies.
pub(crate) async fn handle(context: Context, body: Reader) -> Result<Reply, Disconnect> {
    let request_bytes = body.remaining();
    let request: SyncGroupRequest = context.decode(body)?;
    let sync = read(request);
    Ok(Reply::Later {
        answer: Box::pin(answer(context, sync)),
        request_bytes,
    })
}

fn read(request: SyncGroupRequest) -> Sync {
    let assignment = |assignment: SyncGroupRequestAssignment| {
        let bytes = Bytes::copy_from_slice(&assignment.assignment);
        (MemberId::from(assignment.member_id), bytes)
    };
    Sync {
        group: request.group_id.into(),
        member_id: request.member_id.into(),
        instance_id: groups::instance_id(request.group_instance_id),
        generation: groups::generation(request.generation_id),
        protocol_type: request.protocol_type.map(Into::into),
        protocol: request.protocol_name.map(Into::into),
        assignments: request.assignments.into_iter().map(assignment).collect(),
    }
}

async fn answer(context: Context, sync: Sync) -> Result<Answer, Disconnect> {
    let names_protocol = sync.protocol_type.is_some() && sync.protocol.is_some();
    let synced = if context.version() >= NAMES_PROTOCOL_FROM && !names_protocol {
        Err(GroupRequestError::Group(GroupError::InconsistentProtocol))
    } else {
        context.broker().groups().sync(sync).await
    };
    let response = match synced {
        Ok(synced) => SyncGroupResponse {
            protocol_type: groups::text(&synced.protocol_type),
            protocol_name: groups::text(&synced.protocol),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: context.failed(&error),
            ..SyncGroupResponse::default()
        },
    };
    Ok(Answer::from(context.encode(&response)?))
}
