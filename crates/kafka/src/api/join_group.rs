//! JoinGroup: a place in the next generation of a classic group. The answer waits for the others.

use bytes::Bytes;
use sapwood_broker::{
    GroupRequestError,
    group::{GroupError, Join, Joined, JoinedMember, Protocol},
};
use sapwood_kafka_wire::{
    Reader,
    messages::{
        JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
    },
};

use super::groups;
use crate::{
    connection::Disconnect,
    context::Context,
    dispatch::{Answer, Reply},
};

/// From this version on clients join a second time, with the id that they were given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// Before this version there is a name of a protocol even if there is no protocol: the empty one.
const NULL_PROTOCOLS_FROM: i16 = 7;
/// From this version on leaders can be told to leave the assignment as it is.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// The first stage: nothing but taking the request apart. What is kept of it are copies.
pub(crate) async fn handle(context: Context, body: Reader) -> Result<Reply, Disconnect> {
    let request_bytes = body.remaining();
    let request: JoinGroupRequest = context.decode(body)?;
    let join = read(&context, request);
    Ok(Reply::Later {
        answer: Box::pin(answer(context, join)),
        request_bytes,
    })
}

fn read(context: &Context, request: JoinGroupRequest) -> Join {
    let protocol = |protocol: JoinGroupRequestProtocol| Protocol {
        name: protocol.name.into(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    let session_timeout_ms = u32::try_from(request.session_timeout_ms).unwrap_or(0);
    Join {
        group: request.group_id.into(),
        member_id: groups::member_id(request.member_id),
        instance_id: groups::instance_id(request.group_instance_id),
        client: groups::client(context),
        session_timeout_ms,
        // -1, which is also what version 0 says.
        rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms)
            .unwrap_or(session_timeout_ms),
        protocol_type: request.protocol_type.into(),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        takes_member_id: context.version() >= MEMBER_ID_REQUIRED_FROM,
        takes_skip_assignment: context.version() >= SKIP_ASSIGNMENT_FROM,
    }
}

async fn answer(context: Context, join: Join) -> Result<Answer, Disconnect> {
    let asked_as = join.member_id.clone();
    let response = match context.broker().groups().join(join).await {
        Ok(joined) => success(joined),
        Err(error) => {
            let member_id = match &error {
                GroupRequestError::Group(GroupError::MemberIdRequired { member_id }) => {
                    Some(member_id)
                }
                _ => asked_as.as_ref(),
            };
            JoinGroupResponse {
                error_code: context.failed(&error),
                member_id: member_id.map(ToString::to_string).unwrap_or_default(),
                protocol_name: None,
                ..JoinGroupResponse::default()
            }
        }
    };
    let needs_name = context.version() < NULL_PROTOCOLS_FROM;
    let response = JoinGroupResponse {
        protocol_name: response
            .protocol_name
            .or_else(|| needs_name.then(String::new)),
        ..response
    };
    Ok(Answer::from(context.encode(&response)?))
}

fn success(joined: Joined) -> JoinGroupResponse {
    let member = |member: JoinedMember| JoinGroupResponseMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.instance_id.map(|instance| instance.to_string()),
        metadata: member.metadata,
    };
    let leader = joined.leader.as_ref();
    JoinGroupResponse {
        generation_id: joined.generation.0.cast_signed(),
        protocol_type: groups::text(&joined.protocol_type),
        protocol_name: groups::text(&joined.protocol),
        leader: leader.map(ToString::to_string).unwrap_or_default(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id.to_string(),
        members: joined.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}
