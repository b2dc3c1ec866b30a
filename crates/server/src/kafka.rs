//! The Kafka connections of all listeners, and what they are counted by.

use std::time::Duration;

use sapwood_http::{ApiRequests, ProtocolRequests};
use sapwood_kafka::{ApiMetrics, ConnectionInfo, ErrorCode, Kafka};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use crate::listener::Slot;

/// A connection that is to be served, with its slot under the connection limit.
#[derive(Debug)]
pub(crate) struct KafkaConnection {
    pub(crate) stream: TcpStream,
    pub(crate) info: ConnectionInfo,
    pub(crate) slot: Slot,
}

/// Serves what comes out of `incoming` until every sender is gone, then gives connections `grace` to
/// take the answers to what they had sent. They read nothing new once `stop` turns true.
pub(crate) async fn serve(
    kafka: Kafka,
    mut incoming: mpsc::Receiver<KafkaConnection>,
    grace: Duration,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = incoming.recv() => {
                let Some(KafkaConnection { stream, info, slot }) = accepted else { break };
                let (kafka, stop) = (kafka.clone(), stop.clone());
                connections.spawn(async move {
                    kafka.serve_connection(stream, info, stop).await;
                    drop(slot);
                });
            }
        }
    }
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finish).await.is_err() {
        debug!(
            ?grace,
            left = connections.len(),
            "cutting kafka connections that have not ended"
        );
    }
}

/// What the Kafka door counts, for `/metrics`.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Kafka);

impl ProtocolRequests for Requests {
    fn protocol(&self) -> &'static str {
        "kafka"
    }

    fn apis(&self) -> Vec<ApiRequests<'_>> {
        self.0.metrics().apis().iter().map(requests).collect()
    }

    fn faults(&self) -> u64 {
        self.0.metrics().faults()
    }
}

fn requests(api: &ApiMetrics) -> ApiRequests<'_> {
    let errors = api.errors().into_iter();
    let errors = errors.map(|(code, count)| (code.name(), count));
    ApiRequests {
        name: api.name(),
        outcomes: [(ErrorCode::None.name(), api.succeeded())]
            .into_iter()
            .chain(errors)
            .collect(),
        duration: api.duration(),
    }
}
