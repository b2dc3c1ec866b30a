//! Incremental fetch sessions (KIP-227): what a client fetches is remembered, so that its next
//! request names only what changes, and its next answer only what is new.
//!
//! A session is taken out of the cache for the time of a fetch and given back afterwards: no lock is
//! held meanwhile, and one that is not given back, because its connection is gone, ends. A session
//! that somebody else ended in the meantime is dropped when it comes back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sapwood_model::{Offset, TopicId};

use crate::errors::ErrorCode;

/// A session that was not used for this long gives way to a new one when there is no room.
const IDLE: Duration = Duration::from_secs(120);
/// The first request of a session, and of none.
const EPOCH_INITIAL: i32 = 0;
/// The last request of a session.
const EPOCH_FINAL: i32 = -1;

/// A topic as a fetch names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    /// By name, up to version 12.
    Name(Arc<str>),
    /// By id.
    Id(TopicId),
}

/// A partition that is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: TopicKey,
    /// As it came: it may be no partition's number.
    pub(crate) partition: i32,
}

/// What a client wants of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) bytes_max: i32,
    /// The epoch of the leader that it knows; -1: it does not say.
    pub(crate) leader_epoch: i32,
    /// The epoch of the last record that it has; -1: it does not say.
    pub(crate) fetched_epoch: i32,
}

/// What a client was told about a partition last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// `None` when it has to be told anew whatever comes.
    pub(crate) ends: Option<(Offset, Offset)>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: PartitionKey,
    pub(crate) wanted: Wanted,
    pub(crate) told: Told,
}

/// One session's partitions, in the order in which they are read.
#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    /// The epoch that the next request has.
    next_epoch: i32,
    by_id: bool,
    by_order: BTreeMap<u64, Entry>,
    orders: HashMap<PartitionKey, u64>,
    next_order: u64,
    /// Whether the last fetch found records at once.
    is_busy: bool,
}

/// What a request says about sessions and partitions.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    /// Whether topics are named by id.
    pub(crate) by_id: bool,
    pub(crate) partitions: Vec<(PartitionKey, Wanted)>,
    pub(crate) forgotten: Vec<PartitionKey>,
}

/// What to fetch, and how to answer.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Everything that was asked for, in every answer.
    Full(Vec<(PartitionKey, Wanted)>),
    /// What the session has. The first answer has all of it, later ones what is new.
    Session(Lease, Answers),
}

/// What an answer within a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Every partition.
    All,
    /// Those with something new.
    Changes,
}

/// The sessions of all connections.
#[derive(Debug)]
pub(crate) struct Sessions {
    cache: Arc<Mutex<Cache>>,
    sessions_max: usize,
    partitions_max: usize,
}

#[derive(Debug, Default)]
struct Cache {
    slots: HashMap<i32, Slot>,
    /// Of all sessions, those in use too.
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    /// `None` while a fetch has it.
    session: Option<Session>,
    /// How many partitions it counts for.
    partitions: usize,
    last_used: Duration,
    /// Tells two sessions apart that had the same id after each other.
    serial: u64,
}

/// A session in use. Dropping it ends the session; [`Lease::give_back`] keeps it.
#[derive(Debug)]
pub(crate) struct Lease {
    cache: Arc<Mutex<Cache>>,
    /// Taken only by `give_back` and by the drop.
    session: Option<Session>,
    serial: u64,
}

