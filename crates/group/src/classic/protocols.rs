//! Assignment protocols: which one a generation speaks, the topics in what consumers say, and the
//! partitions in what their leader gives them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, Bytes};
use sapwood_model::{PartitionId, TopicName};

use super::{ClassicGroup, ClassicMember, State};
use crate::Protocol;

impl ClassicGroup {
    /// Whether a member with these protocols can be in the group: all members have to have one in
    /// common, and to be of one type.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.state == State::Empty || self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.all_speak(&protocol.name))
    }

    fn all_speak(&self, protocol: &str) -> bool {
        self.members.values().all(|member| speaks(member, protocol))
    }

    /// The protocol of a generation: each member votes for the first of its own that all of them
    /// speak, and the most votes win; of equal ones the first by name.
    ///
    /// A speaks range and sticky, B and C sticky and range: sticky, with two votes.
    pub(super) fn vote(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let first = member
                .protocols
                .iter()
                .find(|protocol| self.all_speak(&protocol.name));
            *votes.entry(&first?.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let winner = votes.into_iter().find(|(_, count)| *count == most);
        winner.map(|(name, _)| name.clone())
    }
}

fn speaks(member: &ClassicMember, protocol: &str) -> bool {
    member
        .protocols
        .iter()
        .any(|spoken| &*spoken.name == protocol)
}

/// The topics in what a consumer says (the beginning of Kafka's `ConsumerProtocolSubscription`: a
/// version, then an array of names; big-endian). None if it cannot be read. A name that no topic can
/// have is left out.
pub(super) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<TopicName>> {
    let mut rest: &[u8] = metadata;
    let version = rest.try_get_i16().ok()?;
    // A name takes two bytes at least.
    let count = count(&mut rest, 2)?;
    if version < 0 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        topics.extend(topic(&mut rest)?);
    }
    Some(topics)
}

/// The partitions in what the leader of a group of consumers gave one of them, by topic (the beginning
/// of Kafka's `ConsumerProtocolAssignment`: a version, then an array of topics, each a name and an array
/// of partition numbers; big-endian). Empty for no bytes, which is what a member has before the leader
/// has spoken; none if the bytes cannot be read. A name that no topic can have and a number below 0 are
/// left out. Nothing says that the partitions exist, or are named only once.
pub fn assigned_partitions(assignment: &[u8]) -> Option<Vec<(TopicName, Vec<PartitionId>)>> {
    let mut rest = assignment;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let version = rest.try_get_i16().ok()?;
    // A name and a count.
    let topics = count(&mut rest, 6)?;
    if version < 0 {
        return None;
    }
    let mut assigned = Vec::new();
    for _ in 0..topics {
        let topic = topic(&mut rest)?;
        let numbers = count(&mut rest, 4)?;
        let mut partitions = Vec::with_capacity(numbers);
        for _ in 0..numbers {
            let number = rest.try_get_i32().ok()?;
            partitions.extend(u32::try_from(number).map(PartitionId));
        }
        assigned.extend(topic.map(|topic| (topic, partitions)));
    }
    Some(assigned)
}

/// The length of an array. None if its elements, of so many bytes at least, cannot be there: a count
/// with nothing behind it reserves nothing.
fn count(rest: &mut &[u8], element_bytes_min: usize) -> Option<usize> {
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    (count <= rest.len() / element_bytes_min).then_some(count)
}

/// A topic's name; one that no topic can have is none in the inner option.
fn topic(rest: &mut &[u8]) -> Option<Option<TopicName>> {
    let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    let name = rest.get(..length)?;
    *rest = &rest[length..];
    Some(TopicName::new(std::str::from_utf8(name).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &'static [u8]) -> Option<Vec<String>> {
        let topics = subscribed_topics(&Bytes::from_static(metadata))?;
        Some(topics.iter().map(TopicName::to_string).collect())
    }

    #[test]
    fn topics_are_read_from_what_a_consumer_says() {
        let said = b"\0\x01\0\0\0\x02\0\x01a\0\x02bb\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics(said), Some(vec!["a".to_owned(), "bb".to_owned()]));
        assert_eq!(topics(b"\0\0\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn what_is_cut_or_lies_about_its_lengths_cannot_be_read() {
        for said in [
            &b""[..],
            b"\0\0",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\xff\xff\xff\xff",
            b"\xff\xff\0\0\0\0",
            b"\0\0\0\0\0\x01\0\x05a",
            b"\0\0\0\0\0\x01\xff\xffa",
            b"\0\0\0\0\0\x01\0\x01\xc3",
        ] {
            assert_eq!(topics(said), None, "{said:?}");
        }
    }

    fn assigned(assignment: &[u8]) -> Option<Vec<String>> {
        let shown = |(topic, partitions): &(TopicName, Vec<PartitionId>)| {
            let all = partitions.iter().map(|partition| format!("/{partition}"));
            format!("{topic}{}", all.collect::<String>())
        };
        Some(assigned_partitions(assignment)?.iter().map(shown).collect())
    }

    #[test]
    fn partitions_are_read_from_what_a_leader_gives() {
        let gave = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\
                     \0\x02bb\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        let all = ["a/0/2", "bb/7"].map(str::to_owned).to_vec();
        assert_eq!(assigned(gave), Some(all));
        assert_eq!(assigned(b"\0\0\0\0\0\0"), Some(vec![]));
        // Before the leader has spoken.
        assert_eq!(assigned(b""), Some(vec![]));
        // A name that no topic has, and a number that no partition has.
        let odd = b"\0\0\0\0\0\x01\0\x01/\0\0\0\x01\0\0\0\0";
        assert_eq!(assigned(odd), Some(vec![]));
        let below = b"\0\0\0\0\0\x01\0\x01a\0\0\0\x01\xff\xff\xff\xff";
        assert_eq!(assigned(below), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn an_assignment_that_is_cut_anywhere_or_lies_about_its_lengths_cannot_be_read() {
        let whole = b"\0\0\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\0";
        for end in 1..whole.len() {
            assert_eq!(assigned(&whole[..end]), None, "{end}");
        }
        for gave in [
            &b"everything"[..],
            b"\xff\xff\0\0\0\0",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x01a\x7f\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xc3\0\0\0\0",
        ] {
            assert_eq!(assigned(gave), None, "{gave:?}");
        }
    }
}
