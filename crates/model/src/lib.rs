//! The domain's words as types, shared by every crate.
//!
//! Nothing here does I/O. A raw integer never crosses a public boundary of Sapwood: an offset, a
//! leader epoch and a partition number are different types, so they cannot be swapped by mistake.

mod code;
mod names;
mod numbers;

pub use code::{Code, CodeInfo};
pub use names::{InvalidTopicName, TopicId, TopicName, TopicPartition};
pub use numbers::{
    DirectoryId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp,
};

/// When an acknowledged record of a topic is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Records are fsynced before they are acknowledged with `acks=all`, and before they can be read.
    /// They survive a power cut.
    #[default]
    Fsync,
    /// Records are in the operating system's page cache when they are acknowledged.
    /// They survive the death of the process, not a power cut.
    Os,
}

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// Nothing: there is no answer.
    None,
    /// The records are in the page cache.
    Leader,
    /// The records are as durable as the topic's [`Durability`] says.
    #[default]
    All,
}
