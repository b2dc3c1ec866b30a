//! The requests of one connection that are not answered yet, in the order in which they came.

use std::{collections::VecDeque, future::poll_fn, task::Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{
    context::Context,
    dispatch::{Answer, Reply},
    fetched::Held,
};

/// A request behind its first stage.
pub(super) struct Item {
    pub(super) context: Context,
    pub(super) reply: Reply,
}

/// A queue between the half of a connection that reads and the half that writes, which run in one
/// task. Bounded by [`Pipeline::room`], which the reading half awaits before it reads.
///
/// Whenever the task runs, the reading half has its turn first and the writing half after it. So what
/// is pushed is seen without a wake-up; one would run the task a second time, for nothing, and another
/// thread of the runtime with it.
pub(super) struct Pipeline {
    state: Mutex<State>,
    reader: AtomicWaker,
    requests_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// In `items`, or being written.
    requests: usize,
    /// What they hold: answers that are encoded, and requests that are still needed.
    bytes: usize,
    closed: bool,
    /// The reading half waits for room.
    is_full: bool,
}

impl Pipeline {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            reader: AtomicWaker::new(),
            requests_max: requests_max.max(1),
            bytes_max,
        }
    }

    /// Waits until one more request may be read.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            self.reader.register(context.waker());
            let mut state = self.state.lock();
            state.is_full = state.requests >= self.requests_max || state.bytes >= self.bytes_max;
            match state.is_full {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().requests == 0
    }

    /// Adds the next request, on the reading half's turn.
    pub(super) fn push(&self, item: Item) {
        let mut state = self.state.lock();
        state.requests += 1;
        state.bytes += item.reply.bytes();
        state.items.push_back(item);
    }

    /// No request comes any more. Before the writing half's next turn.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// The request whose turn it is; `Ready(None)` when there are no more.
    pub(super) fn poll_next(&self) -> Poll<Option<Item>> {
        let mut state = self.state.lock();
        match state.items.pop_front() {
            Some(item) => {
                if state.items.is_empty() && state.items.capacity() > 16 {
                    state.items = VecDeque::new();
                }
                Poll::Ready(Some(item))
            }
            None if state.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// So many requests are answered; their replies held so many bytes when they were pushed.
    pub(super) fn answered(&self, requests: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.requests -= requests;
        state.bytes -= bytes;
        let waits = state.is_full;
        drop(state);
        if waits {
            self.reader.wake();
        }
    }
}

/// Answers on their way to the socket.
#[derive(Default)]
pub(super) struct Outgoing {
    parts: VecDeque<Bytes>,
    bytes: usize,
    held: Vec<Held>,
    /// Requests that are answered once everything is written, and what they had counted for.
    pub(super) requests: usize,
    pub(super) reply_bytes: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, answer: Answer) {
        self.held.extend(answer.held);
        for part in answer.parts.into_iter().filter(|part| !part.is_empty()) {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Fills `slices` with what comes next; says how many there are.
    pub(super) fn slices<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = std::io::IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// The socket took so many bytes.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(part) = self.parts.front_mut() {
            if written < part.len() {
                bytes::Buf::advance(part, written);
                return;
            }
            written -= part.len();
            self.parts.pop_front();
        }
        if self.parts.capacity() > 64 {
            self.parts = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    #[test]
    fn parts_are_written_in_order_however_the_socket_takes_them() {
        for step in 1..12 {
            let mut outgoing = Outgoing::default();
            outgoing.push(vec!["abc".into(), "".into(), "defgh".into()].into());
            outgoing.push(vec![Bytes::from("ij")].into());
            let mut written = Vec::new();
            while !outgoing.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = outgoing.slices(&mut slices);
                let next: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let taken = next.len().min(step);
                written.extend_from_slice(&next[..taken]);
                outgoing.advance(taken);
            }
            assert_eq!(written, b"abcdefghij", "in steps of {step}");
            assert_eq!(outgoing.bytes(), 0);
        }
    }
}
