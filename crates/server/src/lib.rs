//! Configuration, wiring and signals: everything between a command line and a running broker.
//!
//! [`run`] is the process: it reads signals and returns when the broker has stopped. [`Server`]
//! starts the same broker inside a tokio runtime of the caller's, for tests and embedders.

pub mod config;

mod run;
mod server;

mod bind;
mod error;
mod http;
mod kafka;
mod listener;
pub mod logging;
mod machine;
mod signals;

pub use bind::BindError;
pub use config::{Config, ConfigError, Flags, Inputs, Origin, Problem, Profile, Setting, Value};
pub use error::RunError;
pub use machine::MachineError;
pub use run::run;
pub use server::{Ready, Server};

// What `storage repair` needs to know of a stopped broker.
pub use sapwood_broker::{CatalogOpenError, read_stopped_catalog};
