//! A member's stream: its heartbeats in, its assignments out.
//!
//! A member is led through the group's changes by heartbeats, one step with each. Its own may be far
//! apart; so this task, woken when the group changes, sends one in its place and passes on what comes of
//! it. It does so only as long as the member itself has spoken within its session, and only one step
//! ahead of what the member is known to have heard: the coordinator takes a member back that has missed
//! one step, not two.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sapwood_broker::{
    GroupChanges, GroupRequestError,
    group::{
        Beat, Client, ConsumerHeartbeat, Epoch, GroupError, GroupId, InstanceId, MemberId,
        Partitions, Presence,
    },
};
use sapwood_model::{Code, TopicId};
use sapwood_rpc::v1;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};
use tracing::debug;

use super::{
    GroupApi,
    options::{self, Options, Subscription},
    seats::Seat,
};
use crate::error::{self, Failure};

/// How long the task waits for more changes of the group before it sends a heartbeat in the member's
/// place. Changes come in crowds: each step of each member is one.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The pause doubles up to this while heartbeats find nothing new: in a large group most changes are
/// about others, and members would keep each other busy.
const PAUSE_MAX: Duration = Duration::from_millis(160);

pub(super) type Answers = mpsc::Sender<Result<v1::JoinResponse, Status>>;

/// Why a stream ends.
enum End {
    /// The client is gone: nobody is told.
    Gone,
    /// Everything was said.
    Done,
    Failed(Box<Failure>),
    Broken(Status),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Serves a stream to its end.
pub(super) async fn run(
    api: GroupApi,
    host: Arc<str>,
    mut requests: Streaming<v1::JoinRequest>,
    answers: Answers,
) {
    let end = match begin(&api, host, &mut requests, &answers).await {
        Ok((member, options)) => member.serve(options, &mut requests).await,
        Err(end) => end,
    };
    let status = match end {
        End::Gone | End::Done => return,
        End::Failed(failure) => failure.into_status(),
        End::Broken(status) => status,
    };
    let _ = answers.send(Err(status)).await;
}

/// Takes the first message in.
async fn begin(
    api: &GroupApi,
    host: Arc<str>,
    requests: &mut Streaming<v1::JoinRequest>,
    answers: &Answers,
) -> Result<(Member, Options), End> {
    let first = tokio::select! {
        () = answers.closed() => return Err(End::Gone),
        () = api.drain.cancelled() => return Err(Failure::draining().into()),
        first = requests.message() => first,
    };
    let first = match first {
        Ok(Some(first)) => first,
        Ok(None) => return Err(End::Done),
        Err(status) => return Err(End::Broken(error::intake(status))),
    };
    let options = Options::read(&api.broker, first)?;
    let settings = &api.broker.options().groups;
    let session = Duration::from_millis(settings.consumer_session_timeout_ms.into());
    let member = Member {
        answers: answers.clone(),
        // Before the group is looked at, so that nothing is missed in between.
        changes: api.broker.groups().changes(&options.group),
        api: api.clone(),
        group: options.group.clone(),
        id: options.member_id.clone(),
        instance: options.instance_id.clone(),
        client: Client {
            id: options.client_id.clone(),
            host,
        },
        epoch: options.epoch,
        topics: HashMap::new(),
        sent: 0,
        news: 0,
        heard: 0,
        subscription: None,
        session,
        session_end: Instant::now() + session,
        push: Push::default(),
    };
    Ok((member, options))
}

struct Member {
    api: GroupApi,
    answers: Answers,
    changes: GroupChanges,
    group: GroupId,
    id: MemberId,
    instance: Option<InstanceId>,
    client: Client,
    epoch: Epoch,
    /// The topics of the last assignment that was sent: a name that the member says means the topic that
    /// it was told of, though it may have been deleted since.
    topics: HashMap<String, TopicId>,
    /// The number of the last answer.
    sent: u64,
    /// The number of the last answer that had a new epoch or a new assignment.
    news: u64,
    /// The number of the last answer that the member is known to have taken in.
    heard: u64,
    /// A subscription that the group has not been told of.
    subscription: Option<Subscription>,
    session: Duration,
    session_end: Instant,
    push: Push,
}

/// When to send a heartbeat in the member's place.
#[derive(Debug)]
struct Push {
    due: Option<Instant>,
    pause: Duration,
    /// When the last one was sent.
    last: Option<Instant>,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            due: None,
            pause: PAUSE_MIN,
            last: None,
        }
    }
}

