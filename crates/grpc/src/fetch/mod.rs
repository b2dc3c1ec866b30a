//! Reading: streams with credit, single reads, places.

mod place;
mod stream;
mod subscriptions;

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use sapwood_broker::{Broker, Fetch, FetchPartition, Fetched, TopicRef};
use sapwood_model::{Code, Offset, PartitionId};
use sapwood_rpc::v1::{self, fetch_service_server::FetchService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert::{self, Plain, Wanted},
    error::Failure,
};

/// The largest answer that a client may ask for.
const ANSWER_BYTES_MAX: u32 = 16 << 20;
const ANSWER_BYTES_DEFAULT: u32 = 1 << 20;
const READ_RECORDS_MAX: u32 = 10_000;
const QUERIES_MAX: usize = 10_000;
/// Answers between a stream's task and its connection.
const ANSWERS_AHEAD: usize = 1;

#[derive(Debug, Clone)]
pub(crate) struct FetchApi {
    pub(crate) broker: Broker,
    pub(crate) subscriptions_max: usize,
    pub(crate) drain: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FetchService for FetchApi {
    type FetchStream = Responses;

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(stream::run(self.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<v1::ReadResponse>, Status> {
        let request = request.into_inner();
        let partition = PartitionId(request.partition);
        let about = |failure: Failure| failure.about(&request.topic, partition);
        let records_max = match request.records_max {
            0 => 1,
            n if n <= READ_RECORDS_MAX => n,
            n => {
                let message = format!("records_max is {n}; the limit is {READ_RECORDS_MAX}");
                return Err(about(Failure::new(Code::InvalidArgument, message)).into());
            }
        };
        let bytes_max = answer_bytes("bytes_max", request.bytes_max).map_err(about)?;
        Ok(Response::new(
            self.read_run(&request, records_max, bytes_max)
                .await
                .map_err(about)?,
        ))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let queries = request.into_inner().queries;
        if queries.is_empty() || queries.len() > QUERIES_MAX {
            let message = format!(
                "{} queries; there must be 1 to {QUERIES_MAX}",
                queries.len()
            );
            return Err(Failure::new(Code::InvalidArgument, message).into());
        }
        let mut results = Vec::with_capacity(queries.len());
        for query in queries {
            results.push(self.offset(query).await);
        }
        Ok(Response::new(v1::ListOffsetsResponse { results }))
    }
}

impl FetchApi {
    /// Reads until enough records are there or nothing more is.
    async fn read_run(
        &self,
        request: &v1::ReadRequest,
        records_max: u32,
        bytes_max: u32,
    ) -> Result<v1::ReadResponse, Failure> {
        let partition = PartitionId(request.partition);
        let mut next = Offset(request.offset);
        let mut records = Vec::new();
        let mut bytes_left = bytes_max as usize;
        loop {
            let fetched = self
                .fetch_now(&request.topic, partition, next, bytes_left)
                .await?;
            let bounds = Some(convert::bounds(fetched.bounds));
            if fetched.batches.is_empty() {
                return Ok(v1::ReadResponse {
                    records,
                    next_offset: next.0,
                    bounds,
                });
            }
            let records_left = records_max as usize - records.len();
            let wanted = Wanted {
                offsets: next..fetched.bounds.high_watermark,
                records_max: records_left,
                bytes_max: bytes_left,
                decompressed_bytes_max: self.broker.options().decompressed_bytes_max,
            };
            let plain = plain(fetched.batches, wanted).await?;
            bytes_left = bytes_left.saturating_sub(plain.bytes);
            let is_full = plain.stopped_at.is_some()
                || plain.records.len() == records_left
                || bytes_left == 0;
            next = match (plain.stopped_at, plain.records.last()) {
                (Some(offset), _) => offset,
                (None, Some(last)) if plain.records.len() == records_left => {
                    Offset(last.offset).add(1)
                }
                _ => fetched.next,
            };
            records.extend(plain.records);
            if is_full {
                return Ok(v1::ReadResponse {
                    records,
                    next_offset: next.0,
                    bounds,
                });
            }
        }
    }

    /// What is there now.
    async fn fetch_now(
        &self,
        topic: &str,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Fetched, Failure> {
        let at = FetchPartition {
            topic: TopicRef::Name(topic),
            partition,
            from,
            bytes_max,
        };
        let fetch = Fetch {
            partitions: vec![at],
            bytes_min: 1,
            bytes_max,
            wait: Duration::ZERO,
        };
        let mut found = self.broker.fetch(fetch).await;
        match found.pop() {
            Some(found) => Ok(found.result?),
            None => Err(Failure::new(
                Code::Internal,
                "a fetch of one partition has no answer",
            )),
        }
    }

    async fn offset(&self, query: v1::OffsetQuery) -> v1::OffsetResult {
        let partition = PartitionId(query.partition);
        let mut result = v1::OffsetResult {
            topic: query.topic,
            partition: query.partition,
            ..v1::OffsetResult::default()
        };
        match place::find(&self.broker, &result.topic, partition, query.at).await {
            Ok(found) => {
                result.bounds = Some(convert::bounds(found.bounds));
                result.offset = found.offset.map(|offset| offset.0);
                result.timestamp_ms = found.timestamp.map(|timestamp| timestamp.0);
            }
            Err(failure) => {
                result.error = Some(failure.about(&result.topic, partition).into_error());
            }
        }
        result
    }
}

/// A bound of an answer that a client asked for; 0 takes the default.
fn answer_bytes(name: &str, asked: u32) -> Result<u32, Failure> {
    match asked {
        0 => Ok(ANSWER_BYTES_DEFAULT),
        n if n <= ANSWER_BYTES_MAX => Ok(n),
        n => {
            let message = format!("{name} is {n} bytes; the limit is {ANSWER_BYTES_MAX} bytes");
            Err(Failure::new(Code::InvalidArgument, message))
        }
    }
}

/// Takes batches apart, on a thread that may take its time if they are compressed.
async fn plain(batches: bytes::Bytes, wanted: Wanted) -> Result<Plain, Failure> {
    let failed = |error: sapwood_record::BatchError| Failure::new(error.code(), error);
    if !convert::is_compressed(&batches) {
        return convert::plain(batches, &wanted).map_err(failed);
    }
    match tokio::task::spawn_blocking(move || convert::plain(batches, &wanted)).await {
        Ok(plain) => plain.map_err(failed),
        Err(_) => Err(Failure::draining()),
    }
}
