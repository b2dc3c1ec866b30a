//! Kafka's messages and their bytes. Bounded, without copies of records, without I/O.
//!
//! The structs in [`messages`] are the schema: their attributes say which versions have a field and
//! how it is written, and [`macro@Wire`] derives the code. A message has one struct for all of its
//! versions. A field that a version lacks is skipped silently when it is encoded, and is its default
//! when it was decoded.
//!
//! ```
//! use sapwood_kafka_wire::{
//!     RequestHeader, decode_body, encode_request,
//!     messages::{FetchRequest, FetchRequestPartition, FetchRequestTopic},
//!     Reader,
//! };
//!
//! let request = FetchRequest {
//!     max_wait_ms: 500,
//!     topics: vec![FetchRequestTopic {
//!         topic: "orders".to_owned(),
//!         partitions: vec![FetchRequestPartition { partition: 3, fetch_offset: 42, ..Default::default() }],
//!         ..Default::default()
//!     }],
//!     ..Default::default()
//! };
//! let frame = encode_request(7, 12, Some("my client"), &request).unwrap().concat();
//!
//! // The first four bytes are the length of the rest.
//! let mut reader = Reader::new(frame[4..].to_vec().into());
//! let header = RequestHeader::decode(&mut reader).unwrap();
//! assert_eq!((header.api_key, header.api_version, header.correlation_id), (1, 12, 7));
//! assert_eq!(decode_body::<FetchRequest>(reader, 12).unwrap(), request);
//! ```
//!
//! # How a message is described
//!
//! By attributes, which `sapwood-kafka-wire-derive` lists. Version 3 of this message looks like this:
//!
//! ```
//! use sapwood_kafka_wire::{EncodeError, Reader, Wire, Writer, decode_body};
//!
//! /// A message of API 99.
//! #[derive(Debug, Clone, PartialEq, Wire)]
//! #[kafka(key = 99, versions = "0-3", flexible = 3)]
//! struct Greeting {
//!     /// In every version.
//!     text: String,
//!     /// From version 1 on; in earlier ones it is -1 to whoever reads.
//!     #[kafka(versions = "1+", default = -1)]
//!     times: i16,
//!     /// Null from version 2 on; in earlier ones writing null is an error.
//!     #[kafka(nullable = "2+", default = Some(String::new()))]
//!     from: Option<String>,
//!     /// A tagged field.
//!     #[kafka(versions = "3+", tag = 0)]
//!     loud: bool,
//! }
//!
//! let greeting = Greeting { text: "hi".to_owned(), times: 2, from: None, loud: true };
//! let mut writer = Writer::new();
//! greeting.encode(&mut writer, 3)?;
//! // Lengths and counts are one too high; the tagged field has tag 0 and 1 byte.
//! let bytes = writer.into_parts().concat();
//! assert_eq!(bytes, b"\x03hi\x00\x02\x00\x01\x00\x01\x01");
//! assert_eq!(decode_body::<Greeting>(Reader::new(bytes.into()), 3), Ok(greeting.clone()));
//!
//! let refused = greeting.encode(&mut Writer::new(), 1);
//! assert_eq!(refused, Err(EncodeError::Null { field: "Greeting.from" }));
//! # Ok::<(), EncodeError>(())
//! ```
//!
//! # What bytes from outside can do
//!
//! Decoding ends in a value or in a [`DecodeError`]; it does not panic. Before memory is taken for a
//! length or a count, it is held against the bytes that are there, and all that a frame may take is
//! bounded by [`Reader::memory_allowed`]. `bytes` and `records` are slices of the frame and keep
//! it alive; strings are copied and do not.

// The derive macro's code names this crate, also in this crate.
extern crate self as sapwood_kafka_wire;

mod error;
mod frame;
pub mod messages;
mod reader;
#[cfg(feature = "testing")]
pub mod testing;
mod uuid;
mod wire;
mod writer;

pub use error::{DecodeError, EncodeError};
pub use frame::{
    RequestHeader, decode_body, decode_response, encode_request, encode_response,
    request_header_version, response_header_version,
};
pub use reader::{Reader, Tags};
pub use sapwood_kafka_wire_derive::Wire;
pub use uuid::Uuid;
pub use wire::{Message, Nullable, Request, Wire, not_null};
pub use writer::{TaggedFields, Writer};
