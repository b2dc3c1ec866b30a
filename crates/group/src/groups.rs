//! The groups of one partition of `__consumer_offsets`.

use std::collections::{BTreeSet, HashMap};

use sapwood_model::{Timestamp, TopicName};

use crate::{
    CallId, ClassicDescription, ConsumerDescription, ConsumerHeartbeat, Context, Decision, Effect,
    Event, FetchOffsets, FetchedOffset, GROUP_ID_BYTES_MAX, GroupError, GroupId, Heartbeat, Leave,
    Listed, Presence, Record, Reply, Request, Settings, TimerKey, TimerKind, Topics,
    classic::{self, ClassicGroup, Turn},
    consumer::{self, ConsumerGroup},
    decision::Soft,
    describe,
    group::{Group, Kind},
    later, offsets,
};

/// The groups of one partition of `__consumer_offsets`, and how they change.
///
/// What it costs to decide on an event about a group does not depend on how many other groups there
/// are; a heartbeat that changes nothing costs the same whatever the size of its own.
#[derive(Debug, Default)]
pub struct Groups {
    settings: Settings,
    groups: HashMap<GroupId, Group>,
    /// Which groups have offsets of a topic.
    by_topic: HashMap<TopicName, BTreeSet<GroupId>>,
}

impl Groups {
    /// No groups yet. Replay the partition's records with [`Groups::apply`], then give it
    /// [`Event::Loaded`].
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Says what is to be done about an event, and changes nothing.
    pub fn decide(&self, context: &Context<'_>, event: Event) -> Decision {
        match event {
            Event::Call(call, request) => self.call(context, call, request),
            Event::Timer(key) => self.timer(context, &key),
            Event::Loaded => self.loaded(context.now),
            Event::TopicsDeleted(names) => self.topics_deleted(context, &names),
        }
    }

    /// Applies a record: one that was just appended, or one that is replayed. Records of one partition
    /// are applied in the order of its log; records that a compaction has removed may be missing.
    pub fn apply(&mut self, record: Record) {
        let id = record.group().clone();
        let topic = match &record {
            Record::Offset { topic, .. } => Some(topic.clone()),
            _ => None,
        };
        let group = self.groups.entry(id.clone()).or_default();
        let has = |group: &Group| {
            let topic = topic.as_ref();
            topic.is_some_and(|topic| group.offsets.contains_key(topic))
        };
        let had = has(group);
        group.apply(record);
        let has = has(group);
        if let Some(topic) = topic.filter(|_| had != has) {
            let ids = self.by_topic.entry(topic.clone()).or_default();
            if has {
                ids.insert(id.clone());
            } else {
                ids.remove(&id);
            }
            if ids.is_empty() {
                self.by_topic.remove(&topic);
            }
        }
        if group.is_nothing() {
            self.groups.remove(&id);
        }
    }

