//! Saying and asking how far the group has read, one request at a time, until it is answered or there
//! is no point any more.

use std::{collections::VecDeque, sync::Arc};

use futures_util::future::BoxFuture;
use sapwood_model::Code;
use sapwood_rpc::v1;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    Admin, CommittedOffset, Error, PartitionOffset, TopicPartition,
    connection::{Backoff, seed},
};

/// Partitions in one request: the broker's limit.
const AT_ONCE: usize = 10_000;

/// What became of each offset.
pub(super) type Outcome = Result<Vec<(PartitionOffset, Result<(), Error>)>, Error>;

/// Who waits for a commit.
pub(super) type Waiter = oneshot::Sender<Result<(), Error>>;

/// Speaks for the member.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) admin: Admin,
    pub(super) group: Arc<str>,
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) epoch: watch::Receiver<u32>,
}

/// A commit that was asked for.
pub(super) enum Job {
    /// All that is acknowledged.
    Acked(Vec<Waiter>),
    /// These offsets.
    Offsets(Vec<PartitionOffset>, Waiter),
}

/// The commits of a member: one runs, the others wait. The queue is as long as there are callers.
#[derive(Default)]
pub(super) struct Commits {
    pub(super) running: Option<BoxFuture<'static, Outcome>>,
    waiters: Vec<Waiter>,
    pub(super) queue: VecDeque<Job>,
}

impl Commits {
    /// Commits all that is acknowledged when its turn comes.
    pub(super) fn acked(&mut self, waiter: Option<Waiter>) {
        match self.queue.back_mut() {
            Some(Job::Acked(waiters)) => waiters.extend(waiter),
            _ => self.queue.push_back(Job::Acked(Vec::from_iter(waiter))),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    pub(super) fn run(&mut self, commit: BoxFuture<'static, Outcome>, waiters: Vec<Waiter>) {
        self.running = Some(commit);
        self.waiters = waiters;
    }

    /// The running one is done.
    pub(super) fn done(&mut self, outcome: &Outcome) {
        self.running = None;
        let result = match outcome {
            Ok(results) => results
                .iter()
                .find_map(|(_, result)| result.clone().err())
                .map_or(Ok(()), Err),
            Err(error) => Err(error.clone()),
        };
        for waiter in self.waiters.drain(..) {
            // Who does not wait any more need not know.
            let _ = waiter.send(result.clone());
        }
    }

    /// Nothing can be committed any more of what was asked for so far.
    pub(super) fn give_up(&mut self, error: &Error) {
        let failed: Outcome = Err(error.clone());
        self.done(&failed);
        for job in self.queue.drain(..) {
            let waiters = match job {
                Job::Acked(waiters) => waiters,
                Job::Offsets(_, waiter) => vec![waiter],
            };
            for waiter in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }
}

impl Speaker {
    fn member(&self) -> v1::GroupMember {
        v1::GroupMember {
            member_id: self.member_id.clone(),
            member_epoch: *self.epoch.borrow(),
            instance_id: self.instance_id.clone(),
        }
    }

    /// Commits. Tries until `deadline` if the broker cannot be reached, or the member is about to learn
    /// its epoch.
    pub(super) async fn commit(mut self, offsets: Vec<PartitionOffset>, until: Instant) -> Outcome {
        let mut outcome = Vec::with_capacity(offsets.len());
        let mut backoff = Backoff::new(seed());
        for part in offsets.chunks(AT_ONCE) {
            let results = loop {
                let member = Some(self.member());
                match self.admin.commit_as(&self.group, member, part).await {
                    Ok(results) => break results,
                    Err(error) => self.again(error, &mut backoff, Some(until)).await?,
                }
            };
            outcome.extend(part.iter().cloned().zip(results));
        }
        Ok(outcome)
    }

    /// Asks how far the group has read partitions, until it is answered.
    pub(super) async fn committed(
        mut self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, Error> {
        let mut backoff = Backoff::new(seed());
        let mut committed = Vec::with_capacity(partitions.len());
        for part in partitions.chunks(AT_ONCE) {
            let found = loop {
                let member = Some(self.member());
                match self.admin.committed_as(&self.group, member, part).await {
                    Ok(found) => break found,
                    Err(error) => self.again(error, &mut backoff, None).await?,
                }
            };
            committed.extend(found);
        }
        Ok(committed)
    }

    /// Waits until another try is worth it.
    ///
    /// # Errors
    /// When it is not.
    async fn again(
        &mut self,
        error: Error,
        backoff: &mut Backoff,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        let at = Instant::now() + backoff.next();
        if !error.is_retriable() || until.is_some_and(|until| at > until) {
            return Err(error);
        }
        if error.code() == Code::StaleMemberEpoch {
            tokio::select! {
                _ = self.epoch.changed() => {}
                () = sleep_until(at) => {}
            }
        } else {
            tracing::debug!(group = %self.group, %error, "asking the group again");
            sleep_until(at).await;
        }
        Ok(())
    }
}
