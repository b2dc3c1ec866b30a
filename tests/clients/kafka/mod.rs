//! Clients of the Kafka protocol, each a program of its own, against the built binary.

mod compaction;
mod crossing;
mod groups;
mod killed;
mod matrix;
mod page;
mod program;
mod retention;
