//! The task behind a consumer: keeps the fetch stream open, opens it again where it was, and reads
//! ahead as far as the credit goes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_model::{Code, Offset};
use sapwood_rpc::v1::{self, fetch_response, fetch_service_client::FetchServiceClient, fetched};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::Assignment;
use crate::{
    Error, Position,
    connection::{ANSWER_BYTES_MAX, Backoff, Connections, at_address, seed},
};

/// The bytes of one answer: large ones cost less.
const RESPONSE_BYTES: usize = 1 << 20;

/// Partitions in one message: far below the broker's limit for a message.
const SUBSCRIPTIONS_AT_ONCE: usize = 1000;

/// What the consumer says to the task.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe {
        tag: u64,
        assignment: Assignment,
    },
    Unsubscribe {
        tag: u64,
    },
    /// So many bytes of what was read ahead are used up.
    Consumed {
        bytes: usize,
    },
}

/// What the task says to the consumer. About one tag, events are in order.
#[derive(Debug)]
pub(super) enum Event {
    Started {
        tag: u64,
        from: Offset,
        until: Option<Offset>,
    },
    Fetched {
        tag: u64,
        next: Offset,
        batches: Bytes,
    },
    Finished {
        tag: u64,
    },
    Failed {
        tag: u64,
        error: Error,
    },
    /// Nothing more comes.
    Ended(Error),
}

#[derive(Debug)]
pub(super) struct Task {
    connections: Arc<Connections>,
    prefetch_bytes: usize,
    retry_timeout: Option<Duration>,
    events: mpsc::UnboundedSender<Event>,
    subscriptions: HashMap<u64, Subscription>,
    /// Bytes that were handed to the consumer and not used up.
    ahead_bytes: usize,
    /// Bytes that were used up and for which no credit was granted yet.
    used_bytes: usize,
}

#[derive(Debug)]
struct Subscription {
    assignment: Assignment,
    /// Where to go on after a new connection.
    next: Option<Offset>,
    until: Option<Offset>,
}

/// An open fetch stream.
pub(super) struct Stream {
    /// Small messages, one for a command or for a part of the credit.
    requests: mpsc::UnboundedSender<v1::FetchRequest>,
    answers: Streaming<v1::FetchResponse>,
}

/// The consumer was dropped.
struct Gone;

