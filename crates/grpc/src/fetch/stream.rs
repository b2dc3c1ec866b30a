//! One fetch stream: takes in what the client says, reads while there is credit, parks at the broker
//! while there is nothing to read.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_broker::{Fetch, FetchError, FetchPartition, Fetched, FetchedPartition, TopicRef};
use sapwood_model::{Code, Offset, PartitionId};
use sapwood_rpc::v1::{self, fetch_response::Event};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    FetchApi, answer_bytes, place, plain,
    subscriptions::{Subscription, Subscriptions},
};
use crate::{
    convert::{self, Wanted},
    error::{self, Failure},
};

/// A parked fetch is woken by data; this only bounds how long it may stay.
const PARKED: Duration = Duration::from_secs(600);
/// What one look at the partitions may find, so that none waits long for its turn.
const ROUND_BYTES_MAX: usize = 4 << 20;

type Answers = mpsc::Sender<Result<v1::FetchResponse, Status>>;

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

struct State {
    api: FetchApi,
    answers: Answers,
    subscriptions: Subscriptions,
    options: Options,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    plain: bool,
    answer_bytes_max: usize,
}

/// Serves a stream to its end.
pub(super) async fn run(api: FetchApi, requests: Streaming<v1::FetchRequest>, answers: Answers) {
    let mut state = State {
        api,
        answers,
        subscriptions: Subscriptions::default(),
        options: Options {
            plain: false,
            answer_bytes_max: 1 << 20,
        },
    };
    let status = match state.serve(requests).await {
        End::Gone | End::Done => return,
        End::Failed(failure) => failure.into_status(),
        End::Broken(status) => status,
    };
    let _ = state.answers.send(Err(status)).await;
}

impl State {
    async fn serve(&mut self, mut requests: Streaming<v1::FetchRequest>) -> End {
        let drain = self.api.drain.clone();
        let mut is_first = true;
        let mut is_closed = false;
        // Between its reads a stream does nothing: it waits for the client or for data.
        loop {
            let can_read = !self.subscriptions.is_empty() && self.subscriptions.credit() > 0;
            if is_closed && !can_read {
                return End::Done;
            }
            let round = if can_read {
                self.subscriptions.round()
            } else {
                Vec::new()
            };
            let found = tokio::select! {
                biased;
                () = self.answers.closed() => return End::Gone,
                () = drain.cancelled() => return Failure::draining().into(),
                request = requests.message(), if !is_closed => match request {
                    Ok(Some(request)) => {
                        if let Err(end) = self.on_request(request, is_first).await {
                            return end;
                        }
                        is_first = false;
                        continue;
                    }
                    Ok(None) => {
                        is_closed = true;
                        continue;
                    }
                    Err(status) => return End::Broken(error::intake(status)),
                },
                found = self.read(&round), if can_read => found,
            };
            for (subscription, found) in round.into_iter().zip(found) {
                if let Err(end) = self.on_found(subscription, found).await {
                    return end;
                }
            }
        }
    }

    async fn on_request(&mut self, request: v1::FetchRequest, is_first: bool) -> Result<(), End> {
        if let Some(options) = request.options.filter(|_| is_first) {
            let plain = match v1::Payload::try_from(options.payload) {
                Ok(v1::Payload::Unspecified | v1::Payload::Batches) => false,
                Ok(v1::Payload::Records) => true,
                Err(_) => {
                    let message = format!(
                        "payload is {}; sapwood.v1.Payload goes up to 2",
                        options.payload
                    );
                    return Err(Failure::new(Code::InvalidArgument, message).into());
                }
            };
            let bytes = answer_bytes("response_bytes_max", options.response_bytes_max)?;
            self.options = Options {
                plain,
                answer_bytes_max: bytes as usize,
            };
        }
        for part in request.remove {
            self.subscriptions
                .remove(&part.topic, PartitionId(part.partition));
        }
        for subscription in request.subscribe {
            self.subscribe(subscription).await?;
        }
        self.subscriptions.grant(request.credit_bytes);
        Ok(())
    }

    async fn subscribe(&mut self, asked: v1::Subscription) -> Result<(), End> {
        let (topic, partition) = (Arc::<str>::from(asked.topic), PartitionId(asked.partition));
        // Whatever comes of it, the old place is left.
        self.subscriptions.remove(&topic, partition);
        if self.subscriptions.len() >= self.api.subscriptions_max {
            let message = format!(
                "the stream reads {} partitions, which is the limit",
                self.subscriptions.len()
            );
            return Err(Failure::new(Code::InvalidArgument, message).into());
        }
        let tag = asked.tag;
        let mut subscription = Subscription {
            topic,
            partition,
            tag,
            next: Offset::ZERO,
            until: None,
        };
        let started = match self.place(&mut subscription, asked.from, asked.until).await {
            Ok(started) => started,
            Err(failure) => {
                let failure = failure.about(&subscription.topic, partition);
                return self
                    .tell(&subscription, Event::Failed(failure.into_error()))
                    .await;
            }
        };
        self.tell(&subscription, Event::Started(started)).await?;
        if subscription.is_finished() {
            return self.finish(&subscription).await;
        }
        self.subscriptions.set(subscription);
        Ok(())
    }

