//! The broker in this process, on real temporary directories and on simulated disks.

// Helpers are not tests to clippy, which allows it there.
#![allow(clippy::unwrap_used)]

mod catalog;
mod documents;
mod fetch;
mod gated;
mod group_changes;
mod group_faults;
mod group_lifecycle;
mod group_overview;
mod group_seek;
mod group_survey;
mod groups;
mod held_back;
mod lifecycle;
mod produce;
mod scrub;
mod support;
mod topic_config;
mod topics;
