//! Golden bytes, written by hand from Kafka's public schemas; cut and foreign bytes.

mod random;

use sapwood_group::{
    ClassicMemberMetadata, ClassicMetadata, CommittedOffset, ConsumerMetadata, CurrentAssignment,
    Epoch, Generation, MemberMetadata, MemberState, Partitions, Record, ResolvedRegex,
};
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

use super::{DecodeError, EncodeError, encode};
use crate::coordinator::Decoded;

/// One golden record: its key and its value, field by field.
struct Golden {
    record: Record,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// When every record of these tests was written.
const AT: Timestamp = Timestamp(0x0c0d);

fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Decoded<Record>, DecodeError> {
    super::decode(key, value, AT)
}

fn offset(topic: Option<u128>, leader_epoch: Option<u32>, expire: Option<i64>) -> Record {
    Record::Offset {
        group: "g".into(),
        topic: name("t"),
        partition: PartitionId(3),
        value: Some(CommittedOffset {
            topic_id: topic.map(TopicId),
            offset: Offset(0x0102),
            leader_epoch: leader_epoch.map(LeaderEpoch),
            metadata: "m".into(),
            commit_timestamp: Timestamp(0x0a0b),
            expire_timestamp: expire.map(Timestamp),
        }),
    }
}

const OFFSET_KEY: [u8; 12] = [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3];

fn offsets() -> [Golden; 3] {
    let golden = |record, epoch: [u8; 4], tags: &[u8]| Golden {
        record,
        key: OFFSET_KEY.to_vec(),
        value: bytes(&[
            &[0, 4],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &epoch,
            b"\x02m",
            &[0, 0, 0, 0, 0, 0, 0x0a, 0x0b],
            tags,
        ]),
    };
    let id = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    // One tag, 0, of 16 bytes.
    let tag = b"\x01\x00\x10\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";
    let with_topic = golden(offset(Some(id), Some(7), None), [0, 0, 0, 7], tag);
    let without = golden(offset(None, None, None), [0xff; 4], &[0]);
    let with_expiry = Golden {
        record: offset(None, None, Some(5)),
        key: OFFSET_KEY.to_vec(),
        value: bytes(&[
            &[0, 1],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 1, b'm'],
            &[0, 0, 0, 0, 0, 0, 0x0a, 0x0b],
            &[0, 0, 0, 0, 0, 0, 0, 5],
        ]),
    };
    [with_topic, without, with_expiry]
}

fn classic() -> Golden {
    Golden {
        record: Record::Classic {
            group: "g".into(),
            value: Some(ClassicMetadata {
                protocol_type: "consumer".into(),
                generation: Generation(2),
                protocol: Some("range".into()),
                leader: Some("m".into()),
                current_state_timestamp: Some(Timestamp(9)),
                members: vec![ClassicMemberMetadata {
                    member_id: "m".into(),
                    instance_id: None,
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    rebalance_timeout_ms: 0x100,
                    session_timeout_ms: 0x200,
                    subscription: b"su"[..].into(),
                    assignment: b"a"[..].into(),
                }],
            }),
        },
        key: vec![0, 2, 0, 1, b'g'],
        value: bytes(&[
            &[0, 3],
            b"\0\x08consumer",
            &[0, 0, 0, 2],
            b"\0\x05range",
            b"\0\x01m",
            &[0, 0, 0, 0, 0, 0, 0, 9],
            &[0, 0, 0, 1],
            b"\0\x01m",
            &[0xff, 0xff],
            b"\0\x01c",
            b"\0\x02/h",
            &[0, 0, 1, 0],
            &[0, 0, 2, 0],
            b"\0\0\0\x02su",
            b"\0\0\0\x01a",
        ]),
    }
}

fn consumers() -> [Golden; 2] {
    let golden = |metadata_hash, tags: &[u8]| Golden {
        record: Record::Consumer {
            group: "g".into(),
            value: Some(ConsumerMetadata {
                epoch: Epoch(4),
                metadata_hash,
                changed_at: AT,
            }),
        },
        key: vec![0, 3, 0, 1, b'g'],
        value: bytes(&[&[0, 0], &[0, 0, 0, 4], tags]),
    };
    [
        golden(0, &[0]),
        // One tag, 0, of 8 bytes.
        golden(
            u64::MAX - 1,
            b"\x01\x00\x08\xff\xff\xff\xff\xff\xff\xff\xfe",
        ),
    ]
}

