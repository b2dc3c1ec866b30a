//! What one partition must hold: every batch that was sent to it, where those are that somebody was told
//! of, and how much of them somebody could rely on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sapwood_model::LeaderEpoch;
use sapwood_record::{Batch, Header};

use crate::model::{End, Outcome};

/// Everything of a batch that the broker keeps as it was sent.
const KEPT_FROM: usize = 16;

/// The part of a batch that the broker keeps as it was sent. Each batch of these tests has another one.
pub(crate) fn body_of(bytes: &Bytes) -> Bytes {
    bytes.slice(KEPT_FROM..)
}

/// A batch as a reader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) base: u64,
    pub(crate) next: u64,
    pub(crate) body: Bytes,
}

impl Found {
    pub(crate) fn of(batch: &Batch) -> Found {
        let header = batch.header();
        Found {
            base: header.base_offset().0,
            next: header.next_offset().0,
            body: body_of(&batch.to_bytes()),
        }
    }

    fn told(&self) -> String {
        format!("{}..{}", self.base, self.next)
    }
}

/// What became of a batch that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may be there.
    Open,
    /// It is there, at this offset, unless a power cut may have taken it.
    At(u64),
    /// It is not there and must never be.
    Gone,
}

#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    pub(crate) fate: Fate,
    pub(crate) producer: Option<Place>,
}

/// A batch's place among those of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u64,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

impl Place {
    pub(crate) fn of(bytes: &[u8]) -> Option<Place> {
        let stamp = Header::read(bytes)?.producer()?;
        Some(Place {
            id: stamp.id.0,
            first: stamp.base_sequence,
            last: stamp.last_sequence,
        })
    }
}

/// An idempotent producer that goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Producer {
    pub(crate) id: u64,
    pub(crate) next_sequence: i32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) start: u64,
    /// Log starts that were asked for, and nobody has answered.
    pub(crate) trims: BTreeSet<u64>,
    pub(crate) sent: BTreeMap<Bytes, Sent>,
    /// Everything below was acknowledged or read, and must survive a kill.
    pub(crate) kill_floor: u64,
    /// Everything below was read, or acknowledged as the topic promises it: what a switch to fsync makes
    /// durable.
    pub(crate) seen_floor: u64,
    /// Everything below must survive a power cut.
    pub(crate) power_floor: u64,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) producers: Vec<Producer>,
}

impl Log {
    pub(crate) fn send(&mut self, bytes: &Bytes) {
        let producer = Place::of(bytes);
        let sent = self.sent.entry(body_of(bytes)).or_insert(Sent {
            bytes: bytes.clone(),
            fate: Fate::Open,
            producer,
        });
        if sent.fate == Fate::Gone {
            sent.fate = Fate::Open;
        }
        if let Some(place) = producer
            && let Some(known) = self.producers.iter_mut().find(|known| known.id == place.id)
        {
            known.next_sequence = known.next_sequence.max(place.last + 1);
        }
    }

    /// Somebody was told that a batch is at this offset.
    pub(crate) fn is_at(&mut self, body: &Bytes, base: u64) -> Outcome {
        let sent = self
            .sent
            .get_mut(body)
            .ok_or_else(|| format!("what is at {base} was never sent"))?;
        match sent.fate {
            Fate::Open => sent.fate = Fate::At(base),
            Fate::At(at) if at == base => {}
            Fate::At(at) => return Err(format!("a batch is at {base} and was at {at}")),
            Fate::Gone => return Err(format!("a batch at {base} that was refused or lost")),
        }
        Ok(())
    }

    /// Everything below this offset was acknowledged as the topic promises it, or read.
    pub(crate) fn floor(&mut self, next: u64, survives_power_cuts: bool) {
        self.kill_floor = self.kill_floor.max(next);
        self.seen_floor = self.seen_floor.max(next);
        if survives_power_cuts {
            self.power_floor = self.power_floor.max(next);
        }
    }