impl Task {
    pub(super) fn new(
        connections: Arc<Connections>,
        prefetch_bytes: usize,
        retry_timeout: Option<Duration>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            connections,
            prefetch_bytes,
            retry_timeout,
            events,
            subscriptions: HashMap::new(),
            ahead_bytes: 0,
            used_bytes: 0,
        }
    }

    /// Opens a stream, once.
    pub(super) async fn open(&self) -> Result<Stream, Error> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let address = self.connections.address();
        let mut client = FetchServiceClient::new(self.connections.channel())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let opening = client.fetch(UnboundedReceiverStream::new(receiver));
        let answers = tokio::time::timeout(self.connections.request_timeout, opening)
            .await
            .map_err(|_| Error::transport(format!("{address} did not answer")))?
            .map_err(|status| at_address(status.into(), address))?;
        Ok(Stream {
            requests,
            answers: answers.into_inner(),
        })
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut stream: Stream,
    ) {
        loop {
            self.begin(&stream);
            let error = match self.serve(&mut commands, &mut stream).await {
                Ok(error) => error,
                Err(Gone) => return,
            };
            drop(stream);
            let reopened = match self.is_worth_another_try(&error) {
                true => self.reopen(&mut commands, error).await,
                false => Ok(Err(error)),
            };
            stream = match reopened {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    let _ = self.events.send(Event::Ended(error));
                    return;
                }
                Err(Gone) => return,
            };
        }
    }

    fn is_worth_another_try(&self, error: &Error) -> bool {
        error.is_transport() || error.is_retriable()
    }

    /// Serves a stream until it breaks.
    async fn serve(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        stream: &mut Stream,
    ) -> Result<Error, Gone> {
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let mut request = v1::FetchRequest::default();
                    self.on_command(command.ok_or(Gone)?, &mut request);
                    // What was said at once is passed on at once.
                    while request.subscribe.len() < SUBSCRIPTIONS_AT_ONCE
                        && let Ok(command) = commands.try_recv()
                    {
                        self.on_command(command, &mut request);
                    }
                    stream.say(request);
                }
                answer = stream.answers.message() => match answer {
                    Ok(Some(answer)) => stream.say(self.on_answer(answer)?),
                    Ok(None) => return Ok(Error::transport("the broker ended the stream")),
                    Err(status) => return Ok(status.into()),
                },
            }
        }
    }

    /// Opens the stream again, with growing pauses, until the retry timeout is over.
    async fn reopen(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        mut error: Error,
    ) -> Result<Result<Stream, Error>, Gone> {
        let give_up = self.retry_timeout.map(|timeout| Instant::now() + timeout);
        let mut backoff = Backoff::new(seed());
        loop {
            let at = Instant::now() + backoff.next();
            if give_up.is_some_and(|give_up| at > give_up) {
                return Ok(Err(error));
            }
            tracing::debug!(%error, "opening the fetch stream again");
            self.wait(commands, at).await?;
            self.connections.rotate();
            match self.open().await {
                Ok(stream) => return Ok(Ok(stream)),
                Err(next) if !self.is_worth_another_try(&next) => return Ok(Err(next)),
                Err(next) => error = next,
            }
        }
    }

    /// Takes commands in until `at`.
    async fn wait(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        at: Instant,
    ) -> Result<(), Gone> {
        loop {
            tokio::select! {
                command = commands.recv() => {
                    // A new stream is told everything anyway.
                    self.on_command(command.ok_or(Gone)?, &mut v1::FetchRequest::default());
                }
                () = tokio::time::sleep_until(at) => return Ok(()),
            }
        }
    }

    /// Tells a new stream everything.
    fn begin(&mut self, stream: &Stream) {
        let response_bytes = self.prefetch_bytes.clamp(1024, RESPONSE_BYTES);
        self.used_bytes = 0;
        stream.say(v1::FetchRequest {
            options: Some(v1::FetchOptions {
                payload: v1::Payload::Batches.into(),
                response_bytes_max: u32::try_from(response_bytes).unwrap_or(u32::MAX),
            }),
            credit_bytes: self.prefetch_bytes.saturating_sub(self.ahead_bytes) as u64,
            ..v1::FetchRequest::default()
        });
        let subscriptions = self.subscriptions.iter();
        let subscribe: Vec<_> = subscriptions.map(|(tag, one)| one.message(*tag)).collect();
        for part in subscribe.chunks(SUBSCRIPTIONS_AT_ONCE) {
            stream.say(v1::FetchRequest {
                subscribe: part.to_vec(),
                ..Default::default()
            });
        }
    }

    /// Takes a command in, and adds what the broker has to be told to `request`.
    fn on_command(&mut self, command: Command, request: &mut v1::FetchRequest) {
        match command {
            Command::Subscribe { tag, assignment } => {
                let subscription = Subscription {
                    assignment,
                    next: None,
                    until: None,
                };
                request.subscribe.push(subscription.message(tag));
                self.subscriptions.insert(tag, subscription);
            }
            Command::Unsubscribe { tag } => {
                let Some(Subscription { assignment, .. }) = self.subscriptions.remove(&tag) else {
                    return;
                };
                // The broker removes first and subscribes then.
                request
                    .subscribe
                    .retain(|subscription| subscription.tag != tag);
                request.remove.push(v1::PartitionRef {
                    topic: assignment.topic.to_string(),
                    partition: assignment.partition.0,
                });
            }
            Command::Consumed { bytes } => {
                self.ahead_bytes = self.ahead_bytes.saturating_sub(bytes);
                request.credit_bytes += self.used(bytes);
            }
        }
    }

    /// The credit to grant: in parts, not for every batch.
    fn used(&mut self, bytes: usize) -> u64 {
        self.used_bytes += bytes;
        match self.used_bytes < self.prefetch_bytes / 4 {
            true => 0,
            false => std::mem::take(&mut self.used_bytes) as u64,
        }
    }

    /// Takes an answer in. Returns what the broker has to be told.
    fn on_answer(&mut self, answer: v1::FetchResponse) -> Result<v1::FetchRequest, Gone> {
        let tag = answer.tag;
        let mut request = v1::FetchRequest::default();
        let Some(subscription) = self.subscriptions.get_mut(&tag) else {
            // From before a seek. Its bytes took credit.
            if let Some(fetch_response::Event::Fetched(fetched)) = answer.event {
                request.credit_bytes = self.used(batches_of(fetched).len());
            }
            return Ok(request);
        };
        let event = match answer.event {
            Some(fetch_response::Event::Started(started)) => {
                let from = Offset(started.from_offset);
                subscription.next = Some(from);
                subscription.until = started.until_offset.map(Offset);
                Event::Started {
                    tag,
                    from,
                    until: subscription.until,
                }
            }
            Some(fetch_response::Event::Fetched(fetched)) => {
                let next = Offset(fetched.next_offset);
                let batches = batches_of(fetched);
                subscription.next = Some(next);
                self.ahead_bytes += batches.len();
                Event::Fetched { tag, next, batches }
            }
            Some(fetch_response::Event::Finished(_)) => {
                self.subscriptions.remove(&tag);
                Event::Finished { tag }
            }
            Some(fetch_response::Event::Failed(error)) => {
                self.subscriptions.remove(&tag);
                Event::Failed {
                    tag,
                    error: error.into(),
                }
            }
            None => {
                let message = "the broker sent an answer that this client does not know";
                Event::Failed {
                    tag,
                    error: Error::local(Code::Internal, message),
                }
            }
        };
        self.events.send(event).map_err(|_| Gone)?;
        Ok(request)
    }
}

impl Stream {
    /// Tells the broker, if there is anything to tell. A stream that has ended says so by itself.
    fn say(&self, request: v1::FetchRequest) {
        if request != v1::FetchRequest::default() {
            let _ = self.requests.send(request);
        }
    }
}

impl Subscription {
    /// From where it is, or, before the broker has said where that is, as it was asked for.
    fn message(&self, tag: u64) -> v1::Subscription {
        let from = self.next.map_or(self.assignment.from, Position::Offset);
        let until = self.until.map(Position::Offset).or(self.assignment.until);
        v1::Subscription {
            topic: self.assignment.topic.to_string(),
            partition: self.assignment.partition.0,
            from: Some(from.into()),
            until: until.map(Into::into),
            tag,
        }
    }
}

fn batches_of(fetched: v1::Fetched) -> Bytes {
    match fetched.payload {
        Some(fetched::Payload::Batches(batches)) => batches,
        _ => Bytes::new(),
    }
}
