//! Places in a partition, and what a partition holds.

use sapwood_model::{Offset, Timestamp};
use sapwood_rpc::v1::{self, position::At};

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The log start: the first record that is there.
    Start,
    /// The high watermark when the broker is asked: records that come later.
    End,
    /// This offset. Outside the log it is [`Code::OffsetOutOfRange`](crate::Code).
    Offset(Offset),
    /// The first record of this time or later; the end when there is none.
    Time(Timestamp),
    /// So many records before the end, but not before the log start.
    Last(u64),
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        let at = match position {
            Position::Start => At::Start(true),
            Position::End => At::End(true),
            Position::Offset(offset) => At::Offset(offset.0),
            Position::Time(timestamp) => At::TimestampMs(timestamp.0),
            Position::Last(records) => At::Last(records),
        };
        Self { at: Some(at) }
    }
}

/// What a partition holds: `log_start <= high_watermark <= log_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The first record that is there.
    pub log_start: Offset,
    /// The first offset that cannot be read yet: what lies below is as durable as the topic
    /// promises.
    pub high_watermark: Offset,
    /// The offset that the next appended record gets.
    pub log_end: Offset,
}

impl From<v1::Bounds> for Bounds {
    fn from(bounds: v1::Bounds) -> Self {
        Self {
            log_start: Offset(bounds.log_start_offset),
            high_watermark: Offset(bounds.high_watermark),
            log_end: Offset(bounds.log_end_offset),
        }
    }
}
