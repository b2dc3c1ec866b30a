//! A client of the classic protocol: eager or cooperative, and as its leader an assignor.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sapwood_group::{
    CallId, Generation, GroupError, Heartbeat, InstanceId, Join, JoinedMember, Leave,
    LeavingMember, MemberId, Protocol, Reply, Request, Sync, Topics,
};

use super::world::{Client, World};
use crate::{
    host::{Host, client, group, text, topic},
    random::Random,
};

/// The topics that classic clients read: a place in here, and a partition.
const TOPICS: [&str; 2] = ["t0", "t1"];
type Owned = BTreeSet<(u32, u32)>;

enum Phase {
    /// It has to join.
    Out,
    Joining(CallId),
    /// It has to ask for its assignment; as the leader with what the members say.
    Joined(Option<Vec<JoinedMember>>),
    Syncing(CallId),
    In,
}

pub(crate) struct ClassicClient {
    name: u64,
    pub(crate) member: Option<MemberId>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) generation: u32,
    cooperative: bool,
    phase: Phase,
    owned: Owned,
    /// In which life of the group it asked for its assignment.
    asked_in: u64,
    /// As the leader: of which topics it worked out the assignment.
    assigned_at: Option<u64>,
}

impl ClassicClient {
    pub(crate) fn new(name: u64, random: &mut Random) -> Self {
        Self {
            name,
            member: None,
            instance: random.one_in(3).then(|| format!("i{name}").as_str().into()),
            generation: 0,
            cooperative: random.one_in(2),
            phase: Phase::Out,
            owned: Owned::new(),
            asked_in: 0,
            assigned_at: None,
        }
    }

    /// The process that comes after this one.
    pub(crate) fn again(self, name: u64) -> Self {
        Self {
            name,
            member: None,
            generation: 0,
            phase: Phase::Out,
            owned: Owned::new(),
            asked_in: 0,
            assigned_at: None,
            ..self
        }
    }

    /// Does something; false if it goes for good.
    pub(crate) fn act(&mut self, world: &mut World) -> bool {
        if !world.calm && world.random.one_in(15) {
            self.misbehave(world);
            return true;
        }
        match &self.phase {
            Phase::Out => self.join(world),
            Phase::Joining(call) => {
                let call = *call;
                self.look_for_generation(world, call);
            }
            Phase::Joined(members) => {
                let members = members.clone();
                self.sync(world, members);
            }
            Phase::Syncing(call) => {
                let call = *call;
                self.look_for_assignment(world, call);
            }
            Phase::In => return self.stay(world),
        }
        true
    }

