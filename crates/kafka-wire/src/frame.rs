//! Whole frames: the length, the header and the body.
//!
//! A frame is its length in 4 bytes and then so many bytes: a header, whose form depends on the API
//! and its version, and a body. The functions here that encode write the length; those that decode
//! expect what follows it, because whoever reads from a socket has to read the length first.

use bytes::Bytes;

use crate::{DecodeError, EncodeError, Message, Reader, Request, Wire, Writer, messages};

/// ApiVersions: the one API whose response header stays what it was, so that a client can read the
/// answer before it knows what the broker speaks.
const API_VERSIONS: i16 = 18;

/// ControlledShutdown: the one API whose first version has no client id.
const CONTROLLED_SHUTDOWN: i16 = 7;

/// What stands before the body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API that is asked for.
    pub api_key: i16,
    /// In which version.
    pub api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// What the client calls itself. What is not UTF-8 of it comes as U+FFFD.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads it. An API that this crate has no message for is read as having no tagged fields.
    ///
    /// # Errors
    /// When the bytes are no such header.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.set_flexible(false);
        let api_key = i16::decode(reader, 0)?;
        let api_version = i16::decode(reader, 0)?;
        let correlation_id = i32::decode(reader, 0)?;
        let header_version = request_header_version(api_key, api_version);
        // Not compact, also where the rest is.
        let client_id = match header_version {
            0 => None,
            _ => reader.string_lossy()?,
        };
        if header_version >= 2 {
            reader.set_flexible(true);
            reader.skip_tags()?;
        }
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the client id is longer than 32,767 bytes.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let header_version = request_header_version(self.api_key, self.api_version);
        writer.set_flexible(false);
        writer.raw(&self.api_key.to_be_bytes());
        writer.raw(&self.api_version.to_be_bytes());
        writer.raw(&self.correlation_id.to_be_bytes());
        if header_version >= 1 {
            writer.string(self.client_id.as_deref())?;
        }
        if header_version >= 2 {
            writer.set_flexible(true);
            writer.no_tags();
        }
        Ok(())
    }
}

/// The form of a request's header: 0 without a client id, 1 with one, 2 with tagged fields.
/// A version that is not known, but above the first flexible one, counts as flexible.
pub fn request_header_version(api_key: i16, api_version: i16) -> i16 {
    match messages::flexible_from(api_key) {
        Some(first) if api_version >= first => 2,
        _ if api_key == CONTROLLED_SHUTDOWN && api_version == 0 => 0,
        _ => 1,
    }
}

/// The form of a response's header: 0 is the correlation id, 1 has tagged fields.
pub fn response_header_version(api_key: i16, api_version: i16) -> i16 {
    match messages::flexible_from(api_key) {
        Some(first) if api_version >= first && api_key != API_VERSIONS => 1,
        _ => 0,
    }
}

/// Reads the body of a message to the frame's last byte.
///
/// # Errors
/// When the bytes are no such body, or more than one.
pub fn decode_body<M: Message>(mut reader: Reader, version: i16) -> Result<M, DecodeError> {
    let body = M::decode(&mut reader, version)?;
    reader.finish()?;
    Ok(body)
}

/// Reads a response without its length: its correlation id and its body.
///
/// # Errors
/// When the bytes are no such response.
pub fn decode_response<M: Message>(frame: Bytes, version: i16) -> Result<(i32, M), DecodeError> {
    let mut reader = Reader::new(frame);
    let correlation_id = i32::decode(&mut reader, 0)?;
    if response_header_version(M::KEY, version) >= 1 {
        reader.set_flexible(true);
        reader.skip_tags()?;
    }
    Ok((correlation_id, decode_body(reader, version)?))
}

/// A request with its length, in parts as [`Writer::into_parts`] has them.
///
/// # Errors
/// When the request cannot be said in this version, or is longer than `i32::MAX` bytes.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    version: i16,
    client_id: Option<&str>,
    body: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    encode_frame(|writer| {
        let header = RequestHeader {
            api_key: R::KEY,
            api_version: version,
            correlation_id,
            client_id: client_id.map(str::to_owned),
        };
        header.encode(writer)?;
        body.encode(writer, version)
    })
}

/// A response with its length, in parts as [`Writer::into_parts`] has them.
///
/// # Errors
/// When the response cannot be said in this version, or is longer than `i32::MAX` bytes.
pub fn encode_response<M: Message>(
    correlation_id: i32,
    version: i16,
    body: &M,
) -> Result<Vec<Bytes>, EncodeError> {
    encode_frame(|writer| {
        writer.raw(&correlation_id.to_be_bytes());
        if response_header_version(M::KEY, version) >= 1 {
            writer.set_flexible(true);
            writer.no_tags();
        }
        body.encode(writer, version)
    })
}

/// The length before what `write` writes.
fn encode_frame(
    write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    const LENGTH_BYTES: usize = 4;
    let mut writer = Writer::with_capacity(256);
    writer.raw(&[0; LENGTH_BYTES]);
    write(&mut writer)?;
    let length = writer.len() - LENGTH_BYTES;
    let Ok(prefix) = i32::try_from(length) else {
        return Err(EncodeError::TooLong {
            what: "frame",
            length,
            max: i32::MAX as usize,
        });
    };
    writer.set_start(prefix.to_be_bytes());
    Ok(writer.into_parts())
}
