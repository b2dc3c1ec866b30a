//! The task of one partition: load, then decide, append, apply, and release what is durable.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use sapwood_log::{AppendError, AppendOptions, Appended};
use sapwood_model::{Offset, Timestamp};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{
    CallId, CoordinatorError, Decision, Encoded, Event, Machine, Moment,
    host::{Caller, Input, Phase, Place, Release, Shared},
    load::{LoadError, Replay},
    timers::Timers,
};
use crate::{
    drain::{Accepted, Status},
    waiters::Outcome,
};

/// How many appends may wait for their sync; nothing new is taken before there are fewer.
const PENDING_MAX: usize = 4096;
/// When something that nobody waits for is tried again after its append failed, in milliseconds.
const RETRY_MS: i64 = 1_000;
/// How many timers run one after the other before requests have their turn.
const TIMERS_AT_ONCE: usize = 64;

/// Why a task ends.
enum End {
    /// The broker closes, or is dropped.
    Closed,
    /// The partition cannot be used any more.
    Failed(Arc<str>),
}

/// An append that is not durable yet, and who waits for it.
struct Pending {
    outcome: oneshot::Receiver<Outcome>,
    releases: Vec<Release>,
}

/// The state of a host's task.
pub(super) struct Task<M: Machine> {
    place: Place,
    machine: M,
    shared: Arc<Shared>,
    inputs: mpsc::Receiver<Input<M>>,
    /// Where the next batch goes. Nobody else writes to the partition.
    end: Offset,
    next_call: u64,
    callers: HashMap<CallId, Caller<M>>,
    /// In the order of the log.
    pending: VecDeque<Pending>,
    timers: Timers<M::TimerKey>,
    /// Notices whose append failed, with the time to try again.
    postponed: VecDeque<(Timestamp, M::Notice)>,
    is_draining: bool,
}

impl<M: Machine> Task<M> {
    /// Loads the partition and serves it until the broker closes or the partition fails.
    pub(super) async fn run(
        place: Place,
        machine: M,
        shared: Arc<Shared>,
        mut inputs: mpsc::Receiver<Input<M>>,
    ) {
        let loaded = load(&place, machine, &shared).await;
        let (machine, end) = match loaded {
            Ok(loaded) => loaded,
            Err(LoadError::Stopped) => {
                shared.phase.send_replace(Phase::Closed);
                return;
            }
            Err(e) => {
                error!(
                    topic = %place.home.topic.name, partition = %place.number(), error = %e,
                    "could not load a partition's state"
                );
                let reason = e.to_string().into();
                shared.phase.send_replace(Phase::Failed(reason));
                inputs.close();
                return;
            }
        };
        let mut task = Self {
            place,
            machine,
            shared,
            inputs,
            end,
            next_call: 0,
            callers: HashMap::new(),
            pending: VecDeque::new(),
            timers: Timers::new(),
            postponed: VecDeque::new(),
            is_draining: false,
        };
        let end = match task.begin().await {
            Ok(()) => task.serve().await,
            Err(end) => end,
        };
        task.finish(end);
    }

    /// Tells the machine that it is loaded, and what it missed.
    async fn begin(&mut self) -> Result<(), End> {
        let (_, decision) = self.decide(Event::Loaded);
        assert!(decision.records.is_empty(), "loading writes nothing");
        self.apply(decision);
        let now = self.place.clock.now();
        let missed = self.machine.missed();
        self.postponed
            .extend(missed.into_iter().map(|notice| (now, notice)));
        self.run_due().await?;
        self.shared.phase.send_replace(Phase::Active);
        Ok(())
    }

    async fn serve(&mut self) -> End {
        let mut status = self.place.home.gate.watch();
        let mut alive = self.place.home.alive.clone();
        loop {
            match *status.borrow_and_update() {
                Status::Ready => {}
                Status::Draining => self.drain(),
                Status::Closed => return End::Closed,
            }
            if let Err(end) = self.run_due().await {
                return end;
            }
            let has_room = self.pending.len() < PENDING_MAX;
            let pause = self.pause();
            let turn = tokio::select! {
                biased;
                outcome = front(&mut self.pending) => self.settle(outcome),
                input = self.inputs.recv(), if has_room => match input {
                    Some(input) => self.take(input).await,
                    None => return End::Closed,
                },
                () = sleep(pause), if has_room && !self.is_draining => Ok(()),
                // The loop looks at it.
                _ = status.changed() => Ok(()),
                _ = alive.changed() => return End::Closed,
            };
            if let Err(end) = turn {
                return end;
            }
        }
    }

