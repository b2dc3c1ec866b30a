//! Assignment protocols: which one a generation speaks, and the topics in what consumers say.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, Bytes};
use sapwood_model::TopicName;

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
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    // A name takes two bytes at least, so that a count without names behind it reserves nothing.
    if version < 0 || count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let name = rest.get(..length)?;
        rest = &rest[length..];
        topics.extend(TopicName::new(std::str::from_utf8(name).ok()?).ok());
    }
    Some(topics)
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
}
