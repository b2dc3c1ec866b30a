//! What of a partition has been handed out and what of that is done: how far it may be committed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use sapwood_model::Offset;
use tokio::sync::Notify;

/// One stay of a partition with this member. Messages are numbered as they are handed out, so that
/// offsets that no message has (compacted ones, markers) leave no holes. Memory grows with the number of
/// gaps between acknowledged messages, not with the number of messages.
#[derive(Debug)]
pub(super) struct Acks {
    state: Mutex<State>,
    /// Told when nothing that was handed out is left, once nothing more will be.
    settled: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Rises with each seek: what was handed out before it does not count any more.
    generation: u64,
    /// The number of the next message.
    next: u64,
    /// Messages that were handed out and neither acknowledged nor dropped.
    pending: usize,
    /// The number of the first message that is not acknowledged.
    done: u64,
    /// The offset behind the message before that one; none if there is none yet.
    done_offset: Option<Offset>,
    /// Runs of acknowledged messages above `done`, from the first number to the number behind the last
    /// one and the offset behind it. They do not touch.
    runs: BTreeMap<u64, (u64, Offset)>,
    committed: Option<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// Nothing more is handed out; acknowledgements count.
    Closing,
    /// The partition is another member's.
    Over,
}

/// The right to acknowledge one message.
#[derive(Debug)]
pub(super) struct Token {
    acks: Arc<Acks>,
    generation: u64,
    number: u64,
    offset: Offset,
    acked: AtomicBool,
}

impl Acks {
    pub(super) fn new(settled: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            settled,
        })
    }

    /// Hands a message out; none when the partition is being given up.
    pub(super) fn hand_out(self: &Arc<Self>, offset: Offset) -> Option<Token> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.pending += 1;
        Some(Token {
            acks: Arc::clone(self),
            generation: state.generation,
            number,
            offset,
            acked: AtomicBool::new(false),
        })
    }

    /// The partition is read from elsewhere: what was handed out does not count any more.
    pub(super) fn seek(&self) {
        let mut state = self.state.lock();
        *state = State {
            phase: state.phase,
            generation: state.generation + 1,
            ..State::default()
        };
    }

    /// Hands nothing out any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
    }

    /// Acknowledgements count no more.
    pub(super) fn end(&self) {
        self.state.lock().phase = Phase::Over;
    }

    /// Whether everything that was handed out is acknowledged or dropped.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().pending == 0
    }

    /// What there is to commit: the offset behind the last message below which all are acknowledged, if
    /// that is not what was committed last.
    pub(super) fn to_commit(&self) -> Option<Offset> {
        let state = self.state.lock();
        let done = state.done_offset.filter(|_| state.phase != Phase::Over);
        done.filter(|done| Some(*done) != state.committed)
    }

    /// It is committed.
    pub(super) fn committed(&self, offset: Offset) {
        self.state.lock().committed = Some(offset);
    }

    fn drop_one(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            self.one_less(&mut state);
        }
    }

    fn ack(&self, generation: u64, number: u64, offset: Offset) {
        let mut state = self.state.lock();
        if state.generation != generation || state.phase == Phase::Over {
            return;
        }
        state.acknowledge(number, offset.add(1));
        self.one_less(&mut state);
    }

    fn one_less(&self, state: &mut State) {
        state.pending -= 1;
        if state.pending == 0 && state.phase == Phase::Closing {
            self.settled.notify_one();
        }
    }
}

impl State {
    /// Takes a message in that was not acknowledged before.
    ///
    /// Acknowledged are 0 and 3: `done` is 1, the runs are [3, 4). Then 2: [2, 4). Then 1: `done` is 4,
    /// and there are no runs.
    fn acknowledge(&mut self, number: u64, behind: Offset) {
        let mut run = (number, number + 1, behind);
        if let Some((end, behind)) = self.runs.remove(&run.1) {
            run.1 = end;
            run.2 = behind;
        }
        if run.0 == self.done {
            self.done = run.1;
            self.done_offset = Some(run.2);
            return;
        }
        let before = self.runs.range(..run.0).next_back();
        if let Some((&start, &(end, _))) = before
            && end == run.0
        {
            run.0 = start;
        }
        self.runs.insert(run.0, (run.1, run.2));
    }
}

