//! Forgetting deleted topics. The catalog remembers their ids for as long as the journal may hold
//! entries of theirs, or the disk a folder.

use super::{Next, TickError};
use crate::{broker::Core, catalog::Command};

/// Takes a checkpoint past the entries of deleted topics, and tells the catalog what it may forget.
pub(super) fn forget(core: &Core) -> Result<Next, TickError> {
    if core.catalog.read(|state| state.deleted().is_empty()) {
        return Ok(Next::Triggered);
    }
    let mut done = core.background.forgettable.lock();
    done.extend(core.store.forgotten());
    let is_known = core
        .catalog
        .read(|state| state.deleted().keys().all(|id| done.contains(id)));
    if !is_known {
        core.store.checkpoint()?;
        done.extend(core.store.forgotten());
    }
    if !done.is_empty() {
        core.catalog.propose(Command::ForgetDeleted {
            topics: done.clone(),
        })?;
        done.clear();
    }
    // What is left has a folder that could not be removed; the next start finishes that.
    Ok(Next::Triggered)
}
