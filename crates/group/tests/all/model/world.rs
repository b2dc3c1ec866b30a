//! One life: a coordinator, its clients, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sapwood_group::{GroupState, Settings};

use super::{checks::Progress, classic::ClassicClient, consumer::ConsumerClient, offsets::Ledger};
use crate::{
    host::{Host, group, topic},
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
    pub(crate) crashes: u64,
    pub(crate) late_notices: u64,
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
        self.crashes += other.crashes;
        self.late_notices += other.late_notices;
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
            self.crashes,
            self.late_notices,
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
    /// What the leaders of a generation said: each time everybody's shares, in order.
    pub(crate) said: BTreeMap<u32, Vec<Vec<Bytes>>>,
    pub(crate) progress: Progress,
    /// The coordinator was restarted since the last check.
    pub(crate) restarted: bool,
    /// Topics whose deletion the coordinator has yet to be told of.
    untold: BTreeSet<&'static str>,
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
            said: BTreeMap::new(),
            progress: Progress::default(),
            restarted: false,
            untold: BTreeSet::new(),
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
        if self.random.one_in(50) {
            self.host.crashes = true;
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
            95..=96 => self.ledger_acts(),
            97 => self.tell_deleted(),
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
            Some(_) if self.random.one_in(3) => {
                self.host.delete_topic(name);
                self.ledger.topic_deleted(name);
            }
            Some(_) if self.random.one_in(2) => {
                self.seen.late_notices += 1;
                self.host.topics.remove(&topic(name));
                self.untold.insert(name);
                self.ledger.topic_deleted(name);
            }
            Some(topic) => self
                .host
                .create_topic(name, topic.id.0, topic.partitions + 1),
        }
        self.looked = false;
    }

    pub(crate) fn restart(&mut self, compact: bool) {
        self.host.restart(compact);
        self.was_restarted();
        self.tell_deleted();
    }

    /// The coordinator hears of deletions that it has not heard of: late, or when it starts.
    fn tell_deleted(&mut self) {
        for name in std::mem::take(&mut self.untold) {
            self.host.tell_deleted(name);
        }
    }

    fn was_restarted(&mut self) {
        self.seen.restarts += 1;
        self.restarted = true;
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
        if std::mem::take(&mut self.host.crashed) {
            self.seen.crashes += 1;
            self.was_restarted();
        }
        self.check_progress();
        self.check_shares();
        self.ledger.check(&self.host);
        if self
            .host
            .groups
            .describe_classic(&group())
            .is_none_or(|group| group.generation.0 == 0)
        {
            self.given.clear();
            self.said.clear();
            self.lives += 1;
        }
        self.check_logged();
        self.check_owners();
        self.check_settled();
    }

    /// Nobody misbehaves any more; in the end all that there is to read is read.
    fn settle(&mut self) {
        self.calm = true;
        self.host.failures = 0;
        self.host.crashes = false;
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
