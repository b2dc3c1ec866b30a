//! Taking frames off a socket: a length word, then so many bytes.
//!
//! A connection that waits for its next frame holds no buffer. What a client announces is held to
//! the limit of its request's kind, and to the broker's budget before the bytes are read; a client
//! that announces much and sends little is closed, at once when others wait for the room.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use sapwood_broker::{Budget, BufferPool, ConnectionBudget, Permit};
use tokio::{
    io::AsyncReadExt,
    net::tcp::ReadHalf,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Disconnect, pipeline::Pipeline};
use crate::{KafkaOptions, dispatch};

/// Most requests are smaller: they come with one system call.
const HEAD_BYTES: usize = 4 << 10;
const LENGTH_BYTES: usize = 4;
/// The length word and the request's key, which sets the limit for the length.
const KEY_BYTES: usize = LENGTH_BYTES + 2;
/// The smallest request header: key, version, correlation id.
pub(crate) const FRAME_BYTES_MIN: usize = 8;
/// How fast a large frame has to come at least, per second.
const BYTES_PER_SECOND_MIN: usize = 64 << 10;
/// How often that is looked at while others wait.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A request as it came, and the room in the budget that it takes.
#[derive(Debug)]
pub(super) struct Frame {
    /// Everything behind the length word.
    pub(super) bytes: Bytes,
    /// To be held as long as a slice of the bytes is.
    pub(super) permit: Permit,
}

/// The frames of one connection.
pub(super) struct Frames<'a> {
    stream: ReadHalf<'a>,
    stop: watch::Receiver<bool>,
    pipeline: &'a Pipeline,
    options: &'a KafkaOptions,
    pool: &'a Arc<BufferPool>,
    budget: ConnectionBudget,
    whole_budget: &'a Budget,
    /// Bytes that were read and belong to no frame yet. Without an allocation while it is empty.
    head: BytesMut,
}

impl<'a> Frames<'a> {
    pub(super) fn new(
        stream: ReadHalf<'a>,
        stop: watch::Receiver<bool>,
        pipeline: &'a Pipeline,
        options: &'a KafkaOptions,
        pool: &'a Arc<BufferPool>,
        budget: &'a Budget,
    ) -> Self {
        Self {
            stream,
            stop,
            pipeline,
            options,
            pool,
            budget: budget.connection(),
            whole_budget: budget,
            head: BytesMut::new(),
        }
    }

    /// The next frame; `None` when the broker stops before it begins.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Disconnect> {
        if self.head.is_empty() && !self.wait_for_first().await? {
            return Ok(None);
        }
        let began = Instant::now();
        let deadline = began + self.options.frame_timeout;
        self.read_head(LENGTH_BYTES, deadline).await?;
        let length = self.head.as_ref().get_i32();
        let length = match usize::try_from(length) {
            Ok(length) if (FRAME_BYTES_MIN..=dispatch::FRAME_BYTES_MAX).contains(&length) => length,
            _ => {
                let limit = dispatch::FRAME_BYTES_MAX;
                return Err(Disconnect::FrameLength { length, limit });
            }
        };
        if length > dispatch::FRAME_BYTES_LISTS {
            self.read_head(KEY_BYTES, deadline).await?;
            let key = (&self.head[LENGTH_BYTES..]).get_i16();
            let limit = dispatch::frame_bytes_max(key);
            if length > limit {
                let length = i32::try_from(length).unwrap_or(i32::MAX);
                return Err(Disconnect::FrameLength { length, limit });
            }
        }
        let permit = self.budget.acquire(length as u64).await?;
        // More than `HEAD_BYTES` may have come with earlier frames: then it is there already.
        let bytes = if LENGTH_BYTES + length <= HEAD_BYTES.max(self.head.len()) {
            self.read_head(
                LENGTH_BYTES + length,
                Instant::now() + self.options.frame_timeout,
            )
            .await?;
            self.head.advance(LENGTH_BYTES);
            self.head.split_to(length).freeze()
        } else {
            self.read_large(length).await?
        };
        Ok(Some(Frame { bytes, permit }))
    }

    /// Waits, with no buffer, until there is something to read. False when the broker stops.
    async fn wait_for_first(&mut self) -> Result<bool, Disconnect> {
        self.head = BytesMut::new();
        loop {
            let deadline = Instant::now() + self.options.idle_timeout;
            let readable = timeout_at(deadline, self.stream.readable());
            tokio::select! {
                biased;
                // The sender may be gone: then nobody runs this any more.
                _ = self.stop.wait_for(|stop| *stop) => return Ok(false),
                readable = readable => match readable {
                    Ok(readable) => readable?,
                    // Who waits for an answer is not idle.
                    Err(_elapsed) if !self.pipeline.is_empty() => continue,
                    Err(_elapsed) => return Err(Disconnect::Idle),
                },
            }
            self.head.reserve(HEAD_BYTES);
            match now(self.stream.read_buf(&mut self.head))? {
                Some(0) => return Err(Disconnect::Closed),
                Some(_) => return Ok(true),
                None => self.head = BytesMut::new(),
            }
        }
    }

    /// Reads until `head` has `bytes` bytes; perhaps more come with them.
    async fn read_head(&mut self, bytes: usize, deadline: Instant) -> Result<(), Disconnect> {
        while self.head.len() < bytes {
            self.head.reserve(HEAD_BYTES.max(bytes) - self.head.len());
            match now(self.stream.read_buf(&mut self.head))? {
                Some(0) => return Err(Disconnect::ClosedEarly),
                Some(_) => {}
                None => {
                    let readable = timeout_at(deadline, self.stream.readable()).await;
                    readable.map_err(|_elapsed| Disconnect::FrameTimeout {
                        bytes: self.head.len(),
                    })??;
                }
            }
        }
        Ok(())
    }

    /// Reads a frame into a buffer of its own. The first bytes came with its length, and they are
    /// fewer than it has.
    async fn read_large(&mut self, length: usize) -> Result<Bytes, Disconnect> {
        let mut buffer = self.pool.take(length);
        let mut filled = self.head.len() - LENGTH_BYTES;
        buffer.bytes_mut()[..filled].copy_from_slice(&self.head[LENGTH_BYTES..]);
        self.head.clear();
        let seconds = length / BYTES_PER_SECOND_MIN;
        let allowed = self.options.frame_timeout + Duration::from_secs(seconds as u64);
        let deadline = Instant::now() + allowed;
        let mut check = Instant::now() + CHECK_INTERVAL;
        let mut checked = filled;
        while filled < length {
            match now(self.stream.read(&mut buffer.bytes_mut()[filled..]))? {
                Some(0) => return Err(Disconnect::ClosedEarly),
                Some(read) => {
                    filled += read;
                    continue;
                }
                None => {}
            }
            match timeout_at(check.min(deadline), self.stream.readable()).await {
                Ok(readable) => readable?,
                Err(_elapsed) => {
                    let now = Instant::now();
                    let is_slow = filled - checked < BYTES_PER_SECOND_MIN;
                    if now >= deadline || (is_slow && self.whole_budget.is_contended()) {
                        return Err(Disconnect::FrameTimeout { bytes: filled });
                    }
                    check = now + CHECK_INTERVAL;
                    checked = filled;
                }
            }
        }
        Ok(buffer.freeze())
    }
}

/// What a read brings that has something to read; `None` when it would wait. Unlike `try_read` it takes
/// a short read for the news that nothing is left, and saves the call that would say so.
fn now(read: impl Future<Output = io::Result<usize>>) -> io::Result<Option<usize>> {
    read.now_or_never().transpose()
}