    fn join(&mut self, world: &mut World) {
        if !self.cooperative {
            self.owned.clear();
        }
        let said = Protocol {
            name: text("sticky"),
            metadata: said(self.generation, &self.owned),
        };
        let range = Protocol {
            name: text("range"),
            ..said.clone()
        };
        let protocols = if self.name.is_multiple_of(2) {
            vec![said, range]
        } else {
            vec![range, said]
        };
        let call = world.host.call(Request::Join(Join {
            group: group(),
            member_id: self.member.clone(),
            instance_id: self.instance.clone(),
            client: client(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            protocol_type: text("consumer"),
            protocols,
            takes_member_id: !self.name.is_multiple_of(3),
            // Without this a static leader that was started again does not know that it leads, and
            // nobody notices when topics change; so it is with Kafka.
            takes_skip_assignment: true,
        }));
        self.phase = Phase::Joining(call);
    }

    fn look_for_generation(&mut self, world: &mut World, call: CallId) {
        let Some(reply) = world.host.take(call) else {
            return;
        };
        self.phase = Phase::Out;
        match reply {
            None => {}
            Some(Reply::Join(Ok(joined))) => {
                world.seen.generations += 1;
                self.generation = joined.generation.0;
                let leads = joined.leader.as_ref() == Some(&joined.member_id);
                assert_eq!(
                    leads,
                    !joined.members.is_empty(),
                    "only the leader sees the members"
                );
                let same = self.member.as_ref() == Some(&joined.member_id);
                if self.instance.is_some() && !same {
                    world.seen.static_returns += 1;
                }
                self.member = Some(joined.member_id);
                self.assigned_at = world.assigned_at.get(&self.generation).copied();
                self.assigned_at = self.assigned_at.filter(|_| leads);
                let members = Some(joined.members).filter(|_| leads && !joined.skip_assignment);
                self.phase = Phase::Joined(members);
            }
            Some(Reply::Join(Err(GroupError::MemberIdRequired { member_id }))) => {
                assert!(
                    self.instance.is_none(),
                    "static members are known by their instance ids"
                );
                self.member = Some(member_id);
            }
            Some(Reply::Join(Err(error))) => self.refused(world, &error),
            Some(other) => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, world: &mut World, members: Option<Vec<JoinedMember>>) {
        let Some(member_id) = self.member.clone() else {
            panic!("who has joined has an id");
        };
        let mut assignments = Vec::new();
        if let Some(members) = members {
            let version = world.host.topics.version();
            self.assigned_at = Some(version);
            world.assigned_at.insert(self.generation, version);
            assignments = assign(world, &members, self.cooperative);
            let mut shares: Vec<Bytes> =
                assignments.iter().map(|(_, share)| share.clone()).collect();
            shares.sort();
            world.said.entry(self.generation).or_default().push(shares);
        }
        let call = world.host.call(Request::Sync(Sync {
            group: group(),
            member_id,
            instance_id: self.instance.clone(),
            generation: Generation(self.generation),
            protocol_type: Some(text("consumer")),
            protocol: None,
            assignments,
        }));
        self.asked_in = world.lives;
        self.phase = Phase::Syncing(call);
    }

    fn look_for_assignment(&mut self, world: &mut World, call: CallId) {
        let Some(reply) = world.host.take(call) else {
            return;
        };
        self.phase = Phase::Out;
        match reply {
            None => {}
            Some(Reply::Sync(Ok(synced))) => {
                let assigned = read(&synced.assignment);
                let who = match (&self.instance, &self.member) {
                    (Some(instance), _) => instance.to_string(),
                    (None, member) => format!("{member:?}"),
                };
                let mut gone = BTreeMap::new();
                let given = match self.asked_in == world.lives {
                    true => world.given.entry(self.generation).or_default(),
                    false => &mut gone,
                };
                for partition in &assigned {
                    let other = given.insert(*partition, who.clone());
                    assert!(
                        other.as_ref().is_none_or(|other| *other == who),
                        "{partition:?} of generation {} is {other:?}'s and {who}'s",
                        self.generation
                    );
                }
                // A cooperative member that has given something up joins again, for others to get it.
                let gave_up = !self.owned.is_subset(&assigned);
                if gave_up {
                    world.seen.revocations += 1;
                }
                self.owned = assigned;
                self.phase = if self.cooperative && gave_up {
                    Phase::Out
                } else {
                    Phase::In
                };
            }
            Some(Reply::Sync(Err(error))) => self.refused(world, &error),
            Some(other) => panic!("{other:?}"),
        }
    }

    fn stay(&mut self, world: &mut World) -> bool {
        let leads = self.assigned_at.is_some();
        if leads && self.assigned_at != Some(world.host.topics.version()) {
            self.phase = Phase::Out;
            return true;
        }
        match world.random.within(0..20) {
            0 if !world.calm => {
                self.leave(world);
                false
            }
            1..=5 if !world.calm => {
                let Some(member) = self.member.clone() else {
                    return true;
                };
                let mut ledger = std::mem::take(&mut world.ledger);
                ledger.commit(world, &member, self.instance.as_ref(), self.generation);
                world.ledger = ledger;
                true
            }
            _ => {
                self.beat(world);
                true
            }
        }
    }

    fn beat(&mut self, world: &mut World) {
        let Some(member_id) = self.member.clone() else {
            return;
        };
        let call = world.host.call(Request::Heartbeat(Heartbeat {
            group: group(),
            member_id,
            instance_id: self.instance.clone(),
            generation: Generation(self.generation),
        }));
        match world
            .host
            .take(call)
            .expect("heartbeats are answered at once")
        {
            None | Some(Reply::Heartbeat(Ok(()))) => {}
            Some(Reply::Heartbeat(Err(error))) => {
                self.phase = Phase::Out;
                self.refused(world, &error);
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, world: &mut World, error: &GroupError) {
        match error {
            GroupError::RebalanceInProgress => {}
            GroupError::UnknownMember
            | GroupError::FencedInstance
            | GroupError::IllegalGeneration { .. } => {
                world.seen.fenced += 1;
                self.owned.clear();
                self.generation = 0;
                if !matches!(error, GroupError::IllegalGeneration { .. }) {
                    self.member = None;
                }
            }
            // The group is of the other kind, for now.
            GroupError::InconsistentProtocol => {}
            other => panic!("refused: {other}"),
        }
    }

    fn leave(&mut self, world: &mut World) {
        let leaving = LeavingMember {
            member_id: self.member.clone(),
            instance_id: self.instance.clone(),
        };
        let members = vec![leaving];
        let call = world.host.call(Request::Leave(Leave {
            group: group(),
            members,
        }));
        world.host.take(call).expect("it is answered at once");
    }

    /// What no client should do. None of it may do harm.
    fn misbehave(&mut self, world: &mut World) {
        let nobody = MemberId::from("nobody");
        match world.random.within(0..5) {
            // A commit of what it read in the generation before.
            4 => {
                let Some(member) = self.member.clone() else {
                    return;
                };
                let before = self.generation.saturating_sub(1);
                let mut ledger = std::mem::take(&mut world.ledger);
                ledger.commit(world, &member, self.instance.as_ref(), before);
                world.ledger = ledger;
            }
            // A sync of a generation that is not there, which says that it leads.
            0 => {
                let description = world.host.groups.describe_classic(&group());
                if description.is_some_and(|group| group.generation.0 == self.generation + 1) {
                    return;
                }
                let member = self.member.clone().unwrap_or_else(|| nobody.clone());
                let call = world.host.call(Request::Sync(Sync {
                    group: group(),
                    member_id: member,
                    instance_id: None,
                    generation: Generation(self.generation + 1),
                    protocol_type: None,
                    protocol: None,
                    assignments: vec![(nobody, written(&Owned::from([(0, 0)])))],
                }));
                let reply = world.host.take(call);
                if let Some(Some(Reply::Sync(Ok(_)))) = reply {
                    panic!("a sync of another generation was taken");
                }
            }
            1 => {
                let call = world.host.call(Request::Heartbeat(Heartbeat {
                    group: group(),
                    member_id: nobody,
                    instance_id: None,
                    generation: Generation(self.generation),
                }));
                let reply = world.host.take(call);
                assert_eq!(
                    reply,
                    Some(Some(Reply::Heartbeat(Err(GroupError::UnknownMember))))
                );
            }
            // It gives up waiting and asks again.
            2 if matches!(self.phase, Phase::Joining(_)) && self.member.is_some() => {
                self.join(world)
            }
            2 => {}
            // It forgets everything, and joins as another.
            _ => {
                self.member = None;
                self.owned.clear();
                self.generation = 0;
                self.phase = Phase::Out;
            }
        }
    }

    /// Whether it reads, and as the leader has nothing to change.
    pub(crate) fn is_in(&self, host: &Host) -> bool {
        let current = self
            .assigned_at
            .is_none_or(|at| at == host.topics.version());
        matches!(self.phase, Phase::In) && current
    }
}

/// In a settled classic group everything is read, by one each, evenly.
pub(crate) fn assert_all_read(world: &World) {
    let mut all = everything(world);
    let mut loads = Vec::new();
    for client in &world.clients {
        let Client::Classic(client) = client else {
            continue;
        };
        loads.push(client.owned.len());
        for partition in &client.owned {
            assert!(
                all.remove(partition),
                "{partition:?} is not there, or read by two"
            );
        }
    }
    assert!(
        all.is_empty(),
        "nobody reads {all:?}: {:#?}",
        world.host.groups.describe_classic(&group())
    );
    let spread = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0);
    assert!(spread <= 1, "unevenly shared: {loads:?}");
}

fn everything(world: &World) -> Owned {
    let mut all = Owned::new();
    for (place, name) in (0..).zip(TOPICS) {
        let known = world.host.topics.named(&topic(name));
        let count = known.map_or(0, |topic| topic.partitions);
        all.extend((0..count).map(|partition| (place, partition)));
    }
    all
}

/// The leader's work: everybody keeps what it says it had in the latest generation, up to its share.
/// If it is cooperative, what somebody else has yet to give up is given to nobody.
fn assign(world: &World, members: &[JoinedMember], cooperative: bool) -> Vec<(MemberId, Bytes)> {
    let all = everything(world);
    let claims: Vec<(u32, Owned)> = members
        .iter()
        .map(|member| claim(&member.metadata))
        .collect();
    let latest = claims
        .iter()
        .map(|(generation, _)| *generation)
        .max()
        .unwrap_or_default();
    let mut owner: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (place, (generation, owned)) in claims.iter().enumerate() {
        if *generation == latest {
            owner.extend(owned.iter().map(|partition| (*partition, place)));
        }
    }
    let (least, more) = (all.len() / members.len(), all.len() % members.len());
    let mut shares: Vec<Owned> = vec![Owned::new(); members.len()];
    let mut longer = more;
    for partition in &all {
        let Some(place) = owner.get(partition) else {
            continue;
        };
        let room = shares[*place].len() < least || (shares[*place].len() == least && longer > 0);
        if room {
            longer -= usize::from(shares[*place].len() == least);
            shares[*place].insert(*partition);
        }
    }
    let given: Owned = shares.iter().flatten().copied().collect();
    for partition in all.difference(&given) {
        let place = (0..shares.len())
            .min_by_key(|place| shares[*place].len())
            .unwrap();
        shares[place].insert(*partition);
    }
    for (place, share) in shares.iter_mut().enumerate() {
        share.retain(|partition| {
            !cooperative || owner.get(partition).is_none_or(|owner| *owner == place)
        });
    }
    let ids = members.iter().map(|member| member.member_id.clone());
    ids.zip(shares.iter().map(written)).collect()
}

/// What a member says: Kafka's subscription, with its generation and what it owns as user data.
fn said(generation: u32, owned: &Owned) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(2);
    for name in TOPICS {
        out.put_i16(2);
        out.put_slice(name.as_bytes());
    }
    out.put_u32(generation);
    out.put(written(owned));
    out.freeze()
}

fn claim(said: &Bytes) -> (u32, Owned) {
    let mut rest = said.slice(14..);
    (rest.get_u32(), read(&rest))
}

fn written(owned: &Owned) -> Bytes {
    let mut out = BytesMut::new();
    for (topic, partition) in owned {
        out.put_u32(*topic);
        out.put_u32(*partition);
    }
    out.freeze()
}

pub(crate) fn read(bytes: &Bytes) -> Owned {
    let numbers = bytes
        .chunks_exact(8)
        .map(|mut pair| (pair.get_u32(), pair.get_u32()));
    numbers.collect()
}
