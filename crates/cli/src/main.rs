//! The `sapwood` binary.
fn main() {}
