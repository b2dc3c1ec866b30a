//! One life: a coordinator, its clients, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use sapwood_group::{GroupState, Partitions, Record, Settings};
use sapwood_model::{PartitionId, TopicId};

use super::{classic::ClassicClient, consumer::ConsumerClient, offsets::Ledger};
use crate::{
    host::{Host, group},
    random::Random,
};

/// How often something happened, over all lives.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) steps: u64,
    pub(crate) restarts: u64,
    pub(crate) failed_appends: u64,
    pub(crate) stable: u64,
    pub(crate) revocations: u64,
    pub(crate) fenced: u64,
    pub(crate) commits: u64,
    pub(crate) refused_commits: u64,
    pub(crate) topic_changes: u64,
    pub(crate) static_returns: u64,
    pub(crate) generations: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.restarts += other.restarts;
        self.failed_appends += other.failed_appends;
        self.stable += other.stable;
        self.revocations += other.revocations;
        self.fenced += other.fenced;
        self.commits += other.commits;
        self.refused_commits += other.refused_commits;
        self.topic_changes += other.topic_changes;
        self.static_returns += other.static_returns;
        self.generations += other.generations;
    }

    /// Whether everything that can happen has happened.
    pub(crate) fn has_everything(&self) -> bool {
        [
            self.restarts,
            self.failed_appends,
            self.stable,
            self.revocations,
            self.fenced,
            self.commits,
            self.refused_commits,
            self.topic_changes,
            self.static_returns,
            self.generations,
        ]
        .iter()
        .all(|count| *count > 0)
    }
}

/// A client of either kind.
pub(crate) enum Client {
    Classic(ClassicClient),
    Consumer(ConsumerClient),
}

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) random: Random,
    pub(crate) clients: Vec<Client>,
    pub(crate) ledger: Ledger,
    pub(crate) seen: Seen,
    /// What members of classic groups were given, by generation.
    pub(crate) given: BTreeMap<u32, BTreeMap<(u32, u32), String>>,
    /// How often the classic group was not there: its generations then start again.
    pub(crate) lives: u64,
    /// Of which topics the leader of a generation worked out the assignment.
    pub(crate) assigned_at: BTreeMap<u32, u64>,
    /// The group of the newer kind has looked at the topics as they are.
    pub(crate) looked: bool,
    /// Nobody misbehaves any more.
    pub(crate) calm: bool,
    names: u64,
    topics_made: u128,
}

impl World {
    pub(crate) fn new(mut random: Random) -> Self {
        let delays = [0, 3_000];
        let settings = Settings {
            initial_rebalance_delay_ms: delays[random.below(2)],
            // Expiry has tests of its own; here an offset that is gone is lost.
            offsets_retention_ms: u64::MAX,
            ..Settings::default()
        };
        let mut world = Self {
            host: Host::new(settings),
            random,
            clients: Vec::new(),
            ledger: Ledger::default(),
            seen: Seen::default(),
            given: BTreeMap::new(),
            lives: 0,
            assigned_at: BTreeMap::new(),
            looked: false,
            calm: false,
            names: 0,
            topics_made: 0,
        };
        for name in ["t0", "t1"] {
            world.create_topic(name);
        }
        world
    }

    pub(crate) fn live(mut self) -> Seen {
        // Mostly one kind of client; sometimes both, of which one has to wait until the other is gone.
        let kind = self.random.within(0..10);
        let clients = self.random.within(1..6);
        for _ in 0..clients {
            self.come(kind);
        }
        for _ in 0..self.random.within(20..120) {
            self.step(kind);
            self.check();
        }
        self.settle();
        self.seen
    }

    fn come(&mut self, kind: u64) {
        let classic = match kind {
            0..=3 => true,
            4..=8 => false,
            _ => self.random.one_in(2),
        };
        self.names += 1;
        let client = if classic {
            Client::Classic(ClassicClient::new(self.names, &mut self.random))
        } else {
            Client::Consumer(ConsumerClient::new(self.names, &mut self.random))
        };
        self.clients.push(client);
    }

    fn step(&mut self, kind: u64) {
        self.seen.steps += 1;
        if self.random.one_in(25) {
            self.host.failures = 1;
            self.seen.failed_appends += 1;
        }
        match self.random.within(0..100) {
            0..=69 => self.someone_acts(),
            70..=85 => {
                let time = [100, 1_000, 5_000, 12_000, 50_000];
                let time = time[self.random.below(time.len())];
                self.host.pass(time);
            }
            86..=89 if self.clients.len() < 7 => self.come(kind),
            90..=92 => self.change_topics(),
            93..=94 => {
                let compact = self.random.one_in(2);
                self.restart(compact);
            }
            95..=97 => self.ledger_acts(),
            _ => self.someone_restarts(),
        }
    }

