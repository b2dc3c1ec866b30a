//! The HTTP listener: health and metrics, answered from the first moment on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sapwood_broker::Throttle;
use sapwood_http::Http;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::listener::Acceptor;

/// Scrapers and probes are few; whoever opens more than this is not one of them.
const CONNECTIONS_MAX: usize = 256;
/// How often reaching that limit is logged.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer that is under way may take once the listener stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts and serves until `stop` turns true, then lets the answers under way finish.
pub(crate) async fn serve(listener: TcpListener, http: Http, mut stop: watch::Receiver<bool>) {
    let mut acceptor = Acceptor::new(listener);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (full, began) = (Throttle::new(WARN_INTERVAL), Instant::now());
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            if let Some(suppressed) = full.pass(began.elapsed()) {
                warn!(
                    event = "connections.limit_reached",
                    %peer,
                    http_connections_max = CONNECTIONS_MAX,
                    suppressed,
                    "http connection closed: too many are open"
                );
            }
            continue;
        };
        let (http, stop) = (http.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = http.serve_connection(stream, stop).await {
                debug!(%peer, %error, "http connection ended early");
            }
            drop(slot);
        });
    }
    drop(acceptor);
    let finish = async { while connections.join_next().await.is_some() {} };
    // Who has not taken an answer by then is cut off when the set is dropped.
    let _ = tokio::time::timeout(STOP_TIMEOUT, finish).await;
}