impl Token {
    pub(super) fn ack(&self) {
        if !self.acked.swap(true, Ordering::Relaxed) {
            self.acks.ack(self.generation, self.number, self.offset);
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !*self.acked.get_mut() {
            self.acks.drop_one(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    fn handed(acks: &Arc<Acks>, offsets: &[u64]) -> Vec<Token> {
        let tokens = offsets.iter().map(|offset| acks.hand_out(Offset(*offset)));
        tokens.map(Option::unwrap).collect()
    }

    fn is_notified(settled: &Notify) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(settled.notified()).poll(&mut context).is_ready()
    }

    #[test]
    fn only_what_is_acknowledged_without_a_hole_is_committed() {
        let acks = Acks::new(Arc::default());
        // 12 and 13 are not there.
        let tokens = handed(&acks, &[10, 11, 14, 15, 16]);
        assert_eq!(acks.to_commit(), None);
        tokens[2].ack();
        tokens[4].ack();
        assert_eq!(acks.to_commit(), None);
        tokens[0].ack();
        assert_eq!(acks.to_commit(), Some(Offset(11)));
        tokens[1].ack();
        assert_eq!(acks.to_commit(), Some(Offset(15)));
        acks.committed(Offset(15));
        assert_eq!(acks.to_commit(), None);
        tokens[3].ack();
        tokens[3].ack();
        assert_eq!(acks.to_commit(), Some(Offset(17)));
        assert!(acks.is_settled());
    }

    #[test]
    fn every_order_of_acknowledgements_ends_the_same_and_never_passes_a_hole() {
        // All orders of 6 messages, by Heap's algorithm.
        fn orders(items: &mut Vec<usize>, size: usize, visit: &mut impl FnMut(&[usize])) {
            if size <= 1 {
                return visit(items);
            }
            for i in 0..size {
                orders(items, size - 1, visit);
                items.swap(if size.is_multiple_of(2) { i } else { 0 }, size - 1);
            }
        }
        let mut seen = 0;
        orders(&mut (0..6).collect(), 6, &mut |order| {
            seen += 1;
            let acks = Acks::new(Arc::default());
            let tokens = handed(&acks, &[0, 2, 4, 6, 8, 10]);
            let mut acked = [false; 6];
            for index in order {
                tokens[*index].ack();
                acked[*index] = true;
                let done = acked.iter().take_while(|acked| **acked).count() as u64;
                let expected = (done > 0).then(|| Offset(2 * done - 1));
                assert_eq!(acks.to_commit(), expected, "{order:?}");
            }
            assert!(acks.state.lock().runs.is_empty());
        });
        assert_eq!(seen, 720);
    }

    #[test]
    fn a_closing_partition_hands_nothing_out_and_says_when_it_is_settled() {
        let settled = Arc::new(Notify::new());
        let acks = Acks::new(Arc::clone(&settled));
        let mut tokens = handed(&acks, &[0, 1]);
        acks.close();
        assert!(acks.hand_out(Offset(2)).is_none());
        // One is acknowledged, one is dropped: it holds up what is committed, but nobody waits for it.
        tokens.pop();
        assert!(!acks.is_settled() && !is_notified(&settled));
        tokens[0].ack();
        assert!(acks.is_settled() && is_notified(&settled));
        assert_eq!(acks.to_commit(), Some(Offset(1)));
        acks.end();
        assert_eq!(acks.to_commit(), None);
    }

    #[test]
    fn what_was_handed_out_before_a_seek_counts_no_more() {
        let acks = Acks::new(Arc::default());
        let before = handed(&acks, &[5, 6]);
        before[0].ack();
        acks.seek();
        before[1].ack();
        assert_eq!((acks.to_commit(), acks.is_settled()), (None, true));
        handed(&acks, &[2])[0].ack();
        assert_eq!(acks.to_commit(), Some(Offset(3)));
    }
}