impl Sessions {
    pub(crate) fn new(sessions_max: usize, partitions_max: usize) -> Self {
        Self {
            cache: Arc::default(),
            sessions_max,
            partitions_max,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.cache.lock().slots.len()
    }

    /// Finds or opens the session of a request. `random` is a number that clients cannot foresee.
    ///
    /// # Errors
    /// What the whole answer says: there is no such session, or the request is not its next one.
    pub(crate) fn begin(
        &self,
        request: Request,
        now: Duration,
        random: impl FnOnce() -> u64,
    ) -> Result<Plan, ErrorCode> {
        match request.epoch {
            EPOCH_INITIAL | EPOCH_FINAL => {
                let mut cache = self.cache.lock();
                cache.remove(request.session_id);
                if request.epoch == EPOCH_FINAL || request.partitions.is_empty() {
                    return Ok(Plan::Full(request.partitions));
                }
                drop(cache);
                Ok(self.open(request, now, random()))
            }
            _ => self.next(request, now),
        }
    }

    /// A new session, if there is room.
    fn open(&self, request: Request, now: Duration, random: u64) -> Plan {
        let count = request.partitions.len();
        let mut cache = self.cache.lock();
        if !cache.make_room(count, self.sessions_max, self.partitions_max, now) {
            return Plan::Full(request.partitions);
        }
        let Some(id) = cache.free_id(random) else {
            return Plan::Full(request.partitions);
        };
        let mut session = Session {
            id,
            next_epoch: 1,
            by_id: request.by_id,
            by_order: BTreeMap::new(),
            orders: HashMap::new(),
            next_order: 0,
            is_busy: false,
        };
        for (key, wanted) in request.partitions {
            session.want(key, wanted);
        }
        let lease = self.lease(&mut cache, session, now, random);
        Plan::Session(lease, Answers::All)
    }

    /// The next request of a session.
    fn next(&self, request: Request, now: Duration) -> Result<Plan, ErrorCode> {
        let mut cache = self.cache.lock();
        let slot = cache.slots.get_mut(&request.session_id);
        let slot = slot.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        // An earlier fetch of the session may be parked on a connection that the client gave up.
        let session = slot.session.as_ref();
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.next_epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let others = cache.partitions - session_len(&cache, request.session_id);
        let mut slot = cache.remove(request.session_id).expect("it was there");
        let mut session = slot.session.take().expect("it was there");
        for key in &request.forgotten {
            session.forget(key);
        }
        for (key, wanted) in request.partitions {
            session.want(key, wanted);
        }
        if others + session.by_order.len() > self.partitions_max {
            // The client begins anew, with everything in one request.
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        session.next_epoch = match session.next_epoch {
            i32::MAX => 1,
            epoch => epoch + 1,
        };
        let lease = self.lease(&mut cache, session, now, slot.serial);
        Ok(Plan::Session(lease, Answers::Changes))
    }

    fn lease(&self, cache: &mut Cache, session: Session, now: Duration, serial: u64) -> Lease {
        let partitions = session.by_order.len();
        cache.partitions += partitions;
        let slot = Slot {
            session: None,
            partitions,
            last_used: now,
            serial,
        };
        cache.slots.insert(session.id, slot);
        Lease {
            cache: Arc::clone(&self.cache),
            session: Some(session),
            serial,
        }
    }
}

fn session_len(cache: &Cache, id: i32) -> usize {
    cache.slots.get(&id).map_or(0, |slot| slot.partitions)
}

impl Cache {
    fn remove(&mut self, id: i32) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.partitions -= slot.partitions;
        Some(slot)
    }

    /// Makes room for a session with so many partitions; false when there is none.
    fn make_room(
        &mut self,
        partitions: usize,
        sessions_max: usize,
        partitions_max: usize,
        now: Duration,
    ) -> bool {
        let is_full = |cache: &Self| {
            cache.slots.len() >= sessions_max || cache.partitions + partitions > partitions_max
        };
        while is_full(self) {
            let idle = |(_, slot): &(&i32, &Slot)| {
                slot.session.is_some() && now.saturating_sub(slot.last_used) >= IDLE
            };
            let idle = self.slots.iter().filter(idle);
            let Some((&id, _)) = idle.min_by_key(|(_, slot)| slot.last_used) else {
                return false;
            };
            self.remove(id);
        }
        true
    }

    /// A positive number that no session has.
    fn free_id(&self, random: u64) -> Option<i32> {
        let first = (random as u32 >> 1).cast_signed();
        let mut ids = (0..).map(|step| first.wrapping_add(step));
        let mut tried = ids.by_ref().take(self.slots.len() + 2);
        tried.find(|id| *id > 0 && !self.slots.contains_key(id))
    }
}

impl Session {
    fn want(&mut self, key: PartitionKey, wanted: Wanted) {
        if let Some(entry) = self
            .orders
            .get(&key)
            .and_then(|order| self.by_order.get_mut(order))
        {
            entry.wanted = wanted;
            return;
        }
        let order = self.take_order();
        self.orders.insert(key.clone(), order);
        let told = Told::default();
        self.by_order.insert(order, Entry { key, wanted, told });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(order) = self.orders.remove(key) {
            self.by_order.remove(&order);
        }
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }
}

impl Lease {
    fn session(&self) -> &Session {
        self.session.as_ref().expect("it is there until the end")
    }

