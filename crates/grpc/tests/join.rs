//! Being a member of a group, as any client of the protocol sees it.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, time::Duration};

use common::{Server, broker_options};
use sapwood_broker::{NewTopic, group::Settings};
use sapwood_grpc::GrpcOptions;
use sapwood_model::Code;
use sapwood_rpc::{
    status,
    v1::{self, group_service_client::GroupServiceClient},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// Far longer than anything here takes, where nobody is meant to be taken out.
const LONG_MS: u32 = 60_000;
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(dir: &Path, session_ms: u32) -> Server {
    let mut options = broker_options(dir);
    options.groups = Settings {
        consumer_session_timeout_ms: session_ms,
        // What is pushed comes long before any heartbeat.
        consumer_heartbeat_interval_ms: session_ms / 2,
        ..Settings::default()
    };
    let server = Server::start_with(options, GrpcOptions::default(), None).await;
    let topic = NewTopic {
        partitions: Some(4),
        ..NewTopic::named("t")
    };
    server.broker.create_topic(topic).await.unwrap();
    server.broker.groups().prepare().await.unwrap();
    while server.broker.groups().load_progress().loading > 0 {
        tokio::task::yield_now().await;
    }
    server
}

/// One stream of a member.
struct Member {
    requests: mpsc::UnboundedSender<v1::JoinRequest>,
    answers: Streaming<v1::JoinResponse>,
    heard: u64,
    epoch: u32,
}

fn options(member: &str) -> v1::JoinOptions {
    v1::JoinOptions {
        group: "g".into(),
        member_id: member.into(),
        client_id: "test".into(),
        subscription: Some(v1::MemberSubscription {
            topics: vec!["t".into()],
            topic_regex: None,
        }),
        rebalance_timeout_ms: LONG_MS,
        ..v1::JoinOptions::default()
    }
}

fn owned(partitions: &[u32]) -> v1::OwnedPartitions {
    v1::OwnedPartitions {
        topics: vec![v1::TopicPartitions {
            topic: "t".into(),
            partitions: partitions.to_vec(),
            topic_id: String::new(),
        }],
    }
}

async fn open(channel: Channel, first: v1::JoinRequest) -> Member {
    let (requests, receiver) = mpsc::unbounded_channel();
    requests.send(first).unwrap();
    let mut service = GroupServiceClient::new(channel);
    let answers = service.join(UnboundedReceiverStream::new(receiver)).await;
    Member {
        requests,
        answers: answers.unwrap().into_inner(),
        heard: 0,
        epoch: 0,
    }
}

async fn join(server: &Server, options: v1::JoinOptions) -> Member {
    let first = v1::JoinRequest {
        options: Some(options),
        ..v1::JoinRequest::default()
    };
    open(server.channel().await, first).await
}

impl Member {
    async fn next(&mut self) -> Result<Option<v1::JoinResponse>, Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await;
        let answer = answer.expect("an answer in time")?;
        if let Some(answer) = &answer {
            assert_eq!(answer.number, self.heard + 1);
            self.heard = answer.number;
            let is_new = self.epoch != answer.member_epoch;
            self.epoch = answer.member_epoch;
            if is_new && answer.assignment.is_none() {
                self.say(v1::JoinRequest::default());
            }
        }
        Ok(answer)
    }

    /// The partitions of the next answer that has any say about them.
    async fn assigned(&mut self) -> Vec<u32> {
        loop {
            let answer = self.next().await.unwrap().expect("the stream goes on");
            if let Some(assignment) = answer.assignment {
                assert_eq!(answer.member_id.len(), 1);
                let topics = assignment.topics.into_iter();
                return topics.flat_map(|topic| topic.partitions).collect();
            }
        }
    }

    fn say(&self, request: v1::JoinRequest) {
        let heard = self.heard;
        let request = v1::JoinRequest { heard, ..request };
        let _ = self.requests.send(request);
    }

    fn leaves(&self, for_good: bool) {
        self.say(v1::JoinRequest {
            leave: Some(v1::Leave { for_good }),
            ..v1::JoinRequest::default()
        });
    }

    fn owns(&self, partitions: &[u32]) {
        self.say(v1::JoinRequest {
            owned: Some(owned(partitions)),
            ..v1::JoinRequest::default()
        });
    }

    /// Why the stream ends.
    async fn refused(mut self) -> v1::Error {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ends well"),
                Err(status) => return status::unpack(&status).expect("a typed error"),
            }
        }
    }
}

