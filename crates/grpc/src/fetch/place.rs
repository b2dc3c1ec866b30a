//! Places in a partition.

use sapwood_broker::{Bounds, Broker, LookupReadError, ReadError};
use sapwood_model::{Code, Offset, PartitionId, Timestamp};
use sapwood_rpc::v1::{self, position::At};

use crate::error::Failure;

/// A place and where it lies.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bounds: Bounds,
    /// `None` when only the bounds were asked for.
    pub(super) offset: Option<Offset>,
    /// The time of the record there, when it was asked for by time and there is one.
    pub(super) timestamp: Option<Timestamp>,
}

/// Finds a place. An offset must be within the log.
pub(super) async fn find(
    broker: &Broker,
    topic: &str,
    partition: PartitionId,
    at: Option<v1::Position>,
) -> Result<Found, Failure> {
    let found = resolve(broker, topic, partition, at).await?;
    let Bounds {
        log_start, log_end, ..
    } = found.bounds;
    match found.offset {
        Some(requested) if requested < log_start || requested > log_end => {
            let error = ReadError::OutOfRange {
                requested,
                available: log_start..log_end,
            };
            Err(LookupReadError::from(error).into())
        }
        _ => Ok(found),
    }
}

/// Finds a place that may lie outside the log.
pub(super) async fn resolve(
    broker: &Broker,
    topic: &str,
    partition: PartitionId,
    at: Option<v1::Position>,
) -> Result<Found, Failure> {
    let bounds = broker.bounds(topic, partition)?;
    let mut timestamp = None;
    let offset = match at.map(|position| position.at) {
        None => None,
        Some(None) => {
            let message = "a position says neither start, end, offset, timestamp_ms nor last";
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        Some(Some(At::Start(_))) => Some(bounds.log_start),
        Some(Some(At::End(_))) => Some(bounds.high_watermark),
        Some(Some(At::Offset(offset))) => Some(Offset(offset)),
        Some(Some(At::Last(records))) => {
            let offset = Offset(bounds.high_watermark.0.saturating_sub(records));
            Some(offset.max(bounds.log_start))
        }
        Some(Some(At::TimestampMs(at))) => {
            let found = broker
                .find_timestamp(topic, partition, Timestamp(at))
                .await?;
            timestamp = found.map(|found| found.timestamp);
            Some(found.map_or(bounds.high_watermark, |found| found.offset))
        }
    };
    Ok(Found {
        bounds,
        offset,
        timestamp,
    })
}
