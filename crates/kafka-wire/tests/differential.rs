//! Our codec against the one of the crate `kafka-protocol`: every message, every version, random
//! values, both ways. Two codecs that were written apart make the same mistake only by accident.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use std::{collections::BTreeSet, fmt::Debug};

use bytes::Bytes;
use kafka_protocol::protocol as theirs;
use sapwood_kafka_wire::{
    Message, Reader, Request, Writer, decode_body, for_each_request,
    messages::*,
    testing::{Random, Source, seed},
};

/// Random values of each message in each version.
const VALUES: usize = 100;

/// Fields that the other crate has for versions that Kafka has not released.
const UNRELEASED: &[&str] = &[
    "enable_2_pc",
    "keep_prepared_txn",
    "ongoing_txn_producer_id",
    "ongoing_txn_producer_epoch",
];

/// One message's run.
struct Compared {
    versions: usize,
    values: usize,
    bytes: usize,
}

#[test]
fn every_message_in_every_version_has_the_bytes_that_another_codec_gives_it() {
    let seed = seed();
    let (mut messages, mut versions, mut values, mut bytes) = (0, 0, 0, 0);
    let mut add = |compared: Compared| {
        messages += 1;
        versions += compared.versions;
        values += compared.values;
        bytes += compared.bytes;
    };
    macro_rules! compare_all {
        ($($request:ident),*) => {$(
            let mut source = Source::new(seed, <$request as Message>::KEY as u64);
            // A version that Kafka has not released has a response there, but no request.
            let range = <kafka_protocol::messages::$request as theirs::Message>::VERSIONS;
            assert_eq!(<$request as Message>::VERSIONS, range.min..=range.max);
            add(compare::<$request, kafka_protocol::messages::$request>(&mut source));
            add(compare::<
                <$request as Request>::Response,
                <kafka_protocol::messages::$request as theirs::Request>::Response,
            >(&mut source));
        )*};
    }
    for_each_request!(compare_all);
    assert_eq!(messages, 2 * APIS.len());
    println!(
        "{messages} messages, {versions} versions of them, {values} random values, \
         {bytes} bytes compared both ways"
    );
}

/// Ours to theirs and back: equal bytes, equal values, equal outlines.
fn compare<Ours, Theirs>(source: &mut Source) -> Compared
where
    Ours: Message + Random + PartialEq + Debug,
    Theirs: theirs::Message + theirs::Encodable + theirs::Decodable + Debug,
{
    let name = std::any::type_name::<Ours>();
    let mut compared = Compared {
        versions: 0,
        values: 0,
        bytes: 0,
    };
    for version in Ours::VERSIONS {
        compared.versions += 1;
        for _ in 0..VALUES {
            let value = Ours::random(source, version);
            let ours = encode(&value, version);
            let said = || format!("{name} version {version}: {value:?} as {ours:02x?}");

            let mut rest = Bytes::from(ours.clone());
            let read = Theirs::decode(&mut rest, version)
                .unwrap_or_else(|error| panic!("they refuse {}: {error}", said()));
            assert!(
                rest.is_empty(),
                "they leave {} bytes of {}",
                rest.len(),
                said()
            );
            let mut theirs = Vec::new();
            read.encode(&mut theirs, version)
                .unwrap_or_else(|error| panic!("they cannot say {}: {error}", said()));
            assert_eq!(ours, theirs, "{}", said());

            let back: Ours = decode_body(Reader::new(Bytes::from(theirs)), version)
                .unwrap_or_else(|error| panic!("we refuse {}: {error}", said()));
            assert_eq!(value, back, "{}", said());
            assert_eq!(ours, encode(&back, version), "{}", said());

            // Fields of the same type in the wrong order have the same bytes, but not these.
            // And what never was null may still be allowed to be.
            let mut outlined = outline(&read);
            outlined.retain(|(name, _)| !UNRELEASED.contains(&name.as_str()));
            assert_eq!(outline(&value), outlined, "{}", said());
            compared.values += 1;
            compared.bytes += ours.len();
        }
    }
    compared
}

fn encode<M: Message>(value: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    value.encode(&mut writer, version).unwrap();
    let length = writer.len();
    let bytes = writer.into_parts().concat();
    assert_eq!(bytes.len(), length);
    bytes
}

/// The names of all numbers, booleans and optional fields in a value, in their order, from what
/// `{:?}` says, with what the numbers and booleans are. Those that the version lacks are among them,
/// which compares their defaults; identifiers, which may look like long numbers, are not.
fn outline(value: &impl Debug) -> Vec<(String, String)> {
    let text = format!("{value:?}");
    let mut found = Vec::new();
    let mut last_name = "";
    for piece in text.split([' ', ',', '(', ')', '{', '}', '[', ']']) {
        let is_number = piece.len() <= "-9223372036854775808".len() && piece.parse::<i64>().is_ok();
        if let Some(name) = piece.strip_suffix(':') {
            last_name = name;
        } else if is_number || matches!(piece, "true" | "false") {
            found.push((last_name.to_owned(), piece.to_owned()));
        } else if matches!(piece, "Some" | "None") {
            found.push((last_name.to_owned(), "optional".to_owned()));
        }
    }
    found
}

#[test]
fn the_outline_sees_names_numbers_and_what_is_optional() {
    #[derive(Debug)]
    #[allow(dead_code)] // Only shown.
    struct Pair {
        first: i32,
        second: Option<i64>,
        third: bool,
    }
    let pair = Pair {
        first: 1,
        second: Some(-2),
        third: true,
    };
    let found = outline(&vec![pair]);
    let found: Vec<_> = found
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        found,
        [
            ("first", "1"),
            ("second", "optional"),
            ("second", "-2"),
            ("third", "true")
        ]
    );
}

#[test]
fn random_values_use_what_each_version_has() {
    // A generator that left fields at their defaults would compare nothing.
    let mut source = Source::new(seed(), 0);
    let mut lengths = BTreeSet::new();
    for _ in 0..200 {
        lengths.insert(encode(&FetchResponse::random(&mut source, 16), 16).len());
    }
    assert!(
        lengths.len() > 100,
        "only {} different lengths",
        lengths.len()
    );
    let mut saw = [false; 4];
    for _ in 0..200 {
        let value = MetadataRequest::random(&mut source, 12);
        match value.topics {
            None => saw[0] = true,
            Some(topics) if topics.is_empty() => saw[1] = true,
            Some(topics) => {
                saw[2] |= topics.iter().any(|topic| topic.name.is_none());
                saw[3] |= topics.iter().any(|topic| !topic.topic_id.is_zero());
            }
        }
    }
    assert_eq!(saw, [true; 4]);
}
