//! What a heartbeat of a member that joins or stays changes: its metadata, the group's epoch, the
//! targets, and what the member owns.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    ConsumerGroup,
    heartbeat::Place,
    leave,
    reconcile::{self, Goal},
    regexes, revoking,
    target::Outlook,
};
use crate::{
    ConsumerHeartbeat, Context, CurrentAssignment, Decision, Effect, Epoch, GroupError, MemberId,
    MemberMetadata, Partitions, Presence, Record, ResolvedRegex,
    decision::{Soft, TimerKind},
    records::ConsumerMetadata,
};

/// A heartbeat of a member that joins or stays.
pub(super) struct Stay<'a> {
    pub(super) group: &'a ConsumerGroup,
    pub(super) context: &'a Context<'a>,
    pub(super) beat: &'a ConsumerHeartbeat,
    pub(super) id: &'a MemberId,
    /// The id that the member had before.
    pub(super) from: Option<&'a MemberId>,
}

/// What the member is told.
pub(super) struct Told {
    pub(super) epoch: Epoch,
    pub(super) assignment: Option<Partitions>,
}

impl Stay<'_> {
    /// Decides what changes. `out` has what was decided before.
    pub(super) fn decide(
        &self,
        place: &Place<'_>,
        mut out: Decision,
    ) -> Result<(Decision, Told), GroupError> {
        let before = place.member();
        let member = self.member(before);
        if let Some(former) = self.from {
            out.records
                .extend(leave::tombstones(self.group, &self.beat.group, former));
        }
        if before != Some(&*member) || self.from.is_some() {
            out.records.push(Record::Member {
                group: self.beat.group.clone(),
                member: self.id.clone(),
                value: Some(member.clone().into_owned()),
            });
        }
        let subscribes_anew = before.is_none_or(|before| {
            before.subscribed_topic_names != member.subscribed_topic_names
                || before.subscribed_topic_regex != member.subscribed_topic_regex
        });
        let (target_epoch, target) = self.target(&member, subscribes_anew, &mut out)?;
        let told = self.reconcile(place, &member, target_epoch, &target, &mut out);
        Ok((out, told))
    }

    /// What the member says about itself, on top of what it said before.
    fn member<'b>(&self, before: Option<&'b MemberMetadata>) -> Cow<'b, MemberMetadata> {
        let beat = self.beat;
        let joins = beat.presence == Presence::Join;
        let silent = !joins
            && beat.rack_id.is_none()
            && beat.rebalance_timeout_ms.is_none()
            && beat.subscribed_topic_names.is_none()
            && beat.subscribed_topic_regex.is_none()
            && beat.server_assignor.is_none();
        let same_client = |before: &MemberMetadata| {
            before.client_id == beat.client.id && before.client_host == beat.client.host
        };
        if let Some(before) = before.filter(|before| silent && same_client(before)) {
            return Cow::Borrowed(before);
        }
        // Who joins says everything; what it leaves out is not what it said in an earlier life.
        let kept = before.filter(|_| !joins);
        let said = |new: &Option<Arc<str>>, old: Option<&Option<Arc<str>>>| match new {
            Some(new) => Some(new.clone()).filter(|text| !text.is_empty()),
            None => old.cloned().flatten(),
        };
        let names = beat.subscribed_topic_names.clone();
        Cow::Owned(MemberMetadata {
            instance_id: beat
                .instance_id
                .clone()
                .or_else(|| kept.and_then(|kept| kept.instance_id.clone())),
            rack_id: said(&beat.rack_id, kept.map(|kept| &kept.rack_id)),
            client_id: beat.client.id.clone(),
            client_host: beat.client.host.clone(),
            subscribed_topic_names: names
                .or_else(|| kept.map(|kept| kept.subscribed_topic_names.clone()))
                .unwrap_or_default(),
            subscribed_topic_regex: said(
                &beat.subscribed_topic_regex,
                kept.map(|kept| &kept.subscribed_topic_regex),
            ),
            rebalance_timeout_ms: beat
                .rebalance_timeout_ms
                .or(kept.map(|kept| kept.rebalance_timeout_ms))
                .unwrap_or_default(),
            server_assignor: said(
                &beat.server_assignor,
                kept.map(|kept| &kept.server_assignor),
            ),
        })
    }

    /// Raises the group's epoch if subscriptions or their topics have changed, and works the targets
    /// out if they lag behind. Returns their epoch and the member's own.
    fn target(
        &self,
        member: &MemberMetadata,
        subscribes_anew: bool,
        out: &mut Decision,
    ) -> Result<(Epoch, Cow<'_, Partitions>), GroupError> {
        let group = self.group;
        let version = self.context.topics.version();
        let looks = subscribes_anew || group.soft.topics_seen != Some(version);
        let mut metadata = group.metadata.unwrap_or_default();
        let own = group
            .targets
            .get(self.from.unwrap_or(self.id))
            .map(Cow::Borrowed);
        let own = own.unwrap_or_default();
        if !looks && metadata.epoch <= group.target_epoch() {
            if self.from.is_some() {
                out.records.push(self.target_record(self.id, &own));
            }
            return Ok((group.target_epoch(), own));
        }
        let outlook = self.outlook(member, looks, out)?;
        if looks {
            let metadata_hash = outlook.metadata_hash(self.context.topics);
            if subscribes_anew || metadata_hash != metadata.metadata_hash {
                let epoch = metadata.epoch.next();
                metadata = ConsumerMetadata {
                    epoch,
                    metadata_hash,
                    changed_at: self.context.now,
                };
                let group = self.beat.group.clone();
                out.records.push(Record::Consumer {
                    group,
                    value: Some(metadata),
                });
            }
            let group = self.beat.group.clone();
            out.effects
                .push(Effect(Soft::TopicsSeen { group, version }));
        }
        if metadata.epoch <= group.target_epoch() {
            if self.from.is_some() {
                out.records.push(self.target_record(self.id, &own));
            }
            return Ok((group.target_epoch(), own));
        }
        let mut targets = outlook.assign(self.context);
        for (id, target) in &targets {
            let before = outlook.targets.get(id).copied();
            let renamed = self.from.is_some() && id == self.id;
            let same = before.map_or(target.is_empty(), |before| before == target);
            if renamed || !same {
                out.records.push(self.target_record(id, target));
            }
        }
        let value = Some(metadata.epoch);
        out.records.push(Record::Target {
            group: self.beat.group.clone(),
            value,
        });
        let own = targets.remove(self.id).unwrap_or_default();
        Ok((metadata.epoch, Cow::Owned(own)))
    }

    fn target_record(&self, id: &MemberId, target: &Partitions) -> Record {
        Record::TargetMember {
            group: self.beat.group.clone(),
            member: id.clone(),
            value: Some(target.clone()),
        }
    }

    /// The group with the member as it now is.
    fn outlook<'b>(
        &'b self,
        member: &'b MemberMetadata,
        looks: bool,
        out: &mut Decision,
    ) -> Result<Outlook<'b>, GroupError> {
        let regexes = if looks {
            self.resolve(member, out)?
        } else {
            self.group.regexes.clone()
        };
        let mut members: BTreeMap<_, _> = self.group.members.iter().collect();
        let mut targets: BTreeMap<_, _> = self.group.targets.iter().collect();
        if let Some(former) = self.from {
            members.remove(former);
            if let Some(target) = targets.remove(former) {
                targets.insert(self.id, target);
            }
        }
        members.insert(self.id, member);
        Ok(Outlook {
            members,
            targets,
            regexes,
        })
    }

    /// Resolves every pattern in use anew, and forgets those that are not in use any more. What stands
    /// for the same topics as before is not worth a record.
    fn resolve(
        &self,
        member: &MemberMetadata,
        out: &mut Decision,
    ) -> Result<BTreeMap<Arc<str>, ResolvedRegex>, GroupError> {
        let known = &self.group.regexes;
        let same_topics = self.group.soft.topics_seen == Some(self.context.topics.version());
        let others = self.group.members.iter();
        let others = others.filter(|(id, _)| *id != self.id && Some(*id) != self.from);
        let in_use = others.map(|(_, other)| other).chain([member]);
        let mut resolved: BTreeMap<Arc<str>, ResolvedRegex> = BTreeMap::new();
        for pattern in in_use.filter_map(|member| member.subscribed_topic_regex.as_ref()) {
            if resolved.contains_key(pattern) {
                continue;
            }
            let before = known.get(pattern);
            let value = match before.filter(|_| same_topics) {
                Some(before) => before.clone(),
                None => {
                    let now = regexes::resolve(pattern, self.context)?;
                    before
                        .filter(|before| before.topics == now.topics)
                        .cloned()
                        .unwrap_or(now)
                }
            };
            if before != Some(&value) {
                let (group, regex) = (self.beat.group.clone(), pattern.clone());
                let value = Some(value.clone());
                out.records.push(Record::Regex {
                    group,
                    regex,
                    value,
                });
            }
            resolved.insert(pattern.clone(), value);
        }
        for regex in known.keys().filter(|regex| !resolved.contains_key(*regex)) {
            let (group, regex) = (self.beat.group.clone(), regex.clone());
            out.records.push(Record::Regex {
                group,
                regex,
                value: None,
            });
        }
        Ok(resolved)
    }

    /// Leads the member one step towards its target.
    fn reconcile(
        &self,
        place: &Place<'_>,
        member: &MemberMetadata,
        target_epoch: Epoch,
        target: &Partitions,
        out: &mut Decision,
    ) -> Told {
        let goal = Goal {
            epoch: target_epoch,
            target,
            owned: self.beat.owned.as_ref(),
        };
        let from = place.current();
        let step = reconcile::next(&from, &goal, |topic, partition| {
            let owner = self.group.owners.get(&(topic, partition));
            owner.is_some_and(|owner| owner != self.id && Some(owner) != self.from)
        });
        let told = |now: &CurrentAssignment, moved: bool| Told {
            epoch: now.member_epoch.unwrap_or_default(),
            assignment: (moved || self.asks_for_everything(place)).then(|| now.assigned.clone()),
        };
        if let (None, Place::Known(_, current)) = (&step, place) {
            return told(current, false);
        }
        let now = step.map_or(from, Cow::Owned).into_owned();
        let before = self.group.currents.get(self.id);
        let told = told(
            &now,
            before.is_none_or(|before| before.assigned != now.assigned),
        );
        self.time_revocation(&now, member.rebalance_timeout_ms, out);
        if before != Some(&now) {
            out.records.push(Record::Current {
                group: self.beat.group.clone(),
                member: self.id.clone(),
                value: Some(now),
            });
        }
        told
    }

    /// Whether the member says everything, as it does when it joins and when a response was lost: then
    /// it is told everything too. So is one that has only shown, by the epoch that it is at, that it
    /// missed a response.
    fn asks_for_everything(&self, place: &Place<'_>) -> bool {
        let beat = self.beat;
        if let (Presence::Stay(given), Place::Known(_, current)) = (beat.presence, place)
            && current.member_epoch != Some(given)
        {
            return true;
        }
        let subscribes =
            beat.subscribed_topic_names.is_some() || beat.subscribed_topic_regex.is_some();
        beat.presence == Presence::Join
            || (beat.rebalance_timeout_ms.is_some() && subscribes && beat.owned.is_some())
    }

    /// Gives a member its time to give up partitions, once for the same ones.
    fn time_revocation(&self, now: &CurrentAssignment, timeout_ms: u32, out: &mut Decision) {
        let running = self.group.soft.revoking.get(self.id);
        let until = revoking(now, self.context.now, timeout_ms);
        let same = match (&until, running) {
            (None, None) => true,
            (Some(until), Some(running)) => until.partitions == running.partitions,
            _ => false,
        };
        if same {
            return;
        }
        let (group, member) = (self.beat.group.clone(), self.id.clone());
        if let Some(until) = &until {
            out.set_timer(&group, TimerKind::Revoke(member.clone()), until.deadline);
        }
        out.effects.push(Effect(Soft::Revoking {
            group,
            member,
            until,
        }));
    }
}