    /// The broker takes nothing new: who waits for others is sent away, what was appended goes on.
    fn drain(&mut self) {
        self.is_draining = true;
        for (_, caller) in self.callers.drain() {
            // Whoever asked may have gone.
            let _ = caller.send(Err(CoordinatorError::Draining));
        }
    }

    async fn take(&mut self, input: Input<M>) -> Result<(), End> {
        if let Some(reason) = self.place.offline() {
            self.refuse(input, &self.failed(&reason));
            return Err(End::Failed(reason));
        }
        match input {
            Input::Call {
                request,
                caller,
                accepted,
            } => {
                let call = CallId(self.next_call);
                self.next_call += 1;
                self.callers.insert(call, caller);
                let (at, decision) = self.decide(Event::Call(call, request));
                if let Err(e) = self.carry_out(at, decision, accepted).await
                    && let Some(caller) = self.callers.remove(&call)
                {
                    let _ = caller.send(Err(e));
                }
            }
            Input::Look(look, _accepted) => {
                let release = look(&self.machine);
                self.release(release);
            }
            Input::Notice(notice) => {
                let now = self.place.clock.now();
                self.postponed.push_back((now, notice));
            }
        }
        Ok(())
    }

    fn refuse(&self, input: Input<M>, error: &CoordinatorError) {
        match input {
            Input::Call { caller, .. } => drop(caller.send(Err(error.clone()))),
            Input::Look(look, _) => look(&self.machine)(Err(error.clone())),
            Input::Notice(_) => {}
        }
    }

    /// Runs the timers whose deadline is there, and the notices.
    async fn run_due(&mut self) -> Result<(), End> {
        if self.is_draining {
            return Ok(());
        }
        let now = self.place.clock.now();
        for _ in 0..TIMERS_AT_ONCE {
            if self.pending.len() >= PENDING_MAX {
                break;
            }
            let notice = match self.postponed.front() {
                Some((at, _)) if *at <= now => self.postponed.pop_front(),
                _ => None,
            };
            let timer = match &notice {
                Some(_) => None,
                None => self.timers.take_due(now),
            };
            let event = match (&notice, &timer) {
                (Some((_, notice)), _) => Event::Notice(notice.clone()),
                (None, Some(key)) => Event::Timer(key.clone()),
                (None, None) => break,
            };
            let Some(accepted) = self.place.home.gate.accept() else {
                // Draining: the next start sees to it.
                break;
            };
            if let Some(reason) = self.place.offline() {
                return Err(End::Failed(reason));
            }
            let (at, decision) = self.decide(event);
            let Err(e) = self.carry_out(at, decision, accepted).await else {
                continue;
            };
            warn!(
                topic = %self.place.home.topic.name, partition = %self.place.number(), error = %e,
                "could not write a change; it is tried again"
            );
            let again = Timestamp(now.0.saturating_add(RETRY_MS));
            self.postponed
                .extend(notice.map(|(_, notice)| (again, notice)));
            if let Some(key) = timer {
                self.timers.set(key, again);
            }
        }
        Ok(())
    }

    /// How long nothing is due; none when nothing will be.
    fn pause(&self) -> Option<Duration> {
        let postponed = self.postponed.front().map(|(at, _)| *at);
        let next = self.timers.next().into_iter().chain(postponed).min()?;
        let pause = next.0.saturating_sub(self.place.clock.now().0);
        Some(Duration::from_millis(u64::try_from(pause).unwrap_or(0)))
    }

    /// What is to be done, and when that was decided.
    fn decide(&mut self, event: Event<M>) -> (Timestamp, Decision<M>) {
        let moment = Moment {
            now: self.place.clock.now(),
            random: self.place.clock.random(),
        };
        (moment.now, self.machine.decide(moment, event))
    }

    /// Appends a decision's records, and then does the rest.
    ///
    /// # Errors
    /// Nothing of the decision was done.
    async fn carry_out(
        &mut self,
        at: Timestamp,
        decision: Decision<M>,
        accepted: Accepted,
    ) -> Result<(), CoordinatorError> {
        if !decision.records.is_empty() {
            let batch = self.batch(at, &decision.records)?;
            let bytes = batch.size_bytes() as u64;
            let records = decision.records.len() as u64;
            let appended = append(&self.place, self.end, batch).await?;
            self.end = appended.durable_at;
            let counters = &self.place.home.topic.counters;
            counters.batches_in.add(1);
            counters.bytes_in.add(bytes);
            counters.records_in.add(records);
            self.await_durability(appended, bytes, accepted);
        }
        self.apply(decision);
        if self.is_draining {
            self.drain();
        }
        Ok(())
    }

