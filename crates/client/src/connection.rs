//! Connections to the brokers: lazily made, made again when they break, with a growing pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sapwood_model::Code;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// Flow-control windows: with HTTP/2's own 64 KiB a stream of large batches waits for round trips.
const WINDOW_BYTES: u32 = 4 << 20;
/// Large frames halve the CPU time of large batches.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// The largest answer that is read. Whole batches are returned however large, and a topic's limit
/// may be set to tens of megabytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The brokers' addresses, one connection each, and which of them is in use.
#[derive(Debug)]
pub(crate) struct Connections {
    channels: Vec<(String, Channel)>,
    current: AtomicUsize,
    pub(crate) request_timeout: Duration,
}

impl Connections {
    /// Reads `HOST:PORT[,HOST:PORT...]`. Connects to nothing yet, but must be called on a tokio
    /// runtime.
    pub(crate) fn new(
        brokers: &str,
        connect_timeout: Duration,
        request_timeout: Duration,
    ) -> Result<Arc<Self>, Error> {
        let channels = brokers
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(|address| Ok((address.to_owned(), endpoint(address, connect_timeout)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        if channels.is_empty() {
            return Err(Error::local(
                Code::InvalidArgument,
                "no broker address was given",
            ));
        }
        Ok(Arc::new(Self {
            channels,
            current: AtomicUsize::new(0),
            request_timeout,
        }))
    }

    /// The connection in use.
    pub(crate) fn channel(&self) -> Channel {
        self.at(self.current.load(Ordering::Relaxed)).1.clone()
    }

    /// The address in use.
    pub(crate) fn address(&self) -> &str {
        &self.at(self.current.load(Ordering::Relaxed)).0
    }

    /// Uses the next address from now on.
    pub(crate) fn rotate(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs one unary call with the request timeout, on the next addresses too when one cannot be
    /// reached. A call whose connection broke is tried again only when `repeatable`; one that met a
    /// group that is being loaded, which has done nothing, for as long as the request timeout.
    pub(crate) async fn call<T, C, F>(&self, repeatable: bool, mut call: C) -> Result<T, Error>
    where
        C: FnMut(Channel) -> F,
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let mut tries_left = if repeatable {
            self.channels.len() + 1
        } else {
            self.channels.len()
        };
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = Backoff::new(seed());
        loop {
            let address = self.address();
            let error = match tokio::time::timeout(self.request_timeout, call(self.channel())).await
            {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => {
                    let never_sent = was_never_sent(&status);
                    let error = at_address(status.into(), address);
                    if error.code() == Code::Loading {
                        let at = Instant::now() + backoff.next();
                        if at < deadline {
                            tokio::time::sleep_until(at).await;
                            continue;
                        }
                    }
                    if !error.is_transport() || !(repeatable || never_sent) {
                        return Err(error);
                    }
                    error
                }
                Err(_) => {
                    let seconds = self.request_timeout.as_secs_f64();
                    let message = format!("{address} did not answer within {seconds} s");
                    return Err(Error::local(Code::TimedOut, message));
                }
            };
            tries_left -= 1;
            if tries_left == 0 {
                return Err(error);
            }
            self.rotate();
        }
    }

    fn at(&self, turn: usize) -> &(String, Channel) {
        &self.channels[turn % self.channels.len()]
    }
}

/// Names the address in an error of its connection.
pub(crate) fn at_address(error: Error, address: &str) -> Error {
    if error.is_transport() && error.code() == Code::Unreachable {
        Error::transport(format!("cannot reach the broker at {address}: {error}"))
    } else {
        error
    }
}

/// True when the connection was refused: the request never left.
fn was_never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionRefused
                    | std::io::ErrorKind::HostUnreachable
                    | std::io::ErrorKind::NetworkUnreachable
                    | std::io::ErrorKind::AddrNotAvailable
            );
        }
        source = error.source();
    }
    false
}

fn endpoint(address: &str, connect_timeout: Duration) -> Result<Channel, Error> {
    let invalid = |why: String| {
        let message = format!("broker address {address:?} is not HOST:PORT: {why}");
        Error::local(Code::InvalidArgument, message)
    };
    let with_port = if has_port(address) {
        address.to_owned()
    } else {
        format!("{address}:9092")
    };
    let endpoint = Endpoint::from_shared(format!("http://{with_port}"))
        .map_err(|error| invalid(error.to_string()))?;
    if endpoint.uri().host().is_none_or(str::is_empty) || endpoint.uri().path() != "/" {
        return Err(invalid("it has no host, or a path".to_owned()));
    }
    if endpoint.uri().port_u16().is_none() {
        return Err(invalid("the port is not 0 to 65535".to_owned()));
    }
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_lazy())
}

/// True for `host:1` and `[::1]:1`, false for `host` and `[::1]`.
fn has_port(address: &str) -> bool {
    let after_host = address.rsplit_once(']').map_or(address, |(_, rest)| rest);
    after_host.contains(':')
}

/// Pauses between tries: doubling from 20 ms to 1 s, with some chance in it so that the clients of
/// a broker that comes back do not all come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    seed: u64,
}

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Backoff {
    /// Starts with the shortest pause. `seed` tells clients apart.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            next: BACKOFF_MIN,
            seed: seed | 1,
        }
    }

    /// How long to wait now; the next pause is twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(BACKOFF_MAX);
        // xorshift: three quarters of the pause at least.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        pause * 3 / 4 + pause / 4 * (self.seed % 1024) as u32 / 1024
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        self.next = BACKOFF_MIN;
    }
}

/// A seed for [`Backoff`] that differs between processes and between calls, without a random
/// generator: std's hasher keys are random.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_20_ms_to_1_s_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(7);
        for expected_ms in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            let pause = backoff.next().as_millis();
            assert!(
                pause >= expected_ms * 3 / 4 - 1 && pause <= expected_ms,
                "{pause}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_MIN);
    }

    #[tokio::test]
    async fn addresses_are_checked_and_the_port_may_be_left_out() {
        let connections =
            |text: &str| Connections::new(text, Duration::from_secs(1), Duration::from_secs(1));
        for good in [
            "localhost",
            "localhost:9092",
            "127.0.0.1:1, b:2",
            "[::1]:9092",
            "[::1]",
        ] {
            connections(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["", " , ", "a b:1", "host:99999", "http://x:1", "h:1/path"] {
            let error = connections(bad).expect_err(bad);
            assert_eq!(error.code(), Code::InvalidArgument, "{bad}");
        }
    }
}
