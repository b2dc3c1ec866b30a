//! A client of the newer protocol.

use std::collections::BTreeSet;

use sapwood_group::{
    ConsumerHeartbeat, Epoch, GroupError, InstanceId, MemberId, Partitions, Presence, Reply,
    Request,
};
use sapwood_model::PartitionId;

use super::world::World;
use crate::{
    host::{Host, client, group, text, topic},
    random::Random,
};

#[derive(Clone)]
pub(crate) struct ConsumerClient {
    pub(crate) id: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) epoch: Option<Epoch>,
    /// What it reads.
    pub(crate) owned: Partitions,
    /// What it was told it may own.
    told: Option<Partitions>,
    names: BTreeSet<&'static str>,
    regex: Option<&'static str>,
    assignor: Option<&'static str>,
    /// The last response did not arrive: the next heartbeat says everything.
    missed: bool,
    /// It does not say what it reads.
    pub(crate) lies: bool,
    /// It does not give up anything.
    pub(crate) stubborn: bool,
}

impl ConsumerClient {
    pub(crate) fn new(name: u64, random: &mut Random) -> Self {
        let subscriptions: [(&[&str], Option<&str>); 5] = [
            (&["t0", "t1"], None),
            (&["t0", "t1"], None),
            (&["t0"], None),
            (&[], Some("t[01]")),
            (&["t2"], Some("t.*")),
        ];
        let (names, regex) = subscriptions[random.below(subscriptions.len())];
        let assignors = [None, None, None, Some("uniform"), Some("range")];
        Self {
            id: format!("m{name}").as_str().into(),
            instance: random.one_in(3).then(|| format!("i{name}").as_str().into()),
            epoch: None,
            owned: Partitions::new(),
            told: None,
            names: names.iter().copied().collect(),
            regex,
            assignor: assignors[random.below(assignors.len())],
            missed: false,
            lies: random.one_in(12),
            stubborn: random.one_in(12),
        }
    }

    /// The process that comes after this one.
    pub(crate) fn again(self, name: u64) -> Self {
        Self {
            id: format!("m{name}").as_str().into(),
            epoch: None,
            owned: Partitions::new(),
            told: None,
            missed: false,
            ..self
        }
    }

    /// From now on it behaves. One that lied does not know what it may read, and joins again.
    pub(crate) fn become_honest(&mut self) {
        if self.lies {
            self.epoch = None;
            self.owned = Partitions::new();
            self.told = None;
        }
        self.lies = false;
        self.stubborn = false;
    }

    /// Does something; false if it goes for good.
    pub(crate) fn act(&mut self, world: &mut World) -> bool {
        self.take_up(world);
        if world.calm {
            self.beat(world, None);
            return true;
        }
        match world.random.within(0..20) {
            0 if self.epoch.is_some() => {
                self.beat(world, Some(Presence::Leave));
                false
            }
            1 if self.epoch.is_some() && self.instance.is_some() => {
                let name = world.random.next();
                if self.beat(world, Some(Presence::Pause)) {
                    world.seen.static_returns += 1;
                    *self = self.clone().again(name);
                }
                true
            }
            2 if self.epoch.is_some() => {
                self.resubscribe(world);
                true
            }
            3..=6 if self.epoch.is_some() => {
                self.commit(world);
                true
            }
            7 => {
                self.misbehave(world);
                true
            }
            _ => {
                self.beat(world, None);
                true
            }
        }
    }

    /// Gives up what it was told to, and takes what it was told it may have; in its own time.
    fn take_up(&mut self, world: &mut World) {
        let Some(told) = self.told.clone() else {
            return;
        };
        // After a response that did not arrive it waits for the next one: the coordinator may by now
        // count on what this client said it does not own.
        if self.missed || (!world.calm && world.random.one_in(4)) {
            return;
        }
        if self.stubborn {
            self.owned.extend(told.iter());
            return;
        }
        if !self.owned.is_subset(&told) {
            world.seen.revocations += 1;
        }
        self.owned = told;
        self.told = None;
    }

    fn resubscribe(&mut self, world: &mut World) {
        self.regex = [None, Some("t.*"), Some("t[01]")][world.random.below(3)];
        self.names = ["t0", "t2"]
            .into_iter()
            .filter(|_| world.random.one_in(2))
            .collect();
        self.missed = true;
        self.beat(world, None);
    }

    fn heartbeat(&self, presence: Presence) -> ConsumerHeartbeat {
        let everything = presence == Presence::Join || self.missed;
        let names = self.names.iter().map(|name| topic(name)).collect();
        ConsumerHeartbeat {
            group: group(),
            member_id: Some(self.id.clone()),
            presence,
            instance_id: self.instance.clone(),
            client: client(),
            rack_id: None,
            rebalance_timeout_ms: everything.then_some(20_000),
            subscribed_topic_names: everything.then_some(names),
            subscribed_topic_regex: everything.then(|| text(self.regex.unwrap_or(""))),
            server_assignor: everything.then(|| text(self.assignor.unwrap_or(""))),
            owned: Some(self.owned.clone()),
        }
    }

