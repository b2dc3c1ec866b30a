//! What one topic acknowledged, record by record.

use bytes::Bytes;
use sapwood_client::{
    Acks, Admin, Append, Codec, Error, NewTopic, Offset, PartitionId, Position, Record,
};

use crate::harness::{Kafka, Refused};

pub(super) const PARTITION: PartitionId = PartitionId(0);

/// A topic of one partition, and what it acknowledged.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) topic: &'static str,
    records: Vec<(Offset, Bytes)>,
    tried: u64,
}

impl Kept {
    /// Creates the topic, with small segments and these configurations beside it.
    pub(super) async fn create(
        admin: &Admin,
        topic: &'static str,
        configs: &[(&str, &str)],
    ) -> Self {
        let mut new = NewTopic::new(topic)
            .config("max.message.bytes", "262144")
            .config("segment.bytes", "262144");
        for (key, value) in configs {
            new = new.config(*key, *value);
        }
        admin.create_topic(&new).await.expect("a topic");
        Self::nothing_of(topic)
    }

    /// A topic that is there, of which nothing is expected.
    pub(super) fn nothing_of(topic: &'static str) -> Self {
        Self {
            topic,
            records: Vec::new(),
            tried: 0,
        }
    }

    /// Appends one record of about so many bytes with acks=all, and remembers it if that succeeds.
    pub(super) async fn append(&mut self, admin: &Admin, bytes: usize) -> Result<Offset, Error> {
        let value = self.value(bytes);
        let append = Append {
            topic: self.topic.to_owned(),
            partition: PARTITION,
            records: vec![Record::to(self.topic).value(value.clone())],
            acks: Acks::All,
            expected_end: None,
            compression: Codec::None,
        };
        let appended = admin.append(append).await?;
        let offset = appended.expect("acks=all names the offset").base_offset;
        self.records.push((offset, value));
        Ok(offset)
    }

    /// Appends so many records of so many bytes, each of which must succeed.
    pub(super) async fn fill(&mut self, admin: &Admin, records: usize, bytes: usize) {
        for _ in 0..records {
            self.append(admin, bytes)
                .await
                .expect("nothing fails at this moment");
        }
    }

    /// As [`Kept::append`], through Kafka's protocol.
    pub(super) fn produce(&mut self, kafka: &mut Kafka, bytes: usize) -> Result<(), Refused> {
        let value = self.value(bytes);
        let offset = kafka.produce(self.topic, &value)?;
        self.records.push((Offset(offset.unsigned_abs()), value));
        Ok(())
    }

    /// Forgets what lies below an offset: it was deleted.
    pub(super) fn forget_below(&mut self, offset: Offset) {
        self.records.retain(|(at, _)| *at >= offset);
    }

    /// Forgets what was at an offset or above it: it was allowed to be lost.
    pub(super) fn forget_from(&mut self, offset: Offset) {
        self.records.retain(|(at, _)| *at < offset);
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn first(&self) -> Offset {
        self.records
            .first()
            .map_or(Offset(0), |(offset, _)| *offset)
    }

    pub(super) fn last(&self) -> Offset {
        self.records.last().map_or(Offset(0), |(offset, _)| *offset)
    }

    /// Everything that was acknowledged is there, as it was, and the offsets have no gap. More may be
    /// there: what was refused late may have been kept.
    pub(super) async fn check(&self, client: &sapwood_client::Client) {
        let first = self.records.first().map_or(Offset(0), |(at, _)| *at);
        let from = Position::Offset(first);
        let consumer = client
            .consumer()
            .topic(self.topic, from, Some(Position::End));
        let mut consumer = consumer.build().await.expect("the broker runs");
        let mut found = std::collections::BTreeMap::new();
        while let Some(message) = consumer.next().await {
            let message = message.unwrap_or_else(|e| panic!("{} can be read: {e}", self.topic));
            let next = first.add(found.len() as u64);
            assert_eq!(message.offset, next, "{}: a gap", self.topic);
            found.insert(message.offset, message.value.unwrap_or_default());
        }
        for (offset, value) in &self.records {
            let there = found.get(offset);
            assert_eq!(there, Some(value), "{} at {offset}", self.topic);
        }
    }

    fn value(&mut self, bytes: usize) -> Bytes {
        self.tried += 1;
        let mut value = format!("{} {} ", self.topic, self.tried).into_bytes();
        value.resize(bytes.max(value.len()), b'x');
        value.into()
    }
}
