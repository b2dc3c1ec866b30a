//! The 61 bytes before a batch's records.

use std::fmt;

use sapwood_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::{BatchError, Codec};

/// The length of a batch's header in bytes.
pub const HEADER_BYTES: usize = 61;

/// Where the length word (i32, big-endian) starts inside a batch.
pub const LENGTH_POSITION: usize = 8;

/// The bytes before what the length word counts: the base offset and the length word itself.
pub(crate) const UNCOUNTED_BYTES: usize = 12;

/// Where the bytes that the CRC covers start; they go on to the end of the batch.
pub const CRC_START: usize = 21;

/// The length word of a batch without records.
pub(crate) const LENGTH_MIN: u32 = (HEADER_BYTES - UNCOUNTED_BYTES) as u32;

/// The only batch version that is read and written.
pub(crate) const MAGIC: u8 = 2;

const LEADER_EPOCH: usize = 12;
const MAGIC_POSITION: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORDS_COUNT: usize = 57;

const _: () = assert!(RECORDS_COUNT + 4 == HEADER_BYTES);
const _: () = assert!(LENGTH_POSITION + 4 == UNCOUNTED_BYTES);
const _: () = assert!(LENGTH_MIN == 49);

const CODEC_BITS: u16 = 0b111;
const LOG_APPEND_TIME_BIT: u16 = 1 << 3;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
const DELETE_HORIZON_BIT: u16 = 1 << 6;

/// The 61 header bytes of one batch, as they are on the disk and on the wire.
///
/// Reading a header checks nothing: every accessor answers something harmless for any bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header([u8; HEADER_BYTES]);

