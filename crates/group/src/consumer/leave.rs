//! Leaving: by a heartbeat, by silence, and by not giving partitions up in time.

use super::{ConsumerGroup, target::Outlook};
use crate::{
    Beat, CallId, ConsumerHeartbeat, Context, CurrentAssignment, Decision, Effect, GroupError,
    GroupId, MemberId, Partitions, Presence, Record, Reply, Settings,
    decision::{Soft, TimerKind},
    later,
    records::{ConsumerMetadata, MemberState},
};

/// Takes a member out, or has its place kept for a static one.
///
/// # Errors
/// [`GroupError::UnknownMember`] and [`GroupError::FencedInstance`].
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
    if !group.members.contains_key(id) {
        return Err(GroupError::UnknownMember);
    }
    if beat.presence == Presence::Pause {
        pause(&beat.group, settings, context, id, current, &mut out);
    } else {
        remove(group, context, &beat.group, id, &mut out);
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
        Some(_) => remove(group, context, id, member, &mut out),
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
        Some(_) => remove(group, context, id, member, &mut out),
    }
    out
}

/// Takes a member out. The others share what it had from their next heartbeats on.
fn remove(
    group: &ConsumerGroup,
    context: &Context<'_>,
    id: &GroupId,
    member: &MemberId,
    out: &mut Decision,
) {
    out.records.extend(tombstones(group, id, member));
    let mut outlook = Outlook {
        members: group.members.iter().collect(),
        targets: group.targets.iter().collect(),
        regexes: group.regexes.clone(),
    };
    outlook.members.remove(member);
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
    });
    out.records.push(Record::Consumer {
        group: id.clone(),
        value,
    });
    if outlook.members.is_empty() {
        let (group, at) = (id.clone(), context.now);
        out.effects.push(Effect(Soft::Emptied { group, at }));
    }
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
