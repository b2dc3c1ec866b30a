//! Clients as members of groups: they share, one dies, one comes back, a topic is made; nothing is lost.

mod checks;
mod members;
mod restart;
mod shared;

pub(super) use self::checks::run;