fn member() -> Golden {
    Golden {
        record: Record::Member {
            group: "g".into(),
            member: "m".into(),
            value: Some(MemberMetadata {
                instance_id: Some("i".into()),
                rack_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                subscribed_topic_names: [name("a"), name("bb")].into(),
                subscribed_topic_regex: Some("x*".into()),
                rebalance_timeout_ms: 0x0100_0000,
                server_assignor: Some("uniform".into()),
            }),
        },
        key: vec![0, 5, 0, 1, b'g', 0, 1, b'm'],
        value: bytes(&[
            &[0, 0],
            b"\x02i",
            &[0],
            b"\x02c",
            b"\x03/h",
            b"\x03\x02a\x03bb",
            b"\x03x*",
            &[1, 0, 0, 0],
            b"\x08uniform",
            &[0],
        ]),
    }
}

fn target() -> Golden {
    Golden {
        record: Record::Target {
            group: "g".into(),
            value: Some(Epoch(6)),
        },
        key: vec![0, 6, 0, 1, b'g'],
        value: vec![0, 0, 0, 0, 0, 6, 0],
    }
}

fn partitions() -> Partitions {
    let set = [(1, 0), (1, 2), (2, 5)];
    set.map(|(topic, partition)| (TopicId(topic), PartitionId(partition)))
        .into_iter()
        .collect()
}

/// Two topics: partitions 0 and 2 of the first, 5 of the second.
fn partition_bytes() -> Vec<u8> {
    bytes(&[
        &[3],
        &1_u128.to_be_bytes(),
        &[3, 0, 0, 0, 0, 0, 0, 0, 2, 0],
        &2_u128.to_be_bytes(),
        &[2, 0, 0, 0, 5, 0],
    ])
}

fn target_member() -> Golden {
    Golden {
        record: Record::TargetMember {
            group: "g".into(),
            member: "m".into(),
            value: Some(partitions()),
        },
        key: vec![0, 7, 0, 1, b'g', 0, 1, b'm'],
        value: bytes(&[&[0, 0], &partition_bytes(), &[0]]),
    }
}

fn currents() -> [Golden; 2] {
    let golden = |epoch, epoch_bytes: &[u8], state, state_byte| Golden {
        record: Record::Current {
            group: "g".into(),
            member: "m".into(),
            value: Some(CurrentAssignment {
                member_epoch: epoch,
                previous_member_epoch: Epoch(8),
                state,
                assigned: partitions(),
                pending_revocation: Partitions::new(),
            }),
        },
        key: vec![0, 8, 0, 1, b'g', 0, 1, b'm'],
        value: bytes(&[
            &[0, 0],
            epoch_bytes,
            &[0, 0, 0, 8],
            &[state_byte],
            &partition_bytes(),
            // No topic, no tag.
            &[1, 0],
        ]),
    };
    [
        golden(
            Some(Epoch(9)),
            &[0, 0, 0, 9],
            MemberState::UnreleasedPartitions,
            2,
        ),
        // -2: a static member that is expected back.
        golden(
            None,
            &[0xff, 0xff, 0xff, 0xfe],
            MemberState::UnrevokedPartitions,
            1,
        ),
    ]
}

fn regex() -> Golden {
    Golden {
        record: Record::Regex {
            group: "g".into(),
            regex: "a.".into(),
            value: Some(ResolvedRegex {
                topics: [name("ab")].into(),
                version: 3,
                timestamp: Timestamp(4),
            }),
        },
        key: vec![0, 16, 0, 1, b'g', 0, 2, b'a', b'.'],
        value: bytes(&[
            &[0, 0],
            b"\x02\x03ab",
            &[0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 0, 0, 0, 0, 0, 4],
            &[0],
        ]),
    }
}

fn all() -> Vec<Golden> {
    let mut all = vec![classic(), member(), target(), target_member(), regex()];
    all.extend(offsets());
    all.extend(consumers());
    all.extend(currents());
    all
}

fn read(key: &[u8], value: Option<&[u8]>) -> Result<Record, DecodeError> {
    match decode(Some(key), value)? {
        Decoded::Record(record) => Ok(record),
        other => panic!("not a record: {other:?}"),
    }
}

