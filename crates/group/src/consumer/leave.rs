//! Leaving: by a heartbeat, by an administrator's LeaveGroup, by silence, and by not giving partitions
//! up in time.

use std::collections::BTreeSet;

use super::{ConsumerGroup, target::Outlook};
use crate::{
    Beat, CallId, ConsumerHeartbeat, Context, CurrentAssignment, Decision, Effect, GroupError,
    GroupId, Leave, LeavingMember, MemberId, Partitions, Presence, Record, Reply, Settings,
    decision::{Soft, TimerKind},
    later,
    records::{ConsumerMetadata, MemberState},
};

/// Takes a member out, or has its place kept for a static one.
///
/// # Errors
/// [`GroupError::UnknownMember`], [`GroupError::FencedInstance`] and [`GroupError::InvalidRequest`].
pub(super) fn by_heartbeat(
    group: &ConsumerGroup,
    settings: &Settings,
    context: &Context<'_>,
    call: CallId,
    beat: &ConsumerHeartbeat,
    id: &MemberId,
    mut out: Decision,
) -> Result<Decision, GroupError> {
    if let Some(instance) = &beat.instance_id {
        let holder = group
            .statics
            .get(instance)
            .ok_or(GroupError::UnknownMember)?;
        if holder != id {
            return Err(GroupError::FencedInstance);
        }
    }
    let current = group.currents.get(id);
    let member = group.members.get(id).ok_or(GroupError::UnknownMember)?;
    if beat.presence == Presence::Pause {
        // It need not say its instance id again; Kafka refuses that, and franz-go does it.
        if member.instance_id.is_none() {
            let reason = "only a static member can leave and be expected back";
            return Err(GroupError::InvalidRequest(reason));
        }
        pause(&beat.group, settings, context, id, current, &mut out);
    } else {
        remove(group, context, &beat.group, &[id].into(), &mut out);
    }
    let reply = Beat {
        member_id: id.clone(),
        presence: beat.presence,
        heartbeat_interval_ms: settings.consumer_heartbeat_interval_ms,
        assignment: None,
    };
    out.replies
        .push((call, Reply::ConsumerHeartbeat(Ok(reply))));
    Ok(out)
}

/// Takes members out that an administrator names: by their ids, by their instance ids, or by both.
pub(crate) fn by_request(
    group: &ConsumerGroup,
    context: &Context<'_>,
    call: CallId,
    leave: &Leave,
) -> Decision {
    let mut out = Decision::default();
    let mut leaving = BTreeSet::new();
    let results = leave.members.iter().map(|member| {
        let id = named(group, member)?;
        match leaving.insert(id) {
            true => Ok(()),
            false => Err(GroupError::UnknownMember),
        }
    });
    let results = results.collect();
    if !leaving.is_empty() {
        remove(group, context, &leave.group, &leaving, &mut out);
    }
    out.replies.push((call, Reply::Leave(Ok(results))));
    out
}

/// The member that somebody names.
fn named<'a>(group: &'a ConsumerGroup, member: &LeavingMember) -> Result<&'a MemberId, GroupError> {
    let id = match (&member.instance_id, &member.member_id) {
        (Some(instance), given) => {
            let holder = group.statics.get(instance);
            let holder = holder.ok_or(GroupError::UnknownMember)?;
            if given.as_ref().is_some_and(|given| given != holder) {
                return Err(GroupError::FencedInstance);
            }
            holder
        }
        (None, Some(id)) => id,
        (None, None) => return Err(GroupError::UnknownMember),
    };
    let known = group.members.get_key_value(id);
    known.map(|(id, _)| id).ok_or(GroupError::UnknownMember)
}

/// Keeps a static member's partitions for it until its session is over; but what it was to give up it
/// has given up by going.
fn pause(
    group: &GroupId,
    settings: &Settings,
    context: &Context<'_>,
    member: &MemberId,
    current: Option<&CurrentAssignment>,
    out: &mut Decision,
) {
    let (group, member) = (group.clone(), member.clone());
    let away = CurrentAssignment {
        member_epoch: None,
        state: MemberState::Stable,
        pending_revocation: Partitions::new(),
        ..current.cloned().unwrap_or_default()
    };
    out.records.push(Record::Current {
        group: group.clone(),
        member: member.clone(),
        value: Some(away),
    });
    let deadline = later(context.now, settings.consumer_session_timeout_ms);
    let until = None;
    let stops = Soft::Revoking {
        group: group.clone(),
        member: member.clone(),
        until,
    };
    out.effects.push(Effect(stops));
    out.effects.push(Effect(Soft::ConsumerSession {
        group,
        member,
        deadline,
    }));
}

/// A member's session may be over.
pub(crate) fn session_may_be_over(
    group: &ConsumerGroup,
    context: &Context<'_>,
    id: &GroupId,
    member: &MemberId,
) -> Decision {
    let mut out = Decision::default();
    match group.soft.sessions.get(member) {
        None => {}
        Some(deadline) if context.now < *deadline => {
            out.set_timer(id, TimerKind::Session(member.clone()), *deadline);
        }
        Some(_) => remove(group, context, id, &[member].into(), &mut out),
    }
    out
}

/// A member's time to give up partitions may be over: then it is put out, and has to join again.
pub(crate) fn revoke_time_is_up(
    group: &ConsumerGroup,
    context: &Context<'_>,
    id: &GroupId,
    member: &MemberId,
) -> Decision {
    let mut out = Decision::default();
    match group.soft.revoking.get(member) {
        None => {}
        Some(revoking) if context.now < revoking.deadline => {
            out.set_timer(id, TimerKind::Revoke(member.clone()), revoking.deadline);
        }
        Some(_) => remove(group, context, id, &[member].into(), &mut out),
    }
    out
}

/// Takes members out. The others share what they had from their next heartbeats on.
fn remove(
    group: &ConsumerGroup,
    context: &Context<'_>,
    id: &GroupId,
    leaving: &BTreeSet<&MemberId>,
    out: &mut Decision,
) {
    for member in leaving {
        out.records.extend(tombstones(group, id, member));
    }
    let mut outlook = Outlook {
        members: group.members.iter().collect(),
        targets: group.targets.iter().collect(),
        regexes: group.regexes.clone(),
    };
    outlook
        .members
        .retain(|member, _| !leaving.contains(member));
    for regex in group.regexes.keys() {
        let mut others = outlook.members.values();
        if others.all(|other| other.subscribed_topic_regex.as_ref() != Some(regex)) {
            let (group, regex) = (id.clone(), regex.clone());
            out.records.push(Record::Regex {
                group,
                regex,
                value: None,
            });
        }
    }
    let epoch = group.epoch().next();
    let metadata_hash = outlook.metadata_hash(context.topics);
    let value = Some(ConsumerMetadata {
        epoch,
        metadata_hash,
        changed_at: context.now,
    });
    out.records.push(Record::Consumer {
        group: id.clone(),
        value,
    });
}

/// The records that remove a member.
pub(super) fn tombstones(group: &ConsumerGroup, id: &GroupId, member: &MemberId) -> Vec<Record> {
    let mut records = Vec::new();
    let ids = || (id.clone(), member.clone());
    if group.currents.contains_key(member) {
        let (group, member) = ids();
        records.push(Record::Current {
            group,
            member,
            value: None,
        });
    }
    if group.targets.contains_key(member) {
        let (group, member) = ids();
        records.push(Record::TargetMember {
            group,
            member,
            value: None,
        });
    }
    let (group, member) = ids();
    records.push(Record::Member {
        group,
        member,
        value: None,
    });
    records
}
