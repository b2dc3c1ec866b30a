//! DescribeGroups: classic groups in detail.

use std::collections::HashSet;

use sapwood_broker::group::{ClassicDescription, ClassicMemberDescription, GroupId, GroupState};
use sapwood_kafka_wire::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribeGroupsResponseGroup,
    DescribeGroupsResponseMember,
};

use super::{GROUP_OPERATIONS, groups};
use crate::{
    context::Context,
    errors::{AsKafka, ErrorCode},
};

/// Before this version a group that is not there is described as dead, without an error.
const NOT_FOUND_FROM: i16 = 6;

pub(crate) async fn handle(
    context: &Context,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    // An answer is much longer than a question: each group is described once.
    let mut seen = HashSet::new();
    let mut described = Vec::new();
    for group_id in request.groups {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let group = GroupId::from(group_id.as_str());
        let found = context.broker().groups().describe_classic(group).await;
        let mut group = match found {
            Ok(Some(group)) => describe(group),
            Ok(None) => dead(context, version),
            Err(error) => DescribeGroupsResponseGroup {
                error_code: context.refuse(error.kafka(), &error),
                error_message: Some(error.to_string()),
                ..DescribeGroupsResponseGroup::default()
            },
        };
        group.group_id = group_id;
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = GROUP_OPERATIONS;
        }
        described.push(group);
    }
    DescribeGroupsResponse {
        groups: described,
        ..DescribeGroupsResponse::default()
    }
}

/// What is said of a group that is not there, or is of the other kind.
fn dead(context: &Context, version: i16) -> DescribeGroupsResponseGroup {
    let mut group = DescribeGroupsResponseGroup {
        group_state: GroupState::Dead.to_string(),
        ..DescribeGroupsResponseGroup::default()
    };
    if version >= NOT_FOUND_FROM {
        let reason = "there is no such classic group";
        group.error_code = context.refuse(ErrorCode::GroupIdNotFound, &reason);
        group.error_message = Some(reason.to_owned());
    }
    group
}

fn describe(group: ClassicDescription) -> DescribeGroupsResponseGroup {
    DescribeGroupsResponseGroup {
        group_state: group.state.to_string(),
        protocol_type: group.protocol_type.as_ref().to_owned(),
        protocol_data: group.protocol.as_ref().to_owned(),
        members: group.members.into_iter().map(member).collect(),
        ..DescribeGroupsResponseGroup::default()
    }
}

fn member(member: ClassicMemberDescription) -> DescribeGroupsResponseMember {
    DescribeGroupsResponseMember {
        member_id: member.member_id.to_string(),
        group_instance_id: member.instance_id.map(|instance| instance.to_string()),
        client_id: member.client.id.as_ref().to_owned(),
        client_host: groups::shown_host(&member.client),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    }
}
