//! What has to hold for any bytes: a value or an error, no panic, and a value that was read can be
//! written and read again. The fuzz targets and the tests call the same functions.

use bytes::Bytes;

use crate::{
    DecodeError, Message, Reader, Request, RequestHeader, Writer, decode_body, for_each_request,
    messages::*,
};

/// A request that [`check_request`] can take, with its response.
pub trait FuzzRequest:
    Request<Response: PartialEq + std::fmt::Debug> + PartialEq + std::fmt::Debug
{
}

impl<R> FuzzRequest for R where
    R: Request<Response: PartialEq + std::fmt::Debug> + PartialEq + std::fmt::Debug
{
}

/// Takes the first byte as a version (and as the choice between request and response), the rest as
/// a body. Says whether it was one.
///
/// # Panics
/// When the codec is wrong.
pub fn check_request<R: FuzzRequest>(data: &[u8]) -> bool {
    let Some((&first, body)) = data.split_first() else {
        return false;
    };
    let choice = i16::from(first >> 1);
    let (start, end) = (*R::VERSIONS.start(), *R::VERSIONS.end());
    let version = start + choice % (end - start + 1);
    match first & 1 {
        0 => check_body::<R>(body, version),
        _ => check_body::<R::Response>(body, version),
    }
}

/// Reads a body; one that can be read is written and read again. Says whether it could be read.
///
/// # Panics
/// When what was read cannot be written, or reads differently then.
pub fn check_body<M: Message + PartialEq + std::fmt::Debug>(body: &[u8], version: i16) -> bool {
    let Ok(value) = read::<M>(body, version) else {
        return false;
    };
    let written = write(&value, version);
    match read::<M>(&written, version) {
        Ok(again) => {
            assert_eq!(value, again, "version {version}");
            assert_eq!(written, write(&again, version), "version {version}");
        }
        // Unknown tagged fields, which are not written again, justified more memory.
        Err(DecodeError::Memory { .. }) if written.len() < body.len() => {}
        Err(error) => panic!("{value:?} in version {version} does not read again: {error}"),
    }
    true
}

/// Takes bytes as a request with its header, as a broker does. Says whether they are one.
///
/// # Panics
/// When the codec is wrong.
pub fn check_frame(data: &[u8]) -> bool {
    let mut reader = Reader::new(Bytes::copy_from_slice(data));
    let Ok(header) = RequestHeader::decode(&mut reader) else {
        return false;
    };
    let body = &data[reader.position()..];
    macro_rules! dispatch {
        ($($request:ident),*) => {
            match header.api_key {
                $(<$request as Message>::KEY => check_body::<$request>(body, header.api_version),)*
                _ => false,
            }
        };
    }
    for_each_request!(dispatch)
}

fn read<M: Message>(body: &[u8], version: i16) -> Result<M, DecodeError> {
    decode_body(Reader::new(Bytes::copy_from_slice(body)), version)
}

fn write<M: Message + std::fmt::Debug>(value: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    if let Err(error) = value.encode(&mut writer, version) {
        panic!("{value:?} in version {version} was read but cannot be written: {error}");
    }
    writer.into_parts().concat()
}
