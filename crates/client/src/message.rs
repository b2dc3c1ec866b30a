//! Records as they go in and as they come out.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_model::{Offset, PartitionId, Timestamp};
use sapwood_record::RecordHeader;

/// A record to produce.
///
/// ```
/// use sapwood_client::Record;
///
/// let record = Record::to("orders").key("customer-7").value(r#"{"total": 12}"#)
///     .header("source", "shop");
/// # assert_eq!(&record.topic[..], "orders");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic's name. An `Arc`, so that records for one topic need not allocate it.
    pub topic: Arc<str>,
    /// The partition; `None` lets the producer choose: by the key's hash (murmur2, as Kafka's
    /// clients do), or, without a key, one partition for a batch after another.
    pub partition: Option<PartitionId>,
    /// The key. Records with equal keys are in one partition, in order.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// The headers, in order; their keys must be UTF-8.
    pub headers: Vec<RecordHeader>,
    /// When the record was made; `None` takes the clock when it is sent.
    pub timestamp: Option<Timestamp>,
}

impl Record {
    /// A record for `topic` with neither key nor value.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        let key = Bytes::from(key.into().into_bytes());
        self.headers.push(RecordHeader {
            key,
            value: Some(value.into()),
        });
        self
    }

    /// Chooses the partition.
    #[must_use]
    pub fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Bytes of key, value and headers.
    pub(crate) fn payload_bytes(&self) -> usize {
        let headers = self.headers.iter();
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers
                .map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len))
                .sum::<usize>()
    }
}

/// A record that was read. Owned: it may be kept and sent to other tasks. Its payloads are slices of
/// the batch they came in, which stays in memory as long as one of them does; copy small payloads
/// that are kept for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// Its place in the partition.
    pub offset: Offset,
    /// When it was made, or appended if the topic says so; [`Timestamp::NONE`] for none.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
}
