//! Kafka's primitive types, read and written field by field. Reading is bounded: a length is believed
//! only as far as there are bytes behind it.

use super::{DecodeError, EncodeError};

/// How a version of a schema spells lengths, and whether it has tagged fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Lengths of 2 bytes for texts and 4 for everything else; no tagged fields.
    Fixed,
    /// Lengths as unsigned varints, one more than they are, so that 0 is null; each struct ends with
    /// its tagged fields.
    Flexible,
}

/// Appends fields to a byte string.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    form: Form,
}

impl Writer {
    /// Begins a key or a value with its version.
    pub(super) fn new(version: i16, form: Form) -> Self {
        let bytes = version.to_be_bytes().to_vec();
        Self { bytes, form }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: u128) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// A number that Kafka holds in 31 bits.
    pub(super) fn u31(&mut self, field: &'static str, value: u32) -> Result<(), EncodeError> {
        let number = i32::try_from(value).map_err(|_| EncodeError::OutOfRange {
            field,
            value: value.into(),
            limit: u64::from(i32::MAX.unsigned_abs()),
        })?;
        self.i32(number);
        Ok(())
    }

    /// A number that Kafka holds in 63 bits.
    pub(super) fn u63(&mut self, field: &'static str, value: u64) -> Result<(), EncodeError> {
        let number = i64::try_from(value).map_err(|_| EncodeError::OutOfRange {
            field,
            value,
            limit: i64::MAX.unsigned_abs(),
        })?;
        self.i64(number);
        Ok(())
    }

    pub(super) fn text(&mut self, field: &'static str, text: &str) -> Result<(), EncodeError> {
        match self.form {
            Form::Fixed => {
                let length = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong {
                    field,
                    length: text.len(),
                    limit: usize::from(i16::MAX.unsigned_abs()),
                })?;
                self.bytes.extend_from_slice(&length.to_be_bytes());
            }
            Form::Flexible => self.compact_length(field, text.len())?,
        }
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    pub(super) fn nullable_text(
        &mut self,
        field: &'static str,
        text: Option<&str>,
    ) -> Result<(), EncodeError> {
        match (text, self.form) {
            (Some(text), _) => return self.text(field, text),
            (None, Form::Fixed) => self.bytes.extend_from_slice(&(-1_i16).to_be_bytes()),
            (None, Form::Flexible) => self.bytes.push(0),
        }
        Ok(())
    }

    pub(super) fn blob(&mut self, field: &'static str, blob: &[u8]) -> Result<(), EncodeError> {
        self.count(field, blob.len())?;
        self.bytes.extend_from_slice(blob);
        Ok(())
    }

    /// The number of elements, or bytes, that follow.
    pub(super) fn count(&mut self, field: &'static str, count: usize) -> Result<(), EncodeError> {
        match self.form {
            Form::Fixed => self.u31(field, length(field, count)?),
            Form::Flexible => self.compact_length(field, count),
        }
    }

    /// Ends a struct without tagged fields.
    pub(super) fn no_tags(&mut self) {
        if self.form == Form::Flexible {
            self.bytes.push(0);
        }
    }

    /// Ends a struct with one tagged field of a fixed length.
    pub(super) fn one_tag<const BYTES: usize>(
        &mut self,
        tag: u32,
        value: &[u8; BYTES],
    ) -> Result<(), EncodeError> {
        debug_assert_eq!(self.form, Form::Flexible);
        self.varint(1);
        self.varint(tag);
        self.varint(length("a tagged field", BYTES)?);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    fn compact_length(&mut self, field: &'static str, count: usize) -> Result<(), EncodeError> {
        // It is below 2^31, so one more fits.
        self.varint(length(field, count)? + 1);
        Ok(())
    }

    /// 7 bits at a time, the least significant first.
    fn varint(&mut self, mut value: u32) {
        loop {
            let [.., low] = (value & 0x7f).to_be_bytes();
            value >>= 7;
            if value == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

/// A length as Kafka can say it.
fn length(field: &'static str, length: usize) -> Result<u32, EncodeError> {
    let limit = i32::MAX.unsigned_abs();
    match u32::try_from(length) {
        Ok(fits) if fits <= limit => Ok(fits),
        _ => Err(EncodeError::TooLong {
            field,
            length,
            limit: limit as usize,
        }),
    }
}

/// Takes fields off the front of a byte string.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Reader<'a> {
    /// Reads the version, by which the caller then chooses the form.
    pub(super) fn version(bytes: &'a [u8]) -> Result<(i16, &'a [u8]), DecodeError> {
        let (head, rest) = bytes.split_first_chunk().ok_or(DecodeError::Truncated)?;
        Ok((i16::from_be_bytes(*head), rest))
    }

    pub(super) fn new(rest: &'a [u8], form: Form) -> Self {
        Self { rest, form }
    }

    /// Everything has to have been read.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    pub(super) fn i8(&mut self) -> Result<i8, DecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// A number that may not be negative.
    pub(super) fn u31(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let value = self.i32()?;
        u32::try_from(value).map_err(|_| negative(field, value.into()))
    }

    /// A number that may not be negative.
    pub(super) fn u63(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let value = self.i64()?;
        u64::try_from(value).map_err(|_| negative(field, value))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        self.nullable_text(field)?
            .ok_or(DecodeError::Null { field })
    }

    pub(super) fn nullable_text(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        let length = match self.form {
            Form::Fixed => match i16::from_be_bytes(self.array()?) {
                -1 => None,
                length => {
                    Some(usize::try_from(length).map_err(|_| negative(field, length.into()))?)
                }
            },
            Form::Flexible => self.compact_length()?,
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(length)?);
        text.map(Some).map_err(|_| DecodeError::Utf8 { field })
    }

    pub(super) fn blob(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.count(field)?;
        self.take(length)
    }

    /// The number of elements, or bytes, that follow. They may not all be there: nothing may be
    /// reserved for them.
    pub(super) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        match self.form {
            Form::Fixed => {
                let count = self.i32()?;
                usize::try_from(count).map_err(|_| negative(field, count.into()))
            }
            Form::Flexible => self.compact_length()?.ok_or(DecodeError::Null { field }),
        }
    }

    /// Ends a struct whose tagged fields nobody wants.
    pub(super) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(()))
    }

    /// Ends a struct and shows its tagged fields; there are none in the fixed form.
    pub(super) fn tags(
        &mut self,
        mut see: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.form == Form::Fixed {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let mut field = Reader::new(self.take(size)?, self.form);
            see(tag, &mut field)?;
        }
        Ok(())
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = self.varint()?;
        Ok(length.checked_sub(1).map(|length| length as usize))
    }

    fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

fn negative(field: &'static str, value: i64) -> DecodeError {
    DecodeError::Negative { field, value }
}
