//! What a group consumer hands out.

use std::{fmt, ops::Deref, sync::Arc};

use sapwood_model::Offset;
use tokio::{sync::oneshot, time::Instant};

use super::acks::Token;
use crate::{Error, Message, TopicPartition};

/// A message that a group has to deal with. Owned, and cheap to clone; all clones are one message. It
/// may be kept, sent to other tasks and acknowledged there, in any order.
///
/// It dereferences to the [`Message`]. When the last clone is dropped without [`GroupMessage::ack`], the
/// message counts as not done: nothing from its offset on is committed, and whoever reads the partition
/// next begins with it.
#[derive(Clone)]
pub struct GroupMessage {
    message: Message,
    token: Arc<Token>,
}

impl GroupMessage {
    pub(super) fn new(message: Message, token: Token) -> Self {
        Self {
            message,
            token: Arc::new(token),
        }
    }

    /// Marks the message as done. Costs no request: the offset behind the last message below which all
    /// are done is committed now and then, see
    /// [`GroupConsumerBuilder::commit_interval`](crate::GroupConsumerBuilder::commit_interval). Once the
    /// partition is another member's it does nothing.
    pub fn ack(&self) {
        self.token.ack();
    }

    /// The message alone. It is not acknowledged by this.
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for GroupMessage {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for GroupMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// What happens to a [`GroupConsumer`](crate::GroupConsumer), in order: about a partition nothing comes
/// before it is assigned, and no message after it is being revoked or was lost.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// A message.
    Message(GroupMessage),
    /// These partitions are this member's from now on; their messages follow.
    Assigned(Vec<TopicPartition>),
    /// These partitions are to be another member's.
    Revoking(Revocation),
    /// These partitions may be another member's already, and nothing more can be committed for them: the
    /// group has gone on without this member, which was silent or took too long. It joins again by
    /// itself.
    Lost {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Why: [`Code::UnknownMember`](crate::Code) or [`Code::MemberFenced`](crate::Code).
        error: Error,
    },
    /// What was to be read next is not there: it was deleted before the group came to it, or the log is
    /// another one. The partition is read from where a new group begins.
    Reset {
        /// The partition.
        partition: TopicPartition,
        /// What there is, half-open.
        available: Option<std::ops::Range<Offset>>,
    },
}

/// Partitions that are to be another member's. Until this is dropped, and all messages of theirs are
/// acknowledged or dropped, this member keeps them; then it commits what is acknowledged and gives them
/// up. At the deadline it does so anyway.
pub struct Revocation {
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) deadline: Instant,
    /// Whoever waits for the other end learns that this is dropped.
    pub(super) _dropped: oneshot::Sender<()>,
}

impl Revocation {
    /// Which ones.
    pub fn partitions(&self) -> &[TopicPartition] {
        &self.partitions
    }

    /// Until when there is time.
    pub fn deadline(&self) -> std::time::Instant {
        self.deadline.into_std()
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}