impl Push {
    /// The group has changed.
    fn changed(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now >= last + 2 * PAUSE_MAX) {
            self.pause = PAUSE_MIN;
        }
        self.due.get_or_insert(now + self.pause);
    }

    /// One was sent, and brought the member something or did not.
    fn done(&mut self, now: Instant, useful: bool) {
        self.last = Some(now);
        self.pause = match useful {
            true => PAUSE_MIN,
            false => (2 * self.pause).min(PAUSE_MAX),
        };
    }
}

impl Member {
    async fn serve(mut self, options: Options, requests: &mut Streaming<v1::JoinRequest>) -> End {
        let first = ConsumerHeartbeat {
            rebalance_timeout_ms: Some(options.rebalance_timeout_ms),
            server_assignor: Some(options.assignor),
            owned: Some(options.owned),
            presence: match options.epoch {
                Epoch::ZERO => Presence::Join,
                epoch => Presence::Stay(epoch),
            },
            ..self.heartbeat(Some(options.subscription))
        };
        if let Err(end) = self.beat(first, true).await {
            return end;
        }
        // Now the group has taken this stream for the member's.
        let seat = self.api.seats.take(&self.group, &self.id);
        loop {
            if let Err(end) = self.step(requests, &seat).await {
                return end;
            }
        }
    }

    /// Waits for something to happen, and does what it asks for.
    async fn step(
        &mut self,
        requests: &mut Streaming<v1::JoinRequest>,
        seat: &Seat,
    ) -> Result<(), End> {
        let may_push = self.heard >= self.news;
        let due = self.push.due.filter(|_| may_push);
        tokio::select! {
            biased;
            () = self.answers.closed() => Err(End::Gone),
            () = self.api.drain.cancelled() => Err(Failure::draining().into()),
            () = seat.lost() => {
                let message = format!("member {:?} speaks on another stream", self.id);
                let code = match self.instance {
                    Some(_) => Code::InstanceFenced,
                    None => Code::MemberFenced,
                };
                Err(Failure::new(code, message).into())
            }
            request = requests.message() => match request {
                Ok(Some(request)) => self.on_request(request).await,
                Ok(None) => Err(self.leave(false, false).await),
                Err(status) => Err(End::Broken(error::intake(status))),
            },
            () = sleep_until(self.session_end) => {
                // The group's own clock would take it out only after the last heartbeat in its place.
                let _ = self.leave(true, false).await;
                let silent_ms = self.session.as_millis();
                let message = format!("member {:?} was silent for {silent_ms} ms", self.id);
                Err(Failure::new(Code::UnknownMember, message).into())
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                self.push.due = None;
                let beat = self.heartbeat(None);
                let sent = self.sent;
                self.beat(beat, false).await?;
                self.push.done(Instant::now(), self.sent > sent);
                Ok(())
            }
            () = self.changes.changed(), if self.push.due.is_none() => {
                self.push.changed(Instant::now());
                Ok(())
            }
        }
    }

    async fn on_request(&mut self, request: v1::JoinRequest) -> Result<(), End> {
        let invalid = |message: String| Failure::new(Code::InvalidArgument, message);
        if request.options.is_some() {
            return Err(invalid("options come in the first message only".to_owned()).into());
        }
        if request.heard > self.sent {
            let (heard, sent) = (request.heard, self.sent);
            return Err(invalid(format!("heard is {heard}; the last answer is {sent}")).into());
        }
        if let Some(leave) = request.leave {
            return Err(self.leave(leave.for_good, true).await);
        }
        if let Some(subscription) = request.subscription {
            self.subscription = Some(Subscription::read(subscription)?);
        }
        let owned = match request.owned {
            Some(owned) => Some(options::owned(&self.api.broker, owned, &self.topics)?),
            None => None,
        };
        self.session_end = Instant::now() + self.session;
        self.heard = self.heard.max(request.heard);
        if self.heard < self.news {
            // It will say more when it has heard the answer that is on its way.
            return Ok(());
        }
        self.push.due = None;
        let subscription = self.subscription.take();
        let beat = ConsumerHeartbeat {
            owned,
            ..self.heartbeat(subscription)
        };
        self.beat(beat, true).await
    }

