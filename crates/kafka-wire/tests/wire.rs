//! The reader, the writer and the headers at their limits.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use bytes::Bytes;
use sapwood_kafka_wire::{
    DecodeError, EncodeError, Message, Nullable, Reader, RequestHeader, Uuid, Wire, Writer,
    decode_body, decode_response, encode_request, encode_response, messages::*,
    request_header_version, response_header_version,
};

/// All that the derive macro knows, in one message.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 9999, versions = "1-6", flexible = 4)]
struct Everything {
    #[kafka(versions = "2+")]
    number: f64,
    #[kafka(versions = "3", default = 5)]
    once: u16,
    #[kafka(versions = "0-2", default = 7)]
    early: i64,
    #[kafka(nullable = "3-5", default = Some(String::new()))]
    sometimes_null: Option<String>,
    maybe: Option<Inner>,
    /// These names are also used by the derived code.
    reader: bool,
    version: Vec<Inner>,
    #[kafka(versions = "5+", tag = 3)]
    tags: Vec<i32>,
    #[kafka(versions = "4+", tag = 1)]
    writer: Inner,
}

#[derive(Debug, Clone, PartialEq, Wire)]
struct Inner {
    #[kafka(default = -1)]
    value: i8,
}

fn everything() -> Everything {
    Everything {
        number: 1.5,
        once: 0x0102,
        early: 9,
        sometimes_null: Some("s".to_owned()),
        maybe: Some(Inner { value: 2 }),
        reader: true,
        version: vec![Inner { value: 3 }],
        tags: vec![4],
        writer: Inner { value: 5 },
    }
}

fn encode(value: &impl Wire, version: i16) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new();
    value.encode(&mut writer, version)?;
    Ok(writer.into_parts().concat())
}

fn decode<M: Message>(bytes: &[u8], version: i16) -> Result<M, DecodeError> {
    decode_body(Reader::new(Bytes::copy_from_slice(bytes)), version)
}

#[test]
fn every_version_has_its_fields_in_their_order() {
    let number = 1.5_f64.to_be_bytes();
    let early = 9_i64.to_be_bytes();
    let plain: &[u8] = &[0, 1, b's', 1, 2, 1, 0, 0, 0, 1, 3];
    let compact: &[u8] = &[2, b's', 1, 2, 0, 1, 2, 3, 0];
    let cases: [(i16, Vec<u8>); 6] = [
        (1, [&early[..], plain].concat()),
        (2, [&number[..], &early, plain].concat()),
        (3, [&number[..], &[1, 2], plain].concat()),
        (4, [&number[..], compact, &[1, 1, 2, 5, 0]].concat()),
        // Tags rise, whatever the order of the fields.
        (
            5,
            [&number[..], compact, &[2, 1, 2, 5, 0, 3, 5, 2, 0, 0, 0, 4]].concat(),
        ),
        (
            6,
            [&number[..], compact, &[2, 1, 2, 5, 0, 3, 5, 2, 0, 0, 0, 4]].concat(),
        ),
    ];
    for (version, bytes) in cases {
        assert_eq!(
            encode(&everything(), version).unwrap(),
            bytes,
            "version {version}"
        );
        let read: Everything = decode(&bytes, version).unwrap();
        assert_eq!(encode(&read, version).unwrap(), bytes, "version {version}");
    }
}

#[test]
fn a_field_that_the_version_lacks_reads_as_its_default() {
    let default = Everything::default();
    assert_eq!(
        (default.once, default.early, default.writer.value),
        (5, 7, -1)
    );
    let read: Everything = decode(&encode(&everything(), 1).unwrap(), 1).unwrap();
    let expected = Everything {
        number: 0.0,
        once: 5,
        tags: vec![],
        writer: Inner { value: -1 },
        ..everything()
    };
    assert_eq!(read, expected);
}

#[test]
fn a_tagged_field_with_its_default_is_not_written() {
    let value = Everything {
        tags: vec![],
        writer: Inner::default(),
        ..everything()
    };
    assert_eq!(encode(&value, 6).unwrap().last(), Some(&0));
    let one = Everything {
        tags: vec![],
        ..everything()
    };
    assert!(encode(&one, 6).unwrap().ends_with(&[1, 1, 2, 5, 0]));
}

