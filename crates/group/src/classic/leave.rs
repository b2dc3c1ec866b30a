//! Leaving: by LeaveGroup, by silence, and by not asking for an assignment.

use super::{State, Turn};
use crate::{
    CallId, Decision, GroupError, Leave, LeavingMember, MemberId, Reply, decision::TimerKind,
};

impl Turn<'_> {
    /// Takes members out, and has the others rebalance once.
    pub(crate) fn leave(mut self, call: CallId, leave: &Leave) -> Decision {
        let members_before = self.group.members.len();
        let leaving = leave.members.iter();
        let results: Vec<_> = leaving.map(|member| self.leave_one(member)).collect();
        let any_left = results.iter().any(Result::is_ok);
        self.out.replies.push((call, Reply::Leave(Ok(results))));
        if !any_left {
            return self.out;
        }
        self.went(self.group.members.len() < members_before);
        self.finish()
    }

    fn leave_one(&mut self, leaving: &LeavingMember) -> Result<(), GroupError> {
        let id = match (&leaving.member_id, &leaving.instance_id) {
            (None, None) => return Err(GroupError::UnknownMember),
            (None, Some(instance)) => {
                let holder = self.group.statics.get(instance);
                holder.cloned().ok_or(GroupError::UnknownMember)?
            }
            (Some(id), None) if self.group.promised.remove(id).is_some() => return Ok(()),
            (Some(id), instance) => {
                self.group.member(id, instance.as_ref())?;
                id.clone()
            }
        };
        self.remove(&id);
        Ok(())
    }

    /// Somebody has gone. The others share what a member had; one who was only promised to become
    /// a member need not be waited for.
    fn went(&mut self, was_member: bool) {
        match self.group.state {
            State::Empty => {}
            State::Preparing(_) => self.complete_if_all_joined(),
            State::Completing | State::Stable if was_member => self.rebalance(),
            State::Completing | State::Stable => {}
        }
    }

    /// A member's session may be over, or the time of an id that was given out.
    pub(crate) fn session_may_be_over(mut self, id: &MemberId) -> Decision {
        let now = self.context.now;
        let promised = self.group.promised.get(id).copied();
        let member = self.group.members.get(id);
        let deadline = promised.or_else(|| member.and_then(|member| member.deadline));
        let Some(deadline) = deadline else {
            return Decision::default();
        };
        if now < deadline {
            let mut out = Decision::default();
            out.set_timer(self.id, TimerKind::Session(id.clone()), deadline);
            return out;
        }
        // Who waits for an answer cannot say anything; its session starts with the answer. But the
        // client of one that has never had an answer may be gone, and nobody would notice.
        let waits = member.is_some_and(|member| {
            !member.is_new && (member.join_call.is_some() || member.sync_call.is_some())
        });
        if waits {
            return Decision::default();
        }
        let was_member = self.group.promised.remove(id).is_none();
        if was_member {
            self.remove(id);
        }
        self.went(was_member);
        self.finish()
    }

    /// The time to ask for assignments may be up: who has not, is gone.
    pub(crate) fn sync_time_is_up(mut self) -> Decision {
        let Some(deadline) = self.group.sync_deadline else {
            return Decision::default();
        };
        if self.context.now < deadline {
            let mut out = Decision::default();
            out.set_timer(self.id, TimerKind::Sync, deadline);
            return out;
        }
        let late: Vec<MemberId> = self.group.unsynced.iter().cloned().collect();
        if late.is_empty() {
            return Decision::default();
        }
        for id in &late {
            self.remove(id);
        }
        self.went(true);
        self.finish()
    }
}
