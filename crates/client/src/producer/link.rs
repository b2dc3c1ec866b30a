//! The produce stream: opened when there is something to send, opened again with a growing pause.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use sapwood_rpc::v1::{
    ProduceRequest, ProduceResponse, produce_service_client::ProduceServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Error,
    connection::{ANSWER_BYTES_MAX, Backoff, Connections, at_address, seed},
};

/// Requests between this task and the connection's; the connection takes one when its window has
/// room.
const REQUESTS_AHEAD: usize = 4;
/// A broker that has acknowledged everything ends the stream at once.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

type Opened = Result<(mpsc::Sender<ProduceRequest>, Streaming<ProduceResponse>), Error>;

/// ```text
/// Idle -> Opening -> Open -> Idle (broken; the next opening waits for the pause)
///            `-> Idle (failed)
/// ```
enum State {
    Idle,
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open {
        requests: mpsc::Sender<ProduceRequest>,
        answers: Box<Streaming<ProduceResponse>>,
    },
    /// Shall be reported as broken.
    Failed(Error),
}

pub(super) struct Link {
    connections: Arc<Connections>,
    state: State,
    backoff: Backoff,
    /// The stream that is opened next waits for the pause first.
    pause_due: bool,
    /// Somebody waits for room for a request.
    room_wanted: bool,
}

#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Requests can be sent.
    Opened,
    /// There is room for a request again.
    Room,
    Answer(ProduceResponse),
    /// The stream ended or could not be opened; [`Link::open`] tries again.
    Broken(Error),
}

impl Link {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Self {
            connections,
            state: State::Idle,
            backoff: Backoff::new(seed()),
            pause_due: false,
            room_wanted: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Opens the stream if it is not open or being opened.
    pub(super) fn open(&mut self) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        let connections = Arc::clone(&self.connections);
        let pause = std::mem::take(&mut self.pause_due).then(|| self.backoff.next());
        self.state = State::Opening(Box::pin(async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let (requests, receiver) = mpsc::channel(REQUESTS_AHEAD);
            let address = connections.address();
            let answers = ProduceServiceClient::new(connections.channel())
                .max_decoding_message_size(ANSWER_BYTES_MAX)
                .produce(ReceiverStream::new(receiver))
                .await
                .map_err(|status| at_address(status.into(), address))?;
            Ok((requests, answers.into_inner()))
        }));
    }

    /// True when a request can be sent now. Otherwise [`LinkEvent::Room`] will tell.
    pub(super) fn has_room(&mut self) -> bool {
        let State::Open { requests, .. } = &self.state else {
            return false;
        };
        self.room_wanted = requests.capacity() == 0;
        !self.room_wanted
    }

    /// Sends a request, after [`Link::has_room`] said that it can.
    pub(super) fn send(&mut self, request: ProduceRequest) {
        if let State::Open { requests, .. } = &self.state {
            // If the stream has ended meanwhile, the next event says so and it is sent again.
            let _ = requests.try_send(request);
        }
    }

    /// Ends the stream because the broker broke the protocol.
    pub(super) fn fail(&mut self, why: &str) {
        self.state = State::Failed(Error::transport(why));
    }

    /// Ends the stream in order: waits until the broker has read every request, but not for long.
    pub(super) async fn finish(self) {
        let State::Open {
            requests,
            mut answers,
        } = self.state
        else {
            return;
        };
        drop(requests);
        let end = async { while let Ok(Some(_)) = answers.message().await {} };
        let _ = tokio::time::timeout(FINISH_TIMEOUT, end).await;
    }

    /// What happens next. Waits for ever while idle. Cancel-safe.
    pub(super) async fn event(&mut self) -> LinkEvent {
        let event = match &mut self.state {
            State::Idle => std::future::pending().await,
            State::Opening(opening) => match opening.await {
                Ok((requests, answers)) => {
                    self.state = State::Open {
                        requests,
                        answers: Box::new(answers),
                    };
                    return LinkEvent::Opened;
                }
                Err(error) => LinkEvent::Broken(error),
            },
            State::Open { requests, answers } => tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.backoff.reset();
                        return LinkEvent::Answer(answer);
                    }
                    Ok(None) => LinkEvent::Broken(Error::transport("the broker ended the stream")),
                    Err(status) => LinkEvent::Broken(status.into()),
                },
                permit = requests.reserve(), if self.room_wanted => {
                    drop(permit);
                    self.room_wanted = false;
                    return LinkEvent::Room;
                }
            },
            State::Failed(error) => LinkEvent::Broken(error.clone()),
        };
        self.state = State::Idle;
        self.pause_due = true;
        self.connections.rotate();
        event
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}
