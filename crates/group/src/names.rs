//! Names and numbers of groups and their members.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A text that names something: cheap to clone, compared as text.
macro_rules! text {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether the text is empty.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text! {
    /// A group's name, as its members spell it. Any text: only its length is limited, and that an
    /// empty one cannot have members.
    GroupId
}

text! {
    /// One member's stay in a group. Made by the coordinator, or by a client of the newer protocol.
    MemberId
}

text! {
    /// The lasting name of a static member (`group.instance.id`): it keeps its partitions over a
    /// restart, under a new [`MemberId`].
    InstanceId
}

impl MemberId {
    /// A name that nobody else has: what it starts with, and 128 random bits as a UUID.
    ///
    /// Prefix `a` and the number 1 give `a-00000000-0000-0000-0000-000000000001`.
    pub(crate) fn fresh(prefix: &str, random: u128) -> Self {
        let hex = format!("{random:032x}");
        let (a, b, c) = (&hex[..8], &hex[8..12], &hex[12..16]);
        let (d, e) = (&hex[16..20], &hex[20..]);
        let dash = if prefix.is_empty() { "" } else { "-" };
        format!("{prefix}{dash}{a}-{b}-{c}-{d}-{e}").into()
    }
}

/// Counts the completed rebalances of a classic group. 0 before the first; at most `i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation after this one. After `i32::MAX`, which takes a rebalance a second for 68
    /// years, they start again at 1.
    pub(crate) fn next(self) -> Self {
        Self(next(self.0))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in the life of a consumer group of the newer kind: the group's, a member's or an
/// assignment's. 0 is before the first; at most `i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// What a member has that has not joined.
    pub const ZERO: Self = Self(0);

    /// The epoch after this one.
    pub(crate) fn next(self) -> Self {
        Self(next(self.0))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The next number of those that Kafka's clients hold in 31 bits.
fn next(number: u32) -> u32 {
    if number >= i32::MAX.unsigned_abs() {
        1
    } else {
        number + 1
    }
}

/// Names a caller who waits for a reply. Given out by whoever hosts the machine, never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_member_id_is_its_prefix_and_a_uuid() {
        let id = MemberId::fresh("consumer-1", 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(
            id.as_str(),
            "consumer-1-01234567-89ab-cdef-0123-456789abcdef"
        );
        let bare = MemberId::fresh("", 1);
        assert_eq!(bare.as_str(), "00000000-0000-0000-0000-000000000001");
    }

    #[test]
    fn generations_and_epochs_stay_within_31_bits() {
        assert_eq!(Generation(1).next(), Generation(2));
        assert_eq!(Epoch(i32::MAX.unsigned_abs()).next(), Epoch(1));
    }
}
