//! SyncGroup and Heartbeat.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, State, Turn};
use crate::{
    CallId, Context, Decision, Effect, GroupError, Heartbeat, MemberId, Reply, Sync, Synced,
    decision::Soft, later,
};

impl Turn<'_> {
    /// Gives a member its assignment, has it wait for the leader's, or takes the leader's.
    ///
    /// # Errors
    /// Why not. Nothing is changed then.
    pub(crate) fn sync(mut self, call: CallId, sync: Sync) -> Result<Decision, GroupError> {
        let group = &self.group;
        group.member(&sync.member_id, sync.instance_id.as_ref())?;
        group.check_generation(sync.generation)?;
        let differs = |given: &Option<_>, current: &Option<_>| given.is_some() && given != current;
        if differs(&sync.protocol_type, &group.protocol_type)
            || differs(&sync.protocol, &group.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        let leads = group.leader.as_ref() == Some(&sync.member_id);
        match group.state {
            State::Empty => return Err(GroupError::UnknownMember),
            State::Preparing(_) => return Err(GroupError::RebalanceInProgress),
            State::Completing => {
                self.wait_for_assignment(call, &sync.member_id);
                if leads {
                    self.assign(sync.assignments);
                }
            }
            State::Stable => {
                self.wait_for_assignment(call, &sync.member_id);
                self.answer_syncs(Ok);
            }
        }
        Ok(self.finish())
    }

    fn wait_for_assignment(&mut self, call: CallId, id: &MemberId) {
        self.group.unsynced.remove(id);
        let earlier = self
            .member_mut(id)
            .and_then(|member| member.sync_call.replace(call));
        if let Some(earlier) = earlier {
            // Its client has given up on that one.
            let refusal = Reply::Sync(Err(GroupError::RebalanceInProgress));
            self.out.replies.push((earlier, refusal));
        }
    }

    /// Takes the leader's word for who gets what. A member that it leaves out gets nothing; one that
    /// is not in the group is left out.
    fn assign(&mut self, assignments: Vec<(MemberId, Bytes)>) {
        let mut assignments: BTreeMap<MemberId, Bytes> = assignments.into_iter().collect();
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            let assignment = assignments.remove(&id).unwrap_or_default();
            if let Some(member) = self.member_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.group.state = State::Stable;
        self.group.since = Some(self.context.now);
        self.record();
        self.answer_syncs(Ok);
    }

    /// Answers everybody who waits for an assignment.
    pub(super) fn answer_syncs(&mut self, answer: impl Fn(Synced) -> Result<Synced, GroupError>) {
        let waiting = self
            .group
            .members
            .iter()
            .filter(|(_, member)| member.sync_call.is_some());
        let waiting: Vec<MemberId> = waiting.map(|(id, _)| id.clone()).collect();
        for id in waiting {
            let (protocol_type, protocol) = (
                self.group.protocol_type.clone(),
                self.group.protocol.clone(),
            );
            let Some(member) = self.member_mut(&id) else {
                continue;
            };
            let Some(call) = member.sync_call.take() else {
                continue;
            };
            let synced = Synced {
                protocol_type,
                protocol,
                assignment: member.assignment.clone(),
            };
            self.out.replies.push((call, Reply::Sync(answer(synced))));
            self.start_session(&id);
        }
    }
}

/// Keeps a member's session. Costs the same whatever the group's size.
///
/// # Errors
/// [`GroupError::RebalanceInProgress`] while members gather: that is how a member learns that it has
/// to join again. Its session is kept nevertheless, so this comes with a decision too.
pub(crate) fn heartbeat(
    group: &ClassicGroup,
    context: &Context<'_>,
    call: CallId,
    beat: &Heartbeat,
) -> Result<Decision, GroupError> {
    let member = group.member(&beat.member_id, beat.instance_id.as_ref())?;
    group.check_generation(beat.generation)?;
    let answer = match group.state {
        State::Empty => return Err(GroupError::UnknownMember),
        State::Preparing(_) => Err(GroupError::RebalanceInProgress),
        // The leader may take its time: that is no reason to stop.
        State::Completing | State::Stable => Ok(()),
    };
    let mut out = Decision::reply(call, Reply::Heartbeat(answer));
    out.effects.push(Effect(Soft::ClassicSession {
        group: beat.group.clone(),
        member: beat.member_id.clone(),
        deadline: later(context.now, member.session_timeout_ms),
    }));
    Ok(out)
}