#[test]
fn tagged_fields_are_found_in_any_order() {
    let mut bytes = encode(&everything(), 6).unwrap();
    let tags = bytes.len() - 12;
    bytes.truncate(tags);
    bytes.extend([3, 3, 5, 2, 0, 0, 0, 4, 77, 1, 0xff, 1, 2, 5, 0]);
    assert_eq!(decode::<Everything>(&bytes, 6).unwrap().tags, [4]);
    // A tag of a later version is an unknown one.
    let read: Everything = decode(&bytes, 4).unwrap();
    assert_eq!((read.tags, read.writer.value), (vec![], 5));
}

#[test]
fn null_is_for_the_versions_that_have_it() {
    let null = Everything {
        sometimes_null: None,
        maybe: None,
        ..everything()
    };
    for version in 1..=6 {
        match (3..=5).contains(&version) {
            true => {
                let read: Everything = decode(&encode(&null, version).unwrap(), version).unwrap();
                assert_eq!((read.sometimes_null, read.maybe), (None, None));
            }
            false => {
                let error = encode(&null, version).unwrap_err();
                let field = "Everything.sometimes_null";
                assert_eq!(error, EncodeError::Null { field });
            }
        }
    }
    let position = 8;
    let what = "string";
    let refused = decode::<Everything>(&[0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff], 1);
    assert_eq!(refused, Err(DecodeError::Null { position, what }));
}

#[test]
fn the_fewest_bytes_of_a_struct_are_those_of_what_every_version_has() {
    // The string, the mark, the boolean, the list; the rest may be missing.
    assert_eq!(Everything::MIN_BYTES, 4);
    assert_eq!(FetchResponseAbortedTransaction::MIN_BYTES, 16);
}

#[test]
fn varints_have_32_bits() {
    for (value, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ] {
        let mut writer = Writer::new();
        writer.varint(value);
        assert_eq!(writer.into_parts().concat(), bytes);
        assert_eq!(Reader::new(Bytes::from_static(bytes)).varint(), Ok(value));
    }
    for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80; 5], &[0x80; 6]] {
        let read = Reader::new(Bytes::copy_from_slice(bytes)).varint();
        assert_eq!(read, Err(DecodeError::Varint { position: 0 }));
    }
    let cut = Reader::new(Bytes::from_static(&[0x80])).varint();
    let (position, needed, remaining) = (1, 1, 0);
    assert_eq!(
        cut,
        Err(DecodeError::Truncated {
            position,
            needed,
            remaining
        })
    );
}

#[test]
fn strings_have_at_most_32767_bytes_of_utf_8() {
    let fits = "x".repeat(32_767);
    let long = "x".repeat(32_768);
    for version in [3, 4] {
        let value = |text: &str| Everything {
            sometimes_null: Some(text.to_owned()),
            ..everything()
        };
        let bytes = encode(&value(&fits), version).unwrap();
        assert_eq!(
            decode::<Everything>(&bytes, version)
                .unwrap()
                .sometimes_null,
            Some(fits.clone())
        );
        let (what, length, max) = ("string", 32_768, 32_767);
        let error = encode(&value(&long), version).unwrap_err();
        assert_eq!(error, EncodeError::TooLong { what, length, max });
    }
    // Compact lengths could say more: 32,768 as 32,769.
    let mut bytes = encode(&everything(), 4).unwrap();
    bytes.splice(8..10, [0x81, 0x80, 0x02].into_iter().chain(long.bytes()));
    let error = decode::<Everything>(&bytes, 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the string at byte 8 has a length of 32768; 32767 is the limit"
    );
    let mut bytes = encode(&everything(), 1).unwrap();
    bytes[10] = 0xff;
    assert_eq!(
        decode::<Everything>(&bytes, 1),
        Err(DecodeError::Utf8 { position: 10 })
    );
}

#[test]
fn a_struct_that_may_be_null_has_a_mark_of_any_number() {
    for (mark, is_there) in [
        (0_u8, true),
        (1, true),
        (0x7f, true),
        (0x80, false),
        (0xff, false),
    ] {
        let bytes = if is_there { vec![mark, 9] } else { vec![mark] };
        let mut reader = Reader::new(bytes.into());
        let read = Inner::decode_nullable(&mut reader, 1).unwrap();
        assert_eq!(read, is_there.then_some(Inner { value: 9 }), "{mark}");
        reader.finish().unwrap();
    }
}

