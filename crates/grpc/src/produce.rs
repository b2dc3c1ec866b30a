//! Writing: each stream is appended in the order in which its requests arrive, and waits for their
//! durability while later ones are appended. Answers leave in the order of the requests.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use prost::Message;
use sapwood_broker::{Broker, ConnectionBudget, Pending, Produce, Produced, TopicRef};
use sapwood_model::{Acks, Code, Offset, PartitionId};
use sapwood_rpc::v1::{
    self, produce_request::Payload, produce_response, produce_service_server::ProduceService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert,
    error::{self, Failure},
    serve::connection_budget,
};

/// Records whose batch is built off the async threads: more bytes than this, or compressed.
const BUILD_INLINE_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone)]
pub(crate) struct ProduceApi {
    pub(crate) broker: Broker,
    pub(crate) in_flight_max: usize,
    pub(crate) drain: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send>>;

/// A request behind its first stage.
enum Staged {
    /// Appended; the answer waits for its durability.
    Pending {
        correlation_id: u64,
        pending: Pending,
    },
    /// Refused.
    Refused {
        correlation_id: u64,
        failure: Failure,
    },
    /// Nobody waits for an answer.
    Silent,
    /// The stream ends here.
    Ended(Status),
}

impl Staged {
    async fn answer(self) -> Result<Option<v1::ProduceResponse>, Status> {
        let (correlation_id, result) = match self {
            Self::Pending {
                correlation_id,
                pending,
            } => (correlation_id, pending.await.map_err(Failure::from)),
            Self::Refused {
                correlation_id,
                failure,
            } => (correlation_id, Err(failure)),
            Self::Silent => return Ok(None),
            Self::Ended(status) => return Err(status),
        };
        let result = match result {
            Ok(produced) => produce_response::Result::Produced(message(produced)),
            Err(failure) => produce_response::Result::Error(failure.into_error()),
        };
        Ok(Some(v1::ProduceResponse {
            correlation_id,
            result: Some(result),
        }))
    }
}

#[tonic::async_trait]
impl ProduceService for ProduceApi {
    type ProduceStream = Responses;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let budget = connection_budget(&request, &self.broker);
        let api = self.clone();
        let responses = until_drained(request.into_inner(), self.drain.clone())
            // One after the other: this is the order of the log.
            .then(move |request| stage(api.clone(), Arc::clone(&budget), request))
            .map(Staged::answer)
            .buffered(self.in_flight_max)
            .filter_map(|answer| std::future::ready(answer.transpose()));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let budget = connection_budget(&request, &self.broker);
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let acks = convert::acks(request.acks)?;
        let records = v1::Records {
            records: request.records,
            compression: request.compression,
            producer: request.producer,
        };
        let to = Target {
            topic: request.topic,
            partition: PartitionId(request.partition),
            acks,
            expected_end: request.expected_end_offset.map(Offset),
        };
        let permit = budget.acquire(bytes as u64).await.map_err(Failure::from)?;
        let pending = self.sequence(&to, Payload::Records(records)).await?;
        drop(permit);
        if acks == Acks::None {
            return Ok(Response::new(v1::AppendResponse { produced: None }));
        }
        let about = |error| Failure::from(error).about(&to.topic, to.partition);
        let produced = pending.await.map_err(about)?;
        Ok(Response::new(v1::AppendResponse {
            produced: Some(message(produced)),
        }))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let (id, epoch) = self
            .broker
            .allocate_producer_id()
            .await
            .map_err(Failure::from)?;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id: id.0,
            producer_epoch: u32::from(epoch.0),
        }))
    }
}

/// Where a payload goes.
struct Target {
    topic: String,
    partition: PartitionId,
    acks: Acks,
    expected_end: Option<Offset>,
}

/// The requests of a stream; ends with a status when the broker shuts down.
fn until_drained(
    requests: Streaming<v1::ProduceRequest>,
    drain: CancellationToken,
) -> impl Stream<Item = Result<v1::ProduceRequest, Status>> {
    futures_util::stream::unfold(Some((requests, drain)), async |state| {
        let (mut requests, drain) = state?;
        let next = tokio::select! {
            biased;
            () = drain.cancelled() => Err(Failure::draining().into_status()),
            next = requests.message() => next.map_err(error::intake),
        };
        match next {
            Ok(Some(request)) => Some((Ok(request), Some((requests, drain)))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// The first stage of one request of a stream.
async fn stage(
    api: ProduceApi,
    budget: Arc<ConnectionBudget>,
    request: Result<v1::ProduceRequest, Status>,
) -> Staged {
    let request = match request {
        Ok(request) => request,
        Err(status) => return Staged::Ended(status),
    };
    let correlation_id = request.correlation_id;
    let is_silent = request.acks == i32::from(v1::Acks::None);
    match append(&api, &budget, request).await {
        _ if is_silent => Staged::Silent,
        Ok(pending) => Staged::Pending {
            correlation_id,
            pending,
        },
        Err(failure) => Staged::Refused {
            correlation_id,
            failure,
        },
    }
}

async fn append(
    api: &ProduceApi,
    budget: &ConnectionBudget,
    request: v1::ProduceRequest,
) -> Result<Pending, Failure> {
    let acks = convert::acks(request.acks)?;
    // Held until the bytes are in the log.
    let _permit = budget.acquire(request.encoded_len() as u64).await?;
    let payload = request.payload.ok_or_else(|| {
        Failure::new(
            Code::InvalidArgument,
            "the request has neither batch nor records",
        )
    })?;
    let to = Target {
        topic: request.topic,
        partition: PartitionId(request.partition),
        acks,
        expected_end: request.expected_end_offset.map(Offset),
    };
    api.sequence(&to, payload).await
}

impl ProduceApi {
    /// Checks and appends. When this returns, the batch has its place in the log.
    async fn sequence(&self, to: &Target, payload: Payload) -> Result<Pending, Failure> {
        let about = |failure: Failure| failure.about(&to.topic, to.partition);
        let batch = match payload {
            Payload::Batch(batch) => batch,
            Payload::Records(records) => self.build(records).await.map_err(about)?,
        };
        let produce = Produce {
            topic: TopicRef::Name(&to.topic),
            partition: to.partition,
            batch,
            acks: to.acks,
            expected_end: to.expected_end,
            auto_create: true,
        };
        self.broker
            .produce(produce)
            .await
            .map_err(|error| about(error.into()))
    }

    async fn build(&self, records: v1::Records) -> Result<bytes::Bytes, Failure> {
        let now = self.broker.environment().clock.now();
        let is_quick = convert::codec(records.compression)? == sapwood_record::Codec::None
            && records.encoded_len() <= BUILD_INLINE_BYTES_MAX;
        if is_quick {
            return convert::build(records, now);
        }
        tokio::task::spawn_blocking(move || convert::build(records, now))
            .await
            .unwrap_or_else(|_| Err(Failure::draining()))
    }
}

fn message(produced: Produced) -> v1::Produced {
    v1::Produced {
        base_offset: produced.base_offset.0,
        last_offset: produced.last_offset.0,
        log_start_offset: produced.log_start.0,
        log_append_time_ms: produced.log_append_time.map(|time| time.0),
    }
}