    /// A heartbeat of a member that stays.
    fn heartbeat(&self, subscription: Option<Subscription>) -> ConsumerHeartbeat {
        let (names, regex) = match subscription {
            Some(Subscription { names, regex }) => (Some(names), Some(regex)),
            None => (None, None),
        };
        ConsumerHeartbeat {
            group: self.group.clone(),
            member_id: Some(self.id.clone()),
            presence: Presence::Stay(self.epoch),
            instance_id: self.instance.clone(),
            client: self.client.clone(),
            rack_id: None,
            rebalance_timeout_ms: None,
            subscribed_topic_names: names,
            subscribed_topic_regex: regex,
            server_assignor: None,
            owned: None,
        }
    }

    /// Sends a heartbeat, and passes on what comes of it if that is new or was asked for.
    async fn beat(&mut self, beat: ConsumerHeartbeat, answer: bool) -> Result<(), End> {
        let beaten = self.api.broker.groups().consumer_heartbeat(beat).await;
        let beat = match beaten {
            Ok(beat) => beat,
            Err(error) => {
                debug!(group = %self.group, member = %self.id, %error, "a member was refused");
                let failure = match self.api.refusal(&self.group, error).await {
                    // It was a member before the group was forgotten.
                    failure if failure.code() == Code::UnknownGroup => {
                        GroupError::UnknownMember.into()
                    }
                    failure => failure,
                };
                return Err(failure.field("group", &self.group).into());
            }
        };
        let Presence::Stay(epoch) = beat.presence else {
            unreachable!("a member that joins or stays has an epoch")
        };
        let is_new = epoch != self.epoch || beat.assignment.is_some();
        self.epoch = epoch;
        if is_new {
            self.news = self.sent + 1;
        }
        if is_new || answer {
            self.tell(&beat).await?;
        }
        Ok(())
    }

    /// Waits while the client does not read; it costs only this stream.
    async fn tell(&mut self, beat: &Beat) -> Result<(), End> {
        let assignment = beat.assignment.as_ref().map(|owned| self.assignment(owned));
        self.sent += 1;
        let answer = v1::JoinResponse {
            number: self.sent,
            member_id: self.id.to_string(),
            member_epoch: match beat.presence {
                Presence::Stay(epoch) => epoch.0,
                Presence::Join | Presence::Leave | Presence::Pause => 0,
            },
            heartbeat_interval_ms: beat.heartbeat_interval_ms,
            session_timeout_ms: u32::try_from(self.session.as_millis()).unwrap_or(u32::MAX),
            assignment,
        };
        tokio::select! {
            sent = self.answers.send(Ok(answer)) => sent.map_err(|_| End::Gone),
            () = self.api.drain.cancelled() => Err(Failure::draining().into()),
        }
    }

    /// An assignment by names. Topics that are not there any more are left out: the group is about to
    /// take them away.
    fn assignment(&mut self, owned: &Partitions) -> v1::GroupAssignment {
        self.topics.clear();
        let mut topics = Vec::new();
        for (id, partitions) in owned.topics() {
            let Some(info) = self.api.broker.topic(id) else {
                continue;
            };
            let name = info.name.to_string();
            self.topics.insert(name.clone(), id);
            topics.push(v1::TopicPartitions {
                topic: name,
                partitions: partitions.iter().map(|partition| partition.0).collect(),
                topic_id: id.to_string(),
            });
        }
        topics.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        v1::GroupAssignment { topics }
    }

    /// Takes the member out; a static one that may come back keeps its place.
    async fn leave(&mut self, for_good: bool, answer: bool) -> End {
        let presence = match for_good || self.instance.is_none() {
            true => Presence::Leave,
            false => Presence::Pause,
        };
        let beat = ConsumerHeartbeat {
            presence,
            ..self.heartbeat(None)
        };
        match self.api.broker.groups().consumer_heartbeat(beat).await {
            Ok(beat) if answer => match self.tell(&beat).await {
                Ok(()) => End::Done,
                Err(end) => end,
            },
            Ok(_) => End::Done,
            // It is out already, which is what it wants.
            Err(GroupRequestError::Group(
                GroupError::UnknownMember | GroupError::GroupNotFound,
            )) => End::Done,
            Err(error) => Failure::from(error).field("group", &self.group).into(),
        }
    }
}
