//! ConsumerGroupHeartbeat of a member that joins or stays.

use std::borrow::Cow;

use super::{ConsumerGroup, leave, stay::Stay};
use crate::{
    Assignor, Beat, CallId, ConsumerHeartbeat, Context, CurrentAssignment, Decision, Effect, Epoch,
    GroupError, MemberId, MemberMetadata, Partitions, Presence, Reply, Settings,
    decision::{Soft, TimerKind},
    later,
};

/// Lets a member in, keeps its session and leads it on, or takes it out, by a heartbeat that was
/// checked. `out` has what was decided before. While nothing changes the cost does not depend on the
/// group's size.
///
/// # Errors
/// Why not. Nothing is changed then.
pub(crate) fn heartbeat(
    group: &ConsumerGroup,
    settings: &Settings,
    context: &Context<'_>,
    call: CallId,
    beat: &ConsumerHeartbeat,
    out: Decision,
) -> Result<Decision, GroupError> {
    let id = match (&beat.member_id, beat.presence) {
        (Some(id), _) => id.clone(),
        (None, _) => MemberId::fresh("", context.random),
    };
    match beat.presence {
        Presence::Leave | Presence::Pause => {
            leave::by_heartbeat(group, settings, context, call, beat, &id, out)
        }
        Presence::Join | Presence::Stay(_) => {
            let place = find(group, settings, beat, &id)?;
            let stay = Stay {
                group,
                context,
                beat,
                id: &id,
                from: place.from(),
            };
            let (mut out, current) = stay.decide(&place, out)?;
            let deadline = later(context.now, settings.consumer_session_timeout_ms);
            if beat.presence == Presence::Join {
                out.set_timer(&beat.group, TimerKind::Session(id.clone()), deadline);
            }
            let (group, member) = (beat.group.clone(), id.clone());
            out.effects.push(Effect(Soft::ConsumerSession {
                group,
                member,
                deadline,
            }));
            let reply = Beat {
                member_id: id,
                presence: Presence::Stay(current.epoch),
                heartbeat_interval_ms: settings.consumer_heartbeat_interval_ms,
                assignment: current.assignment,
            };
            out.replies
                .push((call, Reply::ConsumerHeartbeat(Ok(reply))));
            Ok(out)
        }
    }
}

/// What can be said of a heartbeat without its group.
///
/// # Errors
/// [`GroupError::InvalidRequest`] and [`GroupError::UnsupportedAssignor`].
pub(crate) fn check(beat: &ConsumerHeartbeat) -> Result<(), GroupError> {
    let refuse = |reason| Err(GroupError::InvalidRequest(reason));
    if beat
        .member_id
        .as_ref()
        .map_or(beat.presence != Presence::Join, MemberId::is_empty)
    {
        return refuse("a member has an id");
    }
    if beat
        .instance_id
        .as_ref()
        .is_some_and(|instance| instance.is_empty())
    {
        return refuse("an instance id has at least 1 character");
    }
    match beat.presence {
        Presence::Join => {
            if beat.rebalance_timeout_ms.is_none() {
                return refuse("who joins says how long it may take to give up partitions");
            }
            if beat.subscribed_topic_names.is_none() && beat.subscribed_topic_regex.is_none() {
                return refuse("who joins says what it subscribes to");
            }
            if beat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return refuse("who joins owns no partitions, and says so");
            }
        }
        Presence::Pause | Presence::Leave | Presence::Stay(_) => {}
    }
    match beat.server_assignor.as_deref() {
        None | Some("") => Ok(()),
        Some(name) if Assignor::by_name(name).is_some() => Ok(()),
        Some(name) => Err(GroupError::UnsupportedAssignor {
            given: name.to_owned(),
        }),
    }
}

