//! The task behind a group consumer: is the member, gives partitions up and takes them up, commits.
//!
//! All of it in one place and in order, so that what the member says it owns is what it owns: a
//! partition is given up once nothing more of it is handed out, what was handed out is done or its time
//! is over, and what is done is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use sapwood_model::{Code, PartitionId};
use sapwood_rpc::v1;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, Interval},
};

use super::{
    Command, Control, Placed,
    acks::Acks,
    commits::{Commits, Job, Outcome, Speaker, Waiter},
    event::Revocation,
    holding::{Closing, Giving, Owned, Place, Stage, due, some, until},
    link::{Event, Link},
};
use crate::{CommittedOffset, Error, PartitionOffset, Position, TopicPartition};

/// What of the rebalance timeout messages in flight may take; the rest is for committing.
const IN_FLIGHT_PART: f64 = 0.8;
/// How long the task of a consumer that was dropped tries to commit and leave.
const DROPPED_TIMEOUT: Duration = Duration::from_secs(10);

type Committed = Result<Vec<(TopicPartition, Option<CommittedOffset>)>, Error>;

pub(super) struct Task {
    pub(super) link: Link,
    pub(super) speaker: Speaker,
    pub(super) settings: Settings,
    /// What the application says; it ends when the consumer is dropped.
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// What the consumer learns: a few words for each step of a rebalance.
    pub(super) control: mpsc::UnboundedSender<Control>,
    /// Whether the application looks at events, so that they are worth waiting for.
    pub(super) wants_events: Arc<AtomicBool>,
    pub(super) settled: Arc<Notify>,
    owned: BTreeMap<TopicPartition, Owned>,
    /// What was assigned last, until it is what is owned; by the ids of the topics.
    target: Option<BTreeMap<TopicPartition, String>>,
    giving: Option<Giving>,
    placing: Option<BoxFuture<'static, Committed>>,
    commits: Commits,
    closing: Option<Closing>,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) from: Position,
    /// None: only when asked.
    pub(super) commit_interval: Option<Duration>,
    pub(super) rebalance_timeout: Duration,
    pub(super) request_timeout: Duration,
}

/// Something has happened.
enum Happened {
    Link(Event),
    Command(Option<Command>),
    Committed(Outcome),
    Placed(Committed),
    CommitIsDue,
    /// Something that `advance` looks at anyway.
    Other,
}

impl Task {
    pub(super) fn new(
        link: Link,
        speaker: Speaker,
        settings: Settings,
        commands: mpsc::UnboundedReceiver<Command>,
        control: mpsc::UnboundedSender<Control>,
        wants_events: Arc<AtomicBool>,
    ) -> Self {
        Self {
            link,
            speaker,
            settings,
            commands,
            control,
            wants_events,
            settled: Arc::default(),
            owned: BTreeMap::new(),
            target: None,
            giving: None,
            placing: None,
            commits: Commits::default(),
            closing: None,
        }
    }

    pub(super) async fn run(mut self, assignment: Option<v1::GroupAssignment>) {
        let mut tick = self.settings.commit_interval.map(|interval| {
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            tick
        });
        self.assigned(assignment);
        loop {
            self.advance();
            let happened = self.wait(&mut tick).await;
            if self.take_in(happened).is_break() {
                return;
            }
        }
    }

    async fn wait(&mut self, tick: &mut Option<Interval>) -> Happened {
        let deadline = self.giving.as_ref().map(|giving| match giving.stage {
            Stage::InFlight => giving.deadline,
            Stage::Committing => giving.commit_until,
        });
        let mut event = self
            .giving
            .as_mut()
            .and_then(|giving| giving.event.as_mut());
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        tokio::select! {
            event = self.link.event() => Happened::Link(event),
            command = self.commands.recv(), if closing.is_none() => Happened::Command(command),
            outcome = some(&mut self.commits.running) => Happened::Committed(outcome),
            placed = some(&mut self.placing) => Happened::Placed(placed),
            () = self.settled.notified() => Happened::Other,
            _ = some(&mut event) => {
                if let Some(giving) = &mut self.giving {
                    giving.event = None;
                }
                Happened::Other
            }
            () = until(deadline) => Happened::Other,
            () = until(closing) => Happened::Other,
            () = due(tick) => Happened::CommitIsDue,
        }
    }

