//! The routes, and serving them on one connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::health::{Health, Readiness};
use crate::metrics::Metrics;

/// How long a client may take to send a request's head, and how long a connection may be idle.
/// Longer than the interval at which metrics are usually read, so that those connections are kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The HTTP side of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    router: Router,
}

#[derive(Debug, Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Http {
    /// Serves the health and the metrics of one process.
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        let router = Router::new()
            .route("/", get(index))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .fallback(not_found)
            .with_state(Shared { health, metrics });
        Self { router }
    }

    /// Serves HTTP/1 requests on `io` until the client closes it, is idle for 75 seconds, or `stop`
    /// turns true: then the request at hand is answered first.
    ///
    /// # Errors
    ///
    /// What the client did wrong, or that it is gone. It concerns nobody else.
    pub async fn serve_connection<S>(
        &self,
        io: S,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

async fn index() -> &'static str {
    "sapwood\n\n/livez    the process is alive\n/readyz   it serves requests\n/metrics  what it measures\n"
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let readiness = shared.health.readiness();
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Recovering { .. }
        | Readiness::Loading { .. }
        | Readiness::Full { .. }
        | Readiness::ReadOnly { .. }
        | Readiness::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness)).into_response()
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written\n",
        )
            .into_response(),
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "not found: /livez, /readyz and /metrics are here\n",
    )
}