    /// One batch of records that were decided on at a time.
    fn batch(&self, at: Timestamp, records: &[M::Record]) -> Result<Batch, CoordinatorError> {
        let unwritable = |reason: String| CoordinatorError::Unwritable { reason };
        let limit = self.place.home.batch_bytes_max;
        let mut builder = BatchBuilder::new(Codec::None);
        for record in records {
            let Encoded { key, value } =
                M::encode(record).map_err(|e| unwritable(e.to_string()))?;
            let input = RecordInput {
                timestamp: at,
                key: Some(&key),
                value: value.as_deref(),
                headers: &[],
            };
            let bytes = builder.uncompressed_bytes_with(&input) as u64;
            if bytes > limit {
                return Err(CoordinatorError::TooLarge { bytes, limit });
            }
            builder.push(input).map_err(|e| unwritable(e.to_string()))?;
        }
        builder.build().map_err(|e| unwritable(e.to_string()))
    }

    fn await_durability(&mut self, appended: Appended, bytes: u64, accepted: Accepted) {
        let partition = &self.place.partition;
        let outcome =
            partition
                .waiters
                .appended(appended.durable_at, bytes, Some(accepted), || {
                    partition.log.bounds().high_watermark
                });
        self.pending.push_back(Pending {
            outcome: outcome.expect("who is accepted waits"),
            releases: Vec::new(),
        });
    }

    /// Everything of a decision but its records' append, which has succeeded.
    fn apply(&mut self, decision: Decision<M>) {
        for record in decision.records {
            self.machine.apply(record);
        }
        for effect in decision.effects {
            self.machine.apply_effect(effect);
        }
        self.machine.applied();
        for (key, deadline) in decision.timers {
            self.timers.set(key, deadline);
        }
        for (call, reply) in decision.replies {
            // Those who were sent away at the drain are not there any more.
            if let Some(caller) = self.callers.remove(&call) {
                self.release(Box::new(move |outcome| {
                    // Whoever asked may have gone.
                    let _ = caller.send(outcome.map(|()| reply));
                }));
            }
        }
    }

    /// Answers once everything that was appended so far is durable.
    fn release(&mut self, release: Release) {
        match self.pending.back_mut() {
            Some(last) => last.releases.push(release),
            None => release(Ok(())),
        }
    }

    /// The oldest append has come to its end; others may have as well.
    fn settle(&mut self, mut outcome: Outcome) -> Result<(), End> {
        loop {
            if outcome != Outcome::Durable {
                return Err(self.lost());
            }
            let Some(settled) = self.pending.pop_front() else {
                return Ok(());
            };
            for release in settled.releases {
                release(Ok(()));
            }
            let Some(next) = self.pending.front_mut() else {
                return Ok(());
            };
            outcome = match next.outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                Err(oneshot::error::TryRecvError::Closed) => Outcome::Failed,
            };
        }
    }

    /// Why an append did not become durable.
    fn lost(&self) -> End {
        if let Some(reason) = self.place.offline() {
            return End::Failed(reason);
        }
        let store = self.place.home.store.upgrade();
        match store.and_then(|store| store.read_only()) {
            Some(reason) => End::Failed(reason),
            None => End::Closed,
        }
    }

    /// Answers everybody who still waits.
    fn finish(mut self, end: End) {
        let (phase, error) = match end {
            End::Closed => (Phase::Closed, CoordinatorError::Draining),
            End::Failed(reason) => {
                error!(
                    topic = %self.place.home.topic.name, partition = %self.place.number(), %reason,
                    "a partition's state is not served any more"
                );
                let error = self.failed(&reason);
                (Phase::Failed(reason), error)
            }
        };
        self.shared.phase.send_replace(phase);
        self.inputs.close();
        while let Ok(input) = self.inputs.try_recv() {
            self.refuse(input, &error);
        }
        for release in self.pending.drain(..).flat_map(|pending| pending.releases) {
            release(Err(error.clone()));
        }
        for (_, caller) in self.callers.drain() {
            let _ = caller.send(Err(error.clone()));
        }
    }

    fn failed(&self, reason: &Arc<str>) -> CoordinatorError {
        CoordinatorError::Failed {
            topic: self.place.home.topic.name.clone(),
            partition: self.place.number(),
            reason: reason.clone(),
        }
    }
}

