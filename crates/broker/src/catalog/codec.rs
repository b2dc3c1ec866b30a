//! Big-endian bytes of the catalog's commands and snapshots. Reading is bounded: a length is believed
//! only as far as there are bytes behind it.

use std::collections::BTreeMap;

use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName};

use super::{
    command::{Command, NewTopicRecord},
    state::{State, TopicRecord},
};

const CREATE_TOPIC: u8 = 1;
const DELETE_TOPIC: u8 = 2;
const ALTER_CONFIGS: u8 = 3;
const ADD_PARTITIONS: u8 = 4;
const MOVE_LOG_START: u8 = 5;
const RESERVE_PRODUCER_IDS: u8 = 6;
const FORGET_DELETED: u8 = 7;

/// Appends fields to a byte string.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("counts in the catalog are far below 2^32"));
    }

    pub(super) fn text(&mut self, value: &str) {
        self.count(value.len());
        self.0.extend_from_slice(value.as_bytes());
    }

    fn texts(&mut self, values: &BTreeMap<String, String>) {
        self.count(values.len());
        for (key, value) in values {
            self.text(key);
            self.text(value);
        }
    }
}

/// Takes fields off the front of a byte string; `None` when they are not there.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }

    fn topic_name(&mut self) -> Option<TopicName> {
        TopicName::new(self.text()?).ok()
    }

    fn texts(&mut self) -> Option<BTreeMap<String, String>> {
        let count = self.u32()?;
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let (key, value) = (self.text()?, self.text()?);
            values.insert(key.to_owned(), value.to_owned());
        }
        Some(values)
    }

    /// True when every byte was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

pub(super) fn write_command(writer: &mut Writer, command: &Command) {
    match command {
        Command::CreateTopic(topic) => {
            writer.u8(CREATE_TOPIC);
            write_new_topic(writer, topic);
        }
        Command::DeleteTopic { topic } => {
            writer.u8(DELETE_TOPIC);
            writer.u128(topic.0);
        }
        Command::AlterConfigs { topic, configs } => {
            writer.u8(ALTER_CONFIGS);
            writer.u128(topic.0);
            writer.texts(configs);
        }
        Command::AddPartitions { topic, total } => {
            writer.u8(ADD_PARTITIONS);
            writer.u128(topic.0);
            writer.u32(*total);
        }
        Command::MoveLogStart {
            topic,
            partition,
            log_start,
        } => {
            writer.u8(MOVE_LOG_START);
            writer.u128(topic.0);
            writer.u32(partition.0);
            writer.u64(log_start.0);
        }
        Command::ReserveProducerIds { count } => {
            writer.u8(RESERVE_PRODUCER_IDS);
            writer.u64(*count);
        }
        Command::ForgetDeleted { topics } => {
            writer.u8(FORGET_DELETED);
            writer.count(topics.len());
            for topic in topics {
                writer.u128(topic.0);
            }
        }
    }
}

pub(super) fn read_command(reader: &mut Reader<'_>) -> Option<Command> {
    Some(match reader.u8()? {
        CREATE_TOPIC => Command::CreateTopic(read_new_topic(reader)?),
        DELETE_TOPIC => Command::DeleteTopic {
            topic: TopicId(reader.u128()?),
        },
        ALTER_CONFIGS => Command::AlterConfigs {
            topic: TopicId(reader.u128()?),
            configs: reader.texts()?,
        },
        ADD_PARTITIONS => Command::AddPartitions {
            topic: TopicId(reader.u128()?),
            total: reader.u32()?,
        },
        MOVE_LOG_START => Command::MoveLogStart {
            topic: TopicId(reader.u128()?),
            partition: PartitionId(reader.u32()?),
            log_start: Offset(reader.u64()?),
        },
        RESERVE_PRODUCER_IDS => Command::ReserveProducerIds {
            count: reader.u64()?,
        },
        FORGET_DELETED => {
            let count = reader.u32()?;
            let mut topics = Vec::new();
            for _ in 0..count {
                topics.push(TopicId(reader.u128()?));
            }
            Command::ForgetDeleted { topics }
        }
        _ => return None,
    })
}

fn write_new_topic(writer: &mut Writer, topic: &NewTopicRecord) {
    writer.u128(topic.id.0);
    writer.text(topic.name.as_str());
    writer.u64(topic.created_at.0.cast_unsigned());
    writer.u32(topic.partitions);
    writer.texts(&topic.configs);
}

fn read_new_topic(reader: &mut Reader<'_>) -> Option<NewTopicRecord> {
    Some(NewTopicRecord {
        id: TopicId(reader.u128()?),
        name: reader.topic_name()?,
        created_at: Timestamp(reader.u64()?.cast_signed()),
        partitions: reader.u32()?,
        configs: reader.texts()?,
    })
}

pub(super) fn write_state(writer: &mut Writer, state: &State) {
    writer.u64(state.next_producer_id());
    writer.count(state.topics().len());
    for topic in state.topics() {
        write_new_topic(writer, &topic.record);
        writer.count(topic.log_starts.len());
        for (partition, log_start) in &topic.log_starts {
            writer.u32(partition.0);
            writer.u64(log_start.0);
        }
    }
    writer.count(state.deleted().len());
    for (id, name) in state.deleted() {
        writer.u128(id.0);
        writer.text(name.as_str());
    }
}

/// A snapshot that contradicts itself (two topics of one name, say) reads as `None`.
pub(super) fn read_state(reader: &mut Reader<'_>) -> Option<State> {
    let mut state = State::with_next_producer_id(reader.u64()?);
    for _ in 0..reader.u32()? {
        let record = read_new_topic(reader)?;
        let mut log_starts = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let partition = PartitionId(reader.u32()?);
            log_starts.insert(partition, Offset(reader.u64()?));
        }
        state.restore_topic(TopicRecord { record, log_starts })?;
    }
    for _ in 0..reader.u32()? {
        let id = TopicId(reader.u128()?);
        state.restore_deleted(id, reader.topic_name()?)?;
    }
    Some(state)
}
