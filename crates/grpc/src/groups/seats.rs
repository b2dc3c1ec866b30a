//! Which stream speaks for a member: the last one that the group took.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use sapwood_broker::group::{GroupId, MemberId};
use tokio_util::sync::CancellationToken;

/// The streams that speak for members. One that was cut off without noticing must neither keep its
/// member alive nor take it out after the member has come back on another.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<Key, CancellationToken>>>);

type Key = (GroupId, MemberId);

/// A stream's right to speak for a member, until another stream takes it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    key: Key,
    lost: CancellationToken,
}

impl Seats {
    /// Takes a member's seat; the stream that had it loses it.
    pub(super) fn take(&self, group: &GroupId, member: &MemberId) -> Seat {
        let key = (group.clone(), member.clone());
        let lost = CancellationToken::new();
        let before = self.0.lock().insert(key.clone(), lost.clone());
        if let Some(before) = before {
            before.cancel();
        }
        Seat {
            seats: self.clone(),
            key,
            lost,
        }
    }
}

impl Seat {
    /// Returns when another stream has taken the seat.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.0.lock();
        // The last one that was taken is the only one that is not lost.
        if !self.lost.is_cancelled()
            && let Entry::Occupied(seat) = seats.entry(self.key.clone())
        {
            seat.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stream_has_the_seat_and_an_empty_one_leaves_nothing_behind() {
        let seats = Seats::default();
        let take = |member: &str| seats.take(&"g".into(), &member.into());
        let first = take("m");
        let other = take("n");
        let second = take("m");
        let lost = [&first, &other, &second].map(|seat| seat.lost.is_cancelled());
        assert_eq!(lost, [true, false, false]);
        drop(first);
        assert_eq!(seats.0.lock().len(), 2);
        drop((second, other));
        assert!(seats.0.lock().is_empty());
    }
}
