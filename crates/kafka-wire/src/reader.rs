//! Reading a frame.

use std::ops::Range;

use bytes::Bytes;

use crate::{DecodeError, Message};

/// The longest string of the protocol, in bytes, in both encodings.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Reads one frame from its first byte to its last.
///
/// Nothing is taken on trust: a length is held against the bytes that remain, and what the decoded
/// values may take is bounded in advance ([`Reader::memory_allowed`]).
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    /// Where the frame ends, or the tagged field that is being read.
    end: usize,
    /// Whether lengths are compact and structs have tagged fields.
    flexible: bool,
    /// What strings and arrays may still take, in bytes.
    memory: usize,
}

impl Reader {
    /// How much memory a frame may become, in bytes: the sum of the capacities of all strings and
    /// arrays, which are allocated in their final size.
    ///
    /// 4 KiB, 16 bytes a byte of the first MiB, and 4 a byte beyond. Real messages stay well below
    /// it, because names have letters and partitions have records: 100,000 topics in a Metadata
    /// request, names of 20 letters, are 2.2 MB and become 6.8. An array of as many empty strings,
    /// a byte each, would become 24 times what it is and is refused.
    pub const fn memory_allowed(frame_bytes: usize) -> usize {
        const BASE: usize = 4 * 1024;
        const MIB: usize = 1024 * 1024;
        let first = if frame_bytes < MIB { frame_bytes } else { MIB };
        let rest = (frame_bytes - first).saturating_mul(4);
        rest.saturating_add(BASE + first * 16)
    }

