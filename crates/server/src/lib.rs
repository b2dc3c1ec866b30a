//! Configuration, wiring and signals.
