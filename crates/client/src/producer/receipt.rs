//! What a producer gives for a record.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::future::{FutureExt, Shared};
use sapwood_model::{Code, Offset, PartitionId};
use tokio::sync::oneshot;

use crate::Error;

/// What became of a batch: the offset of its first record, if the broker told.
pub(super) type Resolution = Result<Option<Offset>, Error>;

/// A batch's result, awaited by the receipts of its records and by `flush`.
#[derive(Debug, Clone)]
pub(super) struct Outcome(Shared<oneshot::Receiver<Resolution>>);

impl Outcome {
    /// A result that is still open, and the end that settles it.
    pub(super) fn new() -> (oneshot::Sender<Resolution>, Self) {
        let (settle, settled) = oneshot::channel();
        (settle, Self(settled.shared()))
    }
}

impl Future for Outcome {
    type Output = Resolution;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Resolution> {
        Poll::Ready(ready!(self.0.poll_unpin(context)).unwrap_or_else(|_| {
            // The sending task is gone: its runtime was shut down.
            let message = "the producer's runtime ended before the record had its result";
            Err(Error::local(Code::TimedOut, message))
        }))
    }
}

/// Where a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: PartitionId,
    /// The record's offset; `None` with [`Acks::None`](crate::Acks).
    pub offset: Option<Offset>,
}

/// Ready when its record has its result. With [`Acks::All`](crate::Acks) it is then as durable as
/// the topic promises. Dropping a receipt changes nothing: the record is written all the same, and
/// [`Producer::flush`](crate::Producer::flush) still reports its failure.
///
/// # Errors
/// Its output is the reason why the record was not written. After [`Code::TimedOut`] it may have been
/// written all the same.
#[derive(Debug)]
pub struct Receipt {
    pub(super) outcome: Outcome,
    pub(super) partition: PartitionId,
    /// The record's place in its batch.
    pub(super) index: u32,
}

impl Receipt {
    /// The partition that was chosen for the record.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl Future for Receipt {
    type Output = Result<Delivery, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let resolution = ready!(Pin::new(&mut self.outcome).poll(context));
        Poll::Ready(resolution.map(|base| Delivery {
            partition: self.partition,
            offset: base.map(|base| base.add(u64::from(self.index))),
        }))
    }
}
