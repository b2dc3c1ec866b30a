//! Topics: creating, describing, changing, deleting, trimming.

use sapwood_broker::{
    Broker, ConfigChange, ConfigEntry, ConfigSource, CreateTopicError, NewTopic, PartitionInfo,
    PartitionState, TopicInfo,
};
use sapwood_model::{Code, Durability, Offset, PartitionId};
use sapwood_rpc::v1::{self, topic_service_server::TopicService, trim_result};
use tonic::{Request, Response, Status};

use crate::{
    convert,
    error::{self, Failure},
};

#[derive(Debug, Clone)]
pub(crate) struct TopicApi {
    pub(crate) broker: Broker,
}

#[tonic::async_trait]
impl TopicService for TopicApi {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let replication_factor = match request.replication_factor.map(i16::try_from).transpose() {
            Ok(factor) => factor,
            Err(_) => {
                let factor = request.replication_factor.unwrap_or_default();
                let message = format!("replication_factor is {factor}; the limit is {}", i16::MAX);
                return Err(Failure::new(Code::InvalidReplication, message).into());
            }
        };
        let topic = NewTopic {
            name: request.name,
            partitions: request.partitions,
            replication_factor,
            configs: request.configs.into_iter().collect(),
            validate_only: request.validate_only,
        };
        let name = topic.name.clone();
        let created = self.broker.create_topic(topic).await;
        let info = created.map_err(|error| Failure::from(error).field("topic", name))?;
        Ok(Response::new(v1::CreateTopicResponse {
            topic: Some(topic_message(&info)),
        }))
    }

    async fn list_topics(
        &self,
        _request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = self.broker.topics().iter().map(topic_message).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.as_str();
        let about = |failure: Failure| failure.field("topic", name);
        let info = match self.broker.topic(name) {
            Some(info) => info,
            None if request.auto_create && self.broker.options().auto_create => {
                self.create_by_default(name).await.map_err(about)?
            }
            None => return Err(about(unknown(name)).into()),
        };
        let mut answer = v1::DescribeTopicResponse {
            topic: Some(topic_message(&info)),
            ..v1::DescribeTopicResponse::default()
        };
        if !request.brief {
            let partitions = self.broker.partitions(info.id);
            let partitions = partitions.map_err(|error| about(error.into()))?;
            let configs = self.broker.topic_configs(info.id);
            let configs = configs.map_err(|error| about(error.into()))?;
            answer.partitions = partitions.iter().map(partition_message).collect();
            answer.configs = configs.into_iter().map(config_message).collect();
        }
        Ok(Response::new(answer))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.as_str();
        let set = request
            .set
            .into_iter()
            .map(|(key, value)| ConfigChange::Set { key, value });
        let reset = request
            .unset
            .into_iter()
            .map(|key| ConfigChange::Reset { key });
        let changes = set.chain(reset).collect();
        let altered = self
            .broker
            .alter_topic(name, changes, request.validate_only)
            .await;
        altered.map_err(|error| Failure::from(error).field("topic", name))?;
        Ok(Response::new(v1::AlterTopicResponse {}))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let name = request.into_inner().name;
        let deleted = self.broker.delete_topic(&name).await;
        deleted.map_err(|error| Failure::from(error).field("topic", &name))?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.as_str();
        let added = self
            .broker
            .add_partitions(name, request.total, request.validate_only)
            .await;
        let info = added.map_err(|error| Failure::from(error).field("topic", name))?;
        Ok(Response::new(v1::AddPartitionsResponse {
            topic: Some(topic_message(&info)),
        }))
    }

    async fn trim(
        &self,
        request: Request<v1::TrimRequest>,
    ) -> Result<Response<v1::TrimResponse>, Status> {
        let request = request.into_inner();
        let name = request.topic.as_str();
        let Some(info) = self.broker.topic(name) else {
            return Err(unknown(name).field("topic", name).into());
        };
        let mut results = Vec::with_capacity(request.partitions.len());
        for part in request.partitions {
            let partition = PartitionId(part.partition);
            let trimmed = self
                .broker
                .trim(info.id, partition, part.offset.map(Offset))
                .await;
            let result = match trimmed {
                Ok(log_start) => trim_result::Result::LogStartOffset(log_start.0),
                Err(error) => {
                    let failure = Failure::from(error).about(name, partition);
                    trim_result::Result::Error(failure.into_error())
                }
            };
            results.push(v1::TrimResult {
                partition: part.partition,
                result: Some(result),
            });
        }
        Ok(Response::new(v1::TrimResponse { results }))
    }
}

impl TopicApi {
    /// A topic that somebody is about to write to.
    async fn create_by_default(&self, name: &str) -> Result<TopicInfo, Failure> {
        match self.broker.create_topic(NewTopic::named(name)).await {
            Ok(info) => Ok(info),
            // Somebody else was first.
            Err(CreateTopicError::Exists { .. }) => {
                self.broker.topic(name).ok_or_else(|| unknown(name))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(
        Code::UnknownTopic,
        format_args!("topic {name:?} does not exist"),
    )
}

fn topic_message(info: &TopicInfo) -> v1::Topic {
    v1::Topic {
        name: info.name.to_string(),
        id: info.id.to_string(),
        partitions: info.partitions,
        replication_factor: 1,
        durability: match info.durability {
            Durability::Fsync => "fsync".to_owned(),
            Durability::Os => "os".to_owned(),
        },
        created_at_ms: info.created_at.0,
    }
}

fn partition_message(info: &PartitionInfo) -> v1::Partition {
    v1::Partition {
        partition: info.partition.0,
        bounds: Some(convert::bounds(info.bounds)),
        leader_epoch: info.leader_epoch.0,
        size_bytes: info.stats.bytes,
        segments: u32::try_from(info.stats.segments).unwrap_or(u32::MAX),
        offline: match &info.state {
            PartitionState::Online => None,
            PartitionState::Offline { reason } => Some(error::offline(reason)),
        },
        next_removal: info.next_removal.as_ref().map(|next| v1::NextRemoval {
            start_offset: next.offsets.start.0,
            end_offset: next.offsets.end.0,
            size_bytes: next.bytes,
            at_ms: next.at.map(|at| at.0),
            after_bytes: next.after_bytes,
        }),
        compaction: info.compaction.map(|state| v1::CompactionState {
            clean_offset: state.cleaned.0,
            clean_bytes: state.clean_bytes,
            dirty_bytes: state.dirty_bytes,
        }),
    }
}

fn config_message(entry: ConfigEntry) -> v1::ConfigEntry {
    v1::ConfigEntry {
        key: entry.key.to_owned(),
        value: entry.value,
        default_value: entry.default,
        source: match entry.source {
            ConfigSource::Topic => "topic",
            ConfigSource::Broker => "broker",
            ConfigSource::Default => "default",
        }
        .to_owned(),
        read_only: false,
    }
}
