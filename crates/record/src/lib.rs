//! Kafka's record batch, version 2: view, validate, build, compress.
