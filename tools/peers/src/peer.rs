//! What the load needs of a server.

use std::{
    io,
    net::TcpStream,
    ops::Range,
    sync::{Arc, Mutex},
};

use crate::wire::Frames;

/// Where the records go.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u64,
    pub(crate) record_bytes: usize,
}

pub(crate) trait Peer: Sync {
    /// Makes a topic that is empty, whatever was there under its name.
    fn create(&self, topic: &Topic) -> io::Result<()>;

    /// How many records are in a topic.
    fn stored(&self, topic: &Topic) -> io::Result<u64>;

    /// A connection of its own for a producer.
    fn sender(&self, topic: &Topic, producer: u64) -> io::Result<Sender>;

    /// A connection of its own that reads partitions from their first record on.
    fn receiver(&self, topic: &Topic, partitions: Range<u64>) -> io::Result<Box<dyn Receiver>>;
}

/// Both halves of a producer's connection.
pub(crate) struct Sender {
    pub(crate) frames: Frames,
    /// Shared, because some protocols want answers from the half that reads.
    pub(crate) stream: Arc<Mutex<TcpStream>>,
    pub(crate) acks: Box<dyn Acks>,
}

/// One answer to one record.
pub(crate) struct Ack {
    /// When it came.
    pub(crate) at: u64,
    /// When its record was due, if the answer says so; else answers come in the order of the records.
    pub(crate) due: Option<u64>,
    /// Why the record was not taken.
    pub(crate) error: Option<String>,
}

pub(crate) trait Acks: Send {
    fn next(&mut self) -> io::Result<Ack>;

    /// Whether the next answer has to come from the network.
    fn is_drained(&self) -> bool;
}

pub(crate) trait Receiver: Send {
    /// Hands partition, record and the time at which it came to `each`, and returns after a moment even if
    /// nothing came.
    fn read(&mut self, each: &mut dyn FnMut(u64, &[u8], u64)) -> io::Result<()>;
}