/// Appends a batch where the log ends; on a full disk, with the ballast's room.
async fn append(place: &Place, end: Offset, batch: Batch) -> Result<Appended, AppendError> {
    let options = AppendOptions {
        expected_end: Some(end),
        urgent: true,
    };
    let log = place.partition.log.clone();
    let now = place.home.environment.clock.now();
    let full = match log.append(&batch, options, now) {
        Err(full @ AppendError::NoSpace { .. }) => full,
        done => return done,
    };
    // What is written here makes room for more: offsets that move on, members that leave.
    let store = place.home.store.clone();
    let relieved = move || {
        let append = || match log.append_from_ballast(&batch, options, now) {
            Err(AppendError::NoSpace { .. }) => Err(io::ErrorKind::StorageFull.into()),
            done => Ok(done),
        };
        store.upgrade()?.with_ballast(append).ok()
    };
    let relieved = place.home.driver.run(relieved).await;
    relieved.flatten().unwrap_or(Err(full))
}

/// How the oldest append ended. Waits for ever when there is none.
async fn front(pending: &mut VecDeque<Pending>) -> Outcome {
    match pending.front_mut() {
        // Waiters tell everybody before they go; a lost sender means that they are gone.
        Some(oldest) => (&mut oldest.outcome).await.unwrap_or(Outcome::Failed),
        None => std::future::pending().await,
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Replays the partition on the blocking pool, when its turn comes. Gives the machine and the log end.
async fn load<M: Machine>(
    place: &Place,
    machine: M,
    shared: &Arc<Shared>,
) -> Result<(M, Offset), LoadError> {
    let mut alive = place.home.alive.clone();
    let mut status = place.home.gate.watch();
    let replay = Replay {
        topic: place.home.topic.name.clone(),
        partition: place.number(),
        log: place.partition.log.clone(),
        decompressed_bytes_max: place.home.decompressed_bytes_max,
        shared: shared.clone(),
    };
    let mut stopped = pin!(async {
        tokio::select! {
            biased;
            _ = alive.changed() => {}
            // An error is the broker's end.
            _ = status.wait_for(|status| *status != Status::Ready) => {}
        }
    });
    let end = tokio::select! {
        biased;
        end = durable_end(place) => end?,
        () = &mut stopped => return Err(LoadError::Stopped),
    };
    if end == Offset::ZERO {
        // Nothing that it would have to wait for its turn for.
        return Ok((machine, end));
    }
    let permit = tokio::select! {
        biased;
        permit = place.home.loads.clone().acquire_owned() => permit,
        () = &mut stopped => return Err(LoadError::Stopped),
    };
    let began = place.home.environment.clock.elapsed();
    let run = move || {
        let _permit = permit.expect("the semaphore is never closed");
        replay.run(machine, end)
    };
    let mut running = pin!(place.home.driver.run(run));
    let replayed = tokio::select! {
        biased;
        replayed = &mut running => replayed,
        () = &mut stopped => {
            // It looks at that between two reads. What it holds of the log has to be let go of before
            // this task ends: the close waits for that.
            shared.stop();
            running.await
        }
    };
    let machine = replayed.unwrap_or(Err(LoadError::Stopped))?;
    let took = place.home.environment.clock.elapsed().saturating_sub(began);
    info!(
        topic = %place.home.topic.name, partition = %place.number(), log_end_offset = %end, ?took,
        "loaded a partition's state"
    );
    Ok((machine, end))
}

/// The log end, once it is durable. Nobody appends meanwhile.
async fn durable_end(place: &Place) -> Result<Offset, LoadError> {
    let (log, waiters) = (&place.partition.log, &place.partition.waiters);
    let end = log.bounds().log_end;
    if log.bounds().high_watermark < end {
        let accepted = place.home.gate.accept().ok_or(LoadError::Stopped)?;
        let high_watermark = || log.bounds().high_watermark;
        let outcome = waiters.appended(end, 0, Some(accepted), high_watermark);
        let outcome = outcome.expect("who is accepted waits").await;
        if outcome != Ok(Outcome::Durable) {
            return Err(LoadError::Lost { offset: end });
        }
    }
    Ok(end)
}
