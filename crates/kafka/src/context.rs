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
/// four bytes where one belongs. The first is read as the count, and what follows as the flags that
/// come later; three bytes are left over, which must not cost it the connection.
const COUNT_BYTES_LEFT: usize = 3;

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

    /// What the client calls itself in this request.
    pub(crate) fn client_id(&self) -> Option<&str> {
        self.call.client_id.as_deref()
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
            MetadataRequest::KEY => decode_and_skip(body, version, COUNT_BYTES_LEFT),
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

/// Reads a body behind which as many bytes may be left over, or none.
fn decode_and_skip<M: Message>(
    mut body: Reader,
    version: i16,
    left_over: usize,
) -> Result<M, DecodeError> {
    let message = M::decode(&mut body, version)?;
    if body.remaining() == left_over {
        body.skip_rest();
    }
    body.finish()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_four_bytes_in_a_request_for_all_topics_is_read_as_one() {
        // The count, whether topics may be created, whether operations are asked for, no tagged fields.
        for body in [&[0, 1, 0, 0][..], &[0, 0, 0, 0, 1, 0, 0]] {
            let reader = Reader::new(Bytes::copy_from_slice(body));
            let request = decode_and_skip::<MetadataRequest>(reader, 13, COUNT_BYTES_LEFT);
            assert_eq!(request.expect("it can be read").topics, None, "{body:?}");
        }
        for left_over in [1, 2, 4] {
            let body = vec![0; 4 + left_over];
            let reader = Reader::new(body.into());
            let request = decode_and_skip::<MetadataRequest>(reader, 13, COUNT_BYTES_LEFT);
            assert!(request.is_err(), "{left_over} bytes left over");
        }
    }
}
