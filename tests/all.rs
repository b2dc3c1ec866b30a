//! End-to-end tests of the built `sapwood` binary, and the rules that the repository keeps.
//!
//! Each broker is a process of its own with a data directory of its own. Random tests print their
//! seed; `SAPWOOD_TEST_SEED` plays one again. `SAPWOOD_CRASH_ROUNDS` and `SAPWOOD_CRASH_SECONDS` make
//! the crash tests longer.

mod clients;
mod conformance;
mod crash;
mod harness;
mod rules;
