//! `/metrics`: everything is read when it is asked for, from counters that others keep.
//!
//! Names are `sapwood_*`, in seconds and bytes, in the OpenMetrics text format that Prometheus
//! reads. Numbers of topics are summed over their partitions unless a series for each partition is
//! asked for.

mod background;
mod broker;
mod families;
mod groups;
mod process;
mod protocols;

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use sapwood_broker::GroupSurvey;

use crate::connections::ConnectionCounters;
use crate::health::{Health, Readiness};
use families::Families;
use process::Process;
pub use protocols::{ApiRequests, ProtocolRequests};

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    health: Arc<Health>,
    connections: Arc<ConnectionCounters>,
    per_partition: bool,
    requests: OnceLock<Arc<dyn ProtocolRequests>>,
}

/// Where the numbers of one answer come from.
#[derive(Debug)]
struct Sources {
    metrics: Arc<Metrics>,
    /// None before there is a broker.
    groups: Option<GroupSurvey>,
}

impl Metrics {
    /// `per_partition` gives each partition its own series.
    pub fn new(
        health: Arc<Health>,
        connections: Arc<ConnectionCounters>,
        per_partition: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            health,
            connections,
            per_partition,
            requests: OnceLock::new(),
        })
    }

    /// Shows the requests of a protocol too, from when it is served. The first call counts.
    pub fn show_requests(&self, requests: Arc<dyn ProtocolRequests>) {
        let _ = self.requests.set(requests);
    }

    /// The text that `/metrics` answers with. Asks the groups, then reads `/proc` and asks the file
    /// system for its free space on the blocking pool.
    ///
    /// # Errors
    ///
    /// When a value cannot be written, which has no cause outside this crate, or the runtime is
    /// shutting down.
    pub async fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let groups = match self.health.broker() {
            Some(broker) => Some(broker.groups().survey().await),
            None => None,
        };
        let metrics = Arc::clone(self);
        // Many partitions and `/proc` take a while, and may touch the disk.
        let encode = move || {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Sources { metrics, groups }));
            let mut out = String::new();
            text::encode(&mut out, &registry).map(|()| out)
        };
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.unwrap_or(Err(fmt::Error))
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(&mut encoder);
        self.metrics.encode_state(&mut families)?;
        self.metrics.encode_connections(&mut families)?;
        let metrics = &*self.metrics;
        if let Some(broker) = metrics.health.broker() {
            broker::encode(broker, metrics.per_partition, &mut families)?;
            if let Some(survey) = &self.groups {
                groups::encode(broker, survey, metrics.per_partition, &mut families)?;
            }
        }
        if let Some(requests) = metrics.requests.get() {
            protocols::encode(&**requests, &mut families)?;
        }
        Process::read().encode(&mut families)
    }
}

impl Metrics {
    fn encode_state(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let labels = vec![("version", env!("CARGO_PKG_VERSION"))];
        families.info("sapwood_build", "The version that runs.", &labels)?;
        let readiness = self.health.readiness();
        let states = [
            (
                "recovering",
                matches!(readiness, Readiness::Recovering { .. }),
            ),
            ("loading", matches!(readiness, Readiness::Loading { .. })),
            ("ready", matches!(readiness, Readiness::Ready)),
            ("draining", matches!(readiness, Readiness::Draining)),
        ];
        families.gauges(
            "sapwood_state",
            None,
            "1 for the state that the broker is in.",
            states.map(|(state, is)| (vec![("state", state)], u64::from(is))),
        )?;
        if let Some(took) = self.health.start_took() {
            let help = "How long the last start took, recovery included.";
            families.gauge_seconds("sapwood_recovery", help, took.as_secs_f64())?;
        }
        Ok(())
    }

    fn encode_connections(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let counters = &self.connections;
        let known = counters.open_grpc() + counters.open_kafka();
        let other = counters.open().saturating_sub(known);
        families.counters(
            "sapwood_connections_accepted",
            None,
            "Connections that were accepted.",
            [(Vec::new(), counters.accepted())],
        )?;
        families.gauges(
            "sapwood_connections",
            None,
            "Connections that are open, by protocol; other is not told apart yet or is about to close.",
            [
                (vec![("protocol", "grpc")], counters.open_grpc()),
                (vec![("protocol", "kafka")], counters.open_kafka()),
                (vec![("protocol", "other")], other),
            ],
        )?;
        families.counters(
            "sapwood_connections_refused",
            None,
            "Connections that ended before they were served, by reason.",
            counters
                .ends()
                .map(|(reason, count)| (vec![("reason", reason)], count)),
        )
    }
}
