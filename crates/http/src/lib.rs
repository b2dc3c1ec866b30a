//! Liveness, readiness and metrics over HTTP.
//!
//! [`Http`] serves connections that others accept. `/livez` answers as long as the process runs,
//! `/readyz` says whether requests are served and how far recovery is, `/metrics` is read by
//! Prometheus.

mod connections;
mod health;
mod metrics;
mod routes;

pub use connections::{ConnectionCounters, ConnectionEnd};
pub use health::{Health, LoadingProgress, Readiness, RecoveryProgress};
pub use metrics::{ApiRequests, Metrics, ProtocolRequests};
pub use routes::Http;