    /// Compares what a process finds with what it may find. `overdue`: what was made before is not kept
    /// any longer, if retention is at work.
    pub(crate) fn check(
        &self,
        start: u64,
        end: u64,
        found: &[Found],
        ended: End,
        overdue: Option<i64>,
    ) -> Outcome {
        let may_go = overdue.is_some_and(|overdue| self.is_overdue(start, overdue));
        if start != self.start && !self.trims.contains(&start) && !may_go {
            let (is, asked) = (self.start, &self.trims);
            return Err(format!(
                "the log start is {start}, not {is} or one of {asked:?}; overdue: {overdue:?}"
            ));
        }
        let mut seen = BTreeSet::new();
        let mut sequences: BTreeMap<u64, i32> = BTreeMap::new();
        let mut next = None;
        for batch in found {
            let sent = self
                .sent
                .get(&batch.body)
                .ok_or_else(|| format!("{} was never sent", batch.told()))?;
            match sent.fate {
                Fate::At(base) if base != batch.base => {
                    return Err(format!("{} was at {base}", batch.told()));
                }
                Fate::Gone => return Err(format!("{} was refused or lost", batch.told())),
                _ => {}
            }
            if !seen.insert(&batch.body) {
                return Err(format!("{} is there twice", batch.told()));
            }
            if let Some(next) = next.filter(|next| *next != batch.base) {
                return Err(format!("{} follows offset {next}", batch.told()));
            }
            next = Some(batch.next);
            if let Some(place) = sent.producer {
                let last = sequences.insert(place.id, place.last);
                if last.is_some_and(|last| last + 1 != place.first) {
                    return Err(format!("{}: {place:?} follows {last:?}", batch.told()));
                }
            }
        }
        match (found.first(), next) {
            (Some(first), Some(next)) if first.base > start || next != end => {
                let base = first.base;
                return Err(format!("the log reads {base}..{next}, not {start}..{end}"));
            }
            (None, _) if end != start => {
                return Err(format!("nothing can be read of {start}..{end}"));
            }
            _ => {}
        }
        let known = self.sent.values().filter_map(|sent| match sent.fate {
            Fate::At(base) if base >= start && base < end => Some((base, body_of(&sent.bytes))),
            _ => None,
        });
        for (base, body) in known {
            if !seen.contains(&body) {
                return Err(format!("another batch is where one at {base} was"));
            }
        }
        let floor = match ended {
            End::Clean | End::Kill => self.kill_floor,
            End::PowerCut => self.power_floor,
        };
        if end < floor.max(start) {
            return Err(format!(
                "the log ends at {end}; after {ended:?} everything below {floor} must be there"
            ));
        }
        Ok(())
    }

    /// Whether retention may have moved the log start here: everything below was made before `overdue`.
    fn is_overdue(&self, start: u64, overdue: i64) -> bool {
        let below = self.sent.values().filter(|sent| match sent.fate {
            Fate::At(base) => base < start,
            Fate::Open | Fate::Gone => false,
        });
        let mut times = below.filter_map(|sent| Header::read(&sent.bytes));
        start > self.start && times.all(|header| header.max_timestamp().0 < overdue)
    }

    /// Takes over what a recovery found, and has made durable.
    pub(crate) fn recovered(&mut self, start: u64, end: u64, found: &[Found], epoch: LeaderEpoch) {
        self.start = start;
        self.trims.clear();
        let at: BTreeMap<&Bytes, u64> = found
            .iter()
            .map(|batch| (&batch.body, batch.base))
            .collect();
        for (body, sent) in &mut self.sent {
            sent.fate = at.get(body).map_or(Fate::Gone, |base| Fate::At(*base));
        }
        self.kill_floor = end;
        self.seen_floor = end;
        self.power_floor = end;
        self.epoch = epoch;
        // A producer goes on behind its last batch; one without any may or may not be known.
        let last = |id| {
            let mut places = self.of_producer(id).into_iter();
            places.rfind(|(_, sent)| matches!(sent.fate, Fate::At(_)))
        };
        let producers = self.producers.iter().filter_map(|known| {
            let (place, _) = last(known.id)?;
            let next_sequence = place.last + 1;
            Some(Producer {
                next_sequence,
                ..*known
            })
        });
        self.producers = producers.collect();
    }

    /// A producer's batches in the order of their sequence.
    pub(crate) fn of_producer(&self, id: u64) -> Vec<(Place, &Sent)> {
        let mut batches: Vec<(Place, &Sent)> = self
            .sent
            .values()
            .filter_map(|sent| Some((sent.producer?, sent)))
            .filter(|(place, _)| place.id == id)
            .collect();
        batches.sort_by_key(|(place, _)| place.first);
        batches
    }

    /// Bounds and batches, for people.
    pub(crate) fn describe(&self) -> String {
        let mut known: Vec<(u64, String)> = Vec::new();
        let mut open = 0;
        for sent in self.sent.values() {
            match sent.fate {
                Fate::At(base) => known.push((base, format!("{base} {:?}", sent.producer))),
                Fate::Open => open += 1,
                Fate::Gone => {}
            }
        }
        known.sort();
        let known: Vec<String> = known.into_iter().map(|(_, told)| told).collect();
        format!(
            "log start {} (asked {:?}), floors {} and {}, {open} unanswered, known: {}",
            self.start,
            self.trims,
            self.kill_floor,
            self.power_floor,
            known.join(", ")
        )
    }
}