    /// Its id, for the answer.
    pub(crate) fn id(&self) -> i32 {
        self.session().id
    }

    /// Its partitions, in the order in which they are to be read.
    pub(crate) fn partitions(&self) -> Vec<(PartitionKey, Wanted)> {
        let entries = self.session().by_order.values();
        entries
            .map(|entry| (entry.key.clone(), entry.wanted))
            .collect()
    }

    /// As [`Lease::partitions`], those for which `is_idle` does not hold.
    pub(crate) fn partitions_with_news(
        &self,
        is_idle: impl Fn(&Entry) -> bool,
    ) -> Vec<(PartitionKey, Wanted)> {
        let entries = self.session().by_order.values();
        entries
            .filter(|entry| !is_idle(entry))
            .map(|entry| (entry.key.clone(), entry.wanted))
            .collect()
    }

    /// Whether the fetch before found records at once, so that this one probably does.
    pub(crate) fn is_busy(&self) -> bool {
        self.session().is_busy
    }

    /// Notes whether this fetch found records at once.
    pub(crate) fn set_busy(&mut self, is_busy: bool) {
        let session = self.session.as_mut().expect("it is there until the end");
        session.is_busy = is_busy;
    }

    /// Notes what the client is told about a partition; says what it was told before.
    /// With records, the partition is read after the others next time, so that all get their turn.
    pub(crate) fn tell(&mut self, key: &PartitionKey, told: Told, has_records: bool) -> Told {
        let session = self.session.as_mut().expect("it is there until the end");
        let Some(&order) = session.orders.get(key) else {
            return Told::default();
        };
        if !has_records {
            let entry = session.by_order.get_mut(&order);
            let entry = entry.expect("both maps have the same partitions");
            return std::mem::replace(&mut entry.told, told);
        }
        let mut entry = session.by_order.remove(&order).expect("both maps have it");
        let before = std::mem::replace(&mut entry.told, told);
        let order = session.take_order();
        session.orders.insert(key.clone(), order);
        session.by_order.insert(order, entry);
        before
    }

