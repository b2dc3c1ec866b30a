//! Reading a partition as a client would.

use super::*;

pub(super) fn read(partition: &Partition, from: Offset, bytes_max: usize) -> Result<Bytes, String> {
    let limits = ReadLimits {
        bytes_max,
        upto: Offset(u64::MAX),
    };
    match partition.read(from, limits, ReadMode::Blocking) {
        Ok(Read::Batches { bytes, .. }) => Ok(bytes),
        Ok(Read::Cold) => Err("a read that may wait found it cold".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn read_all(partition: &Partition) -> Result<Found, String> {
    if let PartitionState::Offline { reason } = partition.state() {
        return Ok(Found::AtStart(reason));
    }
    let bounds = partition.bounds();
    let mut from = bounds.log_start;
    let mut found = Vec::new();
    let limits = ReadLimits {
        bytes_max: 700,
        upto: Offset(u64::MAX),
    };
    let mut seen = BTreeSet::new();
    while from < bounds.high_watermark {
        if !seen.insert(from) {
            return Err(format!("a reader at {from} does not come on"));
        }
        match partition.read(from, limits, ReadMode::Blocking) {
            Ok(Read::Batches { bytes, next }) => {
                let mut rest = bytes;
                while let Some(header) = Header::read(&rest) {
                    let batch = rest.split_to(header.size_bytes().min(rest.len()));
                    found.push(LogBatch {
                        base: header.base_offset(),
                        next: header.next_offset(),
                        timestamp: header.max_timestamp(),
                        bytes: batch,
                    });
                }
                if !rest.is_empty() {
                    return Err(format!("{} bytes at {from} are no batch", rest.len()));
                }
                from = next;
            }
            Ok(Read::Cold) => return Err("a read that may wait found it cold".to_owned()),
            Err(error) => match partition.state() {
                PartitionState::Offline { reason } => return Ok(Found::AtRead(reason)),
                PartitionState::Online => {
                    return Err(format!(
                        "offset {from} of {bounds:?} cannot be read: {error}"
                    ));
                }
            },
        }
    }
    Ok(Found::Batches(found))
}
