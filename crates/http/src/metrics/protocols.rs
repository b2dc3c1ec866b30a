//! The requests of protocols that count them by themselves.

use std::fmt::{self, Debug};

use sapwood_broker::Histogram;

use super::{broker::buckets, families::Families};

/// A protocol's requests, by API. Read whenever metrics are asked for.
pub trait ProtocolRequests: Debug + Send + Sync {
    /// The protocol, as the names of its metrics have it: `kafka`.
    fn protocol(&self) -> &'static str;

    /// Its APIs.
    fn apis(&self) -> Vec<ApiRequests<'_>>;

    /// Connections that were closed because a request met a fault in this program.
    fn faults(&self) -> u64;
}

/// The requests of one API.
#[derive(Debug)]
pub struct ApiRequests<'a> {
    /// The protocol's name for it.
    pub name: &'a str,
    /// How often each outcome came, by the protocol's name for it.
    pub outcomes: Vec<(&'a str, u64)>,
    /// From a request being there to its answer being ready.
    pub duration: &'a Histogram,
}

/// Writes the numbers of one protocol. An API that was never asked for has no durations.
pub(super) fn encode(
    requests: &dyn ProtocolRequests,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    let protocol = requests.protocol();
    let apis = requests.apis();
    families.counters(
        &format!("sapwood_{protocol}_requests"),
        None,
        "Requests without an error, and errors in answers, by API.",
        apis.iter().flat_map(|api| {
            let labels = |error| vec![("api", api.name), ("error", error)];
            api.outcomes
                .iter()
                .map(move |(error, count)| (labels(*error), *count))
        }),
    )?;
    families.counters(
        &format!("sapwood_{protocol}_faults"),
        None,
        "Connections closed because a request met a fault in the broker: there should be none.",
        [(Vec::new(), requests.faults())],
    )?;
    let used = apis
        .iter()
        .filter(|api| api.duration.counts().iter().any(|count| *count > 0));
    families.histograms(
        &format!("sapwood_{protocol}_request_duration"),
        "From a request being there to its answer being ready, waiting included.",
        used.map(|api| (vec![("api", api.name)], buckets(api.duration))),
    )
}