    /// Keeps the session for the next request.
    pub(crate) fn give_back(mut self, now: Duration) {
        let session = self.session.take().expect("it is there until the end");
        let mut cache = self.cache.lock();
        if let Some(slot) = cache.slots.get_mut(&session.id)
            && slot.serial == self.serial
        {
            slot.last_used = now;
            slot.session = Some(session);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let mut cache = self.cache.lock();
        let is_ours = |slot: &Slot| slot.serial == self.serial;
        if cache.slots.get(&session.id).is_some_and(is_ours) {
            cache.remove(session.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey {
            topic: TopicKey::Name("t".into()),
            partition,
        }
    }

    fn request(session_id: i32, epoch: i32, partitions: &[i32]) -> Request {
        let wanted = Wanted {
            offset: 0,
            bytes_max: 1,
            leader_epoch: -1,
            fetched_epoch: -1,
        };
        Request {
            session_id,
            epoch,
            by_id: false,
            partitions: partitions.iter().map(|p| (key(*p), wanted)).collect(),
            forgotten: Vec::new(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Opens a session; `None` when there is no room.
    fn open(sessions: &Sessions, at: u64, random: u64) -> Option<Lease> {
        let request = request(0, EPOCH_INITIAL, &[0]);
        match sessions.begin(request, seconds(at), || random) {
            Ok(Plan::Session(lease, Answers::All)) => Some(lease),
            Ok(Plan::Full(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_session_that_was_idle_longest_makes_room_once_it_was_idle_for_long() {
        let sessions = Sessions::new(2, 100);
        let first = open(&sessions, 0, 10).unwrap();
        let first_id = first.id();
        first.give_back(seconds(0));
        let second = open(&sessions, 1, 20).unwrap();
        let second_id = second.id();
        second.give_back(seconds(1));
        assert!(open(&sessions, 119, 30).is_none());
        assert!(open(&sessions, 120, 30).is_some_and(|third| {
            third.give_back(seconds(120));
            true
        }));
        assert_eq!(sessions.len(), 2);
        let gone = sessions.begin(request(first_id, 1, &[]), seconds(120), || 0);
        assert_eq!(gone.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        assert!(
            sessions
                .begin(request(second_id, 1, &[]), seconds(120), || 0)
                .is_ok()
        );
    }

    #[test]
    fn a_session_in_use_is_not_taken_away_to_make_room() {
        let sessions = Sessions::new(1, 100);
        let first = open(&sessions, 0, 10).unwrap();
        assert!(open(&sessions, 1000, 20).is_none());
        first.give_back(seconds(1000));
        assert!(open(&sessions, 1119, 20).is_none());
        assert!(open(&sessions, 1120, 20).is_some());
    }

    #[test]
    fn a_session_that_was_ended_while_it_was_in_use_does_not_come_back() {
        let sessions = Sessions::new(10, 100);
        let lease = open(&sessions, 0, 10).unwrap();
        let id = lease.id();
        let last = sessions.begin(request(id, EPOCH_FINAL, &[]), seconds(0), || 0);
        assert!(matches!(last, Ok(Plan::Full(_))));
        // Another one gets the same number.
        let other = open(&sessions, 0, 10).unwrap();
        assert_eq!(other.id(), id);
        let mut other = other;
        other.serial += 1;
        sessions.cache.lock().slots.get_mut(&id).unwrap().serial += 1;
        lease.give_back(seconds(0));
        assert!(sessions.cache.lock().slots[&id].session.is_none());
        other.give_back(seconds(0));
        assert_eq!(sessions.len(), 1);
        assert!(
            sessions
                .begin(request(id, 1, &[]), seconds(0), || 0)
                .is_ok()
        );
    }

    #[test]
    fn a_lease_that_is_dropped_ends_its_session_and_gives_its_partitions_back() {
        let sessions = Sessions::new(10, 3);
        let many = request(0, EPOCH_INITIAL, &[0, 1, 2]);
        let Ok(Plan::Session(lease, _)) = sessions.begin(many, seconds(0), || 10) else {
            panic!("there is room")
        };
        assert!(open(&sessions, 0, 20).is_none());
        drop(lease);
        assert_eq!((sessions.len(), sessions.cache.lock().partitions), (0, 0));
        assert!(open(&sessions, 0, 20).is_some());
    }

    #[test]
    fn epochs_go_from_the_largest_number_to_1() {
        let sessions = Sessions::new(10, 100);
        let mut lease = open(&sessions, 0, 10).unwrap();
        let id = lease.id();
        lease.session.as_mut().unwrap().next_epoch = i32::MAX;
        lease.give_back(seconds(0));
        for epoch in [i32::MAX, 1, 2] {
            let next = sessions.begin(request(id, epoch, &[]), seconds(0), || 0);
            let Ok(Plan::Session(lease, Answers::Changes)) = next else {
                panic!("{epoch}: {next:?}")
            };
            lease.give_back(seconds(0));
        }
    }
}
