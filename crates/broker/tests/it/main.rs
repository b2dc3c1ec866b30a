//! The broker in this process, on real temporary directories and on simulated disks.

mod catalog;
mod fetch;
mod lifecycle;
mod produce;
mod support;
mod topics;
