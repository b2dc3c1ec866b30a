//! Random values.

use bytes::Bytes;

use super::Source;
use crate::{EncodeError, Nullable, Request, Uuid, encode_request};

/// A type with random values. Derived along with [`crate::Wire`]: what a version of a message has is
/// random, what it lacks is its default, so that encoding in this version loses nothing.
pub trait Random: Sized {
    /// A value that this version of the message can say.
    fn random(source: &mut Source, version: i16) -> Self;
}

/// A random request as it is sent, but without its length: header and body.
///
/// # Errors
/// Never for what [`Random`] makes, if the codec is right.
pub fn random_frame<R: Request + Random>(
    source: &mut Source,
    version: i16,
) -> Result<Vec<u8>, EncodeError> {
    let client_id = Option::<String>::random(source, version);
    let correlation_id = i32::random(source, version);
    let body = R::random(source, version);
    let mut frame = encode_request(correlation_id, version, client_id.as_deref(), &body)?.concat();
    frame.drain(..4);
    Ok(frame)
}

/// Small numbers, the ends of the type, and any number.
macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Random for $number {
            fn random(source: &mut Source, _version: i16) -> Self {
                match source.within(0..8) {
                    0 => 0,
                    1 => Self::MIN,
                    2 => Self::MAX,
                    3 | 4 => source.within(0..100) as Self,
                    // -1 means something in many fields.
                    5 => Self::MIN.wrapping_add(Self::MAX),
                    _ => source.number() as Self,
                }
            }
        }
    )*};
}

numbers!(i8 i16 u16 i32 i64);

impl Random for f64 {
    fn random(source: &mut Source, _version: i16) -> Self {
        // No NaN, which is not equal to itself.
        source.number() as Self / 7.0
    }
}

impl Random for bool {
    fn random(source: &mut Source, _version: i16) -> Self {
        source.coin()
    }
}

impl Random for Uuid {
    fn random(source: &mut Source, _version: i16) -> Self {
        match source.one_in(4) {
            true => Self::ZERO,
            false => Self(u128::from(source.number()) << 64 | u128::from(source.number())),
        }
    }
}

impl Random for String {
    fn random(source: &mut Source, _version: i16) -> Self {
        const LETTERS: &[char] = &['a', 'b', 'z', 'Q', '0', '9', '-', '.', '_', 'é', '木', '🌲'];
        let length = match source.within(0..40) {
            0 => source.within(100..200),
            1..5 => 0,
            _ => source.within(1..20),
        };
        (0..length).map(|_| *source.one_of(LETTERS)).collect()
    }
}

impl Random for Bytes {
    fn random(source: &mut Source, _version: i16) -> Self {
        let length = match source.within(0..20) {
            // Long enough not to be copied by the writer.
            0 => source.within(1000..1100),
            1 => source.within(120..140),
            2..5 => 0,
            _ => source.within(1..20),
        };
        (0..length).map(|_| source.number() as u8).collect()
    }
}

impl<T: Random> Random for Vec<T> {
    fn random(source: &mut Source, version: i16) -> Self {
        let length = match source.within(0..100) {
            // More than a compact length of one byte can say.
            0 => source.within(125..135),
            1..25 => 0,
            _ => source.within(1..4),
        };
        (0..length).map(|_| T::random(source, version)).collect()
    }
}

impl<T: Random + Nullable> Random for Option<T> {
    fn random(source: &mut Source, version: i16) -> Self {
        match source.one_in(3) {
            true => None,
            false => Some(T::random(source, version)),
        }
    }
}