    fn someone_acts(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.random.below(self.clients.len());
        let mut client = self.clients.swap_remove(at);
        let stays = match &mut client {
            Client::Classic(client) => client.act(self),
            Client::Consumer(client) => client.act(self),
        };
        if stays {
            self.clients.push(client);
        }
    }

    /// A process is killed, and perhaps started again: as another member, or the same static one.
    fn someone_restarts(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.random.below(self.clients.len());
        let client = self.clients.swap_remove(at);
        self.names += 1;
        let comes_back = self.random.one_in(2);
        match client {
            Client::Classic(client) => {
                self.ledger.bury_classic(&client);
                if comes_back {
                    self.clients.push(Client::Classic(client.again(self.names)));
                }
            }
            Client::Consumer(client) => {
                self.ledger.bury_consumer(&client);
                if comes_back {
                    self.clients
                        .push(Client::Consumer(client.again(self.names)));
                }
            }
        }
    }

    fn create_topic(&mut self, name: &str) {
        self.topics_made += 1;
        let partitions = u32::try_from(self.random.within(1..7)).unwrap();
        self.host.create_topic(name, self.topics_made, partitions);
        self.looked = false;
    }

    fn change_topics(&mut self) {
        self.seen.topic_changes += 1;
        let names = ["t0", "t1", "t2"];
        let name = names[self.random.below(names.len())];
        let known = self
            .host
            .topics
            .iter()
            .find(|(known, _)| known.as_str() == name);
        match known.map(|(_, topic)| *topic) {
            None => self.create_topic(name),
            Some(_) if self.random.one_in(2) => {
                self.host.delete_topic(name);
                self.ledger.topic_deleted(name);
            }
            Some(topic) => self
                .host
                .create_topic(name, topic.id.0, topic.partitions + 1),
        }
        self.looked = false;
    }

    pub(crate) fn restart(&mut self, compact: bool) {
        self.seen.restarts += 1;
        self.host.restart(compact);
        self.looked = false;
        // Generations that were not logged may come again, with others in them.
        let logged = self.host.groups.describe_classic(&group());
        let logged = logged.map_or(0, |group| group.generation.0);
        self.given.retain(|generation, _| *generation <= logged);
    }

    fn ledger_acts(&mut self) {
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.act(self);
        self.ledger = ledger;
    }

    /// What must hold at every step.
    pub(crate) fn check(&mut self) {
        self.ledger.check(&self.host);
        if self
            .host
            .groups
            .describe_classic(&group())
            .is_none_or(|group| group.generation.0 == 0)
        {
            self.given.clear();
            self.lives += 1;
        }
        self.check_logged();
        self.check_owners();
        self.check_settled();
    }

    /// A stable classic group is in the log as its members know it: a restart changes nothing for them.
    fn check_logged(&self) {
        let Some(live) = self.host.groups.describe_classic(&group()) else {
            return;
        };
        if live.state != GroupState::Stable {
            return;
        }
        let logged = self.host.groups.records().find_map(|record| match record {
            Record::Classic { value, .. } => value,
            _ => None,
        });
        let logged = logged.expect("a stable group is in the log");
        assert_eq!(
            (logged.generation, logged.protocol.as_ref()),
            (live.generation, Some(&live.protocol))
        );
        let logged = logged
            .members
            .into_iter()
            .map(|member| (member.member_id, member.assignment));
        let live = live
            .members
            .into_iter()
            .map(|member| (member.member_id, member.assignment));
        assert!(
            live.eq(logged),
            "the log has other members: {:#?}",
            self.host.groups
        );
    }

    /// Nobody in a group of the newer kind may read what another one may.
    fn check_owners(&self) {
        let Some(description) = self.host.groups.describe_consumer(&group()) else {
            return;
        };
        let mut held: BTreeMap<(TopicId, PartitionId), String> = BTreeMap::new();
        let mut read: BTreeMap<(TopicId, PartitionId), String> = BTreeMap::new();
        for member in &description.members {
            let current = &member.current;
            for partition in current
                .assigned
                .iter()
                .chain(current.pending_revocation.iter())
            {
                let other = held.insert(partition, member.member_id.to_string());
                assert_eq!(
                    other, None,
                    "{partition:?} has two owners: {description:#?}"
                );
            }
            for client in &self.clients {
                let Client::Consumer(client) = client else {
                    continue;
                };
                if client.lies || client.id != member.member_id || current.member_epoch.is_none() {
                    continue;
                }
                for partition in client.owned.iter() {
                    let other = read.insert(partition, client.id.to_string());
                    assert_eq!(
                        other, None,
                        "{partition:?} is read by two: {description:#?}"
                    );
                }
            }
        }
    }

