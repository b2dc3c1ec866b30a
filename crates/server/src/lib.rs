//! Configuration, wiring and signals: everything between a command line and a running broker.
//!
//! [`run`] is the process: it reads signals and returns when the broker has stopped. [`Server`]
//! starts the same broker inside a tokio runtime of the caller's, for tests and embedders.

mod bind;
pub mod config;
pub mod logging;

pub use bind::BindError;
pub use config::{Config, ConfigError, Flags, Inputs, Origin, Problem, Profile, Setting, Value};
