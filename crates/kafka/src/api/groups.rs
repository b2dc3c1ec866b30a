//! What the requests to groups share: Kafka's texts and numbers as the domain's, and back.

use std::sync::Arc;

use sapwood_broker::group::{Client, Generation, InstanceId, MemberId, Partitions};
use sapwood_model::{PartitionId, TopicId, TopicName, TopicPartition};

use crate::{context::Context, convert::partition_id};

/// Who calls, as its request and its connection say.
pub(super) fn client(context: &Context) -> Client {
    let host = context.connection().peer.ip().to_canonical();
    Client {
        id: context.client_id().unwrap_or_default().into(),
        host: host.to_string().into(),
    }
}

/// A client's address as Kafka shows it.
pub(super) fn shown_host(client: &Client) -> String {
    format!("/{}", client.host)
}

/// A member's id; an empty one is none.
pub(super) fn member_id(text: String) -> Option<MemberId> {
    (!text.is_empty()).then(|| text.into())
}

/// The lasting name of a static member.
pub(super) fn instance_id(text: Option<String>) -> Option<InstanceId> {
    text.map(InstanceId::from)
}

/// A generation as a member says it. A negative one becomes one above all that there are, so that it
/// is nobody's.
pub(super) fn generation(number: i32) -> Generation {
    Generation(number.cast_unsigned())
}

/// A text of the coordinator's.
pub(super) fn text(shared: &Option<Arc<str>>) -> Option<String> {
    shared.as_deref().map(str::to_owned)
}

/// A partition that may be there: some names and numbers no partition has.
pub(super) fn topic_partition(topic: &str, index: i32) -> Option<TopicPartition> {
    Some(TopicPartition {
        topic: TopicName::new(topic).ok()?,
        partition: partition_id(index)?,
    })
}

/// The numbers of each topic's partitions.
pub(super) fn by_topic(partitions: &Partitions) -> impl Iterator<Item = (TopicId, Vec<i32>)> {
    partitions.topics().map(|(topic, numbers)| {
        let number = |partition: &PartitionId| partition.0.cast_signed();
        (topic, numbers.iter().map(number).collect())
    })
}

/// What has to be said about some entries of a request, and is asked of the coordinator for others.
///
/// Entries a, b, c, of which b is refused: the coordinator is asked about [a, c]; its answers [x, y]
/// make the entries' answers x, b's refusal, y.
#[derive(Debug)]
pub(super) enum Entry {
    /// It was asked about; the next answer is this one's.
    Asked,
    /// It is refused with the error of this number.
    Refused(i16),
}
