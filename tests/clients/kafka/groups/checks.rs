//! What each client has to do as a member of groups, with each protocol of groups that it knows.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    members::{Members, PATIENCE, Said},
    shared::{self, Account, Feed},
};
use crate::{
    clients::kafka::program::{Outcome, Program},
    harness::Settings,
};

/// The protocols of groups by their names in the table, and as programs are told.
const PROTOCOLS: [(&str, &str); 3] = [
    ("eager", "eager"),
    ("cooperative", "cooperative"),
    ("kip848", "consumer"),
];
/// The claims, in the order of the table. The first three come from one run.
const CLAIMS: [&str; 5] = ["share", "takeover", "offsets", "static", "regex"];

const PARTITIONS: u32 = 6;
/// What members ask for, and what the broker has for those that do not ask.
const SESSION: Duration = Duration::from_millis(6_000);
/// How much later a busy machine may be.
const SLACK: Duration = Duration::from_secs(20);
/// Enough that each partition gets some.
const BATCH: u64 = 600;
/// No rebalance of a small group has pauses like this one.
const QUIET: Duration = Duration::from_millis(1_500);

/// How a claim turned out: `Err` says why the client cannot do such a thing.
type Turned = Result<(), String>;

/// Runs all checks of groups with a client that is installed, against a broker of its own.
///
/// # Panics
/// When one fails.
pub(in crate::clients::kafka) fn run(program: Program) -> Vec<Outcome> {
    let settings = settings();
    // What has to be compiled is compiled once, before the first is started.
    let _ = program.member(settings.scratch());
    let broker = settings.start();
    // Much of it is waiting for sessions to end.
    let turned = thread::scope(|scope| {
        let start = |(name, protocol)| {
            let scene = Scene {
                settings: &settings,
                program,
                name,
                protocol,
            };
            scope.spawn(move || scene.claims())
        };
        let running = PROTOCOLS.map(start);
        running.map(|protocol| {
            protocol
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    });
    broker.stop();
    settings.verify();
    let outcome = |claim: usize, protocol: usize| {
        let check = format!("group-{}-{}", CLAIMS[claim], PROTOCOLS[protocol].0);
        match &turned[protocol][claim] {
            Ok(()) => Outcome::done(check),
            Err(reason) => Outcome::impossible(check, reason.clone()),
        }
    };
    let claims = 0..CLAIMS.len();
    let outcomes = claims.flat_map(|claim| (0..PROTOCOLS.len()).map(move |at| (claim, at)));
    outcomes.map(|(claim, at)| outcome(claim, at)).collect()
}

/// Members of the newer kind of group do not say how long their sessions are: the broker has the same
/// for them that the others ask for.
pub(super) fn settings() -> Settings {
    Settings::new(&[
        "groups.consumer_session_timeout_ms=6000",
        "groups.consumer_heartbeat_interval_ms=500",
    ])
}

/// One client with one protocol.
#[derive(Clone, Copy)]
struct Scene<'a> {
    settings: &'a Settings,
    program: Program,
    /// The protocol's name in the table.
    name: &'static str,
    protocol: &'static str,
}

impl Scene<'_> {
    fn claims(self) -> [Turned; 5] {
        let shared = self.share_and_take_over();
        [
            shared.clone(),
            shared.clone(),
            shared.clone(),
            self.restart_a_static_member(),
            self.see_a_new_topic(),
        ]
    }

    /// Two members share evenly; one is killed, the other takes over; nothing is lost, and what was
    /// committed is right.
    fn share_and_take_over(self) -> Turned {
        let topic = format!("shared-{}", self.name);
        shared::create(self.settings, &topic, PARTITIONS);
        let feed = Feed::start(self.settings, &topic);
        let mut members = self.members("share");
        for _ in 0..2 {
            members.start(self.member(&topic, &topic, &[]));
        }
        if let Some(reason) = members.not_available(0) {
            return Err(reason);
        }
        members.wait("an even share", PATIENCE, |all| {
            have_halves(all) && all.iter().all(|said| said.reads_all_it_holds(0))
        });

        members.kill(0);
        let died = Instant::now();
        let before = shared::committed(self.settings, &topic);
        let (orphans, had) = members.ask(|all| (all[0].held.clone(), all[1].runs.len()));
        let everything = usize::try_from(PARTITIONS).expect("a small number");
        let limit = SESSION + SLACK;
        members.wait("the other to take over", limit, |all| {
            all[1].held.len() == everything && all[1].reads_all_it_holds(had)
        });
        eprintln!(
            "{}: taken over after {:?}",
            self.about("share"),
            died.elapsed()
        );
        members.ask(|all| {
            for place in &orphans {
                let from = all[1].first_of(place, had).expect("it has read it");
                // A last commit may have come in after the broker was asked.
                let known = before.get(place).copied().unwrap_or_default();
                let done = known..=all[0].end_of(place);
                assert!(
                    done.contains(&from),
                    "{place:?} goes on at {from}, not within {done:?}"
                );
                let said = all[0].committed.get(place).copied().unwrap_or_default();
                assert!(
                    known >= said,
                    "{place:?}: {said} was committed, and {known} is known"
                );
            }
        });
        feed.stop();
        self.finish(&mut members, &[1], &topic, &topic);
        Ok(())
    }

    /// A static member goes and comes back within its session, and nobody else notices.
    ///
    /// It is not the leader: franz-go, when it comes back as one, thinks the assignment over and asks for
    /// a rebalance if it would share otherwise now, with Apache Kafka too.
    fn restart_a_static_member(self) -> Turned {
        for attempt in 0..3 {
            let topic = format!("static-{}-{attempt}", self.name);
            shared::create(self.settings, &topic, PARTITIONS);
            shared::write(self.settings, &topic, BATCH);
            let mut members = self.members(&format!("static-{attempt}"));
            let member = |instance| self.member(&topic, &topic, &["--instance", instance]);
            members.start(member("leader"));
            if let Some(reason) = members.not_available(0) {
                return Err(reason);
            }
            let ends = shared::ends(self.settings, &topic);
            members.wait("all of it", PATIENCE, |all| Account::of(all).covers(&ends));
            members.start(member("other"));
            members.wait("an even share", PATIENCE, have_halves);
            members.wait_for_quiet(QUIET);
            let (held, told) = members.ask(|all| (all[1].held.clone(), all[0].assignments));
            let left = Instant::now();
            members.close(&[1]);
            members.start(member("other"));
            members.wait("partitions", PATIENCE, |all| !all[2].held.is_empty());
            let away = left.elapsed();
            let kept = shared::committed(self.settings, &topic);
            shared::write(self.settings, &topic, BATCH);
            members.wait("records", PATIENCE, |all| all[2].reads_all_it_holds(0));
            let (again, others_told) = members.ask(|all| (all[2].held.clone(), all[0].assignments));
            for place in &again {
                let first = members.ask(|all| all[2].first_of(place, 0));
                assert_eq!(first.as_ref(), kept.get(place), "{place:?}");
            }
            self.finish(&mut members, &[0, 2], &topic, &topic);
            if away < SESSION {
                assert_eq!(again, held, "{}: other partitions", self.about("static"));
                assert_eq!(told, others_told, "{}: a rebalance", self.about("static"));
                return Ok(());
            }
            eprintln!("{}: away for {away:?}, once more", self.about("static"));
        }
        panic!(
            "{}: this machine is too slow to restart it in time",
            self.about("static")
        );
    }

    /// A pattern finds a topic that is made later.
    fn see_a_new_topic(self) -> Turned {
        let group = format!("regex-{}", self.name);
        let (first, later) = (format!("{group}-first"), format!("{group}-later"));
        shared::create(self.settings, &first, 1);
        shared::write(self.settings, &first, 100);
        let mut members = self.members("regex");
        members.start(self.member(&group, &format!("^{group}-.*"), &["--regex"]));
        if let Some(reason) = members.not_available(0) {
            return Err(reason);
        }
        members.wait("the topic that is there", PATIENCE, |all| {
            all[0].reads_all_it_holds(0) && !all[0].held.is_empty()
        });
        shared::create(self.settings, &later, 2);
        shared::write(self.settings, &later, 200);
        members.wait("the topic that is made later", SLACK, |all| {
            all[0].held.len() == 3
        });
        let mut ends = shared::ends(self.settings, &first);
        ends.extend(shared::ends(self.settings, &later));
        members.wait("all of both topics", PATIENCE, |all| {
            Account::of(all).covers(&ends)
        });
        members.close(&[0]);
        assert_eq!(
            shared::committed(self.settings, &group),
            ends,
            "{}",
            self.about("regex")
        );
        Ok(())
    }

    /// Waits until everything is read, has these members leave, and holds what is committed against
    /// the ends of the log.
    fn finish(self, members: &mut Members, running: &[usize], group: &str, topic: &str) {
        let ends = shared::ends(self.settings, topic);
        members.wait("everything", PATIENCE, |all| Account::of(all).covers(&ends));
        members.close(running);
        let committed = shared::committed(self.settings, group);
        assert_eq!(
            committed,
            ends,
            "{}: committed, and the ends",
            self.about(topic)
        );
        members.ask(|all| {
            let account = Account::of(all);
            account.check_bounds(&ends);
            let twice = account.deliveries() - ends.values().sum::<u64>();
            eprintln!("{}: {twice} records were read twice", self.about(topic));
            for (place, offset) in all.iter().flat_map(|said| &said.committed) {
                assert!(
                    committed.get(place) >= Some(offset),
                    "{place:?}: {offset} was committed"
                );
            }
        });
    }

    fn about(self, what: &str) -> String {
        format!("{:?}, {}, {what}", self.program, self.name)
    }

    fn members(self, what: &str) -> Members {
        let scratch: PathBuf = self
            .settings
            .scratch()
            .join(format!("{what}-{}", self.name));
        fs::create_dir(&scratch).expect("a folder for what members print");
        Members::new(&self.about(what), scratch)
    }

    fn member(self, group: &str, topic: &str, options: &[&str]) -> Command {
        let folder = self.settings.scratch();
        let mut command = self.program.member(folder).expect("it is installed");
        command.arg(self.settings.address());
        command.args([group, topic, self.protocol]).args(options);
        command
    }
}

/// Whether these have half of the partitions each.
fn have_halves(pair: &[Said]) -> bool {
    let half = usize::try_from(PARTITIONS / 2).expect("a small number");
    let [a, b] = pair else { return false };
    a.held.is_disjoint(&b.held) && a.held.len() == half && b.held.len() == half
}
