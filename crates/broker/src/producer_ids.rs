//! Ids for idempotent producers, taken from the catalog in durable blocks.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use sapwood_model::{Code, ProducerEpoch, ProducerId};
use tokio::sync::Semaphore;

use crate::{
    Broker,
    catalog::{Applied, CatalogError, Command, ProposeError},
};

/// How many ids one record of the catalog gives.
const BLOCK: u64 = 1000;

/// The rest of the current block.
#[derive(Debug)]
pub(crate) struct ProducerIds {
    left: Mutex<Range<u64>>,
    /// Whoever fetches the next block has the turn.
    turn: Arc<Semaphore>,
}

impl Default for ProducerIds {
    fn default() -> Self {
        Self {
            left: Mutex::new(0..0),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Why there is no producer id.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProducerIdError {
    /// The catalog could not reserve the next block.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Every id that clients can hold was given out.
    #[error("every producer id was given out")]
    UsedUp,
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

impl ProducerIdError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Catalog(e) => e.code(),
            Self::UsedUp => Code::Internal,
            Self::Draining => Code::Draining,
        }
    }
}

impl Broker {
    /// A producer id that nobody had before, in any life of this data directory, with epoch 0. Ids of
    /// a block that were not given out before a restart are lost.
    ///
    /// # Errors
    /// See [`ProducerIdError`].
    pub async fn allocate_producer_id(
        &self,
    ) -> Result<(ProducerId, ProducerEpoch), ProducerIdError> {
        let ids = &self.core.producer_ids;
        loop {
            if let Some(id) = ids.left.lock().next() {
                return Ok((ProducerId(id), ProducerEpoch(0)));
            }
            let accepted = self.core.gate.accept().ok_or(ProducerIdError::Draining)?;
            let turn = ids.turn.clone().acquire_owned().await;
            let turn = turn.expect("the semaphore is never closed");
            if !ids.left.lock().is_empty() {
                // Somebody else fetched a block in the meantime.
                continue;
            }
            let core = self.core.clone();
            let reserve = move || {
                let _held = (turn, accepted);
                match core
                    .catalog
                    .propose(Command::ReserveProducerIds { count: BLOCK })
                {
                    Ok(Applied::ProducerIds { first }) => {
                        *core.producer_ids.left.lock() = first..first + BLOCK;
                        Ok(())
                    }
                    Ok(Applied::Done) => unreachable!("a reservation answers with ids"),
                    Err(ProposeError::Rejected(_)) => Err(ProducerIdError::UsedUp),
                    Err(ProposeError::Catalog(e)) => Err(e.into()),
                }
            };
            let reserved = self.core.options.driver.run(reserve).await;
            reserved.ok_or(ProducerIdError::Draining)??;
        }
    }
}
