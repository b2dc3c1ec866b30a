//! ElectLeaders: the one broker leads every partition that is online, so no election is needed; one
//! that is offline has nobody else to lead it.

use sapwood_broker::TopicRef;
use sapwood_kafka_wire::messages::{
    ElectLeadersRequest, ElectLeadersResponse, ElectLeadersResponsePartition,
    ElectLeadersResponseTopic,
};

use super::admin::{self, Refused};
use crate::{context::Context, errors::ErrorCode};

/// Kafka's numbers for elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(crate) async fn handle(
    context: &Context,
    request: ElectLeadersRequest,
    _version: i16,
) -> ElectLeadersResponse {
    let nobody = match request.election_type {
        PREFERRED => ErrorCode::PreferredLeaderNotAvailable,
        UNCLEAN => ErrorCode::EligibleLeadersNotAvailable,
        other => {
            let reason = format_args!("election type {other} is not known");
            return ElectLeadersResponse {
                error_code: context.refuse(ErrorCode::InvalidRequest, &reason),
                ..ElectLeadersResponse::default()
            };
        }
    };
    // For all partitions, Kafka answers with those for which there was an election: none.
    let asked = request.topic_partitions.unwrap_or_default().into_iter();
    ElectLeadersResponse {
        replica_election_results: asked
            .map(|topic| ElectLeadersResponseTopic {
                partition_result: topic
                    .partitions
                    .iter()
                    .map(|partition| elect(context, &topic.topic, *partition, nobody))
                    .collect(),
                topic: topic.topic,
            })
            .collect(),
        ..ElectLeadersResponse::default()
    }
}

fn elect(
    context: &Context,
    topic: &str,
    partition_id: i32,
    nobody: ErrorCode,
) -> ElectLeadersResponsePartition {
    let partition = admin::partition(partition_id);
    let refused = match context.broker().leader(TopicRef::Name(topic), partition) {
        Err(error) => Refused::from(error),
        Ok(leader) if leader.online => Refused::new(
            ErrorCode::ElectionNotNeeded,
            "the only broker leads the partition",
        ),
        Ok(_) => Refused::new(
            nobody,
            "the partition is offline, and there is no other broker",
        ),
    };
    ElectLeadersResponsePartition {
        partition_id,
        error_code: context.refuse(refused.code, &refused.message),
        error_message: Some(refused.message),
    }
}