    /// Finds where a subscription begins and ends.
    async fn place(
        &self,
        subscription: &mut Subscription,
        from: Option<v1::Position>,
        until: Option<v1::Position>,
    ) -> Result<v1::Started, Failure> {
        let (broker, partition) = (&self.api.broker, subscription.partition);
        let found = place::find(broker, &subscription.topic, partition, from).await?;
        subscription.next = found.offset.unwrap_or(found.bounds.log_start);
        if until.is_some() {
            let end = place::resolve(broker, &subscription.topic, partition, until).await?;
            subscription.until = end.offset;
        }
        Ok(v1::Started {
            from_offset: subscription.next.0,
            until_offset: subscription.until.map(|until| until.0),
            bounds: Some(convert::bounds(found.bounds)),
        })
    }

    /// Waits until there is something to read, or something to tell.
    async fn read(&self, round: &[Subscription]) -> Vec<FetchedPartition> {
        let partitions = round
            .iter()
            .map(|subscription| FetchPartition {
                topic: TopicRef::Name(&subscription.topic),
                partition: subscription.partition,
                from: subscription.next,
                bytes_max: self.options.answer_bytes_max,
            })
            .collect();
        let bytes_max = self.subscriptions.credit().min(ROUND_BYTES_MAX);
        let fetch = Fetch {
            partitions,
            bytes_min: 1,
            bytes_max,
            wait: PARKED,
        };
        self.api.broker.fetch(fetch).await
    }

    async fn on_found(
        &mut self,
        mut subscription: Subscription,
        found: FetchedPartition,
    ) -> Result<(), End> {
        let fetched = match found.result {
            Ok(fetched) if fetched.batches.is_empty() => return Ok(()),
            Ok(fetched) => fetched,
            Err(FetchError::Draining) => return Err(Failure::draining().into()),
            Err(error) => return self.fail(&subscription, error.into()).await,
        };
        let size = fetched.batches.len();
        let event = match self.event(&mut subscription, fetched).await {
            Ok(event) => event,
            Err(failure) => return self.fail(&subscription, failure).await,
        };
        self.subscriptions.spend(size);
        if let Some(kept) = self
            .subscriptions
            .get_mut(&subscription.topic, subscription.partition)
        {
            kept.next = subscription.next;
        }
        if let Some(event) = event {
            self.tell(&subscription, event).await?;
        }
        if subscription.is_finished() {
            self.subscriptions
                .remove(&subscription.topic, subscription.partition);
            self.finish(&subscription).await?;
        }
        Ok(())
    }

    /// What was read as the client wants it; moves the subscription on. `None` when it holds no
    /// record that is wanted.
    async fn event(
        &self,
        subscription: &mut Subscription,
        fetched: Fetched,
    ) -> Result<Option<Event>, Failure> {
        let from = subscription.next;
        let (payload, next) = if self.options.plain {
            let until = subscription.until.unwrap_or(fetched.next).min(fetched.next);
            let records = self.plain(fetched.batches, from..until).await?;
            let payload = (!records.is_empty())
                .then_some(v1::fetched::Payload::Records(v1::PlainRecords { records }));
            (payload, until)
        } else {
            (
                Some(v1::fetched::Payload::Batches(fetched.batches)),
                fetched.next,
            )
        };
        subscription.next = next;
        let event = |payload| {
            let bounds = Some(convert::bounds(fetched.bounds));
            Event::Fetched(v1::Fetched {
                next_offset: next.0,
                bounds,
                payload: Some(payload),
            })
        };
        Ok(payload.map(event))
    }

    async fn plain(
        &self,
        batches: Bytes,
        offsets: std::ops::Range<Offset>,
    ) -> Result<Vec<v1::Record>, Failure> {
        let wanted = Wanted {
            offsets,
            records_max: usize::MAX,
            bytes_max: usize::MAX,
            decompressed_bytes_max: self.api.broker.options().decompressed_bytes_max,
        };
        Ok(plain(batches, wanted).await?.records)
    }

    async fn finish(&self, subscription: &Subscription) -> Result<(), End> {
        let next_offset = subscription.next.0;
        self.tell(subscription, Event::Finished(v1::Finished { next_offset }))
            .await
    }

    async fn fail(&mut self, subscription: &Subscription, failure: Failure) -> Result<(), End> {
        self.subscriptions
            .remove(&subscription.topic, subscription.partition);
        let failure = failure.about(&subscription.topic, subscription.partition);
        self.tell(subscription, Event::Failed(failure.into_error()))
            .await
    }

    /// Waits while the client does not read; it costs only this stream.
    async fn tell(&self, subscription: &Subscription, event: Event) -> Result<(), End> {
        let answer = v1::FetchResponse {
            topic: subscription.topic.to_string(),
            partition: subscription.partition.0,
            tag: subscription.tag,
            event: Some(event),
        };
        tokio::select! {
            sent = self.answers.send(Ok(answer)) => sent.map_err(|_| End::Gone),
            () = self.api.drain.cancelled() => Err(Failure::draining().into()),
        }
    }
}
