//! What a handler knows beside its request.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use sapwood_broker::Broker;
use sapwood_kafka_wire::{
    DecodeError, Message, Reader, decode_body, encode_response, messages::MetadataRequest,
};
use tracing::debug;

use crate::{
    KafkaOptions,
    connection::{Advertised, Connection, Disconnect},
    dispatch::Api,
    errors::{AsKafka, ErrorCode},
    kafka::Shared,
};

/// librdkafka from 2.12 on, when it asks for the metadata of all topics, writes the count of topics in
/// four bytes where one belongs, all of them zero. What it leaves over must not cost it the connection.
const COUNT_ZEROS_MAX: usize = 3;

/// One request's surroundings: the broker, the settings, the connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    call: Arc<Call>,
}

struct Call {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    client_id: Option<String>,
    received: Instant,
    has_failed: AtomicBool,
}

/// What a request's header says.
pub(crate) struct CallHeader {
    pub(crate) api: &'static Api,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<String>,
}

impl Context {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        connection: &Arc<Connection>,
        header: CallHeader,
    ) -> Self {
        Self {
            call: Arc::new(Call {
                shared: Arc::clone(shared),
                connection: Arc::clone(connection),
                api: header.api,
                version: header.version,
                correlation_id: header.correlation_id,
                client_id: header.client_id,
                received: Instant::now(),
                has_failed: AtomicBool::new(false),
            }),
        }
    }

    /// The broker.
    pub(crate) fn broker(&self) -> &Broker {
        &self.call.shared.broker
    }

    /// The settings of the Kafka door.
    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.call.shared.options
    }

    /// What all connections share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.call.shared
    }

    /// The id of the one broker that there is, which is also the controller.
    pub(crate) fn broker_id(&self) -> i32 {
        self.options().broker_id
    }

    /// The id of the cluster.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.call.shared.cluster_id
    }

    /// Where the client of this connection is told to connect to.
    pub(crate) fn advertised(&self) -> &Advertised {
        &self.call.connection.advertised
    }

    /// The connection that the request came on.
    pub(crate) fn connection(&self) -> &Connection {
        &self.call.connection
    }

    /// The API that is asked for.
    pub(crate) fn api(&self) -> &'static Api {
        self.call.api
    }

    /// The version of the request.
    pub(crate) fn version(&self) -> i16 {
        self.call.version
    }

    /// Notes an error that the answer has, and gives its number for the answer.
    pub(crate) fn refuse(&self, code: ErrorCode, reason: &dyn fmt::Display) -> i16 {
        let call = &self.call;
        call.has_failed.store(true, Ordering::Relaxed);
        call.shared.metrics.of(call.api).count_error(code);
        debug!(
            api = call.api.name,
            version = call.version,
            error = code.name(),
            %reason,
            peer = %call.connection.peer,
            listener = &*call.connection.listener,
            client_id = call.client_id,
            client = call.connection.software(),
            "refused a request or a part of it"
        );
        code.number()
    }

    /// As [`Context::refuse`] with what the broker says.
    pub(crate) fn failed(&self, error: &impl AsKafka) -> i16 {
        self.refuse(error.kafka(), error)
    }

    /// The body of this request.
    pub(crate) fn decode<M: Message>(&self, body: Reader) -> Result<M, Disconnect> {
        let version = self.call.version;
        let decoded = match M::KEY {
            MetadataRequest::KEY => decode_and_zeros(body, version, COUNT_ZEROS_MAX),
            _ => decode_body(body, version),
        };
        decoded.map_err(|source| Disconnect::Malformed {
            api: self.call.api.name,
            version,
            source,
        })
    }

    /// The frame of an answer to this request.
    pub(crate) fn encode<M: Message>(&self, response: &M) -> Result<Vec<Bytes>, Disconnect> {
        encode_response(self.call.correlation_id, self.call.version, response).map_err(|source| {
            Disconnect::Encode {
                api: self.call.api.name,
                version: self.call.version,
                source,
            }
        })
    }

    /// The answer is ready to be sent, or there is none to send.
    pub(crate) fn answered(&self) {
        let call = &self.call;
        let has_failed = call.has_failed.load(Ordering::Relaxed);
        call.shared
            .metrics
            .of(call.api)
            .answered(call.received.elapsed(), has_failed);
    }
}

/// Reads a body to the frame's last byte but for a few zeros.
fn decode_and_zeros<M: Message>(
    mut body: Reader,
    version: i16,
    zeros_max: usize,
) -> Result<M, DecodeError> {
    let message = M::decode(&mut body, version)?;
    let (position, remaining) = (body.position(), body.remaining());
    for _ in 0..remaining.min(zeros_max) {
        if body.array()? != [0] {
            return Err(DecodeError::Trailing {
                position,
                remaining,
            });
        }
    }
    body.finish()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All topics in version 13: null, two flags and no tagged fields; then `behind`.
    fn all_topics(behind: &'static [u8]) -> Result<MetadataRequest, DecodeError> {
        let body = Bytes::from([&[0; 4], behind].concat());
        decode_and_zeros(Reader::new(body), 13, COUNT_ZEROS_MAX)
    }

    #[test]
    fn a_count_of_four_bytes_in_a_request_for_all_topics_is_read_as_one() {
        for behind in [&b""[..], b"\0", b"\0\0\0"] {
            let request = all_topics(behind).expect("it can be read");
            assert_eq!(request.topics, None);
            assert!(!request.allow_auto_topic_creation);
        }
        for behind in [&b"\0\0\0\0"[..], b"\0\0\x01", b"\x01"] {
            assert!(all_topics(behind).is_err(), "{behind:?}");
        }
    }
}
