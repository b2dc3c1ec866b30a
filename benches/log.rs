//! Filled in with the benchmarks.

fn main() {}
