//! What the Kafka door counts: requests by API and error, and how long they took.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use sapwood_broker::{Counter, Histogram};

use crate::{
    dispatch::{APIS, Api},
    errors::ErrorCode,
};

/// The numbers of the Kafka door since the start.
#[derive(Debug)]
pub struct Metrics {
    apis: Vec<ApiMetrics>,
    pub(crate) faults: Counter,
}

/// The numbers of one API.
#[derive(Debug)]
pub struct ApiMetrics {
    name: &'static str,
    succeeded: Counter,
    errors: Mutex<BTreeMap<ErrorCode, u64>>,
    duration: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let api = |api: &Api| ApiMetrics {
            name: api.name,
            succeeded: Counter::default(),
            errors: Mutex::default(),
            duration: Histogram::default(),
        };
        Self {
            apis: APIS.iter().map(api).collect(),
            faults: Counter::default(),
        }
    }

    pub(crate) fn of(&self, api: &Api) -> &ApiMetrics {
        let found = APIS.binary_search_by_key(&api.key, |api| api.key);
        &self.apis[found.expect("every API is in the table")]
    }

    /// Connections that were closed because their request met a fault in this program.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    /// Every API that is served, by its key.
    pub fn apis(&self) -> &[ApiMetrics] {
        &self.apis
    }
}

impl ApiMetrics {
    /// Kafka's name of the API.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Requests that were answered without any error.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.get()
    }

    /// Errors in answers, by code; one answer may have many.
    pub fn errors(&self) -> Vec<(ErrorCode, u64)> {
        let errors = self.errors.lock();
        errors.iter().map(|(code, count)| (*code, *count)).collect()
    }

    /// From a request being there to its answer being ready to be sent.
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }

    pub(crate) fn count_error(&self, code: ErrorCode) {
        *self.errors.lock().entry(code).or_default() += 1;
    }

    pub(crate) fn answered(&self, took: Duration, has_failed: bool) {
        self.duration.record(took);
        if !has_failed {
            self.succeeded.add(1);
        }
    }
}