async fn members(server: &Server) -> Vec<String> {
    let described = server.broker.groups().describe_consumer("g".into()).await;
    let members = described.unwrap().map_or(Vec::new(), |group| group.members);
    let ids = members.iter().map(|member| member.member_id.to_string());
    ids.collect()
}

/// The epoch of a member and what it may read.
async fn read_by(server: &Server, id: &str) -> (u32, Vec<u32>) {
    let described = server.broker.groups().describe_consumer("g".into()).await;
    let members = described.unwrap().unwrap().members;
    let member = members.into_iter().find(|m| m.member_id.as_str() == id);
    let current = member.unwrap().current;
    let assigned = current.assigned.iter().map(|(_, partition)| partition.0);
    (current.member_epoch.unwrap().0, assigned.collect())
}

/// `a` has all four partitions, `b` comes, and they share.
async fn share(server: &Server) -> (Member, Member) {
    let mut a = join(server, options("a")).await;
    assert_eq!(a.assigned().await, [0, 1, 2, 3]);
    a.owns(&[0, 1, 2, 3]);
    let mut b = join(server, options("b")).await;
    assert_eq!(b.assigned().await, [0; 0]);
    b.owns(&[]);
    // Without having said anything.
    let kept = a.assigned().await;
    assert_eq!(kept.len(), 2);
    a.owns(&kept);
    let given = b.assigned().await;
    assert_eq!(given.len(), 2);
    assert!(given.iter().all(|partition| !kept.contains(partition)));
    b.owns(&given);
    (a, b)
}

#[tokio::test]
async fn a_group_change_reaches_the_others_long_before_their_next_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let began = Instant::now();
    let (mut a, b) = share(&server).await;
    // Leaving does too, said or shown by closing the requests' side.
    b.leaves(false);
    assert_eq!(a.assigned().await, [0, 1, 2, 3]);
    a.owns(&[0, 1, 2, 3]);
    let mut c = join(&server, options("c")).await;
    assert_eq!(c.assigned().await, [0; 0]);
    c.owns(&[]);
    let kept = a.assigned().await;
    a.owns(&kept);
    assert_eq!(c.assigned().await.len(), 2);
    let Member {
        requests,
        mut answers,
        ..
    } = c;
    drop(requests);
    while answers.message().await.unwrap().is_some() {}
    assert_eq!(a.assigned().await, [0, 1, 2, 3]);
    assert_eq!(members(&server).await, ["a"]);
    assert!(began.elapsed() < Duration::from_millis(u64::from(LONG_MS / 2)));
    server.stop().await;
}

#[tokio::test]
async fn who_leaves_is_answered_and_then_the_stream_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let mut a = join(&server, options("a")).await;
    a.assigned().await;
    a.leaves(false);
    let last = a.next().await.unwrap().unwrap();
    assert_eq!(last.member_epoch, 0);
    assert!(a.next().await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_member_whose_connection_broke_comes_back_to_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let (a, mut b) = share(&server).await;
    b.say(v1::JoinRequest::default());
    b.next().await.unwrap();
    let (epoch, kept) = read_by(&server, "b").await;
    // As when its process is killed: the stream is reset, and its connection closed.
    drop(b.answers);
    assert_eq!(members(&server).await, ["a", "b"]);
    let back = v1::JoinOptions {
        member_epoch: epoch,
        owned: Some(owned(&kept)),
        ..options("b")
    };
    let mut back = join(&server, back).await;
    assert_eq!(back.assigned().await, kept);
    assert_eq!(back.epoch, epoch);
    drop(a);
    server.stop().await;
}

