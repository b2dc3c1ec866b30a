//! FindCoordinator, the topic of groups, and what a coordinator that goes away says.

use sapwood_kafka_wire::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupResponse, ListGroupsRequest,
    MetadataRequest, MetadataRequestTopic,
};

use super::{commit, committed, error, join, server, server_without_groups, stable_group};

fn find(key_type: i8) -> FindCoordinatorRequest {
    FindCoordinatorRequest {
        key: "g".to_owned(),
        key_type,
        coordinator_keys: vec!["g".to_owned(), "h".to_owned()],
    }
}

#[tokio::test]
async fn the_broker_coordinates_every_group() {
    let server = server_without_groups().await;
    let mut client = server.connect().await;
    let port = i32::from(server.address.port());
    for version in 0..=6 {
        let found = client.ask(version, &find(0)).await;
        if version < 4 {
            assert_eq!((error(found.error_code), found.node_id), ("NONE", 1));
            assert_eq!((found.host.as_str(), found.port), ("127.0.0.1", port));
            continue;
        }
        let told: Vec<_> = found
            .coordinators
            .iter()
            .map(|one| (one.key.as_str(), one.node_id, one.host.as_str(), one.port))
            .collect();
        let here = |key| (key, 1, "127.0.0.1", port);
        assert_eq!(told, [here("g"), here("h")], "version {version}");
    }
}

#[tokio::test]
async fn nothing_else_is_coordinated_yet_and_that_is_said() {
    let server = server_without_groups().await;
    let mut client = server.connect().await;
    let wrong = [
        (1, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"),
        (2, "INVALID_REQUEST"),
        (-1, "INVALID_REQUEST"),
    ];
    for (key_type, name) in wrong {
        for version in 1..=6 {
            let refused = client.ask(version, &find(key_type)).await;
            let (code, node_id, message) = match refused.coordinators.first() {
                Some(first) => (first.error_code, first.node_id, &first.error_message),
                None => (refused.error_code, refused.node_id, &refused.error_message),
            };
            assert_eq!((error(code), node_id), (name, -1), "version {version}");
            assert!(message.is_some());
        }
    }
    let mut topics = server.broker.topics().into_iter();
    assert!(
        !topics.any(|topic| topic.is_internal),
        "no group was asked for"
    );
}

#[tokio::test]
async fn the_topic_of_groups_is_made_for_the_first_of_them_and_internal() {
    let server = server_without_groups().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.ask(4, &find(0)).await;
    let topic = |name: &str| MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic("t"), topic("__consumer_offsets")]),
        ..MetadataRequest::default()
    };
    for version in 1..=13 {
        let response = client.ask(version, &request).await;
        let told: Vec<_> = response
            .topics
            .iter()
            .map(|topic| (topic.is_internal, topic.partitions.len()))
            .collect();
        assert_eq!(told, [(false, 1), (true, 16)], "version {version}");
    }
}

#[tokio::test]
async fn a_drain_sends_away_who_waits_and_says_that_there_is_no_coordinator() {
    let server = server().await;
    server.create("t", &[]).await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    let joined = stable_group(&mut one, "g").await;
    let required = other.ask(9, &join("g", "")).await;
    other.send(9, &join("g", &required.member_id)).await;
    let beat = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: 1,
        member_id: joined.member_id,
        ..HeartbeatRequest::default()
    };
    while one.ask(4, &beat).await.error_code == 0 {}
    let (closed, waited) = tokio::join!(
        server.broker.drain_and_close(),
        other.receive::<JoinGroupResponse>(9)
    );
    closed.unwrap();
    let gone = "COORDINATOR_NOT_AVAILABLE";
    assert_eq!(error(waited.1.error_code), gone);
    assert_eq!(error(one.ask(4, &beat).await.error_code), gone);
    let request = commit("another", &[(0, 1)]);
    assert_eq!(committed(&mut one, 9, &request).await, [gone]);
    let listed = one.ask(5, &ListGroupsRequest::default()).await;
    assert_eq!(error(listed.error_code), gone);
}
