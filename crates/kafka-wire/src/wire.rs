//! What can be written and read, and the protocol's own types.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::{DecodeError, EncodeError, Reader, Uuid, Writer};

/// A value in a message: a message body, a struct in one, or a field. Derived for structs with
/// [`macro@crate::Wire`].
pub trait Wire: Sized {
    /// The fewest bytes that it takes in any version. At least 1 for what can be in an array.
    const MIN_BYTES: usize;

    /// Reads it as a version of its message has it. A field that the version lacks is its default.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes it as a version of its message has it. What the version lacks is skipped silently.
    ///
    /// # Errors
    /// When it is too long, or null where the version has no null.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// The body of a request or a response.
pub trait Message: Wire {
    /// The number of the API.
    const KEY: i16;
    /// The versions that the codec knows.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version with compact lengths and tagged fields, if there is one.
    const FLEXIBLE_FROM: Option<i16>;
}

/// The body of a request.
pub trait Request: Message {
    /// The body of what answers it.
    type Response: Message;
}

/// What can be null where it is optional. A struct says whether it is there in a byte before it.
pub trait Nullable: Wire {
    /// Reads it or null.
    ///
    /// # Errors
    /// When the bytes are neither.
    fn decode_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, DecodeError> {
        match i8::decode(reader, version)? {
            ..0 => Ok(None),
            0.. => Self::decode(reader, version).map(Some),
        }
    }

    /// Writes it or null.
    ///
    /// # Errors
    /// When it cannot be written.
    fn encode_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        version: i16,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                1_i8.encode(writer, version)?;
                value.encode(writer, version)
            }
            None => (-1_i8).encode(writer, version),
        }
    }
}

/// The value, in a version that cannot say null; for derived code.
///
/// # Errors
/// When it is null; `field` says which one.
pub fn not_null<'a, T>(value: &'a Option<T>, field: &'static str) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError::Null { field })
}

/// Numbers are big-endian.
macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Wire for $number {
            const MIN_BYTES: usize = size_of::<$number>();

            fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(reader.array()?))
            }

            fn encode(&self, writer: &mut Writer, _version: i16) -> Result<(), EncodeError> {
                writer.raw(&self.to_be_bytes());
                Ok(())
            }
        }
    )*};
}

numbers!(i8 i16 u16 i32 i64 f64);

/// A byte; every one but 0 is true.
impl Wire for bool {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let [byte] = reader.array()?;
        Ok(byte != 0)
    }

    fn encode(&self, writer: &mut Writer, _version: i16) -> Result<(), EncodeError> {
        writer.raw(&[u8::from(*self)]);
        Ok(())
    }
}

impl Wire for Uuid {
    const MIN_BYTES: usize = 16;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        Ok(Self(u128::from_be_bytes(reader.array()?)))
    }

    fn encode(&self, writer: &mut Writer, _version: i16) -> Result<(), EncodeError> {
        writer.raw(&self.0.to_be_bytes());
        Ok(())
    }
}

impl Wire for String {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let position = reader.position();
        let value = Self::decode_nullable(reader, version)?;
        present(value, position, "string")
    }

    fn encode(&self, writer: &mut Writer, _version: i16) -> Result<(), EncodeError> {
        writer.string(Some(self))
    }
}

impl Nullable for String {
    fn decode_nullable(reader: &mut Reader, _version: i16) -> Result<Option<Self>, DecodeError> {
        reader.string()
    }

    fn encode_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        _version: i16,
    ) -> Result<(), EncodeError> {
        writer.string(value.map(String::as_str))
    }
}

impl Wire for Bytes {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let position = reader.position();
        let value = Self::decode_nullable(reader, version)?;
        present(value, position, "bytes")
    }

    fn encode(&self, writer: &mut Writer, _version: i16) -> Result<(), EncodeError> {
        writer.bytes(Some(self))
    }
}

impl Nullable for Bytes {
    fn decode_nullable(reader: &mut Reader, _version: i16) -> Result<Option<Self>, DecodeError> {
        reader.bytes()
    }

    fn encode_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        _version: i16,
    ) -> Result<(), EncodeError> {
        writer.bytes(value)
    }
}

impl<T: Wire> Wire for Vec<T> {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let position = reader.position();
        let value = Self::decode_nullable(reader, version)?;
        present(value, position, "array")
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        Self::encode_nullable(Some(self), writer, version)
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn decode_nullable(reader: &mut Reader, version: i16) -> Result<Option<Self>, DecodeError> {
        const {
            assert!(
                T::MIN_BYTES > 0,
                "an element of an array takes a byte at least"
            )
        };
        let Some(count) = reader.count(T::MIN_BYTES, size_of::<T>())? else {
            return Ok(None);
        };
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(T::decode(reader, version)?);
        }
        Ok(Some(values))
    }

    fn encode_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        version: i16,
    ) -> Result<(), EncodeError> {
        writer.count(value.map(Vec::len))?;
        for element in value.into_iter().flatten() {
            element.encode(writer, version)?;
        }
        Ok(())
    }
}

impl<T: Nullable> Wire for Option<T> {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        T::decode_nullable(reader, version)
    }

    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        T::encode_nullable(self.as_ref(), writer, version)
    }
}

/// The value where there is no null.
fn present<T>(value: Option<T>, position: usize, what: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Null { position, what })
}
