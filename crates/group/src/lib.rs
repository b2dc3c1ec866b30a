//! Consumer groups as a state machine without I/O: who is a member, who reads what, how far a group
//! has read.
//!
//! [`Groups`] are the groups of one partition of `__consumer_offsets`. [`Groups::decide`] looks at an
//! [`Event`] and says what is to be done, as a [`Decision`], changing nothing. Whoever hosts the machine
//! appends the decision's records to that partition and only then applies them, live and in replay
//! alike; so a failed append leaves nothing behind. Groups are of the classic protocol, whose members
//! assign partitions among themselves, or of the newer one (KIP-848), whose coordinator does.

mod assignor;
mod classic;
mod consumer;
mod decision;
mod describe;
mod error;
mod group;
mod groups;
mod names;
mod offsets;
mod partitions;
mod records;
mod requests;
mod settings;
mod topics;

use sapwood_model::Timestamp;

pub use assignor::{Assignor, Subscriber};
pub use classic::assigned_partitions;
pub use decision::{Context, Decision, Effect, Event, Timer, TimerKey, TimerKind};
pub use describe::{
    ClassicDescription, ClassicMemberDescription, ConsumerDescription, ConsumerMemberDescription,
    GroupKind, GroupState, Listed,
};
pub use error::GroupError;
pub use groups::Groups;
pub use names::{CallId, Epoch, Generation, GroupId, InstanceId, MemberId};
pub use offsets::FetchedOffset;
pub use partitions::Partitions;
pub use records::{
    ClassicMemberMetadata, ClassicMetadata, CommittedOffset, ConsumerMetadata, CurrentAssignment,
    MemberMetadata, MemberState, Record, ResolvedRegex,
};
pub use requests::{
    Beat, Client, Commit, CommitOffset, Committer, ConsumerHeartbeat, DeleteOffsets, FetchOffsets,
    Heartbeat, Join, Joined, JoinedMember, Leave, LeavingMember, Presence, Protocol, Reply,
    Request, Sync, Synced,
};
pub use settings::Settings;
pub use topics::{Topic, TopicMap, Topics};

/// The longest group id, in bytes: what Kafka's record keys can hold.
pub const GROUP_ID_BYTES_MAX: usize = 32_767;

/// A time so many milliseconds after another one.
fn later(now: Timestamp, milliseconds: u32) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::from(milliseconds)))
}
