//! The runtime of state machines that live in a partition of an internal topic.
//!
//! One task hosts the machine of one partition. For each event it has the machine decide, which
//! changes nothing; appends the decision's records as one batch to the partition; and only then
//! applies them, here and in replay alike. A failed append therefore leaves nothing behind. Replies,
//! also those to reads, are held until everything that was appended before them is durable, and leave
//! in order; meanwhile further decisions are appended, so that one sync serves many of them.
//!
//! What never happens: a reply that shows what a crash could take back; a machine that is ahead of
//! its log by more than what waits for its sync; a machine that is used after its partition failed.
//!
//! The runtime knows nothing of what its machines are about. Consumer groups are the first.

mod host;
mod load;
mod task;
#[cfg(test)]
mod tests;
mod timers;

use std::{hash::Hash, sync::Arc};

use sapwood_log::AppendError;
use sapwood_model::{Code, Offset, PartitionId, Timestamp, TopicName};

pub(crate) use host::{Coordinator, Home, Host};

/// A state machine that lives in a partition.
pub(crate) trait Machine: Send + Sized + 'static {
    /// What callers ask for. Each gets exactly one reply, perhaps by a later decision.
    type Request: Send;
    /// What callers get.
    type Reply: Send;
    /// What else happens to the machine.
    type Notice: Clone + Send;
    /// A change that is written down.
    type Record: Send;
    /// A change that is not.
    type Effect: Send;
    /// Names a timer.
    type TimerKey: Clone + Eq + Hash + Ord + Send;

    /// Says what is to be done about an event, and changes nothing.
    fn decide(&self, moment: Moment, event: Event<Self>) -> Decision<Self>;

    /// Applies a record that was appended, just now or long ago.
    fn apply(&mut self, record: Self::Record);

    /// Applies an effect of a decision whose records have been applied.
    fn apply_effect(&mut self, effect: Self::Effect);

    /// Everything of a decision has been applied. Not called in replay.
    fn applied(&mut self) {}

    /// A record's key and value.
    ///
    /// # Errors
    /// The record cannot be said in its format. Its decision is dropped.
    fn encode(record: &Self::Record) -> Result<Encoded, Fault>;

    /// Reads a record of the log, which was decided on at a time.
    ///
    /// # Errors
    /// The bytes are damaged. The machine is not loaded then.
    fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<Decoded<Self::Record>, Fault>;

    /// The log has been replayed, and [`Event::Loaded`] was carried out: notices of what happened
    /// while the machine did not look.
    fn missed(&mut self) -> Vec<Self::Notice>;
}

/// Why bytes or a record are not what they should be. Logged or passed on as text.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// When something is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The wall clock at the start of the host, and from there on by the monotonic one.
    pub(crate) now: Timestamp,
    /// Random, new for each event.
    pub(crate) random: u128,
}

/// Names a caller who waits for a reply. Never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallId(pub(crate) u64);

/// What happens to a machine.
pub(crate) enum Event<M: Machine> {
    /// Somebody calls.
    Call(CallId, M::Request),
    /// A timer has reached its deadline.
    Timer(M::TimerKey),
    /// The log has been replayed. Comes once, before any other event, and writes nothing.
    Loaded,
    /// Something else happened.
    Notice(M::Notice),
}

/// What to do about an event.
pub(crate) struct Decision<M: Machine> {
    /// To be appended, all or none.
    pub(crate) records: Vec<M::Record>,
    /// To be applied after the records.
    pub(crate) effects: Vec<M::Effect>,
    /// Replies, to the caller of this event and to those who were waiting.
    pub(crate) replies: Vec<(CallId, M::Reply)>,
    /// Timers to be set. A timer has one deadline, the last that it was given.
    pub(crate) timers: Vec<(M::TimerKey, Timestamp)>,
}

/// The bytes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// By which compaction keeps the latest.
    pub(crate) key: Vec<u8>,
    /// None: a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

/// What the bytes of a record are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded<R> {
    /// A record.
    Record(R),
    /// Something that older versions wrote and nobody needs any more.
    Obsolete,
    /// Something that a newer version wrote. It is passed over, with a warning.
    Unknown {
        /// The number of the kind that is not known.
        key: i16,
    },
}

/// Why a coordinator did not do what it was asked for, whatever that was. Where nothing else is said,
/// nothing has changed and the request may be sent again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CoordinatorError {
    /// Its partition is being replayed. Retry in a moment.
    #[error("{topic}/{partition} is being loaded: {replayed} of {end} offsets")]
    Loading {
        /// The internal topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// Up to where it is loaded (exclusive).
        replayed: Offset,
        /// Where the log ended when loading began.
        end: Offset,
    },
    /// The records of the change could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The change needs more records than a batch can hold. Sending it again does not help.
    #[error("the change needs a batch of {bytes} bytes; the limit is {limit} bytes")]
    TooLarge {
        /// How many bytes.
        bytes: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A record of the change cannot be said in its format. Sending it again does not help.
    #[error("the change cannot be written: {reason}")]
    Unwritable {
        /// Why not.
        reason: String,
    },
    /// The partition could not be loaded, or has failed since; if the change was appended just
    /// before, it may be there after a restart. Until then the partition's machine does nothing.
    #[error("{topic}/{partition} has failed: {reason}")]
    Failed {
        /// The internal topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// The first thing that went wrong.
        reason: Arc<str>,
    },
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

impl CoordinatorError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Loading { .. } => Code::Loading,
            Self::Append(e) => e.code(),
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::Unwritable { .. } => Code::InvalidArgument,
            Self::Failed { .. } => Code::PartitionOffline,
            Self::Draining => Code::Draining,
        }
    }
}

/// How far the machines of an internal topic are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadProgress {
    /// Partitions that are loaded.
    pub loaded: usize,
    /// Partitions that are not there yet.
    pub loading: usize,
    /// Partitions that could not be loaded, or have failed since.
    pub failed: usize,
    /// Offsets that were replayed, of all partitions.
    pub replayed: u64,
    /// Offsets that there were to replay.
    pub offsets: u64,
}
