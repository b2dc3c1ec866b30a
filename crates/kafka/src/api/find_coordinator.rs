//! FindCoordinator: the one broker coordinates every group.

use sapwood_kafka_wire::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, FindCoordinatorResponseCoordinator,
};

use super::admin::{Refused, TOLD_WHY_MAX};
use crate::{context::Context, errors::ErrorCode};

/// `key_type` of groups.
const GROUP: i8 = 0;
/// `key_type` of transactional ids.
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(
    context: &Context,
    request: FindCoordinatorRequest,
    _version: i16,
) -> FindCoordinatorResponse {
    let refused = find(context, request.key_type).await.err();
    let (error_code, error_message) = match refused {
        None => (0, None),
        Some(refused) => {
            let error_code = context.refuse(refused.code, &refused.message);
            (error_code, Some(refused.message))
        }
    };
    let advertised = context.advertised();
    let (node_id, host, port) = match error_code {
        0 => (
            context.broker_id(),
            advertised.host.as_str(),
            advertised.port.into(),
        ),
        _ => (-1, "", -1),
    };
    let keys = request.coordinator_keys.into_iter().enumerate();
    let coordinators = keys.map(|(at, key)| FindCoordinatorResponseCoordinator {
        key,
        node_id,
        host: host.to_owned(),
        port,
        error_code,
        error_message: error_message.clone().filter(|_| at < TOLD_WHY_MAX),
    });
    FindCoordinatorResponse {
        coordinators: coordinators.collect(),
        error_code,
        error_message,
        node_id,
        host: host.to_owned(),
        port,
        ..FindCoordinatorResponse::default()
    }
}

/// Gets ready to coordinate what the request is about.
async fn find(context: &Context, key_type: i8) -> Result<(), Refused> {
    match key_type {
        GROUP => {
            let prepared = context.broker().groups().prepare().await;
            // Clients ask again after this one.
            let code = ErrorCode::CoordinatorNotAvailable;
            prepared.map_err(|error| Refused::new(code, error.to_string()))
        }
        // Of all codes this is the one that every client takes for final; after others some ask again
        // until their time is up.
        TRANSACTION => Err(Refused::new(
            ErrorCode::TransactionalIdAuthorizationFailed,
            "transactions are not supported",
        )),
        other => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("nothing of type {other} is coordinated here; groups have type {GROUP}"),
        )),
    }
}
