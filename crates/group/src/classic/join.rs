//! JoinGroup.

use std::sync::Arc;

use super::{ClassicMember, Delay, Gathering, State, Turn, protocols};
use crate::{
    CallId, Decision, GroupError, InstanceId, Join, Joined, MemberId, Reply, decision::TimerKind,
    later,
};

impl Turn<'_> {
    /// Lets a member in, or into the next generation.
    ///
    /// # Errors
    /// Why not. Nothing is changed then.
    pub(crate) fn join(mut self, call: CallId, mut join: Join) -> Result<Decision, GroupError> {
        let allowed = &self.settings.session_timeout_ms;
        if !allowed.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout {
                given: join.session_timeout_ms,
                allowed: allowed.clone(),
            });
        }
        if !self.group.supports(&join.protocol_type, &join.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        match (join.member_id.take(), join.instance_id.clone()) {
            (None, Some(instance)) => self.join_static(call, join, &instance)?,
            (None, None) => self.join_dynamic(call, join)?,
            (Some(id), None) if self.group.promised.remove(&id).is_some() => {
                self.add(call, id, join);
            }
            (Some(id), instance) => {
                self.group.member(&id, instance.as_ref())?;
                self.rejoin(call, &id, join)?;
            }
        }
        Ok(self.finish())
    }

    /// A dynamic member without an id: one that joins, or that gets an id to join with.
    fn join_dynamic(&mut self, call: CallId, join: Join) -> Result<(), GroupError> {
        self.check_room()?;
        let id = MemberId::fresh(&join.client.id, self.context.random);
        if !join.takes_member_id {
            self.add(call, id, join);
            return Ok(());
        }
        let deadline = later(self.context.now, join.session_timeout_ms);
        self.group.promised.insert(id.clone(), deadline);
        self.out
            .set_timer(self.id, TimerKind::Session(id.clone()), deadline);
        let refusal = GroupError::MemberIdRequired { member_id: id };
        self.out.replies.push((call, Reply::Join(Err(refusal))));
        Ok(())
    }

    /// A static member without an id: a new one, or one whose process was started again.
    fn join_static(
        &mut self,
        call: CallId,
        join: Join,
        instance: &InstanceId,
    ) -> Result<(), GroupError> {
        let id = MemberId::fresh(instance.as_str(), self.context.random);
        match self.group.statics.get(instance).cloned() {
            Some(before) => self.replace_static(call, &before, id, join),
            None => {
                self.check_room()?;
                self.add(call, id, join);
            }
        }
        Ok(())
    }

    /// Whether one more fits. Who was promised to become a member counts.
    fn check_room(&self) -> Result<(), GroupError> {
        let limit = self.settings.members_max;
        if self.group.members.len() + self.group.promised.len() < limit {
            return Ok(());
        }
        Err(GroupError::GroupFull { limit })
    }

    fn add(&mut self, call: CallId, id: MemberId, join: Join) {
        let now = self.context.now;
        if self.group.members.is_empty() {
            self.group.protocol_type = Some(join.protocol_type.clone());
            self.group.leader = None;
        }
        let deadline = later(now, self.settings.new_member_timeout_ms);
        let member = ClassicMember {
            instance_id: join.instance_id,
            client: join.client,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: bytes::Bytes::new(),
            is_new: true,
            join_call: Some(call),
            sync_call: None,
            deadline: Some(deadline),
        };
        self.out
            .set_timer(self.id, TimerKind::Session(id.clone()), deadline);
        if let Some(instance) = &member.instance_id {
            self.group.statics.insert(instance.clone(), id.clone());
        }
        self.group.leader.get_or_insert_with(|| id.clone());
        self.group.members.insert(id, Arc::new(member));
        if let State::Preparing(Gathering {
            delay: Some(Delay { joined, .. }),
            ..
        }) = &mut self.group.state
        {
            *joined = true;
        }
        self.rebalance();
    }

    /// A member that is known joins: again, or the next generation.
    fn rejoin(&mut self, call: CallId, id: &MemberId, join: Join) -> Result<(), GroupError> {
        let member = self
            .group
            .members
            .get(id)
            .ok_or(GroupError::UnknownMember)?;
        let same = member.protocols == join.protocols;
        let leads = self.group.leader.as_ref() == Some(id);
        match self.group.state {
            State::Empty => return Err(GroupError::UnknownMember),
            // It may have missed the answer. A leader of a stable group that joins wants a rebalance.
            State::Completing if same => self.answer_join(call, id),
            State::Stable if same && !leads => self.answer_join(call, id),
            State::Preparing(_) | State::Completing | State::Stable => {
                self.update(call, id, join);
                self.rebalance();
                return Ok(());
            }
        }
        self.start_session(id);
        Ok(())
    }

    /// Takes over what a member now says; it waits for the next generation.
    fn update(&mut self, call: CallId, id: &MemberId, join: Join) {
        let Some(member) = self.member_mut(id) else {
            return;
        };
        member.client = join.client;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.protocols = join.protocols;
        if let Some(earlier) = member.join_call.replace(call) {
            // Its client has given up on that one.
            let refusal = Reply::Join(Err(GroupError::RebalanceInProgress));
            self.out.replies.push((earlier, refusal));
        }
    }

    /// A static member whose process was started again takes the place of its former self. While the
    /// group is stable and nothing changes for the others, without a rebalance.
    fn replace_static(&mut self, call: CallId, before: &MemberId, id: MemberId, join: Join) {
        let Some(former) = self.group.members.remove(before) else {
            return;
        };
        self.refuse_waiting(&former, &GroupError::FencedInstance);
        let skips = join.takes_skip_assignment;
        let member = ClassicMember {
            instance_id: former.instance_id.clone(),
            client: join.client,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: former.assignment.clone(),
            is_new: false,
            join_call: None,
            sync_call: None,
            deadline: None,
        };
        let reads_the_same = self.reads_the_same(&former, &member);
        let led = self.group.leader.as_ref() == Some(before);
        if led {
            self.group.leader = Some(id.clone());
        }
        if let Some(instance) = &member.instance_id {
            self.group.statics.insert(instance.clone(), id.clone());
        }
        if self.group.unsynced.remove(before) {
            self.group.unsynced.insert(id.clone());
        }
        self.group.members.insert(id.clone(), Arc::new(member));
        self.start_session(&id);
        let stays = self.group.state == State::Stable
            && reads_the_same
            && self.group.vote() == self.group.protocol;
        if !stays {
            if let Some(member) = self.member_mut(&id) {
                member.join_call = Some(call);
            }
            self.rebalance();
            return;
        }
        self.record();
        let seen = led && skips;
        let joined = Joined {
            generation: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol: self.group.protocol.clone(),
            // A leader that cannot be told to skip the assignment must not find itself the leader.
            leader: if led && !skips {
                Some(before.clone())
            } else {
                self.group.leader.clone()
            },
            member_id: id,
            skip_assignment: seen,
            members: if seen {
                self.group.seen_by_leader()
            } else {
                Vec::new()
            },
        };
        self.out.replies.push((call, Reply::Join(Ok(joined))));
    }

    /// Whether two members of a generation read the same topics, as far as that can be known: what
    /// they say besides, such as the partitions that they owned, changes with every start.
    fn reads_the_same(&self, one: &ClassicMember, other: &ClassicMember) -> bool {
        if !self.group.is_of_consumers() {
            return true;
        }
        let protocol = self.group.protocol.as_deref();
        let sorted = |member: &ClassicMember| {
            let mut topics = protocols::subscribed_topics(&member.metadata(protocol))?;
            topics.sort();
            Some(topics)
        };
        sorted(one) == sorted(other)
    }
}
