//! Typed errors in a gRPC status: one `sapwood.v1.Error` as the detail of a `google.rpc.Status`
//! in the trailer `grpc-status-details-bin`, which is where every gRPC library looks for it.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::v1::Error;

const TYPE_URL: &str = "type.googleapis.com/sapwood.v1.Error";

/// `google.rpc.Status`, as far as it is needed here.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A status with `error` as its detail. Its message is `SW3006: topic "orders" already exists...`,
/// so that clients that know nothing of the detail show something useful too.
pub fn pack(code: Code, error: &Error) -> Status {
    let message = format!("{}: {}", error.code, error.message);
    let detail = Any {
        type_url: TYPE_URL.to_owned(),
        value: error.encode_to_vec().into(),
    };
    let details = RpcStatus {
        code: code as i32,
        message: message.clone(),
        details: vec![detail],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// The typed error in a status, if it has one that can be read.
pub fn unpack(status: &Status) -> Option<Error> {
    let details = RpcStatus::decode(status.details()).ok()?;
    let detail = details
        .details
        .into_iter()
        .find(|detail| detail.type_url == TYPE_URL)?;
    Error::decode(detail.value).ok()
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;

    fn error() -> Error {
        Error {
            code: "SW3006".into(),
            message: "topic \"orders\" already exists".into(),
            cause: "it was created before".into(),
            hint: "choose another name".into(),
            fields: [("topic".to_owned(), "orders".to_owned())].into(),
            retriable: false,
        }
    }

    #[test]
    fn a_packed_error_is_unpacked_whole_and_named_in_the_message() {
        let status = pack(Code::AlreadyExists, &error());
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(status.message(), "SW3006: topic \"orders\" already exists");
        assert_eq!(unpack(&status), Some(error()));
    }

    #[test]
    fn the_type_url_names_the_message() {
        assert!(TYPE_URL.ends_with(&Error::full_name()));
    }

    #[test]
    fn details_of_others_and_garbage_are_no_error_of_ours() {
        assert_eq!(unpack(&Status::not_found("x")), None);
        let garbage = Status::with_details(Code::NotFound, "x", Bytes::from_static(&[0xff; 9]));
        assert_eq!(unpack(&garbage), None);
        let foreign = RpcStatus {
            code: 5,
            message: String::new(),
            details: vec![Any {
                type_url: "type.googleapis.com/a.B".into(),
                value: Bytes::new(),
            }],
        };
        let foreign = Status::with_details(Code::NotFound, "x", foreign.encode_to_vec().into());
        assert_eq!(unpack(&foreign), None);
    }
}