    /// A heartbeat; false if it was refused or could not be written down.
    fn beat(&mut self, world: &mut World, presence: Option<Presence>) -> bool {
        let presence = presence.unwrap_or(match self.epoch {
            Some(epoch) => Presence::Stay(epoch),
            None => Presence::Join,
        });
        let mut beat = self.heartbeat(presence);
        if presence == Presence::Join {
            self.owned = Partitions::new();
            self.told = None;
            beat.owned = Some(Partitions::new());
        } else if self.lies {
            let some = self.owned.filtered(|_, _| world.random.one_in(2));
            beat.owned = Some(some).filter(|_| world.random.one_in(2));
        }
        let Reply::ConsumerHeartbeat(reply) = (match ask(&mut world.host, beat) {
            Some(reply) => reply,
            None => {
                // Whether it was written down it cannot know.
                self.missed = true;
                return false;
            }
        }) else {
            panic!("another reply");
        };
        let lost = !world.calm && world.random.one_in(15);
        match reply {
            Ok(beat) => {
                world.looked |= matches!(presence, Presence::Join | Presence::Stay(_));
                if lost {
                    self.missed = true;
                    return false;
                }
                self.missed = false;
                if let Presence::Stay(epoch) = beat.presence {
                    self.epoch = Some(epoch);
                }
                if beat.assignment.is_some() {
                    self.told = beat.assignment;
                }
                true
            }
            Err(error) => {
                self.refused(world, &error, presence);
                false
            }
        }
    }

    fn refused(&mut self, world: &mut World, error: &GroupError, presence: Presence) {
        match error {
            GroupError::UnknownMember
            | GroupError::FencedMemberEpoch { .. }
            | GroupError::FencedInstance
            | GroupError::GroupNotFound => {
                world.seen.fenced += 1;
                self.epoch = None;
                self.owned = Partitions::new();
                self.told = None;
            }
            // It waits until the one before it is gone.
            GroupError::UnreleasedInstance => assert_eq!(presence, Presence::Join),
            other => panic!("{presence:?} is refused: {other}"),
        }
    }

    fn commit(&mut self, world: &mut World) {
        let Some(epoch) = self.epoch else {
            return;
        };
        let mut ledger = std::mem::take(&mut world.ledger);
        ledger.commit(world, &self.id, self.instance.as_ref(), epoch.0);
        world.ledger = ledger;
    }

    /// Heartbeats that no client should send. None of them may do harm.
    fn misbehave(&mut self, world: &mut World) {
        let epoch = self.epoch.unwrap_or_default();
        let mut beat = self.heartbeat(Presence::Stay(epoch));
        match world.random.within(0..6) {
            // Another process with the same instance id, while this one is there.
            5 => {
                let Some(instance) = self.instance.clone() else {
                    return;
                };
                let description = world.host.groups.describe_consumer(&group());
                let holds = description.is_some_and(|group| {
                    group.members.iter().any(|member| {
                        member.instance_id.as_ref() == Some(&instance)
                            && member.current.member_epoch.is_some()
                    })
                });
                if holds {
                    let mut other = self.heartbeat(Presence::Join);
                    other.member_id = Some("other".into());
                    other.owned = Some(Partitions::new());
                    let reply = ask(&mut world.host, other);
                    let refused = Reply::ConsumerHeartbeat(Err(GroupError::UnreleasedInstance));
                    assert_eq!(reply, Some(refused), "it has not left");
                }
                return;
            }
            0 => beat.presence = Presence::Stay(Epoch(epoch.0 + 1)),
            1 => beat.presence = Presence::Stay(Epoch(epoch.0.saturating_sub(2))),
            2 => beat.member_id = Some("nobody".into()),
            3 => beat.instance_id = Some("i0".into()),
            _ => {
                beat.presence = Presence::Join;
                beat.member_id = Some("m0".into());
                beat.instance_id = None;
                beat.owned = Some(
                    [(sapwood_model::TopicId(1), PartitionId(0))]
                        .into_iter()
                        .collect(),
                );
            }
        }
        // The epoch before last may be the last but one, which is allowed to say so again.
        if let Some(Reply::ConsumerHeartbeat(Ok(_))) = ask(&mut world.host, beat.clone()) {
            assert!(matches!(beat.presence, Presence::Stay(_)), "{beat:?}");
            self.missed = true;
        }
    }

    /// Whether it reads what it is to read.
    pub(crate) fn is_settled(&self, host: &Host) -> bool {
        let description = host.groups.describe_consumer(&group());
        description.is_some_and(|description| {
            let mut members = description.members.iter();
            members.any(|member| member.member_id == self.id && member.target == self.owned)
        })
    }
}

fn ask(host: &mut Host, beat: ConsumerHeartbeat) -> Option<Reply> {
    let call = host.call(Request::ConsumerHeartbeat(beat));
    host.take(call).expect("heartbeats are answered at once")
}
