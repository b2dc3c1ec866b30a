//! Writing a frame.

use bytes::{BufMut, Bytes};

use crate::{EncodeError, Message, Wire, reader::STRING_BYTES_MAX};

/// Takes a frame's bytes in their order. Small values go into one growing buffer; `bytes` of
/// [`Writer::SHARED_BYTES_MIN`] or more stay where they are and become parts of their own.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    /// What stands between the buffer's bytes: before the one at this position.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    flexible: bool,
}

impl Writer {
    /// `bytes` of this length or more are not copied. Below it, copying costs less than a part more.
    pub const SHARED_BYTES_MIN: usize = 1024;

    /// An empty writer. Lengths are not compact until a flexible message begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for this many bytes besides those that are not copied.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// How many bytes were written, those that were not copied included.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.shared_bytes
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written, in order. Small values are slices of one buffer. No part is empty.
    pub fn into_parts(self) -> Vec<Bytes> {
        let buffer = Bytes::from(self.buffer);
        let mut parts = Vec::with_capacity(self.shared.len() * 2 + 1);
        let mut start = 0;
        for (position, shared) in self.shared {
            if position > start {
                parts.push(buffer.slice(start..position));
            }
            parts.push(shared);
            start = position;
        }
        if start < buffer.len() {
            parts.push(buffer.slice(start..));
        }
        parts
    }

    /// Begins the body of a message: from here on its version decides how lengths are written.
    ///
    /// # Errors
    /// When the codec does not know the version.
    pub fn begin<M: Message>(&mut self, version: i16) -> Result<(), EncodeError> {
        if !M::VERSIONS.contains(&version) {
            return Err(EncodeError::Version {
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

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A number, 7 bits a byte, the lowest first.
    pub fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            // The low 7 bits of it, and the mark that more follow.
            self.buffer.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// A string, or null.
    ///
    /// # Errors
    /// When it is longer than 32,767 bytes.
    pub fn string(&mut self, text: Option<&str>) -> Result<(), EncodeError> {
        let length = text.map(str::len);
        if let Some(length) = length.filter(|length| *length > STRING_BYTES_MAX) {
            return Err(EncodeError::TooLong {
                what: "string",
                length,
                max: STRING_BYTES_MAX,
            });
        }
        match self.flexible {
            true => self.compact_length("string", length)?,
            // Checked above.
            false => self.raw(&length.map_or(-1, |length| length as i16).to_be_bytes()),
        }
        self.raw(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes, or null. Not copied from [`Writer::SHARED_BYTES_MIN`] on.
    ///
    /// # Errors
    /// When they are longer than `i32::MAX`.
    pub fn bytes(&mut self, bytes: Option<&Bytes>) -> Result<(), EncodeError> {
        self.length("bytes", bytes.map(Bytes::len))?;
        match bytes {
            Some(shared) if shared.len() >= Self::SHARED_BYTES_MIN => {
                self.shared_bytes += shared.len();
                self.shared.push((self.buffer.len(), shared.clone()));
            }
            Some(bytes) => self.raw(bytes),
            None => {}
        }
        Ok(())
    }

    /// How many elements an array has, or null; the elements follow.
    ///
    /// # Errors
    /// When there are more than `i32::MAX`.
    pub fn count(&mut self, count: Option<usize>) -> Result<(), EncodeError> {
        self.length("array", count)
    }

    /// Says that a struct has no tagged fields, in versions that could have some.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.varint(0);
        }
    }

    /// The tagged fields of a struct, in versions that have some.
    pub fn tags(&mut self, tags: TaggedFields) {
        if !self.flexible {
            debug_assert!(tags.count == 0, "a tag in a version without tags");
            return;
        }
        self.varint(tags.count);
        self.append(tags.fields);
    }

    /// What another writer has taken.
    fn append(&mut self, other: Self) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&other.buffer);
        let shared = other.shared.into_iter();
        self.shared
            .extend(shared.map(|(position, shared)| (start + position, shared)));
        self.shared_bytes += other.shared_bytes;
    }

    /// Overwrites the first bytes of a frame, which were left free for its length.
    pub(crate) fn set_start(&mut self, bytes: [u8; 4]) {
        self.buffer[..4].copy_from_slice(&bytes);
    }

    fn length(&mut self, what: &'static str, length: Option<usize>) -> Result<(), EncodeError> {
        if self.flexible {
            return self.compact_length(what, length);
        }
        let length = match length {
            Some(length) => i32::try_from(length).map_err(|_| too_long(what, length))?,
            None => -1,
        };
        self.raw(&length.to_be_bytes());
        Ok(())
    }

    /// A length as one more than it is, so that 0 is null.
    fn compact_length(
        &mut self,
        what: &'static str,
        length: Option<usize>,
    ) -> Result<(), EncodeError> {
        let length = match length {
            Some(length) => {
                let bounded = i32::try_from(length).map_err(|_| too_long(what, length))?;
                bounded.unsigned_abs() + 1
            }
            None => 0,
        };
        self.varint(length);
        Ok(())
    }
}

fn too_long(what: &'static str, length: usize) -> EncodeError {
    EncodeError::TooLong {
        what,
        length,
        max: i32::MAX as usize,
    }
}

/// The tagged fields of one struct, collected before they are written, because their number and
/// their lengths come first. Takes no memory while there are none.
#[derive(Debug, Default)]
pub struct TaggedFields {
    count: u32,
    fields: Writer,
}

impl TaggedFields {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. Tags have to rise.
    ///
    /// # Errors
    /// When the value cannot be encoded.
    pub fn put<T: Wire>(&mut self, tag: u32, value: &T, version: i16) -> Result<(), EncodeError> {
        let mut writer = Writer::new();
        writer.set_flexible(true);
        value.encode(&mut writer, version)?;
        let length =
            u32::try_from(writer.len()).map_err(|_| too_long("tagged field", writer.len()))?;
        self.count += 1;
        self.fields.varint(tag);
        self.fields.varint(length);
        self.fields.append(writer);
        Ok(())
    }
}
