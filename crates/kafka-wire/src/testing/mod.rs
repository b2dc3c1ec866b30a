//! For tests and fuzzers: random values of every message, damage to their bytes, and what has to
//! hold for any bytes at all. Behind the feature `testing`.

mod check;
mod mutate;
mod random;
mod source;

pub use check::{FuzzRequest, check_body, check_frame, check_request};
pub use mutate::mutate;
pub use random::{Random, random_frame};
pub use source::{Source, seed};