impl Header {
    /// Takes the first 61 bytes. `None` when there are fewer; nothing else is checked.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER_BYTES>().copied().map(Self)
    }

    /// A header with magic 2, no producer, and everything else zero.
    pub(crate) fn blank() -> Self {
        let mut header = Self([0; HEADER_BYTES]);
        header.0[MAGIC_POSITION] = MAGIC;
        header.set_producer(None);
        header
    }

    /// The bytes, in the order of the wire.
    pub fn as_bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// The offset of the first record. A negative number, which no valid batch has, reads as 0.
    pub fn base_offset(&self) -> Offset {
        Offset(u64::try_from(i64::from_be_bytes(self.field(0))).unwrap_or(0))
    }

    /// The offset of the last record (inclusive), also when compaction has removed it.
    pub fn last_offset(&self) -> Offset {
        let delta = u64::try_from(self.last_offset_delta()).unwrap_or(0);
        Offset(self.base_offset().0 + delta)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().add(1)
    }

    /// The last record's offset less the base offset; negative only in an invalid header.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(LAST_OFFSET_DELTA))
    }

    /// The length word: the bytes of the batch after byte 12. 0 in a segment means that nothing is
    /// here. Not bounded: the wire's negative numbers read as large ones.
    pub fn length(&self) -> u32 {
        u32::from_be_bytes(self.field(LENGTH_POSITION))
    }

    /// The bytes of the whole batch, as its length word says: 12 + length.
    pub fn size_bytes(&self) -> usize {
        UNCOUNTED_BYTES + self.length() as usize
    }

    /// The leader epoch in which the batch was appended. A negative number reads as 0.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(u32::try_from(i32::from_be_bytes(self.field(LEADER_EPOCH))).unwrap_or(0))
    }

    /// Whether base offset and leader epoch, which are in no checksum, are numbers that a broker sets.
    pub fn is_placed(&self) -> bool {
        i64::from_be_bytes(self.field(0)) >= 0 && i32::from_be_bytes(self.field(LEADER_EPOCH)) >= 0
    }

    /// Whether the number of records and the last offset delta are numbers that a batch can have.
    pub fn is_counted(&self) -> bool {
        let count = i64::from(self.records_count_wire());
        let delta = i64::from(self.last_offset_delta());
        delta >= 0 && (0..=delta + 1).contains(&count)
    }

    /// The batch's version; 2 in every valid batch.
    pub fn magic(&self) -> u8 {
        self.0[MAGIC_POSITION]
    }

    /// The checksum that the batch carries: CRC-32C of byte 21 to the end.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(CRC))
    }

    /// The attribute bits, as they are.
    pub fn attributes(&self) -> u16 {
        u16::from_be_bytes(self.field(ATTRIBUTES))
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for a number that Kafka has not given a meaning.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_bits(self.attributes() & CODEC_BITS)
    }

    /// Whether the batch holds a transaction's marker instead of a client's records.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether `max_timestamp` is the time of the append, and every record's timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether `base_timestamp` says when compaction may drop the batch's tombstones.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON_BIT != 0
    }

    /// What the records' timestamps are counted from.
    pub fn base_timestamp(&self) -> Timestamp {
        Timestamp(i64::from_be_bytes(self.field(BASE_TIMESTAMP)))
    }

    /// The largest timestamp of the records.
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(i64::from_be_bytes(self.field(MAX_TIMESTAMP)))
    }

    /// Who made the batch, when it was an idempotent producer (a producer id of 0 or more).
    /// A negative epoch, which validation refuses, reads as 0.
    pub fn producer(&self) -> Option<ProducerStamp> {
        let id = u64::try_from(i64::from_be_bytes(self.field(PRODUCER_ID))).ok()?;
        let epoch = u16::try_from(self.producer_epoch()).unwrap_or(0);
        let base_sequence = self.base_sequence();
        Some(ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence,
            last_sequence: sequence_after(base_sequence, self.last_offset_delta()),
        })
    }

    /// How many records the batch says it has. A negative number reads as 0.
    pub fn records_count(&self) -> u32 {
        u32::try_from(self.records_count_wire()).unwrap_or(0)
    }

    /// Sets the offset of the first record, which moves all others with it. Not in the CRC.
    ///
    /// # Panics
    /// When the offset is above `i64::MAX`.
    pub fn set_base_offset(&mut self, offset: Offset) {
        let offset = i64::try_from(offset.0).expect("offsets stay below 2^63");
        self.put(0, offset.to_be_bytes());
    }

    /// Sets the leader epoch. Not in the CRC.
    ///
    /// # Panics
    /// When the epoch is above `i32::MAX`.
    pub fn set_leader_epoch(&mut self, epoch: LeaderEpoch) {
        let epoch = i32::try_from(epoch.0).expect("leader epochs stay below 2^31");
        self.put(LEADER_EPOCH, epoch.to_be_bytes());
    }

    pub(crate) fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(PRODUCER_EPOCH))
    }

    pub(crate) fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(BASE_SEQUENCE))
    }

    pub(crate) fn records_count_wire(&self) -> i32 {
        i32::from_be_bytes(self.field(RECORDS_COUNT))
    }

    pub(crate) fn set_length(&mut self, length: u32) {
        self.put(LENGTH_POSITION, length.to_be_bytes());
    }

    pub(crate) fn set_crc(&mut self, crc: u32) {
        self.put(CRC, crc.to_be_bytes());
    }

    pub(crate) fn set_codec(&mut self, codec: Codec) {
        let attributes = self.attributes() & !CODEC_BITS | codec.bits();
        self.put(ATTRIBUTES, attributes.to_be_bytes());
    }

    pub(crate) fn set_log_append_time(&mut self) {
        let attributes = self.attributes() | LOG_APPEND_TIME_BIT;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
    }

    pub(crate) fn set_timestamps(&mut self, base: Timestamp, max: Timestamp) {
        self.put(BASE_TIMESTAMP, base.0.to_be_bytes());
        self.set_max_timestamp(max);
    }

    pub(crate) fn set_max_timestamp(&mut self, max: Timestamp) {
        self.put(MAX_TIMESTAMP, max.0.to_be_bytes());
    }

    /// Sets the number of records, and with it the last one's offset.
    pub(crate) fn set_records_count(&mut self, count: i32) {
        self.put(RECORDS_COUNT, count.to_be_bytes());
        self.put(LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
    }

    /// Sets how many records are left. The last one's offset stays.
    pub(crate) fn set_kept_count(&mut self, count: usize) {
        let count = i32::try_from(count).expect("no more than there were");
        self.put(RECORDS_COUNT, count.to_be_bytes());
    }

    pub(crate) fn set_last_offset_delta(&mut self, delta: i32) {
        self.put(LAST_OFFSET_DELTA, delta.to_be_bytes());
    }

    /// Says when tombstones may go, in the place of the base timestamp.
    pub(crate) fn set_delete_horizon(&mut self, horizon: Timestamp) {
        let attributes = self.attributes() | DELETE_HORIZON_BIT;
        self.put(ATTRIBUTES, attributes.to_be_bytes());
        self.put(BASE_TIMESTAMP, horizon.0.to_be_bytes());
    }

    /// Kafka's -1 in all three fields stands for a producer that is not idempotent.
    pub(crate) fn set_producer(&mut self, stamp: Option<&ProducerStamp>) {
        let (id, epoch, sequence) = match stamp {
            Some(stamp) => (
                i64::try_from(stamp.id.0).expect("producer ids stay below 2^63"),
                i16::try_from(stamp.epoch.0).expect("producer epochs stay below 2^15"),
                stamp.base_sequence,
            ),
            None => (-1, -1, -1),
        };
        self.put(PRODUCER_ID, id.to_be_bytes());
        self.put(PRODUCER_EPOCH, epoch.to_be_bytes());
        self.put(BASE_SEQUENCE, sequence.to_be_bytes());
    }

    fn field<const N: usize>(&self, position: usize) -> [u8; N] {
        *self.0[position..]
            .first_chunk()
            .expect("every field lies within the header")
    }

    fn put<const N: usize>(&mut self, position: usize, value: [u8; N]) {
        self.0[position..position + N].copy_from_slice(&value);
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("base_offset", &self.base_offset())
            .field("length", &self.length())
            .field("leader_epoch", &self.leader_epoch())
            .field("magic", &self.magic())
            .field("crc", &format_args!("{:08x}", self.crc()))
            .field("attributes", &format_args!("{:#x}", self.attributes()))
            .field("last_offset_delta", &self.last_offset_delta())
            .field("base_timestamp", &self.base_timestamp())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer", &self.producer())
            .field("records_count", &self.records_count_wire())
            .finish()
    }
}

