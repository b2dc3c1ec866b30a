//! Reading what is at rest, to find damage before a reader does.

use sapwood_model::Offset;
use sapwood_record::Batch;

use super::{Partition, ReadError, ReadMode};
use crate::segment::{Segment, WalkError, Walker};

/// What is read at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// What one call of [`Partition::scrub`] looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes of batches whose checksums were computed.
    pub bytes: u64,
    /// Where to go on; `None` when every sealed segment from there on was looked at.
    pub next: Option<Offset>,
}

/// One batch that is not what was appended, or how far the walk came.
enum Walked {
    Sound(Scrubbed),
    Damaged { end: Offset, error: WalkError },
}

impl Partition {
    /// Computes the checksums of batches in sealed segments, from the batch that holds `from` (or the log
    /// start, if that is higher) on, about `bytes_max` bytes of them and at least one batch, within one
    /// segment. Open segments are left out: recovery checks what it finds of them. Blocks.
    ///
    /// # Errors
    /// [`ReadError`]. Damage takes the partition offline, naming file, position and offsets.
    pub fn scrub(&self, from: Offset, bytes_max: u64) -> Result<Scrubbed, ReadError> {
        let from = from.max(self.bounds().log_start);
        self.check_readable(from)?;
        let view = self.view.load_full();
        let Some((Segment::Sealed(sealed), _)) = view.floor(from) else {
            return Ok(Scrubbed {
                bytes: 0,
                next: None,
            });
        };
        let segment = Segment::Sealed(sealed.clone());
        let walked = self.with_start(
            &segment,
            from,
            ReadMode::Blocking,
            |source, at, expected| {
                let mode = ReadMode::Blocking;
                let walker = Walker::new(source, at, expected, WINDOW_BYTES, mode);
                walk(walker, from, bytes_max)
            },
        );
        if walked.is_err() && self.was_replaced(&segment) {
            // What there is now was checked when it was compacted.
            return Ok(Scrubbed {
                bytes: 0,
                next: Some(sealed.end_offset),
            });
        }
        let (end, error) = match walked {
            Ok(Walked::Sound(scrubbed)) => {
                let metrics = self.durability.metrics();
                metrics.scrubbed_bytes.add(scrubbed.bytes);
                let next = scrubbed.next.unwrap_or(sealed.end_offset);
                return Ok(Scrubbed {
                    next: Some(next),
                    ..scrubbed
                });
            }
            Ok(Walked::Damaged { end, error }) => (end, error),
            Err(error) => (sealed.end_offset, error),
        };
        Err(self.read_failed(&segment, end, from, error))
    }
}

/// Checks batch after batch. `next` is `None` at the segment's end.
fn walk(mut walker: Walker<'_>, from: Offset, bytes_max: u64) -> Result<Walked, WalkError> {
    let mut bytes = 0;
    let mut next = None;
    while !walker.at_end() && (bytes == 0 || bytes < bytes_max) {
        let header = walker.peek()?;
        if header.next_offset() <= from {
            walker.skip(&header);
            continue;
        }
        let start = walker.position();
        let size = header.size_bytes() as u64;
        let batch = walker.bytes(start..start + size)?;
        if let Err(problem) = Batch::split(batch).and_then(|batch| batch.verify_crc()) {
            return Ok(Walked::Damaged {
                end: header.next_offset(),
                // Its header is in the chain, so that this is the batch of those offsets.
                error: WalkError::Damage {
                    position: start,
                    expected: header.base_offset(),
                    problem: problem.to_string(),
                },
            });
        }
        walker.skip(&header);
        bytes += size;
        next = Some(header.next_offset());
    }
    let next = next.filter(|_| !walker.at_end());
    Ok(Walked::Sound(Scrubbed { bytes, next }))
}
