//! InitProducerId: an identity for an idempotent producer.

use sapwood_kafka_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::{
    context::Context,
    errors::{AsKafka, ErrorCode},
};

pub(crate) async fn handle(
    context: &Context,
    request: InitProducerIdRequest,
    _version: i16,
) -> InitProducerIdResponse {
    let refused = |error_code| InitProducerIdResponse {
        error_code,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => {
            let reason = "the transactional id is empty";
            return refused(context.refuse(ErrorCode::InvalidRequest, &reason));
        }
        // Clients take it for final and say that the broker cannot do this, instead of trying again.
        Some(_) => {
            let reason = "transactions are not supported";
            return refused(context.refuse(ErrorCode::UnsupportedVersion, &reason));
        }
    }
    // A producer that asks for a new epoch of its id gets a new id: nobody else has the old one, and
    // what it sent under it stays deduplicated.
    let (id, epoch) = match context.broker().allocate_producer_id().await {
        Ok(allocated) => allocated,
        Err(error) => return refused(context.refuse(error.kafka(), &error)),
    };
    InitProducerIdResponse {
        producer_id: i64::try_from(id.0).unwrap_or(i64::MAX),
        producer_epoch: i16::try_from(epoch.0).unwrap_or(i16::MAX),
        ..InitProducerIdResponse::default()
    }
}