    fn take_in(&mut self, happened: Happened) -> std::ops::ControlFlow<()> {
        match happened {
            Happened::Link(Event::Answer(assignment)) => self.assigned(assignment),
            Happened::Link(Event::Fenced(error)) => {
                self.lose(error);
                if self.closing.is_some() {
                    self.finish(None);
                    return std::ops::ControlFlow::Break(());
                }
            }
            Happened::Link(Event::Left) => {
                self.finish(None);
                return std::ops::ControlFlow::Break(());
            }
            Happened::Link(Event::Failed(error)) => {
                self.lose(error.clone());
                self.finish(Some(error.clone()));
                let _ = self.control.send(Control::Failed(error));
                return std::ops::ControlFlow::Break(());
            }
            Happened::Command(command) => self.on_command(command),
            Happened::Committed(outcome) => self.committed(outcome),
            Happened::Placed(placed) => self.placed(placed),
            Happened::CommitIsDue => {
                if self.commits.is_idle() && self.acked().next().is_some() {
                    self.commits.acked(None);
                }
            }
            Happened::Other => {}
        }
        let closing = self.closing.as_ref();
        if closing.is_some_and(|closing| Instant::now() >= closing.deadline) {
            let message = "the broker could not be told in time that the member leaves";
            self.finish(Some(Error::local(Code::TimedOut, message)));
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Commit(waiter)) => self.commits.acked(Some(waiter)),
            Some(Command::CommitOffsets(offsets, waiter)) => {
                let held = |offset: &PartitionOffset| self.is_held(&offset.partition);
                match offsets.iter().find(|offset| !held(offset)) {
                    Some(offset) => {
                        let partition = &offset.partition;
                        let message = format!("{partition} is not this member's (any more)");
                        let error = Error::local(Code::MemberFenced, message);
                        let error = error.about(&partition.topic, partition.partition.0);
                        let _ = waiter.send(Err(error));
                    }
                    None => self.commits.queue.push_back(Job::Offsets(offsets, waiter)),
                }
            }
            Some(Command::Close {
                for_good,
                timeout,
                reply,
            }) => self.close(v1::Leave { for_good }, timeout, Some(reply)),
            // It was dropped: what is done is committed, and nobody is waited for.
            None => self.close(v1::Leave::default(), Duration::ZERO, None),
        }
    }

    fn is_held(&self, partition: &TopicPartition) -> bool {
        let is_given = |giving: &Giving| giving.partitions.contains_key(partition);
        self.owned.contains_key(partition) || self.giving.as_ref().is_some_and(is_given)
    }

    /// What there is to commit.
    fn acked(&self) -> impl Iterator<Item = PartitionOffset> {
        let given = self.giving.iter().flat_map(|giving| &giving.partitions);
        let all = self.owned.iter().chain(given);
        all.filter_map(|(partition, owned)| {
            let offset = owned.acks.to_commit()?;
            let (topic, partition) = (Arc::clone(&partition.topic), partition.partition);
            Some(PartitionOffset::new(topic, partition, offset))
        })
    }

    /// Does what can be done now.
    fn advance(&mut self) {
        loop {
            self.reconcile();
            self.give();
            self.place();
            self.commit();
            // Nothing was left to commit: what waited for that goes on.
            let is_committed = |giving: &Giving| giving.stage == Stage::Committing;
            if !self.commits.is_idle() || !self.giving.as_ref().is_some_and(is_committed) {
                break;
            }
        }
        if let Some(closing) = &mut self.closing
            && !closing.leaving
            && self.giving.is_none()
            && self.commits.is_idle()
        {
            closing.leaving = true;
            self.link.leave(closing.leave);
        }
    }

    /// Takes in what the member may own.
    fn assigned(&mut self, assignment: Option<v1::GroupAssignment>) {
        let Some(assignment) = assignment else { return };
        let topics = assignment.topics.into_iter();
        let partitions = topics.flat_map(|named| {
            let topic: Arc<str> = named.topic.into();
            let id = named.topic_id;
            let partition = move |number: u32| {
                let partition = TopicPartition::new(Arc::clone(&topic), PartitionId(number));
                (partition, id.clone())
            };
            named.partitions.into_iter().map(partition)
        });
        self.target = Some(partitions.collect());
    }

    /// Goes from what is owned towards what was assigned: first gives up, then takes up.
    fn reconcile(&mut self) {
        if self.giving.is_some() || self.closing.is_some() {
            return;
        }
        let Some(target) = self.target.take() else {
            return;
        };
        let goes = |partition: &TopicPartition, owned: &Owned| {
            target.get(partition).is_none_or(|id| *id != owned.topic_id)
        };
        let owned = std::mem::take(&mut self.owned).into_iter();
        let (given, kept) = owned.partition(|(partition, owned)| goes(partition, owned));
        self.owned = kept;
        let given: BTreeMap<_, _> = given;
        if !given.is_empty() {
            self.target = Some(target);
            let timeout = self.settings.rebalance_timeout;
            self.begin_giving(given, timeout.mul_f64(IN_FLIGHT_PART), timeout);
            return;
        }
        for (partition, topic_id) in target {
            self.owned.entry(partition).or_insert_with(|| Owned {
                acks: Acks::new(Arc::clone(&self.settled)),
                topic_id,
                place: Place::Unknown,
            });
        }
        self.say_owned();
    }

    fn say_owned(&mut self) {
        let given = self
            .giving
            .iter()
            .flat_map(|giving| giving.partitions.keys());
        let owned: BTreeSet<_> = self.owned.keys().chain(given).cloned().collect();
        self.link.own(owned.into_iter().collect());
    }

    fn begin_giving(
        &mut self,
        partitions: BTreeMap<TopicPartition, Owned>,
        in_flight: Duration,
        all: Duration,
    ) {
        let now = Instant::now();
        for owned in partitions.values() {
            owned.acks.close();
        }
        let known = partitions
            .iter()
            .filter(|(_, owned)| owned.place == Place::Known);
        let known: Vec<_> = known.map(|(partition, _)| partition.clone()).collect();
        let deadline = now + in_flight;
        let mut event = None;
        if !known.is_empty() {
            let (dropped, receiver) = oneshot::channel();
            event = Some(receiver).filter(|_| self.wants_events.load(Ordering::Relaxed));
            let _ = self.control.send(Control::Revoke(Revocation {
                partitions: known,
                deadline,
                _dropped: dropped,
            }));
        }
        self.giving = Some(Giving {
            partitions,
            deadline,
            commit_until: now + all,
            event,
            stage: Stage::InFlight,
        });
    }

    /// Leads what is on its way out to its end.
    fn give(&mut self) {
        let Some(giving) = &mut self.giving else {
            return;
        };
        if giving.stage == Stage::InFlight {
            let mut acks = giving.partitions.values().map(|owned| &owned.acks);
            let is_settled = giving.event.is_none() && acks.all(|acks| acks.is_settled());
            if !is_settled && Instant::now() < giving.deadline {
                return;
            }
            giving.stage = Stage::Committing;
            giving.event = None;
            if self.settings.commit_interval.is_some() {
                self.commits.acked(None);
            }
        }
        if !self.commits.is_idle() {
            if Instant::now() < giving.commit_until {
                return;
            }
            let message = "offsets could not be committed before partitions had to be given up";
            let error = Error::local(Code::TimedOut, message);
            tracing::warn!(group = %self.speaker.group, %error, "gave partitions up uncommitted");
            self.commits.give_up(&error);
        }
        for owned in giving.partitions.values() {
            owned.acks.end();
        }
        self.giving = None;
        if self.closing.is_none() {
            // What comes with it is taken up at once, and said together.
            match self.target {
                Some(_) => self.reconcile(),
                None => self.say_owned(),
            }
        }
    }

    /// Asks where to begin with what is new.
    fn place(&mut self) {
        if self.placing.is_some() {
            return;
        }
        let mut asked = Vec::new();
        for (partition, owned) in &mut self.owned {
            if owned.place == Place::Unknown {
                owned.place = Place::Asked;
                asked.push(partition.clone());
            }
        }
        if !asked.is_empty() {
            self.placing = Some(Box::pin(self.speaker.clone().committed(asked)));
        }
    }

    fn placed(&mut self, placed: Committed) {
        self.placing = None;
        let found = match placed {
            Ok(found) => found,
            Err(error) => {
                // The member is out, and about to learn it; or this will never do.
                tracing::debug!(%error, "the group does not say where to begin");
                let is_fenced = matches!(error.code(), Code::UnknownMember | Code::MemberFenced);
                if !is_fenced {
                    let _ = self.control.send(Control::Problem(error));
                }
                return;
            }
        };
        let mut places = Vec::new();
        for (partition, committed) in found {
            let Some(owned) = self.owned.get_mut(&partition) else {
                continue;
            };
            // It may have been given up and be back, and then be asked for again.
            if owned.place != Place::Asked {
                continue;
            }
            owned.place = Place::Known;
            let from = committed.map(|committed| {
                owned.acks.committed(committed.offset);
                Position::Offset(committed.offset)
            });
            places.push(Placed {
                partition,
                acks: Arc::clone(&owned.acks),
                from: from.unwrap_or(self.settings.from),
            });
        }
        if !places.is_empty() {
            let _ = self.control.send(Control::Assign(places));
        }
    }

    /// Starts the next commit.
    fn commit(&mut self) {
        while self.commits.running.is_none()
            && let Some(job) = self.commits.queue.pop_front()
        {
            let (offsets, waiters) = match job {
                Job::Acked(waiters) => (self.acked().collect(), waiters),
                Job::Offsets(offsets, waiter) => (offsets, vec![waiter]),
            };
            if offsets.is_empty() {
                for waiter in waiters {
                    let _ = waiter.send(Ok(()));
                }
                continue;
            }
            let until = match &self.giving {
                Some(giving) => giving.commit_until,
                None => Instant::now() + self.settings.request_timeout,
            };
            let commit = self.speaker.clone().commit(offsets, until);
            self.commits.run(Box::pin(commit), waiters);
        }
    }

    fn committed(&mut self, outcome: Outcome) {
        self.commits.done(&outcome);
        match outcome {
            Ok(results) => {
                for (offset, result) in results {
                    let given = self.giving.as_ref();
                    let given = given.and_then(|giving| giving.partitions.get(&offset.partition));
                    let owned = self.owned.get(&offset.partition).or(given);
                    match (result, owned) {
                        (Ok(()), Some(owned)) => owned.acks.committed(offset.offset),
                        (Ok(()), None) => {}
                        (Err(error), _) => self.complain(error),
                    }
                }
            }
            Err(error) => self.complain(error),
        }
    }

    /// A commit failed: its waiters know. Without any, the next one tries again.
    fn complain(&mut self, error: Error) {
        tracing::warn!(group = %self.speaker.group, %error, "offsets could not be committed");
        if let Some(closing) = &mut self.closing {
            closing.failure.get_or_insert(error);
        }
    }

    /// The group has gone on without this member: nothing is owned any more.
    fn lose(&mut self, error: Error) {
        self.commits.give_up(&error);
        self.placing = None;
        self.target = None;
        let given = self.giving.take().map(|giving| giving.partitions);
        let mut lost = std::mem::take(&mut self.owned);
        lost.extend(given.unwrap_or_default());
        for owned in lost.values() {
            owned.acks.end();
        }
        if let Some(closing) = &mut self.closing {
            closing.failure.get_or_insert(error);
            return;
        }
        let known = lost
            .into_iter()
            .filter(|(_, owned)| owned.place == Place::Known);
        let partitions: Vec<_> = known.map(|(partition, _)| partition).collect();
        if !partitions.is_empty() {
            let _ = self.control.send(Control::Lost { partitions, error });
        }
    }

    /// Gives everything up, and leaves then.
    fn close(&mut self, leave: v1::Leave, timeout: Duration, reply: Option<Waiter>) {
        self.target = None;
        self.placing = None;
        let mut partitions = std::mem::take(&mut self.owned);
        if let Some(giving) = self.giving.take() {
            partitions.extend(giving.partitions);
        }
        let commit_time = match reply {
            Some(_) => self.settings.request_timeout,
            None => DROPPED_TIMEOUT,
        };
        self.closing = Some(Closing {
            leave,
            reply,
            failure: None,
            leaving: false,
            deadline: Instant::now() + timeout + 2 * commit_time,
        });
        self.begin_giving(partitions, timeout, timeout + commit_time);
        if let Some(giving) = &mut self.giving {
            // Whoever closes does not look at events any more.
            giving.event = None;
        }
    }

    /// Says how it ended.
    fn finish(&mut self, error: Option<Error>) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if let Some(reply) = closing.reply.take() {
            let failure = closing.failure.take().or(error);
            let _ = reply.send(failure.map_or(Ok(()), Err));
        }
    }
}
