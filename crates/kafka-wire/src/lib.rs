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
