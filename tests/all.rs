//! End-to-end tests of the built `sapwood` binary, and the rules that the repository keeps.

mod rules;
