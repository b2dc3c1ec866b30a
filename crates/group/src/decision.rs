//! What comes to the machine, and what it wants done about it.

use sapwood_model::{Timestamp, TopicName};

use crate::{
    CallId, Epoch, GroupId, MemberId, Partitions, Record, Reply, Request, Topics,
    classic::ClassicGroup,
};

/// What the machine may look at while it decides.
pub struct Context<'a> {
    /// The time. Timeouts are measured by it, so it must neither jump nor go backwards: a host takes
    /// the wall clock once and goes on from there by a monotonic one.
    pub now: Timestamp,
    /// Random, new for each event: member ids are made of it.
    pub random: u128,
    /// The topics there are.
    pub topics: &'a dyn Topics,
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody calls. The reply may come with a later decision, when others have called as well;
    /// each call gets exactly one.
    Call(CallId, Request),
    /// A timer that was asked for has reached its deadline. Late, early and repeated ones do no harm.
    Timer(TimerKey),
    /// The log has been replayed. Comes once, before any other event: sessions start anew.
    Loaded,
    /// Topics have been deleted: what was committed for them goes too, in every group; but not what was
    /// committed since for new topics of the same names. That may be more records than fit into one
    /// batch; these may also be appended and applied in several.
    TopicsDeleted(Vec<TopicName>),
}

/// What to do about an [`Event`]. Nothing has been done yet, and nothing has to be: a decision that
/// is dropped, because its records could not be appended, leaves the machine as it was.
///
/// To carry it out: append the records in one batch; then [`apply`](crate::Groups::apply) each of them
/// and [`apply_effect`](crate::Groups::apply_effect) each effect, in order; set the timers; and
/// deliver the replies once everything appended so far is durable. If the append fails, drop the
/// decision and answer the call that the event came from with an error that it may retry; for an
/// event without a caller, give it to the machine again after a while.
#[derive(Debug, Default)]
#[must_use = "a decision does nothing by itself"]
pub struct Decision {
    /// To be appended, all or none.
    pub records: Vec<Record>,
    /// To be applied after the records; not logged.
    pub effects: Vec<Effect>,
    /// Replies, to the caller of this event and to those who were waiting.
    pub replies: Vec<(CallId, Reply)>,
    /// Timers to be set. A timer has one deadline, the last that it was given.
    pub timers: Vec<Timer>,
}

impl Decision {
    /// Only a reply.
    pub(crate) fn reply(call: CallId, reply: Reply) -> Self {
        Self {
            replies: vec![(call, reply)],
            ..Self::default()
        }
    }

    /// Asks for a timer.
    pub(crate) fn set_timer(&mut self, group: &GroupId, kind: TimerKind, deadline: Timestamp) {
        let group = group.clone();
        self.timers.push(Timer {
            key: TimerKey { group, kind },
            deadline,
        });
    }
}

/// When to come back to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// What.
    pub key: TimerKey,
    /// When.
    pub deadline: Timestamp,
}

/// Names a timer.
///
/// Timers are never cancelled: one that has lost its meaning finds so when it comes and does nothing,
/// and one whose deadline has moved away asks for itself again. So a heartbeat, which moves a
/// deadline, costs no timer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    /// The group.
    pub group: GroupId,
    /// What about it.
    pub kind: TimerKind,
}

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A member has been silent for too long, or did not come back with the id that it was given.
    Session(MemberId),
    /// A classic group has waited long enough for members to join.
    Join,
    /// A classic group has waited long enough for members to ask for their assignments.
    Sync,
    /// A member of the newer kind has had long enough to give up partitions.
    Revoke(MemberId),
    /// Time to look for offsets that nobody uses any more.
    Expiry,
}

/// A change of what is in memory only: waiting calls, sessions, deadlines, and the rebalance of a
/// classic group, which Kafka does not log before it is completed either.
///
/// Effects are applied where records are, after the append, so a failed append leaves none of them
/// behind. A restart loses what they made: clients find out by an error to their next request, and
/// join again.
#[derive(Debug)]
pub struct Effect(pub(crate) Soft);

impl Effect {
    /// The group whose members or rebalance it may change; none if it is about times only.
    pub fn changes(&self) -> Option<&GroupId> {
        match &self.0 {
            Soft::Classic { group, .. } | Soft::Forget { group } => Some(group),
            Soft::ClassicSession { .. }
            | Soft::ConsumerSession { .. }
            | Soft::Revoking { .. }
            | Soft::TopicsSeen { .. }
            | Soft::Loaded { .. } => None,
        }
    }
}

/// The effects, named by the state that they change.
#[derive(Debug)]
pub(crate) enum Soft {
    /// A classic group as the event leaves it.
    Classic {
        group: GroupId,
        next: Box<ClassicGroup>,
    },
    /// A group without records is gone.
    Forget { group: GroupId },
    /// A classic member was heard: its session lasts until then.
    ClassicSession {
        group: GroupId,
        member: MemberId,
        deadline: Timestamp,
    },
    /// A member of the newer kind was heard.
    ConsumerSession {
        group: GroupId,
        member: MemberId,
        deadline: Timestamp,
    },
    /// What a member of the newer kind has to give up until when; or nothing any more.
    Revoking {
        group: GroupId,
        member: MemberId,
        until: Option<Revoking>,
    },
    /// A group of the newer kind has looked at the topics of this version.
    TopicsSeen { group: GroupId, version: u64 },
    /// Sessions start at this time.
    Loaded { at: Timestamp },
}

/// A member's time to give up partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revoking {
    /// At which epoch.
    pub(crate) epoch: Epoch,
    /// What.
    pub(crate) partitions: Partitions,
    /// Until when.
    pub(crate) deadline: Timestamp,
}