/// What an idempotent producer puts on each of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Which instance of it.
    pub epoch: ProducerEpoch,
    /// The first record's sequence number; 0 or more in a valid batch.
    pub base_sequence: i32,
    /// The last record's sequence number (inclusive). After `i32::MAX` comes 0. A builder computes
    /// it itself.
    pub last_sequence: i32,
}

impl ProducerStamp {
    /// The sequence number that the producer's next batch starts with.
    pub fn next_sequence(&self) -> i32 {
        sequence_after(self.last_sequence, 1)
    }
}

/// The sequence number `records` further on, where 0 comes after `i32::MAX`.
/// Negative numbers, which no valid batch has, come back as they are.
fn sequence_after(sequence: i32, records: i32) -> i32 {
    if sequence < 0 || records < 0 {
        return sequence;
    }
    let sum = i64::from(sequence) + i64::from(records);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).expect("a remainder below 2^31 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_go_from_the_largest_to_zero() {
        assert_eq!(sequence_after(5, 3), 8);
        assert_eq!(sequence_after(i32::MAX, 0), i32::MAX);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_after(i32::MAX, i32::MAX), i32::MAX - 1);
    }

    #[test]
    fn every_byte_pattern_reads_without_a_panic() {
        for byte in [0u8, 1, 0x7f, 0x80, 0xff] {
            let header = Header::read(&[byte; HEADER_BYTES]).unwrap();
            let _ = (header.next_offset(), header.producer(), header.size_bytes());
            assert!(!format!("{header:?}").is_empty());
        }
        assert_eq!(Header::read(&[0; HEADER_BYTES - 1]), None);
    }

    #[test]
    fn a_blank_header_has_no_producer() {
        assert_eq!(Header::blank().producer(), None);
        assert_eq!(Header::blank().magic(), MAGIC);
    }
}