/// The same record as a tombstone.
fn buried(record: &Record) -> Record {
    let mut record = record.clone();
    match &mut record {
        Record::Offset { value, .. } => *value = None,
        Record::Classic { value, .. } => *value = None,
        Record::Consumer { value, .. } => *value = None,
        Record::Member { value, .. } => *value = None,
        Record::Target { value, .. } => *value = None,
        Record::TargetMember { value, .. } => *value = None,
        Record::Current { value, .. } => *value = None,
        Record::Regex { value, .. } => *value = None,
    }
    record
}

#[test]
fn every_schema_is_written_and_read_byte_for_byte() {
    for golden in all() {
        let (key, value) = encode(&golden.record).unwrap();
        assert_eq!(key, golden.key, "{:?}", golden.record);
        assert_eq!(value, Some(golden.value), "{:?}", golden.record);
        assert_eq!(read(&key, value.as_deref()).unwrap(), golden.record);
        let tombstone = buried(&golden.record);
        assert_eq!(encode(&tombstone).unwrap(), (golden.key, None));
        assert_eq!(read(&key, None).unwrap(), tombstone);
    }
}

#[test]
fn every_cut_of_a_key_or_a_value_is_an_error_and_so_are_bytes_behind_it() {
    for golden in all() {
        let (key, value) = (golden.key, golden.value);
        for cut in 0..key.len() {
            let cut = decode(Some(&key[..cut]), Some(&value));
            assert_eq!(cut, Err(DecodeError::Truncated), "{:?}", golden.record);
        }
        for cut in 0..value.len() {
            let cut = decode(Some(&key), Some(&value[..cut]));
            assert_eq!(cut, Err(DecodeError::Truncated), "{:?}", golden.record);
        }
        let trailing = Err(DecodeError::Trailing { bytes: 1 });
        let long = bytes(&[&key, &[0]]);
        assert_eq!(decode(Some(&long), Some(&value)), trailing);
        let long = bytes(&[&value, &[0]]);
        assert_eq!(decode(Some(&key), Some(&long)), trailing);
    }
}

