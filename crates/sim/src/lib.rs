//! A simulated disk and clock for crash tests.