#[test]
fn parts_are_shared_or_copied_and_are_together_what_was_written() {
    let large = Bytes::from(vec![1; Writer::SHARED_BYTES_MIN]);
    let small = Bytes::from(vec![2; Writer::SHARED_BYTES_MIN - 1]);
    let mut writer = Writer::new();
    assert!(writer.is_empty() && Writer::new().into_parts().is_empty());
    for bytes in [&small, &large, &large, &small] {
        writer.bytes(Some(bytes)).unwrap();
    }
    writer.bytes(None).unwrap();
    let length = writer.len();
    let parts = writer.into_parts();
    assert!(parts.iter().all(|part| !part.is_empty()));
    let shared = parts.iter().filter(|part| part.as_ptr() == large.as_ptr());
    assert_eq!((parts.len(), shared.count()), (5, 2));
    let all = parts.concat();
    assert_eq!(all.len(), length);
    let mut reader = Reader::new(all.into());
    for bytes in [&small, &large, &large, &small] {
        assert_eq!(reader.bytes().unwrap().as_ref(), Some(bytes));
    }
    assert_eq!(reader.bytes(), Ok(None));
    reader.finish().unwrap();
}

#[test]
fn bytes_in_tagged_fields_keep_their_places_too() {
    #[derive(Debug, Clone, PartialEq, Wire)]
    #[kafka(key = 9998, versions = "0-0", flexible = 0)]
    struct Tagged {
        #[kafka(tag = 0)]
        first: Bytes,
        #[kafka(tag = 1)]
        second: Option<Bytes>,
    }
    let value = Tagged {
        first: Bytes::from(vec![1; 2000]),
        second: Some(Bytes::from(vec![2; 3000])),
    };
    let bytes = encode(&value, 0).unwrap();
    assert_eq!(decode::<Tagged>(&bytes, 0), Ok(value));
}

#[test]
fn headers_have_the_form_of_their_api_and_version() {
    // ControlledShutdown 0 has no client id; APIs that are not known have no tagged fields.
    for (key, version, request, response) in [
        (7, 0, 0, 0),
        (7, 1, 1, 0),
        (3, 8, 1, 0),
        (3, 9, 2, 1),
        (18, 2, 1, 0),
        (18, 3, 2, 0),
        (18, 99, 2, 0),
        (47, 0, 1, 0),
        (999, 5, 1, 0),
        (-1, -1, 1, 0),
    ] {
        assert_eq!(
            request_header_version(key, version),
            request,
            "{key} {version}"
        );
        assert_eq!(
            response_header_version(key, version),
            response,
            "{key} {version}"
        );
    }
    for (api_key, api_version, client_id) in [
        (7, 0, None),
        (3, 8, None),
        (3, 9, Some("ann".to_owned())),
        (999, 5, Some(String::new())),
    ] {
        let header = RequestHeader {
            api_key,
            api_version,
            correlation_id: -3,
            client_id,
        };
        let mut writer = Writer::new();
        header.encode(&mut writer).unwrap();
        let mut reader = Reader::new(writer.into_parts().concat().into());
        assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
        reader.finish().unwrap();
    }
}

