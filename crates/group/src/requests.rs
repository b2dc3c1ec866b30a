//! What callers ask of groups, and what they get.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicName, TopicPartition};

use crate::{Epoch, Generation, GroupError, GroupId, InstanceId, MemberId, Partitions};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// What the client calls itself.
    pub id: Arc<str>,
    /// Where it connected from.
    pub host: Arc<str>,
}

/// What a caller wants that may change a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Enter a classic group, or a new generation of it.
    Join(Join),
    /// Learn, or as the leader say, who gets what in a generation.
    Sync(Sync),
    /// Stay a member of a classic group.
    Heartbeat(Heartbeat),
    /// Leave a classic group, or be taken out of a group of either kind.
    Leave(Leave),
    /// Enter, stay in or leave a group of the newer kind.
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// Say how far the group has read.
    Commit(Commit),
    /// Forget how far the group has read some partitions.
    DeleteOffsets(DeleteOffsets),
    /// Forget a group.
    DeleteGroup(GroupId),
}

/// What a caller gets for its [`Request`], or a waiting one when it is its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// For [`Request::Join`].
    Join(Result<Joined, GroupError>),
    /// For [`Request::Sync`].
    Sync(Result<Synced, GroupError>),
    /// For [`Request::Heartbeat`].
    Heartbeat(Result<(), GroupError>),
    /// For [`Request::Leave`]: for each member of the request, in its order.
    Leave(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// For [`Request::ConsumerHeartbeat`].
    ConsumerHeartbeat(Result<Beat, GroupError>),
    /// For [`Request::Commit`]: for each partition of the request, in its order.
    Commit(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// For [`Request::DeleteOffsets`]: for each partition of the request, in its order.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// For [`Request::DeleteGroup`].
    DeleteGroup(Result<(), GroupError>),
}

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: GroupId,
    /// None for a member that has none yet.
    pub member_id: Option<MemberId>,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Who calls.
    pub client: Client,
    /// How long the member may be silent, in milliseconds.
    pub session_timeout_ms: u32,
    /// How long it may take to join a rebalance, in milliseconds. Version 0 has only the session
    /// timeout, which then stands here too.
    pub rebalance_timeout_ms: u32,
    /// `consumer`, `connect` or what else the members of the group are.
    pub protocol_type: Arc<str>,
    /// The assignment protocols that it speaks, the preferred one first, each with what it says.
    pub protocols: Vec<Protocol>,
    /// Whether the caller takes "join again with this id" for an answer (version 4 and later). A
    /// dynamic member whose client has gone before it heard its id then leaves nothing behind.
    pub takes_member_id: bool,
    /// Whether the caller knows what [`Joined::skip_assignment`] means (version 9 and later).
    pub takes_skip_assignment: bool,
}

/// An assignment protocol of a classic member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Its name: `range`, `cooperative-sticky`...
    pub name: Arc<str>,
    /// What the member says to whoever assigns; opaque, but for `consumer`s' topics.
    pub metadata: Bytes,
}

/// A place in a generation of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: Generation,
    /// What the members are.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of the generation.
    pub protocol: Option<Arc<str>>,
    /// Who assigns.
    pub leader: Option<MemberId>,
    /// The caller's id.
    pub member_id: MemberId,
    /// The assignment is there already: the leader need not work out another.
    pub skip_assignment: bool,
    /// For the leader, all members; for the others, nobody.
    pub members: Vec<JoinedMember>,
}

/// A member, as the leader needs to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// What it said for the protocol of the generation.
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// The group.
    pub group: GroupId,
    /// The caller.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// The generation that it has joined.
    pub generation: Generation,
    /// What it believes the members to be; checked if it is there (version 5 and later).
    pub protocol_type: Option<Arc<str>>,
    /// What it believes the protocol to be; checked if it is there (version 5 and later).
    pub protocol: Option<Arc<str>>,
    /// From the leader: who gets what. Passed on as it is.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// What a member of a classic group is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// What the members are.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of the generation.
    pub protocol: Option<Arc<str>>,
    /// What the leader gave it; empty if nothing.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: GroupId,
    /// The caller.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Its generation.
    pub generation: Generation,
}

/// LeaveGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// The group.
    pub group: GroupId,
    /// Who leaves: by id, by instance id, or by both, which then have to belong together.
    pub members: Vec<LeavingMember>,
}

/// One that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; an administrator need not know a static member's.
    pub member_id: Option<MemberId>,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
}

/// What a member of a group of the newer kind is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Join, owning nothing (0).
    Join,
    /// Stay, at this epoch.
    Stay(Epoch),
    /// Leave (-1).
    Leave,
    /// As a static member, go and come back (-2).
    Pause,
}

/// ConsumerGroupHeartbeat. What is `None` has not changed since the caller's last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: GroupId,
    /// The caller's id, of its own making; none from a version 0 client that joins.
    pub member_id: Option<MemberId>,
    /// What it does.
    pub presence: Presence,
    /// The lasting name of a static member. Some clients say it in each heartbeat, some only when they
    /// join or leave.
    pub instance_id: Option<InstanceId>,
    /// Who calls.
    pub client: Client,
    /// Where it stands.
    pub rack_id: Option<Arc<str>>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: Option<u32>,
    /// The topics that it reads.
    pub subscribed_topic_names: Option<BTreeSet<TopicName>>,
    /// Stands for more topics that it reads; an empty one for none (RE2 syntax, matched as a whole).
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// The assignor that it prefers; an empty one for none in particular.
    pub server_assignor: Option<Arc<str>>,
    /// The partitions that it owns.
    pub owned: Option<Partitions>,
}

/// What a member of a group of the newer kind learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Its id.
    pub member_id: MemberId,
    /// What to say next time; after [`Presence::Leave`] and [`Presence::Pause`], the same again.
    pub presence: Presence,
    /// When to say it, in milliseconds from now.
    pub heartbeat_interval_ms: u32,
    /// What it may own, if that has changed or was asked for: it gives the rest up, and says so.
    pub assignment: Option<Partitions>,
}

/// Who speaks for a group's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committer {
    /// Nobody in particular: a consumer that assigns itself its partitions, or an administrator
    /// (generation -1 and no member id).
    Alone,
    /// A member.
    Member {
        /// Its id.
        member_id: MemberId,
        /// The lasting name of a static member.
        instance_id: Option<InstanceId>,
        /// Its generation, or member epoch in a group of the newer kind; none from one that has
        /// none (-1), which no group with members takes.
        generation_or_epoch: Option<u32>,
    },
}

/// OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The group. An empty name is allowed here, for clients of old.
    pub group: GroupId,
    /// Who says so.
    pub by: Committer,
    /// The partitions.
    pub offsets: Vec<CommitOffset>,
}

/// How far one partition has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if the client says so.
    pub leader_epoch: Option<LeaderEpoch>,
    /// To be kept with it and returned as it is.
    pub metadata: Arc<str>,
    /// When it is to expire, if the client says so.
    pub expire_timestamp: Option<Timestamp>,
}

/// OffsetFetch: how far a group has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOffsets {
    /// The group.
    pub group: GroupId,
    /// The member that asks and its epoch, if it says so (version 9 and later).
    pub by: Option<(MemberId, Epoch)>,
    /// Which partitions; none for all that the group has offsets for.
    pub partitions: Option<Vec<TopicPartition>>,
}

/// OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsets {
    /// The group.
    pub group: GroupId,
    /// Which partitions' offsets.
    pub partitions: Vec<(TopicName, PartitionId)>,
}
