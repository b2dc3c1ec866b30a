//! The process: runtime, log, signals.

use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::error::RunError;
use crate::logging::{self, LogHandle};
use crate::server::{Ready, Server};
use crate::signals::{Request, Signals};

/// Runs a broker until SIGTERM or SIGINT. Blocks; makes its own runtime, so it must not be called
/// inside one. `ready` is called once, when requests are served.
///
/// Installs the log (unless there is one), the handler for pages that vanish under a mapping, and
/// handlers for SIGTERM and SIGINT (drain and return; during recovery return at once, which the next
/// start recovers from; a second one returns without waiting for the drain) and SIGHUP (reads the
/// configuration again and applies what can be applied without a restart).
///
/// Threads may still run when this returns after a second signal or during recovery: end the process.
///
/// # Errors
///
/// See [`RunError`].
pub fn run(config: Config, ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    let log = logging::install(&config.log).map_err(|reason| RunError::SetUp {
        what: "the log",
        source: std::io::Error::other(reason),
    })?;
    sapwood_broker::install_sigbus_handler();
    let runtime = runtime()?;
    let result = runtime.block_on(serve(config, log, ready));
    // What still runs is a drain that was cut short or a recovery that nobody waits for.
    runtime.shutdown_background();
    result
}

/// As many workers as cores. Everything that blocks (recovery, the catalog, cold reads, metrics) runs
/// on the blocking pool, whose threads end when they are idle.
fn runtime() -> Result<Runtime, RunError> {
    Builder::new_multi_thread()
        .enable_io()
        .enable_time()
        .thread_name("sapwood")
        .build()
        .map_err(|source| RunError::SetUp {
            what: "the runtime",
            source,
        })
}

async fn serve(
    config: Config,
    log: Option<LogHandle>,
    ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    let signals = Signals::install();
    let mut signals = signals.map_err(|source| RunError::SetUp {
        what: "the signal handlers",
        source,
    })?;
    let mut config = config;
    let mut server = tokio::select! {
        server = Server::start(config.clone()) => server?,
        () = signals.stop() => {
            info!(event = "broker.stopped", "stopped before recovery was over");
            return Ok(());
        }
    };
    ready(server.ready());
    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Stop => break,
                Request::Reload => config = reload(config, log.as_ref()),
            },
            failure = server.failed() => {
                error!(event = "broker.failed", error = %failure, "stopping");
                // The first failure is what the caller hears of; the stop logs its own.
                let _ = server.stop().await;
                return Err(failure);
            }
        }
    }
    let since = Instant::now();
    tokio::select! {
        stopped = server.stop() => stopped,
        () = signals.stop() => {
            warn!(event = "broker.interrupted", "ended by a second signal");
            Err(RunError::Interrupted { after: since.elapsed() })
        }
    }
}

/// Reads the configuration again and applies what can be applied. What cannot, or a configuration
/// that is wrong, is logged, and the old one stays in force.
fn reload(current: Config, log: Option<&LogHandle>) -> Config {
    let next = match current.reload() {
        Ok(next) => next,
        Err(problems) => {
            warn!(event = "config.rejected", %problems, "the configuration was not reloaded");
            return current;
        }
    };
    let mut in_force = current;
    for (old, new) in in_force.changes(&next) {
        let key = &new.key;
        match log {
            Some(log) if key == "log.level" => match log.set_level(&next.log.level) {
                Ok(()) => {
                    info!(event = "config.changed", key, old = %old.value, new = %new.value, "applied");
                    in_force.log.level.clone_from(&next.log.level);
                }
                Err(reason) => {
                    warn!(event = "config.rejected", key, reason, "not applied");
                }
            },
            _ => warn!(
                event = "config.restart_needed",
                key,
                old = %old.value,
                new = %new.value,
                "a change of the configuration waits for a restart"
            ),
        }
    }
    in_force
}
