//! A producer is two threads: one sends what is due, as much as fits in one write when it is behind, and one
//! reads the answers.

use std::{
    io,
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, Thread},
    time::Duration,
};

use crate::{
    load::{Load, Seen},
    pace::{Clock, Pace},
    peer::{Acks, Sender},
    record::{Header, partition_of},
    wire::Frames,
};

/// How long a producer without room waits for answers before it looks again.
const ROOM_TURN: Duration = Duration::from_millis(10);

pub(crate) struct Producer<'a> {
    load: &'a Load,
    number: u64,
    records: u64,
    pace: Pace,
    start: u64,
    clock: Clock,
    /// Records whose answers came.
    answered: AtomicU64,
    is_broken: AtomicBool,
}

/// Records that were sent with one write, and when.
struct Batch {
    count: u64,
    at: u64,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(load: &'a Load, number: u64, start: u64, clock: Clock) -> Self {
        let rest = load.records % load.producers;
        Self {
            load,
            number,
            records: load.records / load.producers + u64::from(number < rest),
            pace: Pace::of(load.rate, number, load.producers, start),
            start,
            clock,
            answered: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Ends when all that was sent is answered.
    pub(crate) fn run(&self, sender: Sender) -> Seen {
        let Sender {
            frames,
            stream,
            mut acks,
        } = sender;
        let writer = thread::current();
        // Holds no more batches than records may be in flight.
        let (batches, sent) = mpsc::channel();
        thread::scope(|scope| {
            let reader = scope.spawn(move || self.read(&sent, acks.as_mut(), &writer));
            let written = self.write(frames, &stream, batches);
            let mut seen = reader.join().expect("the reader does not panic");
            if let Err(e) = written {
                seen.complain(e);
            }
            seen
        })
    }

    fn write(
        &self,
        mut frames: Frames,
        stream: &Mutex<TcpStream>,
        batches: mpsc::Sender<Batch>,
    ) -> io::Result<()> {
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let frames_max = frames.count() as u64;
        let deadline = self.load.duration.as_nanos() as u64 + self.start;
        let mut sent = 0;
        while sent < self.records && !self.is_broken.load(Ordering::Relaxed) {
            let now = self.clock.now();
            if now >= deadline {
                break;
            }
            let due = self.pace.due_by(now).min(self.records) - sent;
            if due == 0 {
                thread::sleep(Duration::from_nanos(self.pace.due(sent, now) - now));
                continue;
            }
            let room = self.load.in_flight - (sent - self.answered.load(Ordering::Acquire));
            // Small writes would follow each other if every answer made room for one.
            let wanted = due.min(frames_max).min(self.load.in_flight.div_ceil(4));
            if room < wanted {
                thread::park_timeout(ROOM_TURN);
                continue;
            }
            let count = due.min(frames_max).min(room);
            for slot in 0..count {
                let number = sent + slot;
                let partition = partition_of(self.number, number, self.load.topic.partitions);
                let header = Header {
                    producer: self.number,
                    number,
                    due: self.pace.due(number, now),
                };
                frames.stamp(slot as usize, partition, header);
            }
            if batches.send(Batch { count, at: now }).is_err() {
                break;
            }
            let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            frames.send(count as usize, &mut stream)?;
            sent += count;
        }
        Ok(())
    }

    fn read(&self, sent: &mpsc::Receiver<Batch>, acks: &mut dyn Acks, writer: &Thread) -> Seen {
        let mut seen = Seen::nothing();
        let mut number = 0;
        let mut unannounced = 0;
        'batches: for batch in sent {
            for left in (0..batch.count).rev() {
                let ack = match acks.next() {
                    Ok(ack) => ack,
                    Err(e) => {
                        seen.complain(e);
                        seen.lost += left + 1 + sent.try_iter().map(|b| b.count).sum::<u64>();
                        self.is_broken.store(true, Ordering::Relaxed);
                        break 'batches;
                    }
                };
                let due = ack.due.unwrap_or_else(|| self.pace.due(number, batch.at));
                number += 1;
                match ack.error {
                    Some(error) => seen.complain(error),
                    None => {
                        seen.records += 1;
                        seen.took(ack.at.saturating_sub(due));
                        seen.nanos = ack.at.saturating_sub(self.start);
                    }
                }
                unannounced += 1;
                if acks.is_drained() || unannounced >= self.load.in_flight.div_ceil(8) {
                    self.answered.fetch_add(unannounced, Ordering::Release);
                    unannounced = 0;
                    writer.unpark();
                }
            }
        }
        seen
    }
}
