//! The derive macro of `sapwood-kafka-wire`: a struct with attributes is the schema of a Kafka
//! message, or of a struct in one, and [`macro@Wire`] writes its encoding and decoding.
//!
//! # On the struct
//!
//! Only a message has these; a struct inside of one has none.
//!
//! | `#[kafka(...)]` | |
//! |---|---|
//! | `key = 3` | The number of the API. |
//! | `versions = "0-13"` | The versions that the codec knows. |
//! | `flexible = 9` | The first version with compact lengths and tagged fields; without it there is none. |
//! | `response = MetadataResponse` | On a request: what answers it. |
//!
//! # On a field
//!
//! | `#[kafka(...)]` | |
//! |---|---|
//! | `versions = "4+"`, `"0-12"`, `"3"` | The versions of the message that have the field; without it all do. |
//! | `nullable = "7+"` | On an `Option`: the versions that can say null; without it all that have the field. |
//! | `default = -1` | What the field is where it is absent; without it `Default::default()`. |
//! | `tag = 0` | The field is a tagged one; it is written only when it is not its default. |
//!
//! Fields are written in their order, tagged ones behind the others by their tags. A field that a
//! version lacks is not written whatever it holds, and reads as its default: callers fill in what
//! they know and need not ask for the version.
//!
//! # What is derived
//!
//! `Wire` and `Default`; `Message` for a struct with a key; `Request` for one that names its response.
//! Straight-line code, one statement a field:
//!
//! ```
//! use sapwood_kafka_wire::{Message, Reader, Wire, Writer};
//!
//! /// A door and who came through it.
//! #[derive(Debug, Clone, PartialEq, Wire)]
//! #[kafka(key = 99, versions = "0-3", flexible = 2)]
//! pub struct DoorRequest {
//!     /// Its number, or -1 for the front door.
//!     #[kafka(versions = "1+", default = -1)]
//!     pub door: i32,
//!     /// Names.
//!     pub guests: Vec<String>,
//!     /// What somebody said.
//!     #[kafka(versions = "3+", tag = 0)]
//!     pub remark: Option<String>,
//! }
//!
//! assert_eq!(DoorRequest::FLEXIBLE_FROM, Some(2));
//! let request = DoorRequest { door: 7, guests: vec!["ann".to_owned()], remark: Some("hi".to_owned()) };
//! let bytes = |version| {
//!     let mut writer = Writer::new();
//!     request.encode(&mut writer, version).unwrap();
//!     writer.into_parts().concat()
//! };
//! // The number of guests as 4 bytes, the length of a name as 2.
//! assert_eq!(bytes(0), b"\0\0\0\x01\0\x03ann");
//! assert_eq!(bytes(1), b"\0\0\0\x07\0\0\0\x01\0\x03ann");
//! // Compact: numbers as varints, one too high, because 0 is null; then the tagged fields: none.
//! assert_eq!(bytes(2), b"\0\0\0\x07\x02\x04ann\0");
//! // One tagged field: tag 0, 3 bytes.
//! assert_eq!(bytes(3), b"\0\0\0\x07\x02\x04ann\x01\x00\x03\x03hi");
//!
//! let mut reader = Reader::new(bytes(0).into());
//! let read = DoorRequest::decode(&mut reader, 0).unwrap();
//! assert_eq!((read.door, read.remark), (-1, None));
//! ```

mod expand;
mod schema;

use proc_macro::TokenStream;

/// Derives `Wire` and `Default`, and `Message` and `Request` where attributes say so. The crate's
/// documentation has the attributes and an example.
#[proc_macro_derive(Wire, attributes(kafka))]
pub fn derive_wire(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    let expanded = schema::Schema::parse(&input).map(|schema| expand::expand(&schema));
    expanded
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
