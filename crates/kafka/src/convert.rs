//! Kafka's numbers and the domain's. Kafka's -1 ends here.

use sapwood_model::{LeaderEpoch, Offset, PartitionId};

/// A partition's number, if it can be one.
pub(crate) fn partition_id(index: i32) -> Option<PartitionId> {
    u32::try_from(index).ok().map(PartitionId)
}

/// An offset on the wire.
pub(crate) fn wire_offset(offset: Offset) -> i64 {
    // Offsets never go above i64::MAX.
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// An epoch on the wire.
pub(crate) fn wire_epoch(epoch: LeaderEpoch) -> i32 {
    i32::try_from(epoch.0).unwrap_or(i32::MAX)
}

/// An epoch that a client names; `None` for -1, which is any.
pub(crate) fn leader_epoch(epoch: i32) -> Option<LeaderEpoch> {
    u32::try_from(epoch).ok().map(LeaderEpoch)
}