/// What a member is to the group.
pub(super) enum Place<'a> {
    /// It was not there.
    New,
    /// It is there.
    Known(&'a MemberMetadata, &'a CurrentAssignment),
    /// It is there, and has dropped everything to join again.
    Again(&'a MemberMetadata),
    /// It was there with another id, as the static member that it is.
    Back(&'a MemberId, &'a MemberMetadata, &'a CurrentAssignment),
}

impl<'a> Place<'a> {
    /// What it said about itself before.
    pub(super) fn member(&self) -> Option<&'a MemberMetadata> {
        match self {
            Self::New => None,
            Self::Known(member, _) | Self::Again(member) | Self::Back(_, member, _) => Some(member),
        }
    }

    /// The id that it had before.
    pub(super) fn from(&self) -> Option<&'a MemberId> {
        match self {
            Self::Back(former, _, _) => Some(former),
            Self::New | Self::Known(..) | Self::Again(_) => None,
        }
    }

    /// Where it starts from. Who joins owns nothing; but what a static member had is kept for it.
    pub(super) fn current(&self) -> Cow<'a, CurrentAssignment> {
        let joins = CurrentAssignment {
            member_epoch: Some(Epoch::ZERO),
            ..CurrentAssignment::default()
        };
        match self {
            Self::Known(_, current) => Cow::Borrowed(current),
            Self::New | Self::Again(_) => Cow::Owned(joins),
            Self::Back(_, _, former) => Cow::Owned(CurrentAssignment {
                assigned: former.assigned.clone(),
                ..joins
            }),
        }
    }
}

/// Finds the member that a heartbeat is from.
fn find<'a>(
    group: &'a ConsumerGroup,
    settings: &Settings,
    beat: &ConsumerHeartbeat,
    id: &MemberId,
) -> Result<Place<'a>, GroupError> {
    let joins = beat.presence == Presence::Join;
    let holder = beat
        .instance_id
        .as_ref()
        .and_then(|instance| group.statics.get(instance));
    if let Some(holder) = holder.filter(|holder| *holder != id) {
        if !joins {
            return Err(GroupError::FencedInstance);
        }
        let member = group.members.get(holder).ok_or(GroupError::UnknownMember)?;
        return match group.currents.get(holder) {
            Some(current) if current.member_epoch.is_none() => {
                Ok(Place::Back(holder, member, current))
            }
            _ => Err(GroupError::UnreleasedInstance),
        };
    }
    let Some(member) = group.members.get(id) else {
        if !joins {
            return Err(GroupError::UnknownMember);
        }
        let limit = settings.members_max;
        if group.members.len() >= limit {
            return Err(GroupError::GroupFull { limit });
        }
        return Ok(Place::New);
    };
    // An id belongs to one instance, or to none, for as long as it lives. Who stays need not say it again.
    let unsaid = beat.instance_id.is_none() && !joins;
    if !unsaid && member.instance_id != beat.instance_id {
        return Err(GroupError::UnknownMember);
    }
    match (beat.presence, group.currents.get(id)) {
        (Presence::Stay(given), Some(current)) => {
            check_epoch(current, given, beat.owned.as_ref())?;
            Ok(Place::Known(member, current))
        }
        (Presence::Stay(given), None) => Err(GroupError::FencedMemberEpoch {
            given,
            current: Epoch::ZERO,
        }),
        // A client that was fenced drops its partitions and joins again under its old id. So does
        // one whose join was answered into the void.
        _ => Ok(Place::Again(member)),
    }
}

/// Whether a member is at the epoch that it says. It may also be at the one before, if the response
/// with the new one was lost: then it owns no more than what it is assigned.
fn check_epoch(
    current: &CurrentAssignment,
    given: Epoch,
    owned: Option<&Partitions>,
) -> Result<(), GroupError> {
    let known = current.member_epoch.unwrap_or_default();
    let missed = || {
        current.member_epoch.is_some()
            && given < known
            && given == current.previous_member_epoch
            && owned.is_some_and(|owned| owned.is_subset(&current.assigned))
    };
    if current.member_epoch == Some(given) || missed() {
        return Ok(());
    }
    Err(GroupError::FencedMemberEpoch {
        given,
        current: known,
    })
}
