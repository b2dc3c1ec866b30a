//! DeleteGroups: groups without members, with all that they had read.

use std::collections::HashSet;

use sapwood_broker::group::GroupId;
use sapwood_kafka_wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DeleteGroupsResponseGroup,
};

use crate::context::Context;

pub(crate) async fn handle(
    context: &Context,
    request: DeleteGroupsRequest,
    _version: i16,
) -> DeleteGroupsResponse {
    let mut seen = HashSet::new();
    let mut results = Vec::new();
    for group_id in request.groups_names {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let group = GroupId::from(group_id.as_str());
        let deleted = context.broker().groups().delete(group).await;
        results.push(DeleteGroupsResponseGroup {
            group_id,
            error_code: deleted.map_or_else(|error| context.failed(&error), |()| 0),
        });
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}
