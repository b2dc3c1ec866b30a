//! A client that is nothing but frames on a socket, and the members that use it.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use sapwood_kafka_wire::{
    Request, Uuid, decode_response, encode_request,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatRequestTopicPartitions,
        HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupRequestMember, SyncGroupRequest, SyncGroupRequestAssignment,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Failure, TOPIC};

const MEMBER_ID_REQUIRED: i16 = 79;
const REBALANCE_IN_PROGRESS: i16 = 27;

pub(crate) struct Client {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            next_correlation_id: 0,
        })
    }

    /// Sends a request and waits for its response.
    pub(crate) async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.next_correlation_id += 1;
        let frame = encode_request(self.next_correlation_id, version, Some("figures"), request)?;
        self.stream.write_all(&frame.concat()).await?;
        let length = usize::try_from(self.stream.read_i32().await?)?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await?;
        let (_, response) = decode_response::<R::Response>(Bytes::from(frame), version)?;
        Ok(response)
    }
}

fn check(what: &str, error: i16) -> Result<(), Failure> {
    match error {
        0 => Ok(()),
        error => Err(format!("{what} was answered with error {error}").into()),
    }
}

/// A member of the classic protocol. As the leader it deals the partitions out like cards.
pub(crate) struct Classic {
    client: Client,
    group: String,
    id: String,
    generation: i32,
}

impl Classic {
    pub(crate) async fn connect(address: &str, group: &str) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::connect(address).await?,
            group: group.to_owned(),
            id: String::new(),
            generation: -1,
        })
    }

    /// Joins, and syncs: says when the join was sent that was answered, and with how many bytes of
    /// assignment the sync was.
    pub(crate) async fn enter(&mut self, partitions: u32) -> Result<(Instant, usize), Failure> {
        let (sent, joined) = loop {
            let request = JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: 45_000,
                rebalance_timeout_ms: 60_000,
                member_id: self.id.clone(),
                protocol_type: "consumer".to_owned(),
                protocols: vec![JoinGroupRequestProtocol {
                    name: "range".to_owned(),
                    metadata: subscription().into(),
                }],
                ..JoinGroupRequest::default()
            };
            let sent = Instant::now();
            let joined = self.client.ask(9, &request).await?;
            self.id.clone_from(&joined.member_id);
            if joined.error_code != MEMBER_ID_REQUIRED {
                break (sent, joined);
            }
        };
        check("a join", joined.error_code)?;
        self.generation = joined.generation_id;
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: dealt(&joined, partitions)?,
            ..SyncGroupRequest::default()
        };
        let synced = self.client.ask(5, &request).await?;
        check("a sync", synced.error_code)?;
        Ok((sent, synced.assignment.len()))
    }

    /// Whether the group rebalances.
    pub(crate) async fn beat(&mut self) -> Result<bool, Failure> {
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..HeartbeatRequest::default()
        };
        let answer = self.client.ask(4, &request).await?;
        if answer.error_code == REBALANCE_IN_PROGRESS {
            return Ok(true);
        }
        check("a heartbeat", answer.error_code)?;
        Ok(false)
    }

    pub(crate) async fn leave(&mut self) -> Result<(), Failure> {
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![LeaveGroupRequestMember {
                member_id: self.id.clone(),
                ..LeaveGroupRequestMember::default()
            }],
            ..LeaveGroupRequest::default()
        };
        check("a leave", self.client.ask(5, &request).await?.error_code)
    }
}

/// What a consumer of the topic says of itself (version 0).
fn subscription() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 5];
    bytes.extend(TOPIC.as_bytes());
    bytes.extend([0xff; 4]);
    bytes
}

/// What the leader says; nothing from the others.
fn dealt(
    joined: &JoinGroupResponse,
    partitions: u32,
) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
    let count = u32::try_from(joined.members.len())?;
    let one = |(place, member): (u32, &_)| {
        let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 5];
        bytes.extend(TOPIC.as_bytes());
        let mine = (place..partitions).step_by(count as usize);
        let mine: Vec<u8> = mine.flat_map(u32::to_be_bytes).collect();
        bytes.extend(u32::try_from(mine.len() / 4)?.to_be_bytes());
        bytes.extend(mine);
        bytes.extend([0xff; 4]);
        let member: &sapwood_kafka_wire::messages::JoinGroupResponseMember = member;
        Ok(SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: bytes.into(),
        })
    };
    (0..).zip(&joined.members).map(one).collect()
}

/// A member of the newer protocol, which gives up and takes what it is told at once.
pub(crate) struct Consumer {
    client: Client,
    group: String,
    id: String,
    pub(crate) epoch: i32,
    owned: BTreeMap<Uuid, Vec<i32>>,
    /// It owns something else than it said last.
    has_news: bool,
}

impl Consumer {
    pub(crate) async fn connect(address: &str, group: &str, id: String) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::connect(address).await?,
            group: group.to_owned(),
            id,
            epoch: 0,
            owned: BTreeMap::new(),
            has_news: true,
        })
    }

    pub(crate) fn owned(&self) -> usize {
        self.owned.values().map(Vec::len).sum()
    }

    /// A heartbeat, the first of which joins: whether the member learned or said anything.
    pub(crate) async fn beat(&mut self) -> Result<bool, Failure> {
        let joins = self.epoch == 0;
        let partitions = self.owned.iter();
        let owned =
            partitions.map(
                |(topic_id, partitions)| ConsumerGroupHeartbeatRequestTopicPartitions {
                    topic_id: *topic_id,
                    partitions: partitions.clone(),
                },
            );
        let had_news = std::mem::take(&mut self.has_news);
        let request = ConsumerGroupHeartbeatRequest {
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![TOPIC.to_owned()]),
            topic_partitions: had_news.then(|| owned.collect()),
            ..self.bare(self.epoch)
        };
        let answer = self.client.ask(1, &request).await?;
        check("a heartbeat", answer.error_code)?;
        let mut learned = self.epoch != answer.member_epoch;
        self.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.owned = topics
                .map(|topic| (topic.topic_id, topic.partitions))
                .collect();
            self.has_news = true;
            learned = true;
        }
        Ok(learned || had_news)
    }

    pub(crate) async fn leave(&mut self) -> Result<(), Failure> {
        let request = self.bare(-1);
        check("a leave", self.client.ask(1, &request).await?.error_code)
    }

    fn bare(&self, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch,
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }
}
