//! The machine as its host sees it: each transition and refusal by itself, and random lives of groups
//! against what must hold at every step.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod classic;
mod classic_static;
mod consumer;
mod consumer_out;
mod host;
mod kinds;
mod members;
mod model;
mod offsets;
mod random;
mod speed;
mod spread;
