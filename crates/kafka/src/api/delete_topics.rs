//! DeleteTopics: by name, and from version 6 by id too.

use std::collections::{HashMap, HashSet};

use sapwood_broker::{TopicInfo, TopicRef};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        DeleteTopicsRequest, DeleteTopicsRequestTopic, DeleteTopicsResponse,
        DeleteTopicsResponseTopic,
    },
};
use sapwood_model::TopicId;

use super::admin::{Deadline, Refused};
use crate::{context::Context, errors::ErrorCode};

/// From this version topics are named one way or the other, entry by entry.
const IDS_FROM: i16 = 6;

pub(crate) async fn handle(
    context: &Context,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let deadline = Deadline::after(request.timeout_ms);
    let asked: Vec<Named<'_>> = match version >= IDS_FROM {
        true => request.topics.iter().map(Named::of).collect(),
        false => request
            .topic_names
            .iter()
            .map(|name| Named::Name(name))
            .collect(),
    };
    let mut times: HashMap<Named<'_>, usize> = HashMap::new();
    for topic in &asked {
        *times.entry(*topic).or_default() += 1;
    }
    // A topic may be meant twice, by its name and by its id.
    let mut deleted: HashSet<TopicId> = HashSet::new();
    let mut responses = Vec::with_capacity(times.len());
    for topic in asked {
        // One answer for each topic, also for one that is named twice.
        let result = match times.remove(&topic) {
            None => continue,
            Some(1) if deadline.has_passed() => Err(Refused::timed_out()),
            Some(1) => delete(context, topic, &mut deleted).await,
            Some(_) => Err(Refused::new(
                ErrorCode::InvalidRequest,
                "the topic is named twice in one request",
            )),
        };
        responses.push(answer(context, topic, result));
    }
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

/// How an entry names its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Named<'a> {
    Name(&'a str),
    Id(TopicId),
    Both(&'a str, TopicId),
    Neither,
}

impl<'a> Named<'a> {
    fn of(topic: &'a DeleteTopicsRequestTopic) -> Self {
        let id = TopicId(topic.topic_id.0);
        match &topic.name {
            Some(name) if id.0 == 0 => Self::Name(name),
            Some(name) => Self::Both(name, id),
            None if id.0 != 0 => Self::Id(id),
            None => Self::Neither,
        }
    }

    fn name(self) -> Option<&'a str> {
        match self {
            Self::Name(name) | Self::Both(name, _) => Some(name),
            Self::Id(_) | Self::Neither => None,
        }
    }

    fn id(self) -> TopicId {
        match self {
            Self::Id(id) | Self::Both(_, id) => id,
            Self::Name(_) | Self::Neither => TopicId(0),
        }
    }
}

async fn delete(
    context: &Context,
    named: Named<'_>,
    deleted: &mut HashSet<TopicId>,
) -> Result<TopicInfo, Refused> {
    let invalid = |message| Err(Refused::new(ErrorCode::InvalidRequest, message));
    let topic = match named {
        Named::Both(..) => {
            return invalid("a topic is named by its name or by its id, not by both");
        }
        Named::Neither => return invalid("the entry has neither a name nor an id"),
        Named::Name(name) => TopicRef::Name(name),
        Named::Id(id) => TopicRef::Id(id),
    };
    let broker = context.broker();
    let Some(info) = broker.topic(topic) else {
        let code = match topic {
            TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        };
        // One that this request has deleted a moment ago is not unknown but named twice.
        if let Named::Id(id) = named
            && deleted.contains(&id)
        {
            return invalid("the topic is named twice in one request, by its name and by its id");
        }
        return Err(Refused::new(code, format!("topic {topic} does not exist")));
    };
    // By its id, so that a topic that was made under its name in this moment stays.
    broker.delete_topic(info.id).await?;
    deleted.insert(info.id);
    Ok(info)
}

fn answer(
    context: &Context,
    asked: Named<'_>,
    result: Result<TopicInfo, Refused>,
) -> DeleteTopicsResponseTopic {
    match result {
        Ok(topic) => DeleteTopicsResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: Uuid(topic.id.0),
            ..DeleteTopicsResponseTopic::default()
        },
        Err(refused) => DeleteTopicsResponseTopic {
            name: asked.name().map(str::to_owned),
            topic_id: Uuid(asked.id().0),
            error_code: context.refuse(refused.code, &refused.message),
            error_message: Some(refused.message),
        },
    }
}
