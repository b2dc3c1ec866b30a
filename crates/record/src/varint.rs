//! Variable-length integers: groups of 7 bits, the least significant first, the high bit set on all
//! but the last; signed ones zigzag-encoded (Protocol Buffers' encoding, which Kafka took over).

use std::ops::Range;

use crate::RecordFault;

/// A place in bytes that are read field by field, without copying or allocating.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at `position`, which is at most the end.
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    #[inline(always)]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self) -> Result<u8, RecordFault> {
        let byte = *self
            .bytes
            .get(self.position)
            .ok_or(RecordFault::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    /// The range of the next `bytes` bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bytes: usize) -> Result<Range<usize>, RecordFault> {
        let start = self.position;
        if bytes > self.bytes.len() - start {
            return Err(RecordFault::Truncated);
        }
        self.position = start + bytes;
        Ok(start..self.position)
    }

    /// A signed number of 32 bits in at most 5 bytes.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<i32, RecordFault> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag(u64::from(first)) as i32);
        }
        let second = self.byte()?;
        if second < 0x80 {
            let raw = u64::from(first & 0x7f) | u64::from(second) << 7;
            return Ok(unzigzag(raw) as i32);
        }
        // The length of a long value.
        if let Some(&third) = self.bytes.get(self.position)
            && third < 0x80
        {
            self.position += 1;
            let raw = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
            return Ok(unzigzag(raw | u64::from(third) << 14) as i32);
        }
        let raw = self.long(first, second, 5)?;
        let raw = u32::try_from(raw).map_err(|_| RecordFault::VarintOverflow)?;
        Ok(unzigzag(u64::from(raw)) as i32)
    }

    /// A signed number of 64 bits in at most 10 bytes.
    #[inline(always)]
    pub(crate) fn varlong(&mut self) -> Result<i64, RecordFault> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag(u64::from(first)));
        }
        let second = self.byte()?;
        if second < 0x80 {
            return Ok(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7));
        }
        self.long(first, second, 10).map(unzigzag)
    }

    #[inline(always)]
    fn long(&mut self, first: u8, second: u8, bytes_max: usize) -> Result<u64, RecordFault> {
        let (raw, position) = long(self.bytes, self.position, [first, second], bytes_max)?;
        self.position = position;
        Ok(raw)
    }
}

/// A number of at most `bytes_max` bytes whose first two have more to come, and the position after
/// it. Takes the reader's fields by value: borrowed, they would live in memory instead of registers,
/// which doubles the time of the walk.
#[cold]
fn long(
    bytes: &[u8],
    mut position: usize,
    [first, second]: [u8; 2],
    bytes_max: usize,
) -> Result<(u64, usize), RecordFault> {
    let mut raw = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
    for shift in (0..bytes_max).map(|byte| byte * 7).skip(2) {
        let byte = *bytes.get(position).ok_or(RecordFault::Truncated)?;
        position += 1;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if bits << shift >> shift != bits {
            return Err(RecordFault::VarintOverflow);
        }
        raw |= bits << shift;
        if byte < 0x80 {
            return Ok((raw, position));
        }
    }
    Err(RecordFault::VarintOverflow)
}

/// Appends a signed number; one of 32 bits is written the same way.
pub(crate) fn put_varlong(bytes: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

/// How many bytes [`put_varlong`] writes: 1 to 10.
pub(crate) fn varlong_bytes(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varlong(&mut bytes, value);
        bytes
    }

    const EDGES: [i64; 19] = [
        0,
        1,
        -1,
        63,
        -64,
        64,
        -65,
        8191,
        -8192,
        8192,
        1 << 20,
        i32::MAX as i64,
        i32::MIN as i64,
        i32::MAX as i64 + 1,
        i32::MIN as i64 - 1,
        1 << 40,
        -(1 << 62),
        i64::MAX,
        i64::MIN,
    ];

    #[test]
    fn every_size_of_number_survives_the_round_trip() {
        for value in EDGES {
            let bytes = encoded(value);
            assert_eq!(bytes.len(), varlong_bytes(value), "{value}");
            let mut reader = Reader::new(&bytes, 0);
            assert_eq!(reader.varlong(), Ok(value));
            assert_eq!(reader.position(), bytes.len());
            let narrow = Reader::new(&bytes, 0).varint();
            assert_eq!(
                narrow,
                i32::try_from(value).map_err(|_| RecordFault::VarintOverflow)
            );
        }
    }

    #[test]
    fn the_encoding_is_the_one_of_protocol_buffers() {
        assert_eq!(encoded(0), [0x00]);
        assert_eq!(encoded(-1), [0x01]);
        assert_eq!(encoded(1), [0x02]);
        assert_eq!(encoded(300), [0xd8, 0x04]);
        assert_eq!(encoded(i64::from(i32::MIN)), [0xff, 0xff, 0xff, 0xff, 0x0f]);
    }

    #[test]
    fn a_number_that_is_cut_off_is_an_error() {
        for value in EDGES {
            let bytes = encoded(value);
            for end in 0..bytes.len() {
                let cut = &bytes[..end];
                assert_eq!(Reader::new(cut, 0).varlong(), Err(RecordFault::Truncated));
                if end < 5 {
                    assert_eq!(Reader::new(cut, 0).varint(), Err(RecordFault::Truncated));
                }
            }
        }
    }

    #[test]
    fn a_number_with_too_many_bits_is_an_error() {
        let eleven_bytes = [0xff; 11];
        assert_eq!(
            Reader::new(&eleven_bytes, 0).varlong(),
            Err(RecordFault::VarintOverflow)
        );
        assert_eq!(
            Reader::new(&eleven_bytes, 0).varint(),
            Err(RecordFault::VarintOverflow)
        );
        let sixty_five_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(
            Reader::new(&sixty_five_bits, 0).varlong(),
            Err(RecordFault::VarintOverflow)
        );
        let thirty_three_bits = [0xff, 0xff, 0xff, 0xff, 0x10];
        assert_eq!(
            Reader::new(&thirty_three_bits, 0).varint(),
            Err(RecordFault::VarintOverflow)
        );
    }

    #[test]
    fn a_number_with_needless_zeros_is_read_as_kafka_reads_it() {
        assert_eq!(Reader::new(&[0x82, 0x00], 0).varint(), Ok(1));
        let six_bytes = [0x82, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(Reader::new(&six_bytes[1..], 0).varint(), Ok(0));
        assert_eq!(Reader::new(&six_bytes, 0).varlong(), Ok(1));
        assert_eq!(
            Reader::new(&six_bytes, 0).varint(),
            Err(RecordFault::VarintOverflow)
        );
    }
}
