//! What retention deletes next of a partition, and when.

use std::time::Duration;

use sapwood_client::NextRemoval;
use sapwood_model::Timestamp;
use serde_json::{Value, json};

use crate::{
    duration::age,
    output::{bytes_text, thousands},
};

/// Such as `0..1,204 (16 MiB) in 5h40m` or `... after 3 MiB more`, whichever limits there are; `-` when
/// nothing is deleted.
pub(crate) fn next_removal_text(next: Option<&NextRemoval>, now: Timestamp) -> String {
    let Some(next) = next else {
        return "-".to_owned();
    };
    let by_age = next.at.map(|at| {
        let left = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0);
        match left {
            0 => "now".to_owned(),
            left => format!("in {}", age(Duration::from_millis(left))),
        }
    });
    let by_size = next.after_bytes.map(|bytes| match bytes {
        0 => "now".to_owned(),
        bytes => format!("after {} more", bytes_text(bytes)),
    });
    let when = match (by_age, by_size) {
        (None, None) => return "-".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(age), Some(size)) => format!("{age} or {size}"),
    };
    let (start, end) = (next.offsets.start.0, next.offsets.end.0);
    let size = bytes_text(next.size_bytes);
    format!("{}..{} ({size}) {when}", thousands(start), thousands(end))
}

/// The same for programs.
pub(crate) fn next_removal_json(next: &NextRemoval) -> Value {
    json!({
        "start_offset": next.offsets.start.0,
        "end_offset": next.offsets.end.0,
        "size_bytes": next.size_bytes,
        "at": next.at.map(|at| at.0),
        "after_bytes": next.after_bytes,
    })
}
