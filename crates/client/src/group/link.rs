//! The member's stream: opened, kept alive with heartbeats, and opened again where it broke.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use sapwood_model::Code;
use sapwood_rpc::v1::{self, group_service_client::GroupServiceClient};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::Stream;
use tonic::Streaming;

use crate::{
    Error, TopicPartition,
    admin::partitions_into,
    connection::{ANSWER_BYTES_MAX, Backoff, Connections, at_address, seed},
};

/// What the stream brings.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker has answered; what it assigned, if that changed.
    Answer(Option<v1::GroupAssignment>),
    /// The group has gone on without the member. It joins again by itself, owning nothing.
    Fenced(Error),
    /// The member has left.
    Left,
    /// Nothing more comes.
    Failed(Error),
}

/// A member's connection to its group.
pub(super) struct Link {
    connections: Arc<Connections>,
    /// Who joins; epoch and partitions are filled in each time.
    options: v1::JoinOptions,
    epoch: watch::Sender<u32>,
    /// What the member owns, as it was said last.
    owned: Vec<TopicPartition>,
    state: State,
    backoff: Backoff,
    /// Once it was in the group, what looks like a broken connection is worth another try.
    joined: bool,
    leaving: Option<v1::Leave>,
}

enum State {
    Waiting(Instant),
    Opening(BoxFuture<'static, Result<Open, Error>>),
    Open(Box<Open>),
    Ended,
}

struct Open {
    /// A few small messages: one for each answer, heartbeat and change of what is owned.
    requests: mpsc::UnboundedSender<v1::JoinRequest>,
    answers: Streaming<v1::JoinResponse>,
    /// The number of the last answer.
    heard: u64,
    heartbeat: Duration,
    next_heartbeat: Instant,
    /// When the broker has been silent for so long that it cannot be there any more.
    silent_until: Instant,
}

impl Link {
    pub(super) fn new(connections: Arc<Connections>, options: v1::JoinOptions) -> Self {
        Self {
            connections,
            options,
            epoch: watch::Sender::new(0),
            owned: Vec::new(),
            state: State::Waiting(Instant::now()),
            backoff: Backoff::new(seed()),
            joined: false,
            leaving: None,
        }
    }

    /// The member's epoch; 0 while it is out of the group.
    pub(super) fn epoch(&self) -> watch::Receiver<u32> {
        self.epoch.subscribe()
    }

    /// Says what the member owns.
    pub(super) fn own(&mut self, owned: Vec<TopicPartition>) {
        if let State::Open(open) = &mut self.state {
            open.say(v1::JoinRequest {
                owned: Some(message(&owned)),
                ..v1::JoinRequest::default()
            });
        }
        self.owned = owned;
    }

    /// Leaves the group, now or when the connection is there again.
    pub(super) fn leave(&mut self, leave: v1::Leave) {
        self.leaving = Some(leave);
        if let State::Open(open) = &mut self.state {
            open.leave(leave);
        }
    }