#[test]
fn lengths_that_are_not_there_reserve_nothing_and_are_errors() {
    let huge = bytes(&[&[0, 0], &[0xff, 0xff, 0xff, 0xff, 0x0f]]);
    let key = [0, 7, 0, 1, b'g', 0, 1, b'm'];
    assert_eq!(decode(Some(&key), Some(&huge)), Err(DecodeError::Truncated));
    let long = bytes(&[&[0, 0], &[0xff, 0xff, 0xff, 0xff, 0x1f]]);
    assert_eq!(decode(Some(&key), Some(&long)), Err(DecodeError::Varint));
    let members = bytes(&[
        &[0, 3, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[0; 8],
        &i32::MAX.to_be_bytes(),
    ]);
    let key = [0, 2, 0, 1, b'g'];
    assert_eq!(
        decode(Some(&key), Some(&members)),
        Err(DecodeError::Truncated)
    );
}

#[test]
fn older_and_flexible_versions_of_offsets_and_classic_groups_are_read() {
    let fields: [&[u8]; 3] = [
        &[0, 0, 0, 0, 0, 0, 1, 2],
        &[0, 1, b'm'],
        &[0, 0, 0, 0, 0, 0, 0x0a, 0x0b],
    ];
    for version in [0, 2] {
        let value = bytes(&[&[0, version], &fields.concat()]);
        let record = read(&OFFSET_KEY, Some(&value)).unwrap();
        assert_eq!(record, offset(None, None, None));
    }
    let old_key = bytes(&[&[0, 0], &OFFSET_KEY[2..]]);
    let value = bytes(&[&[0, 0], &fields.concat()]);
    let record = read(&old_key, Some(&value)).unwrap();
    assert_eq!(record, offset(None, None, None));
    let with_epoch = bytes(&[&[0, 3], fields[0], &[0, 0, 0, 7], fields[1], fields[2]]);
    let record = read(&OFFSET_KEY, Some(&with_epoch)).unwrap();
    assert_eq!(record, offset(None, Some(7), None));
    // Version 4 with a tag that is not known, number 9, one byte; and behind a topic's id that is none.
    let none = bytes(&[&[2, 0, 16], &[0; 16], &[9, 1, 0xee]]);
    for tags in [&[1, 9, 1, 0xee][..], &none] {
        let fields = [fields[0], &[0, 0, 0, 7], b"\x02m", fields[2]].concat();
        let flexible = bytes(&[&[0, 4], &fields, tags]);
        let record = read(&OFFSET_KEY, Some(&flexible)).unwrap();
        assert_eq!(record, offset(None, Some(7), None));
    }

    let v0 = bytes(&[
        &[0, 0],
        b"\0\x08consumer",
        &[0, 0, 0, 2],
        b"\0\x05range",
        b"\0\x01m",
        &[0, 0, 0, 1],
        b"\0\x01m\0\x01c\0\x02/h",
        &[0, 0, 2, 0],
        b"\0\0\0\x02su\0\0\0\x01a",
    ]);
    let golden = classic();
    let Record::Classic {
        value: Some(mut expected),
        ..
    } = golden.record.clone()
    else {
        panic!("a classic group");
    };
    let v4 = bytes(&[
        &[0, 4],
        b"\x09consumer",
        &[0, 0, 0, 2],
        b"\x06range\x02m",
        &[0, 0, 0, 0, 0, 0, 0, 9],
        b"\x02\x02m\x00\x02c\x03/h",
        &[0, 0, 1, 0, 0, 0, 2, 0],
        b"\x03su\x02a\x00\x00",
    ]);
    assert_eq!(read(&golden.key, Some(&v4)).unwrap(), golden.record);
    expected.current_state_timestamp = None;
    expected.members[0].rebalance_timeout_ms = 0x200;
    let record = read(&golden.key, Some(&v0)).unwrap();
    let value = Some(expected);
    assert_eq!(
        record,
        Record::Classic {
            group: "g".into(),
            value
        }
    );
}

#[test]
fn keys_of_newer_types_are_told_apart_from_obsolete_and_damaged_ones() {
    // The group of a share group, and a type that does not exist yet.
    for key in [11_i16, 300, -1] {
        let bytes = key.to_be_bytes();
        assert_eq!(decode(Some(&bytes), None), Ok(Decoded::Unknown { key }));
    }
    assert_eq!(
        decode(Some(&[0, 4, 0, 1, b'g']), None),
        Ok(Decoded::Obsolete)
    );
    assert_eq!(decode(None, None), Err(DecodeError::NoKey));
    assert_eq!(decode(Some(&[0]), None), Err(DecodeError::Truncated));
    let version = DecodeError::Version { key: 6, version: 1 };
    let value = [0, 1, 0, 0, 0, 6, 0];
    assert_eq!(
        decode(Some(&[0, 6, 0, 1, b'g']), Some(&value)),
        Err(version)
    );
}

#[test]
fn impossible_fields_are_errors_that_name_them() {
    let negative = [0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    let error = decode(Some(&[0, 6, 0, 1, b'g']), Some(&negative)).unwrap_err();
    assert_eq!(error.to_string(), "the assignment's epoch is -1");
    let error = decode(Some(&[0, 6, 0, 1, 0xff]), None).unwrap_err();
    assert_eq!(
        error,
        DecodeError::Utf8 {
            field: "the group id"
        }
    );
    let error = decode(Some(&[0, 6, 0xff, 0xff]), None).unwrap_err();
    assert_eq!(
        error,
        DecodeError::Null {
            field: "the group id"
        }
    );
    let error = decode(Some(&[0, 1, 0, 1, b'g', 0, 1, b'/', 0, 0, 0, 0]), None).unwrap_err();
    assert!(matches!(error, DecodeError::TopicName(_)), "{error:?}");
    let state = bytes(&[&[0, 0], &[0; 8], &[3], &[1, 1, 0]]);
    let error = decode(Some(&[0, 8, 0, 1, b'g', 0, 1, b'm']), Some(&state)).unwrap_err();
    assert_eq!(error, DecodeError::State { state: 3 });
}

#[test]
fn what_the_schemas_cannot_say_is_an_error() {
    let member = "m".repeat(40_000);
    let record = Record::Member {
        group: "g".into(),
        member: member.as_str().into(),
        value: None,
    };
    let long = EncodeError::TooLong {
        field: "the member id",
        length: 40_000,
        limit: 32_767,
    };
    assert_eq!(encode(&record), Err(long));
    let value = Some(Epoch(1 << 31));
    let target = Record::Target {
        group: "g".into(),
        value,
    };
    let range = EncodeError::OutOfRange {
        field: "the assignment's epoch",
        value: 1 << 31,
        limit: (1 << 31) - 1,
    };
    assert_eq!(encode(&target), Err(range));
}