#[test]
fn a_client_id_that_is_not_utf_8_is_read_with_its_odd_bytes_replaced() {
    let read = |client_id: &[u8]| {
        let mut bytes = vec![0, 3, 0, 1, 0, 0, 0, 1];
        bytes.extend(i16::try_from(client_id.len()).unwrap().to_be_bytes());
        bytes.extend(client_id);
        let mut reader = Reader::new(Bytes::from(bytes));
        let header = RequestHeader::decode(&mut reader).unwrap();
        reader.finish().unwrap();
        header.client_id.unwrap()
    };
    assert_eq!(read(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    // An id in Latin-1, and one that stops within a character.
    assert_eq!(read(b"gr\xfcn"), "gr\u{fffd}n");
    assert_eq!(read(b"gr\xc3"), "gr\u{fffd}");
    // It can always be written again.
    let longest = read(&[0xff; 32_767]);
    assert_eq!(longest.len(), 32_766);
    assert!(longest.chars().all(|c| c == '\u{fffd}'));
    assert_eq!(read(&[b'a'; 32_767]).len(), 32_767);
}

#[test]
fn the_client_id_is_never_compact_and_tagged_fields_of_headers_are_passed_over() {
    let bytes: &[u8] = &[
        0, 3, 0, 9, 0, 0, 0, 1, 0, 1, b'c', 1, 42, 2, 8, 8, 1, 1, 0, 0, 0,
    ];
    let mut reader = Reader::new(Bytes::from_static(bytes));
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(header.client_id.as_deref(), Some("c"));
    let request: MetadataRequest = decode_body(reader, 9).unwrap();
    assert_eq!(request.topics, Some(vec![]));

    let response = HeartbeatResponse::default();
    let mut frame = encode_response(5, 4, &response).unwrap().concat();
    frame.splice(8..9, [1, 42, 2, 8, 8]);
    let (correlation_id, read) = decode_response(Bytes::from(frame).slice(4..), 4).unwrap();
    assert_eq!((correlation_id, read), (5, response));
}

#[test]
fn a_version_that_is_not_known_is_not_written() {
    let error = encode_request(1, 14, None, &MetadataRequest::default()).unwrap_err();
    let (key, version, first, last) = (3, 14, 0, 13);
    assert_eq!(
        error,
        EncodeError::Version {
            key,
            version,
            first,
            last
        }
    );
    assert!(encode_response(1, -1, &MetadataResponse::default()).is_err());
}

#[test]
fn identifiers_are_shown_in_hexadecimal() {
    assert_eq!(Uuid(0xab).to_string(), "000000000000000000000000000000ab");
    assert!(Uuid::ZERO.is_zero() && !Uuid(1).is_zero());
}

#[test]
fn apis_are_found_by_their_keys() {
    assert_eq!(APIS.len(), 36);
    let metadata = api(3).unwrap();
    assert_eq!(
        (metadata.name, metadata.flexible_from),
        ("Metadata", Some(9))
    );
    assert_eq!(metadata.versions, 0..=13);
    assert!(api(4).is_none() && api(-1).is_none());
}

/// Holds that a value with a null can be written from `first` on and not before, and that the null
/// reads back.
fn assert_null_from<M: Message + PartialEq + std::fmt::Debug>(first: i16, value: M) {
    let name = std::any::type_name::<M>();
    for version in M::VERSIONS {
        let written = encode(&value, version);
        assert_eq!(
            written.is_ok(),
            version >= first,
            "{name} version {version}: {written:?}"
        );
        if let Ok(bytes) = written {
            assert_eq!(
                decode::<M>(&bytes, version).as_ref(),
                Ok(&value),
                "{name} {version}"
            );
        }
    }
}

#[test]
fn fields_became_nullable_when_they_did_in_kafka() {
    // Random values cannot tell: they say null where our own schema has it.
    assert_null_from(
        1,
        MetadataRequest {
            topics: None,
            ..Default::default()
        },
    );
    let topic = MetadataRequestTopic {
        name: None,
        ..Default::default()
    };
    assert_null_from(
        10,
        MetadataRequest {
            topics: Some(vec![topic]),
            ..Default::default()
        },
    );
    let topic = MetadataResponseTopic {
        name: None,
        ..Default::default()
    };
    assert_null_from(
        12,
        MetadataResponse {
            topics: vec![topic],
            ..Default::default()
        },
    );
    assert_null_from(
        7,
        JoinGroupResponse {
            protocol_name: None,
            ..Default::default()
        },
    );
    let topic = DeleteTopicsResponseTopic {
        name: None,
        ..Default::default()
    };
    assert_null_from(
        6,
        DeleteTopicsResponse {
            responses: vec![topic],
            ..Default::default()
        },
    );
    let all = OffsetFetchRequest {
        topics: None,
        ..Default::default()
    };
    for version in OffsetFetchRequest::VERSIONS {
        // From version 8 on the groups have the topics.
        assert_eq!(
            encode(&all, version).is_ok(),
            version >= 2,
            "version {version}"
        );
    }
}
