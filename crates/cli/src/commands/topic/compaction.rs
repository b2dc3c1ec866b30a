//! How far a partition is compacted.

use sapwood_client::CompactionState;
use serde_json::{Value, json};

/// The part of the bytes that is new since the last compaction, 0 to 1.
pub(crate) fn dirty_ratio(state: &CompactionState) -> f64 {
    match state.clean_bytes.saturating_add(state.dirty_bytes) {
        0 => 0.0,
        all => state.dirty_bytes as f64 / all as f64,
    }
}

/// For programs.
pub(crate) fn compaction_json(state: &CompactionState) -> Value {
    json!({
        "clean_offset": state.clean_offset.0,
        "clean_bytes": state.clean_bytes,
        "dirty_bytes": state.dirty_bytes,
        "dirty_ratio": dirty_ratio(state),
    })
}
