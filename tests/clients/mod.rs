//! Clients of others, and the command line.

mod python;
