//! LeaveGroup: members that go, by their own will or an administrator's.

use sapwood_broker::group::{Leave, LeavingMember};
use sapwood_kafka_wire::messages::{
    LeaveGroupRequest, LeaveGroupRequestMember, LeaveGroupResponse, LeaveGroupResponseMember,
};

use super::groups;
use crate::context::Context;

/// From this version on several members leave at once, and each is answered for by itself.
const MEMBERS_FROM: i16 = 3;

pub(crate) async fn handle(
    context: &Context,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let members = match version >= MEMBERS_FROM {
        true => request.members,
        false => vec![LeaveGroupRequestMember {
            member_id: request.member_id,
            ..LeaveGroupRequestMember::default()
        }],
    };
    let leaving = |member: &LeaveGroupRequestMember| LeavingMember {
        member_id: groups::member_id(member.member_id.clone()),
        instance_id: groups::instance_id(member.group_instance_id.clone()),
    };
    let leave = Leave {
        group: request.group_id.into(),
        members: members.iter().map(leaving).collect(),
    };
    let results = match context.broker().groups().leave(leave).await {
        Ok(results) => results,
        Err(error) => {
            return LeaveGroupResponse {
                error_code: context.failed(&error),
                ..LeaveGroupResponse::default()
            };
        }
    };
    let members =
        members
            .into_iter()
            .zip(results)
            .map(|(member, result)| LeaveGroupResponseMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error_code: result.map_or_else(|error| context.failed(&error), |()| 0),
            });
    let members: Vec<_> = members.collect();
    LeaveGroupResponse {
        error_code: match (version >= MEMBERS_FROM, members.first()) {
            (false, Some(only)) => only.error_code,
            _ => 0,
        },
        members,
        ..LeaveGroupResponse::default()
    }
}