#[tokio::test]
async fn one_step_that_a_broken_connection_swallowed_is_taken_again_and_two_are_never_made() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let (mut a, mut b) = share(&server).await;
    // Until both stand still, at the same epoch.
    a.say(v1::JoinRequest::default());
    while a.epoch != b.epoch {
        a.next().await.unwrap();
    }
    let (epoch, kept) = (a.epoch, read_by(&server, "a").await.1);
    let mut changes = server.broker.groups().changes(&"g".into());
    // `a` hears nothing of what these bring about: first it gets what `b` had.
    b.leaves(false);
    while b.next().await.unwrap().is_some() {}
    while read_by(&server, "a").await.1.len() < 4 {
        timeout(PATIENCE, changes.changed()).await.unwrap();
    }
    let behind = read_by(&server, "a").await.0;
    assert_eq!(behind, epoch + 1);
    // Then it would have to give some up.
    let mut c = join(&server, options("c")).await;
    c.assigned().await;
    c.owns(&[]);
    let quiet = timeout(Duration::from_millis(300), async {
        while read_by(&server, "a").await.1.len() == 4 {
            changes.changed().await;
        }
    });
    assert!(quiet.await.is_err(), "a second step");
    drop(a.answers);
    let back = v1::JoinOptions {
        member_epoch: epoch,
        owned: Some(owned(&kept)),
        ..options("a")
    };
    let mut a = join(&server, back).await;
    let kept = a.assigned().await;
    a.owns(&kept);
    assert_eq!(c.assigned().await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn what_a_member_said_before_it_heard_of_its_partitions_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let mut a = join(&server, options("a")).await;
    assert_eq!(a.assigned().await, [0, 1, 2, 3]);
    // It crossed the answer: it does not give up what it does not know of.
    let crossed = v1::JoinRequest {
        heard: 0,
        owned: Some(owned(&[])),
        ..v1::JoinRequest::default()
    };
    a.requests.send(crossed).unwrap();
    a.leaves(false);
    let next = a.next().await.unwrap().unwrap();
    assert_eq!(next.member_epoch, 0, "the answer to its leaving");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_member_is_taken_out_though_its_stream_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 600).await;
    let a = join(&server, options("a")).await;
    let began = Instant::now();
    assert_eq!(a.refused().await.code, Code::UnknownMember.to_string());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(members(&server).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_member_whose_connection_stays_broken_is_taken_out_when_its_session_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 600).await;
    let mut a = join(&server, options("a")).await;
    a.assigned().await;
    drop(a);
    let mut changes = server.broker.groups().changes(&"g".into());
    assert_eq!(members(&server).await, ["a"]);
    timeout(PATIENCE, changes.changed()).await.unwrap();
    assert!(members(&server).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_member_that_comes_on_another_stream_leaves_the_first_one_without_a_say() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let mut first = join(&server, options("a")).await;
    first.assigned().await;
    let mut second = join(&server, options("a")).await;
    assert_eq!(second.assigned().await, [0, 1, 2, 3]);
    assert_eq!(first.refused().await.code, Code::MemberFenced.to_string());
    assert_eq!(members(&server).await, ["a"]);
    server.stop().await;
}

#[tokio::test]
async fn a_member_of_a_group_that_was_forgotten_meanwhile_has_to_join_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 600).await;
    let mut a = join(&server, options("a")).await;
    a.assigned().await;
    let epoch = a.epoch;
    drop(a);
    let mut changes = server.broker.groups().changes(&"g".into());
    while !members(&server).await.is_empty() {
        timeout(PATIENCE, changes.changed()).await.unwrap();
    }
    server.broker.groups().delete("g".into()).await.unwrap();
    let back = v1::JoinOptions {
        member_epoch: epoch,
        ..options("a")
    };
    let back = join(&server, back).await;
    assert_eq!(back.refused().await.code, Code::UnknownMember.to_string());
    server.stop().await;
}

