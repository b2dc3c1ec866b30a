//! ListGroups: every group, or those in some states and of some kinds.

use sapwood_broker::group::Listed;
use sapwood_kafka_wire::messages::{
    ListGroupsRequest, ListGroupsResponse, ListGroupsResponseGroup,
};

use crate::{context::Context, errors::AsKafka};

pub(crate) async fn handle(
    context: &Context,
    request: ListGroupsRequest,
    _version: i16,
) -> ListGroupsResponse {
    let states = Filter::new(request.states_filter);
    let kinds = Filter::new(request.types_filter);
    let listing = context.broker().groups().list().await;
    // What is being loaded, and so will be there in a moment, before what is not served any more.
    let missing = listing.missing.iter().map(|(_, error)| error);
    let missing = missing.min_by_key(|error| error.kafka());
    let groups = listing.groups.iter().map(group);
    let groups =
        groups.filter(|group| states.passes(&group.group_state) && kinds.passes(&group.group_type));
    ListGroupsResponse {
        error_code: missing.map_or(0, |error| context.failed(error)),
        groups: groups.collect(),
        ..ListGroupsResponse::default()
    }
}

fn group(listed: &Listed) -> ListGroupsResponseGroup {
    ListGroupsResponseGroup {
        group_id: listed.group.to_string(),
        protocol_type: listed.protocol_type.as_ref().to_owned(),
        group_state: listed.state.to_string(),
        group_type: listed.kind.to_string(),
    }
}

/// Names of which one has to be a group's, in capitals or not; none of them is any.
struct Filter(Vec<String>);

impl Filter {
    fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    fn passes(&self, name: &str) -> bool {
        let mut names = self.0.iter();
        self.0.is_empty() || names.any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
    }
}
