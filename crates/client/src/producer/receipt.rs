//! What a producer gives for a record.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use sapwood_model::{Offset, PartitionId};

use crate::Error;

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
#[derive(Debug)]
#[must_use = "awaiting the receipt tells whether the record was written; drop it if flush will tell"]
pub struct Receipt(());

impl Future for Receipt {
    type Output = Result<Delivery, Error>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Error::transport("not connected")))
    }
}
