//! Clients of the Kafka protocol, each a program of its own, against the built binary.

mod crossing;
mod groups;
mod killed;
mod matrix;
mod page;
mod program;
mod retention;
