//! The Kafka protocol from the client's side, with blocking sockets.

mod cluster;
mod connection;
mod consumer;
mod producer;

pub(crate) use cluster::Cluster;
pub(crate) use consumer::KafkaConsumer;
pub(crate) use producer::KafkaProducer;
