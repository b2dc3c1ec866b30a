//! What a member holds, and what is on its way out; and waiting for what may not be there.

use std::{collections::BTreeMap, sync::Arc};

use sapwood_rpc::v1;
use tokio::{
    sync::oneshot,
    time::{Instant, Interval, sleep_until},
};

use super::{acks::Acks, commits::Waiter};
use crate::{Error, TopicPartition};

/// A partition of this member's.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) acks: Arc<Acks>,
    pub(super) topic_id: String,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is not known where to begin.
    Unknown,
    /// It is being asked for.
    Asked,
    /// The consumer reads it.
    Known,
}

/// Partitions on their way out.
pub(super) struct Giving {
    pub(super) partitions: BTreeMap<TopicPartition, Owned>,
    pub(super) deadline: Instant,
    /// Until when what is acknowledged may be committed.
    pub(super) commit_until: Instant,
    /// Ends when the application has let go of the event.
    pub(super) event: Option<oneshot::Receiver<()>>,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Messages are in flight.
    InFlight,
    /// What is acknowledged is being committed.
    Committing,
}

pub(super) struct Closing {
    pub(super) leave: v1::Leave,
    pub(super) reply: Option<Waiter>,
    /// What the last commit failed with.
    pub(super) failure: Option<Error>,
    /// The member has said that it leaves.
    pub(super) leaving: bool,
    pub(super) deadline: Instant,
}

/// Waits for a future that may not be there.
pub(super) async fn some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Waits until a time that may not be set.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn due(tick: &mut Option<Interval>) {
    match tick {
        Some(tick) => {
            tick.tick().await;
        }
        None => std::future::pending().await,
    }
}