    /// Reads a frame, without its length prefix. Lengths are not compact until a flexible message
    /// begins.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            position: 0,
            end: bytes.len(),
            flexible: false,
            memory: Self::memory_allowed(bytes.len()),
            bytes,
        }
    }

    /// How many bytes are behind what was read.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        self.expect_end()
    }

    /// Begins the body of a message: from here on its version decides how lengths are read.
    ///
    /// # Errors
    /// When the codec does not know the version.
    pub fn begin<M: Message>(&mut self, version: i16) -> Result<(), DecodeError> {
        if !M::VERSIONS.contains(&version) {
            return Err(DecodeError::Version {
                key: M::KEY,
                version,
                first: *M::VERSIONS.start(),
                last: *M::VERSIONS.end(),
            });
        }
        self.set_flexible(M::FLEXIBLE_FROM.is_some_and(|first| version >= first));
        Ok(())
    }

    /// Whether lengths are compact and structs have tagged fields.
    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.advance(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[start..start + N]);
        Ok(array)
    }

    /// A number of at most 32 bits, 7 of them a byte, the lowest first.
    ///
    /// # Errors
    /// When the bytes end in it, or it has more bits.
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let start = self.position;
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { position: start })
    }

    /// A string, or null.
    ///
    /// # Errors
    /// When it is longer than what is there or than 32,767 bytes, or is not UTF-8.
    pub fn string(&mut self) -> Result<Option<String>, DecodeError> {
        let Some(place) = self.string_place()? else {
            return Ok(None);
        };
        match std::str::from_utf8(&self.bytes[place.clone()]) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(DecodeError::Utf8 {
                position: place.start,
            }),
        }
    }

    /// A string, or null, of which what is not UTF-8 is replaced, as Kafka does: by U+FFFD, which takes
    /// 3 bytes. So that it can be written again, it ends where it would get longer than 32,767 bytes.
    ///
    /// # Errors
    /// When it is longer than what is there or than 32,767 bytes.
    pub fn string_lossy(&mut self) -> Result<Option<String>, DecodeError> {
        let Some(place) = self.string_place()? else {
            return Ok(None);
        };
        let mut text = String::from_utf8_lossy(&self.bytes[place]).into_owned();
        let mut end = text.len().min(STRING_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Ok(Some(text))
    }

    /// Passes over a string; says where its bytes are.
    fn string_place(&mut self) -> Result<Option<Range<usize>>, DecodeError> {
        let position = self.position;
        let length = match self.flexible {
            true => self.compact_length()?,
            false => Self::length(position, "string", i16::from_be_bytes(self.array()?).into())?,
        };
        let Some(length) = length else {
            return Ok(None);
        };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::Length {
                position,
                what: "string",
                length: i64::try_from(length).unwrap_or(i64::MAX),
                max: i16::MAX.into(),
            });
        }
        let start = self.advance(length)?;
        self.charge(position, length)?;
        Ok(Some(start..start + length))
    }

    /// Bytes, or null: a slice of the frame, not a copy.
    ///
    /// # Errors
    /// When they are longer than what is there.
    pub fn bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let position = self.position;
        let length = match self.flexible {
            true => self.compact_length()?,
            false => Self::length(position, "bytes", i32::from_be_bytes(self.array()?).into())?,
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let start = self.advance(length)?;
        Ok(Some(self.bytes.slice(start..start + length)))
    }

    /// How many elements an array has, or null. An array of this length may be allocated at once:
    /// its memory is already accounted for.
    ///
    /// # Errors
    /// When so many elements, each with at least `element_bytes_min` bytes on the wire, cannot be in
    /// what remains, or would take more memory, each `element_memory`, than the frame justifies.
    pub fn count(
        &mut self,
        element_bytes_min: usize,
        element_memory: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let position = self.position;
        let count = match self.flexible {
            true => self.compact_length()?,
            false => Self::length(position, "array", i32::from_be_bytes(self.array()?).into())?,
        };
        let Some(count) = count else {
            return Ok(None);
        };
        let most = self.remaining() / element_bytes_min.max(1);
        if count > most {
            return Err(DecodeError::Length {
                position,
                what: "array",
                length: i64::try_from(count).unwrap_or(i64::MAX),
                max: i64::try_from(most).unwrap_or(i64::MAX),
            });
        }
        self.charge(position, count.saturating_mul(element_memory))?;
        Ok(Some(count))
    }

    /// Begins the tagged fields of a struct. There are none in versions that are not flexible.
    ///
    /// # Errors
    /// When the bytes end in their number.
    pub fn tags(&mut self) -> Result<Tags, DecodeError> {
        let remaining = match self.flexible {
            true => self.varint()?,
            false => 0,
        };
        let end = self.end;
        Ok(Tags {
            remaining,
            end,
            is_inside: false,
        })
    }

    /// Passes over the tagged fields of a struct that has none that we know.
    ///
    /// # Errors
    /// When the bytes end in them.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        let mut tags = self.tags()?;
        while tags.next(self)?.is_some() {
            self.skip_rest();
        }
        Ok(())
    }

    /// Passes over what remains: of the tagged field that is being read, or of the frame.
    pub fn skip_rest(&mut self) {
        self.position = self.end;
    }

    /// A compact length: one more than it says, so that 0 is null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = self.varint()?.checked_sub(1);
        // A usize has 32 bits at least.
        Ok(length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// A length that says null with -1.
    fn length(
        position: usize,
        what: &'static str,
        length: i64,
    ) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::Length {
                position,
                what,
                length,
                max: i32::MAX.into(),
            }),
        }
    }

    /// Passes over `length` bytes and says where they start.
    fn advance(&mut self, length: usize) -> Result<usize, DecodeError> {
        let start = self.position;
        if length > self.remaining() {
            return Err(DecodeError::Truncated {
                position: start,
                needed: length,
                remaining: self.remaining(),
            });
        }
        self.position += length;
        Ok(start)
    }

    /// Takes `needed` bytes of memory from what the frame may have.
    fn charge(&mut self, position: usize, needed: usize) -> Result<(), DecodeError> {
        match self.memory.checked_sub(needed) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(DecodeError::Memory {
                position,
                needed,
                allowed: self.memory,
            }),
        }
    }

    fn expect_end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::Trailing {
                position: self.position,
                remaining,
            }),
        }
    }
}

/// The tagged fields of a struct, one after the other. Their order does not matter; of two with the
/// same tag the last one counts.
#[derive(Debug)]
pub struct Tags {
    remaining: u32,
    /// Where the bytes around the tagged fields end.
    end: usize,
    is_inside: bool,
}

impl Tags {
    /// Goes to the next field and says its tag. Until the next call the reader ends where the field
    /// does.
    ///
    /// # Errors
    /// When the last field was not read to its end, or the bytes end in the next one.
    pub fn next(&mut self, reader: &mut Reader) -> Result<Option<u32>, DecodeError> {
        if self.is_inside {
            reader.expect_end()?;
            reader.end = self.end;
            self.is_inside = false;
        }
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        let tag = reader.varint()?;
        let length = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let start = reader.advance(length)?;
        reader.position = start;
        reader.end = start + length;
        self.is_inside = true;
        Ok(Some(tag))
    }
}
