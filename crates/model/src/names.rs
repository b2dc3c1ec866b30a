//! Names and identities of topics.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::PartitionId;

/// The longest topic name, in bytes. Kafka's limit: `<name>-<partition>` must fit a file name.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..` (Kafka's rule).
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidTopicName`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Reserved { name: name.into() });
        }
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(InvalidTopicName::TooLong { length: name.len() });
        }
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name.chars().find(|c| !legal(c)) {
            Some(character) => Err(InvalidTopicName::Character {
                name: name.into(),
                character,
            }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a topic name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// The name has no characters.
    #[error("a topic name has at least 1 character")]
    Empty,
    /// `.` and `..` are folders.
    #[error("{name:?} cannot be a topic name: it names a folder")]
    Reserved {
        /// What was asked for.
        name: String,
    },
    /// Longer than a file name allows.
    #[error("the topic name is {length} bytes; the limit is {TOPIC_NAME_BYTES_MAX} bytes")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A character outside `a-z A-Z 0-9 . _ -`.
    #[error("topic name {name:?} has the character {character:?}; a-z A-Z 0-9 . _ - are allowed")]
    Character {
        /// What was asked for.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

/// A topic's identity from its creation to its deletion. A topic that is made again under an old
/// name has another id. Shown as Kafka shows it: 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl TopicId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        Some(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// One partition of one topic, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number.
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_legal_characters_up_to_the_limit_are_taken() {
        let longest = "x".repeat(TOPIC_NAME_BYTES_MAX);
        for name in [
            "a",
            "flights",
            "A.b_c-9",
            "__consumer_offsets",
            "...",
            "-",
            &longest,
        ] {
            assert_eq!(
                TopicName::new(name).map(|name| name.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_refused_with_the_rule() {
        use InvalidTopicName::{Character, Empty, Reserved, TooLong};
        assert_eq!(TopicName::new(""), Err(Empty));
        for name in [".", ".."] {
            assert_eq!(TopicName::new(name), Err(Reserved { name: name.into() }));
        }
        let length = TOPIC_NAME_BYTES_MAX + 1;
        assert_eq!(TopicName::new(&"x".repeat(length)), Err(TooLong { length }));
        for (name, character) in [
            ("a/b", '/'),
            ("a b", ' '),
            ("caf\u{e9}", '\u{e9}'),
            ("a\0", '\0'),
            ("../etc", '/'),
        ] {
            assert_eq!(
                TopicName::new(name),
                Err(Character {
                    name: name.into(),
                    character
                })
            );
        }
    }

    #[test]
    fn the_message_of_a_refused_name_says_value_and_limit() {
        let too_long = TopicName::new(&"x".repeat(250)).unwrap_err();
        assert_eq!(
            too_long.to_string(),
            "the topic name is 250 bytes; the limit is 249 bytes"
        );
    }

    #[test]
    fn a_topic_id_is_shown_as_kafka_shows_it_and_read_back() {
        // What Kafka prints for the id whose bytes are 0 to 15.
        let id = TopicId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        for id in [id, TopicId(0), TopicId(u128::MAX)] {
            assert_eq!(id.to_string().len(), 22);
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn what_is_not_a_topic_id_is_refused() {
        for text in [
            "",
            "AAECAwQFBgcICQoLDA0OD",
            "AAECAwQFBgcICQoLDA0ODw==",
            "AAECAwQFBgcICQoLDA0O/w",
        ] {
            assert_eq!(TopicId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_partition_is_named_topic_slash_number() {
        let topic = TopicName::new("flights").unwrap();
        let partition = TopicPartition {
            topic,
            partition: PartitionId(3),
        };
        assert_eq!(partition.to_string(), "flights/3");
    }
}