    /// A settled group of the newer kind reads everything, evenly.
    fn check_settled(&mut self) {
        let Some(description) = self.host.groups.describe_consumer(&group()) else {
            return;
        };
        if description.state != GroupState::Stable || !self.looked {
            return;
        }
        self.seen.stable += 1;
        let mut wanted = Partitions::new();
        let mut subscriptions = BTreeSet::new();
        for member in &description.members {
            let mut topics = BTreeSet::new();
            for (name, topic) in self.host.topics.iter() {
                let by_regex = match member.subscribed_topic_regex.as_deref() {
                    Some("t[01]") => name.as_str() == "t0" || name.as_str() == "t1",
                    Some("t.*") => true,
                    _ => false,
                };
                if by_regex || member.subscribed_topic_names.contains(name) {
                    topics.insert(topic.id);
                    wanted.extend((0..topic.partitions).map(|one| (topic.id, PartitionId(one))));
                }
            }
            subscriptions.insert(topics);
        }
        let owned = description
            .members
            .iter()
            .flat_map(|member| member.current.assigned.iter());
        let owned: Partitions = owned.collect();
        assert_eq!(
            owned, wanted,
            "somebody owns too little or too much: {description:#?}"
        );
        if subscriptions.len() == 1 {
            assert_even(&description);
        }
    }

    /// Nobody misbehaves any more; in the end all that there is to read is read.
    fn settle(&mut self) {
        self.calm = true;
        self.host.failures = 0;
        // One kind remains.
        let classic = matches!(self.clients.first(), Some(Client::Classic(_)));
        self.clients.retain_mut(|client| match client {
            Client::Classic(_) => classic,
            Client::Consumer(client) => {
                client.become_honest();
                !classic
            }
        });
        for _ in 0..200 {
            for at in 0..self.clients.len() {
                self.act_at(at);
                self.check();
            }
            self.host.pass(1_500);
            self.check();
            if self.is_settled() {
                break;
            }
        }
        assert!(
            self.is_settled(),
            "it does not come to rest: {:#?}",
            self.host.groups
        );
        if classic {
            super::classic::assert_all_read(self);
        }
    }

    /// Whether everybody is in, and nobody else.
    fn is_settled(&self) -> bool {
        let listed = self.host.groups.listed(&group());
        let all_in = self.clients.iter().all(|client| match client {
            Client::Classic(client) => client.is_in(&self.host),
            Client::Consumer(client) => client.is_settled(&self.host),
        });
        if self.clients.is_empty() {
            return listed.is_none_or(|group| group.state == GroupState::Empty);
        }
        listed.is_some_and(|group| {
            group.state == GroupState::Stable && group.members == self.clients.len() && all_in
        })
    }

    fn act_at(&mut self, at: usize) {
        let mut client = self.clients.remove(at);
        let stays = match &mut client {
            Client::Classic(client) => client.act(self),
            Client::Consumer(client) => client.act(self),
        };
        assert!(stays, "nobody leaves any more");
        self.clients.insert(at, client);
    }
}

fn assert_even(description: &sapwood_group::ConsumerDescription) {
    use sapwood_group::Assignor;
    let spread = |loads: Vec<usize>| {
        let least = loads.iter().min().copied().unwrap_or_default();
        loads.iter().max().copied().unwrap_or_default() - least
    };
    let targets = || description.members.iter().map(|member| &member.target);
    // What members prefer may have changed since; then both have to be wrong to be wrong.
    let in_all = spread(targets().map(Partitions::len).collect()) <= 1;
    let topics: BTreeSet<TopicId> = targets()
        .flat_map(|set| set.topics().map(|(id, _)| id))
        .collect();
    let in_each = topics.iter().all(|topic| {
        let of = |set: &Partitions| set.iter().filter(|(id, _)| id == topic).count();
        spread(targets().map(of).collect()) <= 1
    });
    let changed = description
        .members
        .iter()
        .any(|member| member.server_assignor.is_some());
    let even = match description.assignor {
        Assignor::Uniform if !changed => in_all,
        Assignor::Uniform | Assignor::Range => in_all || in_each,
    };
    assert!(even, "unevenly shared: {description:#?}");
}
