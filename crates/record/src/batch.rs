//! One whole batch, and runs of batches.

use std::fmt;

use bytes::{Buf, Bytes};
use crc_fast::{CrcAlgorithm, Digest};
use sapwood_model::Timestamp;

use crate::{
    BatchError, Codec, Header, Records,
    header::{CRC_START, HEADER_BYTES, LENGTH_MIN, MAGIC},
};

/// One whole batch: its header apart from its records, so that header fields change without a copy
/// of the records. Cheap to clone; the records are shared.
///
/// The structure of the header has been checked: magic 2, a length word that agrees with the bytes,
/// a count and a last offset delta of 0 or more. The CRC and the records have not.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    header: Header,
    records: Bytes,
}

impl Batch {
    /// Reads exactly one batch. Checks the header's structure and the length, not the CRC.
    ///
    /// # Errors
    /// When the bytes are fewer or more than one batch, or the header contradicts itself.
    pub fn split(mut bytes: Bytes) -> Result<Self, BatchError> {
        let header = check_one(&bytes)?;
        bytes.advance(HEADER_BYTES);
        let records = bytes;
        Ok(Self { header, records })
    }

    /// Reads exactly one batch and compares its CRC with its bytes, in one pass over them.
    ///
    /// # Errors
    /// As [`Batch::split`] and [`Batch::verify_crc`].
    #[inline(always)] // and what validation calls after it: a header's copies cost as much as its checks
    pub(crate) fn split_verified(mut bytes: Bytes) -> Result<Self, BatchError> {
        let header = check_one(&bytes)?;
        check_crc(header.crc(), crc32c(&[&bytes[CRC_START..]]))?;
        bytes.advance(HEADER_BYTES);
        let records = bytes;
        Ok(Self { header, records })
    }

    /// A batch from a header that is complete but for its length word and its CRC.
    /// The caller keeps the size below 2 GiB.
    pub(crate) fn seal(mut header: Header, records: Bytes) -> Self {
        let length = u32::try_from(records.len()).expect("a batch stays below 2 GiB") + LENGTH_MIN;
        header.set_length(length);
        let mut batch = Self { header, records };
        batch.update_crc();
        batch
    }

    /// Compares the batch's CRC with its bytes.
    ///
    /// # Errors
    /// [`BatchError::Crc`] names both.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        check_crc(self.header.crc(), self.compute_crc())
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header, to set the fields that no CRC covers.
    pub fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// The bytes after the header, compressed when the codec says so.
    pub fn record_bytes(&self) -> &Bytes {
        &self.records
    }

    /// The size of the whole batch in bytes, header included.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The whole batch in one piece. One copy.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.size_bytes());
        bytes.extend_from_slice(self.header.as_bytes());
        bytes.extend_from_slice(&self.records);
        bytes.into()
    }

    /// The records, decompressed when needed, into at most `decompressed_bytes_max` bytes.
    /// Uncompressed records are slices of the batch: nothing is copied, whatever the cap.
    ///
    /// # Errors
    /// When the codec is unknown, or the bytes do not decompress or pass the cap. A record that is
    /// damaged is found by the iterator when it gets there.
    pub fn records(&self, decompressed_bytes_max: usize) -> Result<Records, BatchError> {
        let bytes = self
            .header
            .codec()?
            .decompress(&self.records, decompressed_bytes_max)?;
        Ok(Records::new(&self.header, bytes))
    }

    /// Makes `now` the time of every record: log-append time, its bit, and the CRC anew.
    pub fn stamp_append_time(&mut self, now: Timestamp) {
        self.header.set_log_append_time();
        self.header.set_max_timestamp(now);
        self.update_crc();
    }

    /// The same records in another codec. `records` are they in that codec; everything else that the
    /// header says stays. The caller keeps the size below 2 GiB.
    pub(crate) fn with_records(mut self, codec: Codec, records: Bytes) -> Self {
        self.header.set_codec(codec);
        Self::seal(self.header, records)
    }

    pub(crate) fn correct_max_timestamp(&mut self, max: Timestamp) {
        self.header.set_max_timestamp(max);
        self.update_crc();
    }

    fn update_crc(&mut self) {
        self.header.set_crc(self.compute_crc());
    }

    fn compute_crc(&self) -> u32 {
        crc32c(&[&self.header.as_bytes()[CRC_START..], &self.records])
    }
}

/// Shows the header and how many bytes of records there are, never the records.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("header", &self.header)
            .field("record_bytes", &self.records.len())
            .finish()
    }
}

/// Walks a run of whole batches, such as a fetch answer. Checks what [`Batch::split`] checks.
/// After the first error the iterator ends.
pub fn batches(bytes: Bytes) -> Batches {
    Batches { rest: bytes }
}

/// The iterator of [`batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let header = match check_structure(&self.rest) {
            Ok(header) => header,
            Err(error) => {
                self.rest.clear();
                return Some(Err(error));
            }
        };
        let mut batch = self.rest.split_to(header.size_bytes());
        let records = batch.split_off(HEADER_BYTES);
        Some(Ok(Batch { header, records }))
    }
}

impl std::iter::FusedIterator for Batches {}

/// CRC-32C (Castagnoli) of the parts as if they were one piece.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::new();
    for part in parts {
        crc.update(part);
    }
    crc.finish()
}

/// CRC-32C (Castagnoli) of bytes that come piece by piece, for a batch that is not held in memory.
#[derive(Debug, Clone)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// Of no bytes: 0.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of everything so far.
    pub fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("a CRC-32 has 32 bits")
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// [`check_structure`] of bytes that are to be one batch and nothing else.
fn check_one(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = check_structure(bytes)?;
    match bytes.len() - header.size_bytes() {
        0 => Ok(header),
        bytes => Err(BatchError::TrailingBytes { bytes }),
    }
}

fn check_crc(stored: u32, computed: u32) -> Result<(), BatchError> {
    if stored == computed {
        Ok(())
    } else {
        Err(BatchError::Crc { stored, computed })
    }
}

/// What every batch obeys, at the start of `bytes`: magic, length within the bytes, no negative
/// counts. A batch whose records compaction has removed is fine.
fn check_structure(bytes: &[u8]) -> Result<Header, BatchError> {
    let header = Header::read(bytes).ok_or(BatchError::HeaderTruncated { bytes: bytes.len() })?;
    let length = header.length();
    if length < LENGTH_MIN || i32::try_from(length).is_err() {
        return Err(BatchError::LengthTooSmall {
            length: length.cast_signed(),
        });
    }
    if header.magic() != MAGIC {
        return Err(BatchError::Magic {
            magic: header.magic(),
        });
    }
    if header.size_bytes() > bytes.len() {
        let size_bytes = header.size_bytes();
        return Err(BatchError::Truncated {
            size_bytes,
            bytes: bytes.len(),
        });
    }
    let (count, last_offset_delta) = (header.records_count_wire(), header.last_offset_delta());
    if count < 0 || last_offset_delta < 0 {
        return Err(BatchError::NegativeCount {
            count,
            last_offset_delta,
        });
    }
    Ok(header)
}
