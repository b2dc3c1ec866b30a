//! Serves connections: settings, health, reflection, and the end.

use std::{future::Future, io, sync::Arc};

use futures_util::{Stream, StreamExt};
use sapwood_broker::{Broker, ConnectionBudget, Status as BrokerStatus};
use sapwood_rpc::{
    FILE_DESCRIPTOR_SET,
    v1::{
        fetch_service_server::FetchServiceServer, group_service_server::GroupServiceServer,
        produce_service_server::ProduceServiceServer, storage_service_server::StorageServiceServer,
        topic_service_server::TopicServiceServer,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::{Request, server::NamedService, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::debug;

use crate::{
    GrpcOptions,
    cut::{Cuttable, Peer, Remote},
    fetch::FetchApi,
    groups::GroupApi,
    produce::ProduceApi,
    storage::StorageApi,
    topics::TopicApi,
};

/// HTTP/2 flow control: with the default 64 KiB a stream of large batches waits for round trips.
const WINDOW_BYTES: u32 = 4 << 20;
/// Above a stream's, so that one stream that waits for the disk does not hold up the others of its
/// connection. It also bounds how many unread small frames end a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Large frames halve the CPU time of large batches.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// What calls need in headers is far below this.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The services could not be set up.
    #[error("could not set up the gRPC services: {0}")]
    Setup(#[from] tonic_reflection::server::Error),
    /// The connections could not be served.
    #[error("could not serve gRPC connections: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the native API on connections that somebody else accepts; they shall have TCP_NODELAY set.
/// An error among them is passed over; the end of `incoming` ends the serving once all connections
/// are gone.
///
/// When `shutdown` resolves, no connection is taken any more, health says `NOT_SERVING`, produce
/// streams answer what they have appended, and every stream ends with SW2005. Connections that are
/// not gone after [`GrpcOptions::shutdown_grace`] are cut. The broker is not closed by this; health
/// follows its status too, from the moment when it begins to drain.
///
/// What one client does costs only that client: a stream that is not read stops being served once
/// its window is full, a broken connection ends its own streams, and requests are held to the
/// broker's budget, of which one connection gets a share.
///
/// # Errors
/// The services could not be set up; never because of a client.
pub async fn serve<I, S, F>(
    incoming: S,
    broker: Broker,
    options: GrpcOptions,
    shutdown: F,
) -> Result<(), ServeError>
where
    I: AsyncRead + AsyncWrite + Remote + Unpin + Send + 'static,
    S: Stream<Item = io::Result<I>>,
    F: Future<Output = ()>,
{
    let drain = CancellationToken::new();
    let cut = CancellationToken::new();
    // Whatever ends this future ends its streams and connections.
    let _cut_on_drop = cut.clone().drop_guard();
    let _drain_on_drop = drain.clone().drop_guard();

    let (health, health_service) = tonic_health::server::health_reporter();
    report_health(&health, ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;

    let produce = ProduceApi {
        broker: broker.clone(),
        in_flight_max: options.produce_in_flight_max.max(1),
        drain: drain.clone(),
    };
    let fetch = FetchApi {
        broker: broker.clone(),
        subscriptions_max: options.subscriptions_max,
        drain: drain.clone(),
    };
    let topics = TopicApi {
        broker: broker.clone(),
    };
    let storage = StorageApi {
        broker: broker.clone(),
    };
    let groups = GroupApi::new(broker.clone(), drain.clone());
    let router = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(options.streams_per_connection_max)
        .http2_keepalive_interval(Some(options.keep_alive_interval))
        .http2_keepalive_timeout(Some(options.keep_alive_timeout))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(
            ProduceServiceServer::new(produce).max_decoding_message_size(options.message_bytes_max),
        )
        // A batch is returned whole, however large it is.
        .add_service(FetchServiceServer::new(fetch).max_encoding_message_size(usize::MAX))
        .add_service(TopicServiceServer::new(topics).max_encoding_message_size(usize::MAX))
        .add_service(StorageServiceServer::new(storage).max_encoding_message_size(usize::MAX))
        .add_service(GroupServiceServer::new(groups).max_encoding_message_size(usize::MAX));

    let budgets = broker.clone();
    let connections = incoming.map(|connection| {
        let budget = budgets.budget().connection();
        connection.map(|io| Cuttable::new(io, cut.clone(), budget))
    });
    let serving = router.serve_with_incoming_shutdown(connections, drain.cancelled());
    tokio::pin!(serving);
    tokio::pin!(shutdown);
    let mut status = broker.watch_status();
    let mut follows_broker = true;
    loop {
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = &mut shutdown => break,
            // Begin to refuse before the connections are gone: load balancers watch this.
            changed = status.changed(), if follows_broker => {
                follows_broker = changed.is_ok();
                if *status.borrow() != BrokerStatus::Ready {
                    report_health(&health, ServingStatus::NotServing).await;
                }
            }
        }
    }
    report_health(&health, ServingStatus::NotServing).await;
    drain.cancel();
    if let Ok(served) = tokio::time::timeout(options.shutdown_grace, &mut serving).await {
        return Ok(served?);
    }
    debug!(grace = ?options.shutdown_grace, "cutting connections that have not ended");
    cut.cancel();
    Ok(serving.await?)
}

/// The services by name, and the server as a whole (the empty name).
async fn report_health(health: &HealthReporter, status: ServingStatus) {
    let services = [
        "",
        <ProduceServiceServer<ProduceApi> as NamedService>::NAME,
        <FetchServiceServer<FetchApi> as NamedService>::NAME,
        <TopicServiceServer<TopicApi> as NamedService>::NAME,
        <GroupServiceServer<GroupApi> as NamedService>::NAME,
    ];
    for service in services {
        health.set_service_status(service, status).await;
    }
}

/// The share of the connection that a request came on.
pub(crate) fn connection_budget<T>(request: &Request<T>, broker: &Broker) -> Arc<ConnectionBudget> {
    match request.extensions().get::<Peer>() {
        Some(peer) => Arc::clone(&peer.budget),
        // Called without a connection: as an embedder might.
        None => Arc::new(broker.budget().connection()),
    }
}

/// Where a request came from, without the port; empty if that is not known.
pub(crate) fn peer_host<T>(request: &Request<T>) -> String {
    let address = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.address);
    address.map_or_else(String::new, |address| {
        address.ip().to_canonical().to_string()
    })
}
