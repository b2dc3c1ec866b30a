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
    let asked = if version >= IDS_FROM {
        request.topics
    } else {
        let names = request.topic_names.into_iter();
        names
            .map(|name| DeleteTopicsRequestTopic {
                name: Some(name),
                ..DeleteTopicsRequestTopic::default()
            })
            .collect()
    };
    let mut times: HashMap<Named, usize> = HashMap::new();
    for topic in &asked {
        *times.entry(Named::of(topic)).or_default() += 1;
    }
    let mut answered = HashSet::new();
    // A topic may be meant twice, by its name and by its id.
    let mut deleted: HashSet<TopicId> = HashSet::new();
    let mut responses = Vec::new();
    for topic in &asked {
        let named = Named::of(topic);
        if !answered.insert(named.clone()) {
            continue;
        }
        let result = match &named {
            _ if times[&named] > 1 => Err(Refused::new(
                ErrorCode::InvalidRequest,
                "the topic is named twice in one request",
            )),
            _ if deadline.has_passed() => Err(Refused::timed_out()),
            named => delete(context, named, &mut deleted).await,
        };
        responses.push(answer(context, topic, result));
    }
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

/// How an entry names its topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Named {
    Name(String),
    Id(TopicId),
    Both(String, TopicId),
    Neither,
}

impl Named {
    fn of(topic: &DeleteTopicsRequestTopic) -> Self {
        let id = TopicId(topic.topic_id.0);
        match &topic.name {
            Some(name) if id.0 == 0 => Self::Name(name.clone()),
            Some(name) => Self::Both(name.clone(), id),
            None if id.0 != 0 => Self::Id(id),
            None => Self::Neither,
        }
    }
}

async fn delete(
    context: &Context,
    named: &Named,
    deleted: &mut HashSet<TopicId>,
) -> Result<TopicInfo, Refused> {
    let invalid = |message| Err(Refused::new(ErrorCode::InvalidRequest, message));
    let topic = match named {
        Named::Both(..) => {
            return invalid("a topic is named by its name or by its id, not by both");
        }
        Named::Neither => return invalid("the entry has neither a name nor an id"),
        Named::Name(name) => TopicRef::Name(name),
        Named::Id(id) => TopicRef::Id(*id),
    };
    let broker = context.broker();
    let Some(info) = broker.topic(topic) else {
        let code = match topic {
            TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        };
        // One that this request has deleted a moment ago is not unknown but named twice.
        if let Named::Id(id) = named
            && deleted.contains(id)
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
    asked: &DeleteTopicsRequestTopic,
    result: Result<TopicInfo, Refused>,
) -> DeleteTopicsResponseTopic {
    match result {
        Ok(topic) => DeleteTopicsResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: Uuid(topic.id.0),
            ..DeleteTopicsResponseTopic::default()
        },
        Err(refused) => DeleteTopicsResponseTopic {
            name: asked.name.clone(),
            topic_id: asked.topic_id,
            error_code: context.refuse(refused.code, &refused.message),
            error_message: Some(refused.message),
        },
    }
}
