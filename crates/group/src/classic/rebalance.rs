//! A rebalance: from the moment that members have to join again to the next generation.

use sapwood_model::Timestamp;

use super::{ClassicGroup, Delay, Gathering, State, Turn};
use crate::{CallId, Decision, GroupError, Joined, MemberId, Reply, decision::TimerKind, later};

impl ClassicGroup {
    /// The longest time that a member may take to join, in milliseconds.
    fn rebalance_timeout_ms(&self) -> u32 {
        let timeouts = self
            .members
            .values()
            .map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or_default()
    }
}

impl Turn<'_> {
    /// Members have come, gone or changed: gather them, or go on if that was the last one to wait for.
    pub(super) fn rebalance(&mut self) {
        match self.group.state {
            State::Preparing(_) => self.complete_if_all_joined(),
            State::Empty | State::Completing | State::Stable => self.prepare(),
        }
    }

    /// Has members join the next generation.
    fn prepare(&mut self) {
        let now = self.context.now;
        // Who waits for an assignment of this generation will not get one.
        self.answer_syncs(|_| Err(GroupError::RebalanceInProgress));
        self.group.unsynced.clear();
        self.group.sync_deadline = None;
        let longest = self.group.rebalance_timeout_ms();
        let delay_ms = self.settings.initial_rebalance_delay_ms.min(longest);
        let gathering = if self.group.state == State::Empty && delay_ms > 0 {
            Gathering {
                deadline: later(now, delay_ms),
                delay: Some(Delay {
                    ends: later(now, longest),
                    joined: false,
                }),
            }
        } else {
            Gathering {
                deadline: later(now, longest),
                delay: None,
            }
        };
        self.gather_until(gathering);
        self.complete_if_all_joined();
    }

    fn gather_until(&mut self, gathering: Gathering) {
        self.out
            .set_timer(self.id, TimerKind::Join, gathering.deadline);
        self.group.state = State::Preparing(gathering);
        self.group.since = Some(self.context.now);
    }

    /// Begins the generation if nobody is missing: no member, and nobody who was promised to be one.
    /// A group that was empty waits for its delay in any case.
    pub(super) fn complete_if_all_joined(&mut self) {
        let State::Preparing(Gathering { delay: None, .. }) = self.group.state else {
            return;
        };
        let mut members = self.group.members.values();
        if self.group.promised.is_empty() && members.all(|member| member.join_call.is_some()) {
            self.complete();
        }
    }

    /// The time to join may be up.
    pub(crate) fn join_time_is_up(mut self) -> Decision {
        let now = self.context.now;
        let State::Preparing(mut gathering) = self.group.state.clone() else {
            return Decision::default();
        };
        if now < gathering.deadline {
            let mut out = Decision::default();
            out.set_timer(self.id, TimerKind::Join, gathering.deadline);
            return out;
        }
        let prolonged = gathering
            .delay
            .as_mut()
            .filter(|delay| delay.joined && gathering.deadline < delay.ends);
        if let Some(delay) = prolonged {
            delay.joined = false;
            let next = later(now, self.settings.initial_rebalance_delay_ms);
            gathering.deadline = next.min(delay.ends).max(now);
            self.gather_until(gathering);
        } else {
            self.complete();
        }
        self.finish()
    }

    /// Begins the next generation with those who have joined. Static members that have not are kept:
    /// their sessions say when they are gone.
    fn complete(&mut self) {
        let missing = self
            .group
            .members
            .iter()
            .filter(|(_, member)| member.join_call.is_none() && member.instance_id.is_none());
        let missing: Vec<MemberId> = missing.map(|(id, _)| id.clone()).collect();
        for id in &missing {
            self.remove(id);
        }
        if !self.group.members.is_empty() && !self.elect() {
            // Only static members, and none of them has joined: there is nobody to assign.
            let longest = self.group.rebalance_timeout_ms().max(1);
            self.gather_until(Gathering {
                deadline: later(self.context.now, longest),
                delay: None,
            });
            return;
        }
        self.group.generation = self.group.generation.next();
        self.group.since = Some(self.context.now);
        if self.group.members.is_empty() {
            self.group.state = State::Empty;
            self.group.protocol = None;
            self.group.leader = None;
            self.record();
        } else {
            self.group.state = State::Completing;
            self.group.protocol = self.group.vote();
            self.announce();
        }
    }

    /// Tells everybody who has joined of the generation.
    fn announce(&mut self) {
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            let Some(call) = self
                .member_mut(&id)
                .and_then(|member| member.join_call.take())
            else {
                continue;
            };
            if let Some(member) = self.member_mut(&id) {
                member.is_new = false;
            }
            self.answer_join(call, &id);
            self.start_session(&id);
            self.group.unsynced.insert(id);
        }
        let deadline = later(self.context.now, self.group.rebalance_timeout_ms());
        self.group.sync_deadline = Some(deadline);
        self.out.set_timer(self.id, TimerKind::Sync, deadline);
    }

    /// Keeps the leader if it has joined, or takes another who has. False if nobody has.
    fn elect(&mut self) -> bool {
        let joined = |id: &MemberId| {
            let member = self.group.members.get(id);
            member.is_some_and(|member| member.join_call.is_some())
        };
        if self.group.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let leader = self.group.members.keys().find(|id| joined(id)).cloned();
        let found = leader.is_some();
        if found {
            self.group.leader = leader;
        }
        found
    }

    /// Tells a member of the generation as it is.
    pub(super) fn answer_join(&mut self, call: CallId, id: &MemberId) {
        let leads = self.group.leader.as_ref() == Some(id);
        let joined = Joined {
            generation: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol: self.group.protocol.clone(),
            leader: self.group.leader.clone(),
            member_id: id.clone(),
            skip_assignment: false,
            members: if leads {
                self.group.seen_by_leader()
            } else {
                Vec::new()
            },
        };
        self.out.replies.push((call, Reply::Join(Ok(joined))));
    }

    /// Takes a member out. It is told if it waits for something.
    pub(super) fn remove(&mut self, id: &MemberId) {
        let Some(member) = self.group.members.remove(id) else {
            return;
        };
        self.refuse_waiting(&member, &GroupError::UnknownMember);
        if let Some(instance) = &member.instance_id
            && self.group.statics.get(instance) == Some(id)
        {
            self.group.statics.remove(instance);
        }
        self.group.unsynced.remove(id);
        if self.group.leader.as_ref() == Some(id) {
            self.group.leader = self.group.members.keys().next().cloned();
        }
    }

    /// Answers what a member waits for with an error.
    pub(super) fn refuse_waiting(&mut self, member: &super::ClassicMember, error: &GroupError) {
        let join = member
            .join_call
            .map(|call| (call, Reply::Join(Err(error.clone()))));
        let sync = member
            .sync_call
            .map(|call| (call, Reply::Sync(Err(error.clone()))));
        self.out.replies.extend(join.into_iter().chain(sync));
    }

    /// Starts a member's session anew.
    pub(super) fn start_session(&mut self, id: &MemberId) {
        let now = self.context.now;
        let Some(member) = self.member_mut(id) else {
            return;
        };
        let deadline: Timestamp = later(now, member.session_timeout_ms);
        member.deadline = Some(deadline);
        self.out
            .set_timer(self.id, TimerKind::Session(id.clone()), deadline);
    }
}
