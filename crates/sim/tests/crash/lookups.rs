//! Indexes: what is found by offset and by time is what the batches say.

use sapwood_log::{Partition, Read, ReadLimits, ReadMode, TimestampedOffset};
use sapwood_model::{Offset, Timestamp};
use sapwood_record::{Batch, batches};

use crate::model::LogBatch;
use crate::world::Outcome;

const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// Compares look-ups with the batches that can be read, which end at `visible`.
pub(crate) fn check(partition: &Partition, found: &[LogBatch], visible: Offset) -> Outcome {
    let start = partition.bounds().log_start;
    check_offsets(partition, found, start)?;
    let records = records(found, start, visible)?;
    let largest = records.iter().map(|record| record.timestamp).max();
    let expected = first_at(&records, largest.filter(|largest| largest.0 >= 0));
    let got = partition
        .find_max_timestamp()
        .map_err(|error| format!("no largest timestamp: {error}"))?;
    if got != expected {
        return Err(format!(
            "the largest timestamp is {expected:?}, not {got:?}"
        ));
    }
    // Times from all over the log, and just beside them.
    for at in 0..4 {
        let Some(record) = records.get(records.len() * at / 4) else {
            continue;
        };
        let at = Timestamp((record.timestamp.0 + at as i64 % 2).max(0));
        let expected = first_at(&records, Some(at));
        let got = partition
            .find_timestamp(at)
            .map_err(|error| format!("time {at:?} is not found: {error}"))?;
        if got != expected {
            return Err(format!("time {at:?} is at {expected:?}, not {got:?}"));
        }
    }
    Ok(())
}

/// A read from the middle of the log starts with the batch that holds the offset.
fn check_offsets(partition: &Partition, found: &[LogBatch], start: Offset) -> Outcome {
    for part in 0..3 {
        let Some(batch) = found.get(found.len() * part / 3) else {
            continue;
        };
        let from = Offset(batch.next.0 - 1).max(start);
        let limits = ReadLimits {
            bytes_max: 1,
            upto: Offset(u64::MAX),
        };
        let bytes = match partition.read(from, limits, ReadMode::Blocking) {
            Ok(Read::Batches { bytes, .. }) => bytes,
            other => return Err(format!("offset {from}: {other:?}")),
        };
        let first = batches(bytes).next().and_then(Result::ok);
        let first = first.as_ref().map(LogBatch::read);
        if first.as_ref() != Some(batch) {
            return Err(format!(
                "offset {from} is in {batch:?}, and {first:?} was read"
            ));
        }
    }
    Ok(())
}

fn records(found: &[LogBatch], start: Offset, visible: Offset) -> Outcome<Vec<TimestampedOffset>> {
    let mut all = Vec::new();
    for batch in found {
        let leader_epoch = batch.leader_epoch();
        let batch = Batch::split(batch.bytes.clone()).map_err(|error| error.to_string())?;
        let records = batch
            .records(DECOMPRESSED_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            if (start..visible).contains(&record.offset) {
                all.push(TimestampedOffset {
                    timestamp: record.timestamp,
                    offset: record.offset,
                    leader_epoch,
                });
            }
        }
    }
    Ok(all)
}

fn first_at(records: &[TimestampedOffset], at: Option<Timestamp>) -> Option<TimestampedOffset> {
    let at = at?;
    records
        .iter()
        .find(|record| record.timestamp >= at)
        .copied()
}
