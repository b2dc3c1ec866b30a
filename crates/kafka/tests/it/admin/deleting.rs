//! DeleteTopics.

use sapwood_kafka_wire::{
    Uuid,
    messages::{DeleteTopicsRequest, DeleteTopicsRequestTopic, DeleteTopicsResponseTopic},
};

use super::{error, refusal};
use crate::support::{Client, Server};

async fn delete_names(
    client: &mut Client,
    version: i16,
    names: &[&str],
) -> Vec<(String, &'static str)> {
    let request = DeleteTopicsRequest {
        topic_names: names.iter().map(|name| (*name).to_owned()).collect(),
        timeout_ms: 20_000,
        ..DeleteTopicsRequest::default()
    };
    let responses = client.ask(version, &request).await.responses;
    let answer = |one: DeleteTopicsResponseTopic| (one.name.unwrap(), error(one.error_code));
    responses.into_iter().map(answer).collect()
}

async fn delete(
    client: &mut Client,
    topics: &[(Option<&str>, Uuid)],
) -> Vec<DeleteTopicsResponseTopic> {
    let topic = |(name, topic_id): &(Option<&str>, Uuid)| DeleteTopicsRequestTopic {
        name: name.map(str::to_owned),
        topic_id: *topic_id,
    };
    let request = DeleteTopicsRequest {
        topics: topics.iter().map(topic).collect(),
        timeout_ms: 20_000,
        ..DeleteTopicsRequest::default()
    };
    client.ask(6, &request).await.responses
}

#[tokio::test]
async fn topics_are_deleted_by_name_in_every_version() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let is = |name: &str, code| (name.to_owned(), code);
    for version in 1..=5 {
        server.create("a", &[]).await;
        server.create("b", &[]).await;
        let answers = delete_names(&mut client, version, &["a", "nobody", "b", "b"]).await;
        assert_eq!(
            answers,
            [
                is("a", "NONE"),
                is("nobody", "UNKNOWN_TOPIC_OR_PARTITION"),
                is("b", "INVALID_REQUEST"),
            ]
        );
        assert!(server.broker.topic("a").is_none());
        assert_eq!(
            delete_names(&mut client, version, &["b"]).await,
            [is("b", "NONE")]
        );
    }
}

#[tokio::test]
async fn topics_are_deleted_by_id() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let a = Uuid(server.create("a", &[]).await.id.0);
    let b = Uuid(server.create("b", &[]).await.id.0);
    let wrong = delete(
        &mut client,
        &[
            (None, Uuid(7)),
            (Some("b"), b),
            (None, Uuid::ZERO),
            (Some(""), Uuid::ZERO),
        ],
    )
    .await;
    let codes: Vec<_> = wrong.iter().map(|one| error(one.error_code)).collect();
    assert_eq!(
        codes,
        [
            "UNKNOWN_TOPIC_ID",
            "INVALID_REQUEST",
            "INVALID_REQUEST",
            "UNKNOWN_TOPIC_OR_PARTITION",
        ]
    );
    assert!(wrong.iter().all(|one| one.error_message.is_some()));
    assert_eq!(server.broker.topics().len(), 2);

    let answers = delete(
        &mut client,
        &[(None, a), (Some("b"), Uuid::ZERO), (None, b)],
    )
    .await;
    let told: Vec<_> = answers
        .iter()
        .map(|one| (one.name.as_deref(), one.topic_id, error(one.error_code)))
        .collect();
    assert_eq!(told[0], (Some("a"), a, "NONE"));
    assert_eq!(told[1], (Some("b"), b, "NONE"));
    // By its name and by its id.
    let (code, message) = refusal(answers[2].error_code, &answers[2].error_message);
    assert_eq!(code, "INVALID_REQUEST");
    assert!(message.contains("twice"), "{message}");
    assert!(server.broker.topics().is_empty());
}

#[tokio::test]
async fn a_topic_made_again_under_its_name_is_not_deleted_by_the_old_id() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let old = Uuid(server.create("t", &[]).await.id.0);
    server.broker.delete_topic("t").await.unwrap();
    server.create("t", &[]).await;
    let answer = delete(&mut client, &[(None, old)]).await;
    assert_eq!(error(answer[0].error_code), "UNKNOWN_TOPIC_ID");
    assert!(server.broker.topic("t").is_some());
}