    /// Applies an effect of a decision whose records have been applied.
    pub fn apply_effect(&mut self, effect: Effect) {
        match effect.0 {
            Soft::Classic { group, next } => self.set_classic(group, next),
            Soft::Forget { group } => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.kind = Kind::Plain;
                    if known.is_nothing() {
                        self.groups.remove(&group);
                    }
                }
            }
            Soft::ClassicSession {
                group,
                member,
                deadline,
            } => {
                if let Some(Kind::Classic { live, .. }) = self.kind_mut(&group) {
                    live.extend_session(&member, deadline);
                }
            }
            Soft::ConsumerSession {
                group,
                member,
                deadline,
            } => {
                if let Some(Kind::Consumer(group)) = self.kind_mut(&group) {
                    group.extend_session(member, deadline);
                }
            }
            Soft::Revoking {
                group,
                member,
                until,
            } => {
                if let Some(Kind::Consumer(group)) = self.kind_mut(&group) {
                    group.set_revoking(member, until);
                }
            }
            Soft::TopicsSeen { group, version } => {
                if let Some(Kind::Consumer(group)) = self.kind_mut(&group) {
                    group.saw_topics(version);
                }
            }
            Soft::Loaded { at } => {
                let session_timeout_ms = self.settings.consumer_session_timeout_ms;
                for group in self.groups.values_mut() {
                    match &mut group.kind {
                        Kind::Plain => {}
                        Kind::Classic { live, .. } => live.start(at),
                        Kind::Consumer(group) => {
                            group.soft = group.restarted(at, session_timeout_ms);
                        }
                    }
                }
            }
        }
    }

    fn kind_mut(&mut self, group: &GroupId) -> Option<&mut Kind> {
        self.groups.get_mut(group).map(|group| &mut group.kind)
    }

    fn set_classic(&mut self, id: GroupId, next: Box<ClassicGroup>) {
        match &mut self.groups.entry(id).or_default().kind {
            Kind::Classic { live, .. } => *live = next,
            kind => {
                *kind = Kind::Classic {
                    recorded: None,
                    live: next,
                }
            }
        }
    }

    fn call(&self, context: &Context<'_>, call: CallId, request: Request) -> Decision {
        let (id, decided) = match request {
            Request::Join(join) => (join.group.clone(), self.join(context, call, join)),
            Request::Sync(sync) => {
                let id = sync.group.clone();
                let turn = self.classic(context, &id);
                let decided = turn.and_then(|turn| turn.sync(call, sync));
                (id, decided.map_err(|error| Reply::Sync(Err(error))))
            }
            Request::Heartbeat(beat) => {
                let decided = self.heartbeat(context, call, &beat);
                (
                    beat.group,
                    decided.map_err(|error| Reply::Heartbeat(Err(error))),
                )
            }
            Request::Leave(leave) => {
                let decided = self.leave(context, call, &leave);
                let decided = decided.map_err(|error| Reply::Leave(Err(error)));
                (leave.group, decided)
            }
            Request::ConsumerHeartbeat(beat) => {
                let decided = self.consumer_heartbeat(context, call, &beat);
                (
                    beat.group,
                    decided.map_err(|error| Reply::ConsumerHeartbeat(Err(error))),
                )
            }
            Request::Commit(commit) => {
                let id = commit.group.clone();
                let decided = check_length(&id).and_then(|()| {
                    offsets::commit(self.groups.get(&id), &self.settings, context, call, commit)
                });
                (id, decided.map_err(|error| Reply::Commit(Err(error))))
            }
            Request::DeleteOffsets(request) => {
                let id = request.group.clone();
                let decided = offsets::delete(self.groups.get(&id), call, request);
                (
                    id,
                    decided.map_err(|error| Reply::DeleteOffsets(Err(error))),
                )
            }
            Request::DeleteGroup(id) => {
                let decided = self.delete(call, &id);
                (id, decided.map_err(|error| Reply::DeleteGroup(Err(error))))
            }
        };
        let mut out = decided.unwrap_or_else(|refusal| Decision::reply(call, refusal));
        self.watch_new(context.now, &id, &mut out);
        out
    }

    /// Has a group that the decision makes looked through from time to time.
    fn watch_new(&self, now: Timestamp, id: &GroupId, out: &mut Decision) {
        let makes = !out.records.is_empty() || !out.effects.is_empty();
        if makes && !self.groups.contains_key(id) {
            let at = later(now, self.settings.offsets_check_interval_ms);
            out.set_timer(id, TimerKind::Expiry, at);
        }
    }

    fn join(
        &self,
        context: &Context<'_>,
        call: CallId,
        join: crate::Join,
    ) -> Result<Decision, Reply> {
        let id = join.group.clone();
        let begin = || {
            check_id(&id)?;
            let mut out = Decision::default();
            match self.groups.get(&id).map(|group| (group, &group.kind)) {
                Some((_, Kind::Classic { live, .. })) => {
                    return Ok((ClassicGroup::clone(live), out));
                }
                Some((group, Kind::Consumer(_))) if !group.is_empty() => {
                    return Err(GroupError::InconsistentProtocol);
                }
                _ if join.member_id.is_some() => return Err(GroupError::UnknownMember),
                None | Some((_, Kind::Plain)) => {}
                Some((group, Kind::Consumer(_))) => out.records = group.tombstones(&id),
            }
            Ok((ClassicGroup::default(), out))
        };
        let decided = begin().and_then(|(group, out)| {
            Turn::new(&id, &self.settings, context, group, out).join(call, join)
        });
        decided.map_err(|error| Reply::Join(Err(error)))
    }

    /// A turn of a classic group that has to be there.
    fn classic<'a>(
        &'a self,
        context: &'a Context<'_>,
        id: &'a GroupId,
    ) -> Result<Turn<'a>, GroupError> {
        let group = self.live(id)?.clone();
        Ok(Turn::new(
            id,
            &self.settings,
            context,
            group,
            Decision::default(),
        ))
    }

    fn live(&self, id: &GroupId) -> Result<&ClassicGroup, GroupError> {
        check_id(id)?;
        match self.groups.get(id).map(|group| &group.kind) {
            Some(Kind::Classic { live, .. }) => Ok(live),
            Some(Kind::Plain | Kind::Consumer(_)) | None => Err(GroupError::UnknownMember),
        }
    }

    fn heartbeat(
        &self,
        context: &Context<'_>,
        call: CallId,
        beat: &Heartbeat,
    ) -> Result<Decision, GroupError> {
        classic::heartbeat(self.live(&beat.group)?, context, call, beat)
    }

    fn leave(
        &self,
        context: &Context<'_>,
        call: CallId,
        leave: &Leave,
    ) -> Result<Decision, GroupError> {
        match self.groups.get(&leave.group).map(|group| &group.kind) {
            Some(Kind::Consumer(group)) => Ok(consumer::leave(group, context, call, leave)),
            _ => {
                let turn = self.classic(context, &leave.group)?;
                Ok(turn.leave(call, leave))
            }
        }
    }

    fn consumer_heartbeat(
        &self,
        context: &Context<'_>,
        call: CallId,
        beat: &ConsumerHeartbeat,
    ) -> Result<Decision, GroupError> {
        check_id(&beat.group)?;
        consumer::check(beat)?;
        let joins = beat.presence == Presence::Join;
        let mut out = Decision::default();
        let none = ConsumerGroup::default();
        let group = match self
            .groups
            .get(&beat.group)
            .map(|group| (group, &group.kind))
        {
            Some((_, Kind::Consumer(group))) => group,
            Some((group, Kind::Classic { .. })) if joins && group.is_empty() => {
                out.records = group.tombstones(&beat.group);
                &none
            }
            None | Some((_, Kind::Plain)) if joins => &none,
            None | Some(_) => return Err(GroupError::GroupNotFound),
        };
        consumer::heartbeat(group, &self.settings, context, call, beat, out)
    }

    fn delete(&self, call: CallId, id: &GroupId) -> Result<Decision, GroupError> {
        let group = self.groups.get(id).ok_or(GroupError::GroupNotFound)?;
        if !group.is_empty() {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut out = Decision::reply(call, Reply::DeleteGroup(Ok(())));
        out.records.extend(offsets::tombstones(group, id));
        forget(group, id, &mut out);
        Ok(out)
    }

    fn timer(&self, context: &Context<'_>, key: &TimerKey) -> Decision {
        let TimerKey { group: id, kind } = key;
        let Some(group) = self.groups.get(id) else {
            return Decision::default();
        };
        let turn = |live: &ClassicGroup| {
            Turn::new(
                id,
                &self.settings,
                context,
                live.clone(),
                Decision::default(),
            )
        };
        match (kind, &group.kind) {
            (TimerKind::Expiry, _) => self.expire(context, id, group),
            (TimerKind::Session(member), Kind::Classic { live, .. }) => {
                turn(live).session_may_be_over(member)
            }
            (TimerKind::Join, Kind::Classic { live, .. }) => turn(live).join_time_is_up(),
            (TimerKind::Sync, Kind::Classic { live, .. }) => turn(live).sync_time_is_up(),
            (TimerKind::Session(member), Kind::Consumer(group)) => {
                consumer::session_may_be_over(group, context, id, member)
            }
            (TimerKind::Revoke(member), Kind::Consumer(group)) => {
                consumer::revoke_time_is_up(group, context, id, member)
            }
            (
                TimerKind::Session(_) | TimerKind::Join | TimerKind::Sync | TimerKind::Revoke(_),
                _,
            ) => Decision::default(),
        }
    }

    /// Forgets offsets that nobody uses any more, and the group if nothing else is left of it.
    fn expire(&self, context: &Context<'_>, id: &GroupId, group: &Group) -> Decision {
        let mut out = Decision {
            records: group.expired(id, &self.settings, context),
            ..Decision::default()
        };
        let offsets: usize = group
            .offsets
            .values()
            .map(|partitions| partitions.len())
            .sum();
        let promised = match &group.kind {
            Kind::Classic { live, .. } => !live.is_unused(),
            Kind::Plain | Kind::Consumer(_) => false,
        };
        if group.is_empty() && !promised && out.records.len() == offsets {
            forget(group, id, &mut out);
        } else {
            let at = later(context.now, self.settings.offsets_check_interval_ms);
            out.set_timer(id, TimerKind::Expiry, at);
        }
        out
    }

    /// Starts the sessions of all members.
    fn loaded(&self, now: Timestamp) -> Decision {
        let mut out = Decision::default();
        for (id, group) in &self.groups {
            let check = later(now, self.settings.offsets_check_interval_ms);
            out.set_timer(id, TimerKind::Expiry, check);
            match &group.kind {
                Kind::Plain => {}
                Kind::Classic { live, .. } => {
                    for (member, state) in &live.members {
                        let kind = TimerKind::Session(member.clone());
                        out.set_timer(id, kind, later(now, state.session_timeout_ms));
                    }
                }
                Kind::Consumer(group) => {
                    let soft = group.restarted(now, self.settings.consumer_session_timeout_ms);
                    for (kind, deadline) in soft.timers() {
                        out.set_timer(id, kind, deadline);
                    }
                }
            }
        }
        out.effects.push(Effect(Soft::Loaded { at: now }));
        out
    }

    fn topics_deleted(&self, context: &Context<'_>, names: &[TopicName]) -> Decision {
        let mut out = Decision::default();
        for name in names {
            // Another topic may have the name by now, and offsets of its own.
            let now = context.topics.named(name);
            let ids = self.by_topic.get(name).into_iter().flatten();
            for (id, group) in ids.filter_map(|id| self.groups.get_key_value(id)) {
                out.records.extend(offsets::stale(group, id, name, now));
            }
        }
        out
    }

    /// How far a group has read, of the topics that there are: an offset of a topic that was deleted
    /// does not count, even before [`Event::TopicsDeleted`] and where another topic has the name by now.
    /// Changes nothing; what it returns may be shown once everything appended so far is durable.
    ///
    /// # Errors
    /// [`GroupError::InvalidGroupId`], [`GroupError::UnknownMember`] and
    /// [`GroupError::StaleMemberEpoch`].
    pub fn fetch_offsets(
        &self,
        topics: &dyn Topics,
        request: FetchOffsets,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        check_length(&request.group)?;
        offsets::fetch(self.groups.get(&request.group), topics, request)
    }

    /// Every group, by name.
    pub fn list(&self) -> Vec<Listed> {
        let groups = self.groups.iter();
        let mut listed: Vec<_> = groups
            .map(|(id, group)| describe::listed(id, group))
            .collect();
        listed.sort_by(|one, other| one.group.cmp(&other.group));
        listed
    }

    /// A group in a list; none if there is no such group.
    pub fn listed(&self, id: &GroupId) -> Option<Listed> {
        self.groups.get(id).map(|group| describe::listed(id, group))
    }

    /// A classic group in detail; none if there is no such group, or it is of the other kind.
    pub fn describe_classic(&self, id: &GroupId) -> Option<ClassicDescription> {
        self.groups.get(id).and_then(describe::classic)
    }

    /// A group of the newer kind in detail; none if there is no such group, or it is of the other kind.
    pub fn describe_consumer(&self, id: &GroupId) -> Option<ConsumerDescription> {
        self.groups.get(id).and_then(describe::consumer)
    }

    /// Every record that a log needs to have for these groups to come out of its replay, in no
    /// particular order of groups.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.groups.iter().flat_map(|(id, group)| group.records(id))
    }
}

/// Removes what makes up a group without members. Its offsets' tombstones are there already.
fn forget(group: &Group, id: &GroupId, out: &mut Decision) {
    out.records.extend(group.tombstones(id));
    if let Kind::Classic { recorded: None, .. } = group.kind {
        out.effects.push(Effect(Soft::Forget { group: id.clone() }));
    }
}

/// Whether a group of this name may have members.
fn check_id(id: &GroupId) -> Result<(), GroupError> {
    if id.is_empty() {
        return Err(GroupError::InvalidGroupId { length: 0 });
    }
    check_length(id)
}

fn check_length(id: &GroupId) -> Result<(), GroupError> {
    let length = id.as_str().len();
    if length <= GROUP_ID_BYTES_MAX {
        return Ok(());
    }
    Err(GroupError::InvalidGroupId { length })
}
