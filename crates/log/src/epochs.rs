//! Where each leader epoch of a partition began.
//!
//! The list is kept in every checkpoint. `leader-epoch-checkpoint`, Kafka's text file, is a copy for
//! Kafka's tools.

use std::fmt::Write as _;

use sapwood_model::{LeaderEpoch, Offset};

const TEXT_VERSION: &str = "0";
const ENTRY_BYTES: usize = 12;

/// The first offset that belongs to a leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log's end when the epoch began.
    pub start: Offset,
}

/// The epochs of one log; epochs and starts both rise strictly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EpochList(Vec<EpochStart>);

impl EpochList {
    /// Notes that `epoch` begins at `start`. An epoch in which nothing was appended gives way:
    /// `[(1, 0), (2, 50)]`, push(3, 50) is `[(1, 0), (3, 50)]`. An epoch that is not newer than the
    /// last is ignored.
    pub(crate) fn push(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.latest().is_some_and(|latest| latest.epoch >= epoch) {
            return;
        }
        self.0.retain(|entry| entry.start < start);
        self.0.push(EpochStart { epoch, start });
    }

    /// The last epoch that began.
    pub(crate) fn latest(&self) -> Option<EpochStart> {
        self.0.last().copied()
    }

    /// The epoch in which `offset` was appended; `None` below the first one that is remembered.
    pub(crate) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.0.partition_point(|entry| entry.start <= offset);
        above.checked_sub(1).map(|floor| self.0[floor].epoch)
    }

    /// All of them, rising.
    pub(crate) fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// Forgets the epochs that began at `end` or above it: the log was cut there.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.0.retain(|entry| entry.start < end);
    }

    /// Forgets what lies wholly below `log_start`. The epoch that `log_start` belongs to begins there.
    pub(crate) fn trim(&mut self, log_start: Offset) {
        let at_or_below = self.0.partition_point(|entry| entry.start <= log_start);
        if at_or_below > 0 {
            self.0.drain(..at_or_below - 1);
            self.0[0].start = log_start;
        }
    }

    /// The largest epoch that is not above `asked`, and where it ends; Kafka's rule for a client that
    /// asks whether its position was cut away. `None` for an epoch that this log has not reached.
    ///
    /// `[(1, 0), (3, 50)]` with its end at 80: epoch 2 answers (1, 50), epoch 3 answers (3, 80), epoch
    /// 0 answers (0, 0), epoch 4 nothing.
    pub(crate) fn end_of(
        &self,
        asked: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let above = self.0.partition_point(|entry| entry.epoch <= asked);
        let latest = self.latest()?;
        if asked > latest.epoch {
            return None;
        }
        let end = self.0.get(above).map_or(log_end, |next| next.start);
        let epoch = above
            .checked_sub(1)
            .map_or(asked, |floor| self.0[floor].epoch);
        Some((epoch, end))
    }

    /// The list as bytes, for a checkpoint: epoch u32 and start u64 each, big-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.epoch.0.to_be_bytes());
            bytes.extend_from_slice(&entry.start.0.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`EpochList::encode`] wrote; `None` unless the bytes are such a list, rising.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let entries = entries.iter().map(|entry| {
            let [e0, e1, e2, e3, start @ ..] = *entry;
            EpochStart {
                epoch: LeaderEpoch(u32::from_be_bytes([e0, e1, e2, e3])),
                start: Offset(u64::from_be_bytes(start)),
            }
        });
        Self::checked(entries.collect())
    }

    /// Kafka's text of `leader-epoch-checkpoint`: a version, a count, then a line for each epoch.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{TEXT_VERSION}\n{}\n", self.0.len());
        for entry in &self.0 {
            let _ = writeln!(text, "{} {}", entry.epoch, entry.start);
        }
        text
    }

    fn checked(entries: Vec<EpochStart>) -> Option<Self> {
        let rising =
            |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start;
        entries.windows(2).all(rising).then_some(Self(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u32, u64)]) -> EpochList {
        let mut list = EpochList::default();
        for &(epoch, start) in entries {
            list.push(LeaderEpoch(epoch), Offset(start));
        }
        list
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        assert_eq!(list(&[(1, 0), (2, 50), (3, 50)]), list(&[(1, 0), (3, 50)]));
        assert_eq!(list(&[(1, 0), (1, 20)]), list(&[(1, 0)]));
    }

    #[test]
    fn truncation_forgets_epochs_from_the_cut_on() {
        let mut epochs = list(&[(1, 0), (3, 50), (4, 80)]);
        epochs.truncate(Offset(50));
        assert_eq!(epochs, list(&[(1, 0)]));
    }

    #[test]
    fn trimming_keeps_the_epoch_that_the_log_start_belongs_to() {
        let mut epochs = list(&[(1, 0), (3, 50), (4, 80)]);
        epochs.trim(Offset(60));
        assert_eq!(epochs, list(&[(3, 60), (4, 80)]));
        epochs.trim(Offset(80));
        assert_eq!(epochs, list(&[(4, 80)]));
    }

    #[test]
    fn the_end_of_an_epoch_is_where_the_next_begins() {
        let epochs = list(&[(1, 10), (3, 50)]);
        let end = |epoch| {
            epochs
                .end_of(LeaderEpoch(epoch), Offset(80))
                .map(|(e, o)| (e.0, o.0))
        };
        assert_eq!(end(0), Some((0, 10)));
        assert_eq!(end(1), Some((1, 50)));
        assert_eq!(end(2), Some((1, 50)));
        assert_eq!(end(3), Some((3, 80)));
        assert_eq!(end(4), None);
        assert_eq!(EpochList::default().end_of(LeaderEpoch(0), Offset(0)), None);
        let at = |offset| epochs.at(Offset(offset)).map(|epoch| epoch.0);
        assert_eq!(
            [at(9), at(10), at(49), at(50)],
            [None, Some(1), Some(1), Some(3)]
        );
    }

    #[test]
    fn bytes_round_trip_and_refuse_garbage_and_the_text_is_kafkas() {
        let epochs = list(&[(1, 0), (3, 50)]);
        assert_eq!(EpochList::decode(&epochs.encode()), Some(epochs.clone()));
        assert_eq!(EpochList::decode(&epochs.encode()[1..]), None);
        assert_eq!(EpochList::decode(&[0xff; 24]), None);
        assert_eq!(epochs.to_text(), "0\n2\n1 0\n3 50\n");
    }
}
