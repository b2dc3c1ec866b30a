//! AlterPartitionReassignments: every partition is where it can be, on the one broker. Asking for
//! that is granted; there is nothing to cancel; any other place is refused.

use sapwood_broker::TopicRef;
use sapwood_kafka_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsRequestPartition,
    AlterPartitionReassignmentsResponse, AlterPartitionReassignmentsResponsePartition,
    AlterPartitionReassignmentsResponseTopic,
};

use super::admin::{self, Refused, replicas_of_one};
use crate::{context::Context, errors::ErrorCode};

pub(crate) async fn handle(
    context: &Context,
    request: AlterPartitionReassignmentsRequest,
    _version: i16,
) -> AlterPartitionReassignmentsResponse {
    let topics = request.topics.into_iter();
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: topics
            .map(|topic| AlterPartitionReassignmentsResponseTopic {
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| answer(context, &topic.name, partition))
                    .collect(),
                name: topic.name,
            })
            .collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn answer(
    context: &Context,
    topic: &str,
    asked: &AlterPartitionReassignmentsRequestPartition,
) -> AlterPartitionReassignmentsResponsePartition {
    let mut answer = AlterPartitionReassignmentsResponsePartition {
        partition_index: asked.partition_index,
        ..AlterPartitionReassignmentsResponsePartition::default()
    };
    if let Err(refused) = reassign(context, topic, asked) {
        answer.error_code = context.refuse(refused.code, &refused.message);
        answer.error_message = Some(refused.message);
    }
    answer
}

fn reassign(
    context: &Context,
    topic: &str,
    asked: &AlterPartitionReassignmentsRequestPartition,
) -> Result<(), Refused> {
    let partition = admin::partition(asked.partition_index);
    context.broker().leader(TopicRef::Name(topic), partition)?;
    let Some(replicas) = &asked.replicas else {
        return Err(Refused::new(
            ErrorCode::NoReassignmentInProgress,
            "the partition is not being moved",
        ));
    };
    replicas_of_one(context.broker_id(), replicas)
        .map_err(|message| Refused::new(ErrorCode::InvalidReplicaAssignment, message))
}
