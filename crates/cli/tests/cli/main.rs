//! The real binary, from the outside: what it prints, and with which code it ends.

mod bad_input;
mod broker;
mod groups;
mod member;
mod records;
mod repair;
mod restart;
mod server;
mod storage;
mod topics;