#[tokio::test]
async fn a_static_member_that_goes_keeps_its_place_unless_it_goes_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let instance = |member: &str| v1::JoinOptions {
        instance_id: Some("i".into()),
        ..options(member)
    };
    let mut a = join(&server, instance("a")).await;
    a.assigned().await;
    a.owns(&[0, 1, 2, 3]);
    let second = join(&server, instance("b")).await;
    assert_eq!(second.refused().await.code, Code::InstanceInUse.to_string());
    a.leaves(false);
    while a.next().await.unwrap().is_some() {}
    assert_eq!(members(&server).await, ["a"]);
    // Under a new id.
    let mut b = join(&server, instance("b")).await;
    assert_eq!(b.assigned().await, [0, 1, 2, 3]);
    assert_eq!(members(&server).await, ["b"]);
    b.leaves(true);
    while b.next().await.unwrap().is_some() {}
    assert!(members(&server).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_ends_the_stream_with_its_reason_and_the_group_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let mut good = join(&server, options("a")).await;
    assert_eq!(good.assigned().await, [0, 1, 2, 3]);
    let subscribed = |topics: Vec<String>, topic_regex: Option<&str>| v1::MemberSubscription {
        topics,
        topic_regex: topic_regex.map(str::to_owned),
    };
    let with = |change: &dyn Fn(&mut v1::JoinOptions)| {
        let mut options = options("b");
        change(&mut options);
        v1::JoinRequest {
            options: Some(options),
            ..v1::JoinRequest::default()
        }
    };
    let subscribes = |subscription: v1::MemberSubscription| {
        with(&move |o| o.subscription = Some(subscription.clone()))
    };
    let many = (0..10_001).map(|n| format!("t{n}")).collect();
    let cases = [
        (
            "no options",
            v1::JoinRequest::default(),
            Code::InvalidArgument,
        ),
        ("no group", with(&|o| o.group.clear()), Code::InvalidGroupId),
        (
            "an absurd group",
            with(&|o| o.group = "g".repeat(1 << 20)),
            Code::InvalidGroupId,
        ),
        (
            "no id",
            with(&|o| o.member_id.clear()),
            Code::InvalidArgument,
        ),
        (
            "nothing to read",
            subscribes(subscribed(Vec::new(), Some(""))),
            Code::InvalidArgument,
        ),
        (
            "too many topics",
            subscribes(subscribed(many, None)),
            Code::InvalidArgument,
        ),
        (
            "no topic's name",
            subscribes(subscribed(vec!["a b".into()], None)),
            Code::InvalidTopicName,
        ),
        (
            "a pattern that does not parse",
            subscribes(subscribed(Vec::new(), Some("(t"))),
            Code::InvalidTopicRegex,
        ),
        (
            "no such assignor",
            with(&|o| o.assignor = Some("fair".into())),
            Code::UnknownAssignor,
        ),
        (
            "an endless rebalance",
            with(&|o| o.rebalance_timeout_ms = u32::MAX),
            Code::InvalidArgument,
        ),
        (
            "nobody comes back",
            with(&|o| o.member_epoch = 3),
            Code::UnknownMember,
        ),
        (
            "owns without having joined",
            with(&|o| o.owned = Some(owned(&[1]))),
            Code::InvalidArgument,
        ),
        (
            "owns what is not there",
            with(&|o| {
                o.member_epoch = 1;
                o.owned = Some(owned(&[9]));
            }),
            Code::UnknownPartition,
        ),
        (
            "another epoch",
            with(&|o| {
                o.member_id = "a".into();
                o.member_epoch = 77;
            }),
            Code::MemberFenced,
        ),
    ];
    for (what, first, code) in cases {
        let member = open(server.channel().await, first).await;
        assert_eq!(member.refused().await.code, code.to_string(), "{what}");
    }
    // Later messages.
    let again = v1::JoinRequest {
        options: Some(options("b")),
        ..v1::JoinRequest::default()
    };
    let ahead = v1::JoinRequest {
        heard: 99,
        ..v1::JoinRequest::default()
    };
    let foreign = v1::JoinRequest {
        owned: Some(v1::OwnedPartitions {
            topics: vec![v1::TopicPartitions {
                topic: "none".into(),
                partitions: vec![0],
                topic_id: String::new(),
            }],
        }),
        ..v1::JoinRequest::default()
    };
    let cases = [
        (again, Code::InvalidArgument),
        (ahead, Code::InvalidArgument),
        (foreign, Code::UnknownTopic),
    ];
    for (request, code) in cases {
        let mut member = join(&server, options("b")).await;
        member.assigned().await;
        member.requests.send(request).unwrap();
        assert_eq!(member.refused().await.code, code.to_string());
    }
    good.say(v1::JoinRequest::default());
    good.next()
        .await
        .unwrap()
        .expect("it is a member as before");
    server.stop().await;
}

#[tokio::test]
async fn a_group_of_classic_members_refuses_by_the_right_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), LONG_MS).await;
    let classic = sapwood_broker::group::Join {
        group: "g".into(),
        member_id: None,
        instance_id: None,
        client: sapwood_broker::group::Client::default(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![sapwood_broker::group::Protocol {
            name: "range".into(),
            metadata: bytes::Bytes::new(),
        }],
        takes_member_id: false,
        takes_skip_assignment: false,
    };
    let groups = server.broker.groups();
    let joining = tokio::spawn(async move { groups.join(classic).await });
    let mut changes = server.broker.groups().changes(&"g".into());
    while server
        .broker
        .groups()
        .find("g".into())
        .await
        .unwrap()
        .is_none()
    {
        changes.changed().await;
    }
    let member = join(&server, options("a")).await;
    assert_eq!(
        member.refused().await.code,
        Code::OtherGroupKind.to_string()
    );
    joining.abort();
    server.stop().await;
}
