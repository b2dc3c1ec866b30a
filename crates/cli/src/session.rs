//! A command's connection to the brokers: a tokio runtime, a client, and Ctrl-C.

use std::{future::Future, time::Duration};

use sapwood_client::{Client, Error};
use sapwood_model::{Code, Timestamp};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    args::Global,
    error::{Failure, Outcome, Stop, io_failed},
};

/// How long the runtime may take to wind up once the command is done; what is still running then
/// (a name look-up) ends with the process.
const WIND_UP: Duration = Duration::from_millis(200);

/// Runs a command that talks to a broker.
///
/// # Errors
/// The command's own, and an address that cannot be understood.
pub(crate) fn run<F>(global: &Global, command: impl FnOnce(Client) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let runtime = Runtime::new().map_err(|error| io_failed(&error, "cannot start"))?;
    let outcome = runtime.block_on(async {
        let client = Client::builder(&global.brokers.join(","))
            .request_timeout(global.timeout)
            .connect_timeout(global.timeout.min(Duration::from_secs(5)))
            .build()
            .map_err(|error| Failure::from(&error))?;
        command(client).await
    });
    runtime.shutdown_timeout(WIND_UP);
    outcome
}

/// The time now, for positions such as `@-1h`.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Ctrl-C, seen once. A second one ends the process at once.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    seen: watch::Receiver<bool>,
}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn listen() -> Self {
        let (sender, seen) = watch::channel(false);
        tokio::spawn(async move {
            // Where signals cannot be listened to, the default stays: Ctrl-C kills.
            if tokio::signal::ctrl_c().await.is_ok() {
                sender.send_replace(true);
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130);
                }
            }
            std::future::pending::<()>().await;
        });
        Self { seen }
    }

    /// Whether it has been seen.
    pub(crate) fn is_set(&self) -> bool {
        *self.seen.borrow()
    }

    /// Returns when it is seen. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        if self.seen.wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut failure = Self::new(error.code(), error);
        if !error.cause().is_empty() {
            failure = failure.cause(error.cause());
        }
        if !error.hint().is_empty() {
            failure = failure.hint(error.hint());
        }
        match (error.code(), error.field("suggestion")) {
            (Code::UnknownTopicConfig, Some(suggestion)) => {
                failure.hint(format!("Use {suggestion:?}, if that is what you meant."))
            }
            _ => failure,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Failure::from(&error).into()
    }
}
