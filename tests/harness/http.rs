//! Health and metrics, as whoever watches a broker gets them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// What takes longer than this to come true does not come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// The HTTP side of a broker.
#[derive(Debug, Clone)]
pub(crate) struct Http(pub(super) String);

impl Http {
    /// Status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.0).expect("the HTTP port is open");
        let limited = stream.set_read_timeout(Some(TIMEOUT));
        limited.expect("the limit is not zero");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("a request can be sent");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the answer is text, and ends");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// The status of `/readyz`, what it says about the broker, and the reason that it gives.
    pub(crate) fn readyz(&self) -> (u16, String, String) {
        let (code, body) = self.get("/readyz");
        let said: serde_json::Value =
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("/readyz says {body:?}: {e}"));
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        (code, text("status"), text("reason"))
    }

    /// One series of the metrics, by its name with its labels; `None` when it is not there.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let (code, text) = self.get("/metrics");
        assert_eq!(code, 200, "{text}");
        let value = |line: &str| {
            let rest = line.strip_prefix(series)?;
            // Counters without labels have empty ones.
            rest.trim_start_matches("{}")
                .strip_prefix(' ')?
                .parse()
                .ok()
        };
        text.lines().find_map(value)
    }

    /// Waits until `/readyz` says this of the broker; returns code and reason.
    ///
    /// # Panics
    /// When it does not come to it.
    pub(crate) fn wait_for(&self, status: &str) -> (u16, String) {
        let started = Instant::now();
        loop {
            let (code, said, reason) = self.readyz();
            if said == status {
                return (code, reason);
            }
            assert!(
                started.elapsed() < PATIENCE,
                "/readyz still says {said} ({reason}), not {status}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
