//! Records: appending, retrying and reading them, and the steps of the background that make them durable.

use sapwood_log::io::Clock;
use sapwood_log::{AppendError, AppendOptions, JournalStep, PartitionState, TruncateError};
use sapwood_model::{Durability, Offset};
use sapwood_record::Batch;

use crate::lookups;
use crate::model::{End, Key, LogBatch, PartitionModel};
use crate::world::{Outcome, World, read_all};

/// What an append has to come to, if the disk plays along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fenced,
    OutOfSequence,
    /// The log does not end where the writer expects it.
    Conflict,
}

impl World {
    pub(crate) fn append(&mut self, key: Key, batch: &Batch, options: AppendOptions) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let now = self.machine.clock.now();
        let Some(model) = self.model.partitions.get_mut(&key) else {
            return Ok(());
        };
        let stamped = LogBatch::stamped(batch, model.end, partition.leader_epoch());
        model.in_flight = Some(stamped.clone());
        let appended = partition.append(batch, options, now);
        if let Ok(appended) = &appended
            && (appended.duplicate || appended.base_offset != stamped.base)
        {
            return Err(format!("{key:?}: {appended:?} for {stamped:?}"));
        }
        // The high watermark of an os topic has moved; before it is noted, the batch is.
        self.settle();
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        match appended {
            Ok(_) => {
                model.in_flight = None;
                model.push(stamped);
            }
            Err(AppendError::Offline { .. }) if self.faulty => {} // how far it came is not known
            Err(_) if self.faulty => {
                model.in_flight = None;
                self.refused += 1;
            }
            Err(error) => {
                let model = model.describe();
                return Err(format!(
                    "{key:?}: {stamped:?} is not appended: {error}; {model}"
                ));
            }
        }
        Ok(())
    }

    /// Appends what has to be refused.
    pub(crate) fn refused_append(
        &mut self,
        key: Key,
        batch: &Batch,
        options: AppendOptions,
        verdict: Verdict,
    ) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let appended = partition.append(batch, options, self.machine.clock.now());
        self.settle();
        match (verdict, appended) {
            (Verdict::Fenced, Err(AppendError::Fenced { .. }))
            | (Verdict::OutOfSequence, Err(AppendError::OutOfSequence { .. })) => Ok(()),
            (Verdict::Conflict, Err(AppendError::ExpectedEnd { actual, .. }))
                if actual == self.model.partitions[&key].end =>
            {
                Ok(())
            }
            (_, Err(AppendError::Offline { .. } | AppendError::ReadOnly { .. })) if self.faulty => {
                Ok(())
            }
            (_, other) => Err(format!(
                "{key:?}: {verdict:?} was due, and came to {other:?}"
            )),
        }
    }

    /// Takes the end of the log back that nobody was told of.
    pub(crate) fn truncate(&mut self, key: Key, to: Offset) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let truncated = partition.truncate_to(to);
        self.settle();
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        match truncated {
            Ok(()) if to < model.end => model.truncated(to),
            Ok(()) | Err(TruncateError::Recorded { .. }) => {}
            Err(TruncateError::Offline { .. }) if self.faulty => {}
            Err(error) => return Err(format!("{key:?}: not truncated to {to}: {error}")),
        }
        Ok(())
    }

    /// Forgets producers that were silent for long.
    pub(crate) fn expire(&mut self, key: Key) {
        let Some(partition) = self.partition(key) else {
            return;
        };
        partition.expire_producers(self.machine.clock.now());
        let left = partition.producers();
        if let Some(model) = self.model.partitions.get_mut(&key) {
            for id in (1..=crate::model::PRODUCERS).map(sapwood_model::ProducerId) {
                if !model.batches_of(id).is_empty() && !left.iter().any(|state| state.id == id) {
                    model.forget(id);
                }
            }
        }
    }

    /// Sends a batch again that is in the log.
    pub(crate) fn retry(&mut self, key: Key, batch: &Batch, base: Offset) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let now = self.machine.clock.now();
        let appended = partition.append(batch, AppendOptions::default(), now);
        self.settle();
        match appended {
            Ok(appended) if appended.duplicate && appended.base_offset == base => Ok(()),
            Err(AppendError::Offline { .. } | AppendError::ReadOnly { .. }) if self.faulty => {
                Ok(())
            }
            other => Err(format!(
                "{key:?}: a retry of the batch at {base} came to {other:?}"
            )),
        }
    }

    pub(crate) fn step_journal(&mut self) -> Outcome<JournalStep> {
        let step = self.store()?.step_journal();
        self.settle();
        if step == JournalStep::ReadOnly && !self.faulty {
            return Err(format!("read-only: {:?}", self.store()?.read_only()));
        }
        Ok(step)
    }

    /// Everything that waits becomes durable.
    pub(crate) fn flush(&mut self) -> Outcome {
        loop {
            match self.step_journal()? {
                JournalStep::Synced => {}
                JournalStep::Full => {
                    let before = self.store()?.metrics().journal_rounds.get();
                    self.step_maintenance()?;
                    let step = self.step_journal()?;
                    let after = self.store()?.metrics().journal_rounds.get();
                    if step == JournalStep::Full && before == after {
                        return if self.faulty {
                            Ok(())
                        } else {
                            Err("stays full".to_owned())
                        };
                    }
                }
                JournalStep::Idle => break,
                JournalStep::ReadOnly => return Ok(()),
            }
        }
        for (key, partition) in &self.partitions {
            let bounds = partition.bounds();
            let online = matches!(partition.state(), PartitionState::Online);
            if online && bounds.high_watermark != bounds.log_end {
                return Err(format!("{key:?}: the journal is idle and {bounds:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn step_maintenance(&mut self) -> Outcome {
        let done = self.store()?.step_maintenance();
        self.settle();
        match done {
            Err(error) if !self.faulty => Err(format!("maintenance: {error}")),
            _ => Ok(()),
        }
    }

    pub(crate) fn checkpoint(&mut self) -> Outcome {
        let done = self.store()?.checkpoint();
        self.settle();
        match done {
            Ok(()) => {
                for (key, partition) in &self.partitions {
                    let online = matches!(partition.state(), PartitionState::Online);
                    if let Some(model) = self.model.partitions.get_mut(key).filter(|_| online) {
                        model.power_floor = model.end;
                    }
                }
                Ok(())
            }
            Err(_) if self.faulty => Ok(()),
            Err(error) => Err(format!("checkpoint: {error}")),
        }
    }

    /// What can be read now is what was appended, and ends at the high watermark.
    pub(crate) fn check_live(&mut self, key: Key, bytes_max: usize) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let bounds = partition.bounds();
        let found = match read_all(&partition, bytes_max) {
            Ok(found) => found,
            Err(_) if self.faulty && self.partition(key).is_none() => return Ok(()),
            Err(error) => return Err(format!("{key:?}: {error}")),
        };
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        if bounds.log_end != model.end || bounds.log_start != model.spec.log_start {
            return Err(format!(
                "{key:?}: {bounds:?}, expected the end {}",
                model.end
            ));
        }
        let is_os = model.durability() == Durability::Os && !self.half_switched.contains(&key);
        if is_os && bounds.high_watermark != bounds.log_end {
            return Err(format!("{key:?}: os topic with {bounds:?}"));
        }
        let visible = bounds.high_watermark;
        let end = found.last().map_or(bounds.log_start, |last| last.next);
        if end > visible {
            return Err(format!(
                "{key:?}: read to {end}, the high watermark is {visible}"
            ));
        }
        let shown = PartitionModel {
            kill_floor: visible.min(end),
            ended: End::Kill,
            ..model.clone()
        };
        shown
            .check(&found, end)
            .and_then(|()| model.check_producers(&partition.producers()))
            .and_then(|()| {
                model.check_epochs(&found, &partition.epochs(), partition.leader_epoch())
            })
            .and_then(|()| model.saw(&found))
            .map_err(|error| format!("{key:?}: {error}"))?;
        let outcome = lookups::check(&partition, &found, visible);
        match outcome {
            Err(_) if self.faulty && self.partition(key).is_none() => Ok(()),
            outcome => outcome.map_err(|error| format!("{key:?}: {error}")),
        }
    }
}
