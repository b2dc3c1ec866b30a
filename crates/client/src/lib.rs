//! Producer, consumer, group consumer and admin for Sapwood, over its native API.
//!
//! ```no_run
//! use sapwood_client::{Client, Position, Record};
//!
//! # async fn example() -> Result<(), sapwood_client::Error> {
//! let client = Client::new("127.0.0.1:9092")?;
//!
//! let producer = client.producer().build().await?;
//! producer.send(Record::to("greetings").key("en").value("hello")).await?.await?;
//!
//! let mut consumer = client.consumer().topic("greetings", Position::Start, None).build().await?;
//! if let Some(message) = consumer.next().await {
//!     println!("{:?}", message?.value);
//! }
//! # Ok(()) }
//! ```
//!
//! Several processes share a topic as members of a group: each partition is read by one of them at a
//! time, and what they have acknowledged is remembered when they come and go.
//!
//! ```no_run
//! use sapwood_client::Client;
//!
//! # async fn handle(_: &sapwood_client::Message) {}
//! # async fn example() -> Result<(), sapwood_client::Error> {
//! let client = Client::new("127.0.0.1:9092")?;
//! let mut consumer = client.group_consumer("billing").topic("orders").build().await?;
//! while let Some(message) = consumer.next().await {
//!     let message = message?;
//!     handle(&message).await;
//!     message.ack();
//! }
//! # Ok(()) }
//! ```
//!
//! Everything is asynchronous on tokio; nothing blocks a thread. Errors carry the stable codes of
//! [`Code`]; `sapwood explain CODE` says more about each.

mod admin;
mod client;
mod connection;
mod consumer;
mod error;
mod group;
mod message;
mod producer;
mod types;

pub use admin::{
    Admin, Append, Appended, BackgroundTask, CommittedOffset, Compacted, CompactionProgress,
    CompactionState, ConfigChange, ConfigEntry, Group, GroupDescription, GroupKind, GroupListing,
    GroupMember, GroupPartition, GroupState, NewTopic, NextRemoval, OffsetAnswer, OffsetQuery,
    Partition, PartitionOffset, RawBatch, ReadRun, Retained, SeekPartitions, SeekResult,
    SeekTarget, SeekTo, StorageUsage, Topic, TopicDescription, TopicPartition, TopicUsage,
};
pub use client::{Client, ClientBuilder};
pub use consumer::{Assignment, Consumer, ConsumerBuilder};
pub use error::Error;
pub use group::{
    Assignor, GroupConsumer, GroupConsumerBuilder, GroupEvent, GroupMessage, Revocation,
};
pub use message::{Message, Record};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt};
pub use sapwood_model::{Acks, Code, Durability, LeaderEpoch, Offset, PartitionId, Timestamp};
pub use sapwood_record::{Codec, RecordHeader};
pub use types::{Bounds, Position};