    /// Waits for what comes next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Ended => std::future::pending().await,
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Opening(self.open());
                }
                State::Opening(opening) => match opening.await {
                    Ok(mut open) => {
                        if let Some(leave) = self.leaving {
                            open.leave(leave);
                        }
                        self.state = State::Open(Box::new(open));
                    }
                    Err(error) => {
                        if let Some(event) = self.broken(error) {
                            return event;
                        }
                    }
                },
                State::Open(open) => {
                    let answered = tokio::select! {
                        answer = open.answers.message() => answer,
                        () = sleep_until(open.next_heartbeat) => {
                            open.say(v1::JoinRequest::default());
                            continue;
                        }
                        () = sleep_until(open.silent_until) => {
                            Err(tonic::Status::unavailable("the broker is silent"))
                        }
                    };
                    if let Some(event) = self.answered(answered) {
                        return event;
                    }
                }
            }
        }
    }

    fn answered(
        &mut self,
        answered: Result<Option<v1::JoinResponse>, tonic::Status>,
    ) -> Option<Event> {
        match answered {
            Ok(Some(answer)) => Some(self.on_answer(answer)),
            Ok(None) if self.leaving.is_some() => {
                self.state = State::Ended;
                Some(Event::Left)
            }
            Ok(None) => self.broken(Error::transport("the broker ended the stream")),
            Err(status) => self.broken(at_address(status.into(), self.connections.address())),
        }
    }

    fn on_answer(&mut self, answer: v1::JoinResponse) -> Event {
        self.joined = true;
        let is_new = self.epoch.send_if_modified(|epoch| {
            let before = std::mem::replace(epoch, answer.member_epoch);
            before != answer.member_epoch
        });
        if let State::Open(open) = &mut self.state {
            open.on_answer(&answer);
            if open.heard > 1 {
                self.backoff.reset();
            }
            // With an assignment, what is owned is said soon.
            if is_new && answer.assignment.is_none() && self.leaving.is_none() {
                open.say(v1::JoinRequest::default());
            }
        }
        Event::Answer(answer.assignment)
    }

    /// The stream has ended: what to make of it.
    fn broken(&mut self, error: Error) -> Option<Event> {
        let again = State::Waiting(Instant::now() + self.backoff.next());
        let is_fenced = matches!(error.code(), Code::UnknownMember | Code::MemberFenced);
        if is_fenced && self.leaving.is_some() {
            // It is out, which is what it wanted.
            self.state = State::Ended;
            Some(Event::Left)
        } else if is_fenced {
            self.epoch.send_replace(0);
            self.owned = Vec::new();
            self.state = again;
            Some(Event::Fenced(error))
        } else if error.is_retriable() && (self.joined || !error.is_transport()) {
            tracing::debug!(group = %self.options.group, %error, "joining the group again");
            self.connections.rotate();
            self.state = again;
            None
        } else {
            self.state = State::Ended;
            Some(Event::Failed(error))
        }
    }

    fn open(&self) -> BoxFuture<'static, Result<Open, Error>> {
        let options = v1::JoinOptions {
            member_epoch: *self.epoch.borrow(),
            owned: Some(message(&self.owned)),
            ..self.options.clone()
        };
        let connections = Arc::clone(&self.connections);
        Box::pin(Open::begin(connections, options))
    }
}

impl Open {
    async fn begin(connections: Arc<Connections>, options: v1::JoinOptions) -> Result<Self, Error> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let first = v1::JoinRequest {
            options: Some(options),
            ..v1::JoinRequest::default()
        };
        // The receiver is below.
        let _ = requests.send(first);
        let address = connections.address();
        let mut service = GroupServiceClient::new(connections.channel())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let timeout = connections.request_timeout;
        let answers = tokio::time::timeout(timeout, service.join(Requests(receiver)))
            .await
            .map_err(|_| Error::transport(format!("{address} did not answer")))?
            .map_err(|status| at_address(status.into(), address))?;
        let now = Instant::now();
        Ok(Self {
            requests,
            answers: answers.into_inner(),
            heard: 0,
            heartbeat: timeout,
            next_heartbeat: now + timeout,
            silent_until: now + timeout,
        })
    }

    /// Anything that is said is a heartbeat.
    fn say(&mut self, request: v1::JoinRequest) {
        self.next_heartbeat = Instant::now() + self.heartbeat;
        // A stream that has ended says so by itself.
        let _ = self.requests.send(v1::JoinRequest {
            heard: self.heard,
            ..request
        });
    }

    fn leave(&mut self, leave: v1::Leave) {
        self.say(v1::JoinRequest {
            leave: Some(leave),
            ..v1::JoinRequest::default()
        });
    }

    fn on_answer(&mut self, answer: &v1::JoinResponse) {
        let now = Instant::now();
        self.heard = answer.number;
        self.heartbeat = Duration::from_millis(answer.heartbeat_interval_ms.max(1).into());
        self.next_heartbeat = self.next_heartbeat.min(now + self.heartbeat);
        let session = Duration::from_millis(answer.session_timeout_ms.into());
        self.silent_until = now + session.max(2 * self.heartbeat);
    }
}

fn message(owned: &[TopicPartition]) -> v1::OwnedPartitions {
    v1::OwnedPartitions {
        topics: partitions_into(owned),
    }
}

/// The requests of a stream. It does not end when nobody can say anything any more: a stream whose
/// requests end says that its member leaves, and only [`v1::Leave`] shall say that.
struct Requests(mpsc::UnboundedReceiver<v1::JoinRequest>);

impl Stream for Requests {
    type Item = v1::JoinRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.poll_recv(context) {
            Poll::Ready(Some(request)) => Poll::Ready(Some(request)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn requests_do_not_end_when_nobody_can_say_anything_any_more() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut requests = Requests(receiver);
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut requests).poll_next(&mut context);
        sender.send(v1::JoinRequest::default()).unwrap();
        drop(sender);
        assert!(poll().is_ready());
        assert!(poll().is_pending());
    }
}
