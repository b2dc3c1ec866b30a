//! Requests that are cut, damaged or lie: an error or a value, never a panic, and never more memory
//! than the frame justifies.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod counting;

use std::fmt::Debug;

use bytes::Bytes;
use counting::counted;
use sapwood_kafka_wire::{
    DecodeError, Message, Reader, Request, RequestHeader, Wire, Writer, decode_body,
    encode_request, for_each_request,
    messages::*,
    testing::{Random, Source, mutate, random_frame, seed},
};

/// Random frames of each request in each version.
const FRAMES: usize = 4;

/// Frames are about this long at most, so that each of their bytes can be damaged in many ways.
const FRAME_BYTES_MAX: usize = 500;

/// What was tried.
#[derive(Default)]
struct Tried {
    frames: usize,
    damaged: usize,
    accepted: usize,
    /// The most bytes that decoding one frame held, and what that frame would have allowed.
    peak: (usize, usize),
}

impl Tried {
    /// Decodes a frame as a broker does, and holds what that takes against what is promised.
    fn decode<R: Request>(&mut self, frame: Vec<u8>) -> Result<R, DecodeError> {
        let length = frame.len();
        let frame = Bytes::from(frame);
        let (result, allocated) = counted(|| {
            let mut reader = Reader::new(frame);
            let header = RequestHeader::decode(&mut reader)?;
            decode_body::<R>(reader, header.api_version)
        });
        let allowed = Reader::memory_allowed(length) + SHARED_FRAME;
        let peak = allocated.peak_bytes;
        assert!(peak <= allowed, "{length} bytes took {peak} of memory");
        self.damaged += 1;
        self.accepted += usize::from(result.is_ok());
        self.peak = self.peak.max((peak, allowed));
        result
    }

    fn print(&self, what: &str) {
        let (peak, allowed) = self.peak;
        println!(
            "{what}: {} frames, {} times damaged, {} of these still requests; peak memory {peak} \
             bytes where {allowed} were allowed",
            self.frames, self.damaged, self.accepted,
        );
    }
}

/// What `Bytes` takes to let a frame be shared.
const SHARED_FRAME: usize = 64;

/// Calls a function with every request and each of its versions.
fn for_each_version(mut call: impl FnMut(&dyn Target, i16)) {
    macro_rules! call_all {
        ($($request:ident),*) => {$(
            for version in <$request as Message>::VERSIONS {
                call(&Of::<$request>(std::marker::PhantomData), version);
            }
        )*};
    }
    for_each_request!(call_all);
}

/// A request type as a value, so that the tests below are compiled once.
trait Target {
    /// A random frame: header and body.
    fn random_frame(&self, source: &mut Source, version: i16) -> Vec<u8>;
    /// Decodes; says whether that made a request.
    fn decode(&self, tried: &mut Tried, frame: Vec<u8>) -> Result<(), DecodeError>;
    /// The frame of a request that is all defaults, and of the same with unknown tagged fields at
    /// its end instead of none; if the version has tagged fields.
    fn with_unknown_tags(&self, version: i16, tags: &[u8]) -> Option<Vec<u8>>;
    /// Whether a frame is the request that is all defaults.
    fn is_default(&self, tried: &mut Tried, frame: Vec<u8>) -> bool;
}

struct Of<R>(std::marker::PhantomData<R>);

impl<R: Request + Random + Default + PartialEq + Debug> Target for Of<R> {
    fn random_frame(&self, source: &mut Source, version: i16) -> Vec<u8> {
        loop {
            let frame = random_frame::<R>(source, version).unwrap();
            if frame.len() <= FRAME_BYTES_MAX {
                return frame;
            }
        }
    }

    fn decode(&self, tried: &mut Tried, frame: Vec<u8>) -> Result<(), DecodeError> {
        tried.decode::<R>(frame).map(drop)
    }

    fn with_unknown_tags(&self, version: i16, tags: &[u8]) -> Option<Vec<u8>> {
        R::FLEXIBLE_FROM.filter(|first| version >= *first)?;
        let mut frame = encode_request(1, version, None, &R::default())
            .unwrap()
            .concat();
        assert_eq!(frame.pop(), Some(0), "no tagged fields");
        frame.extend_from_slice(tags);
        Some(frame[4..].to_vec())
    }

    fn is_default(&self, tried: &mut Tried, frame: Vec<u8>) -> bool {
        tried.decode::<R>(frame) == Ok(R::default())
    }
}

#[test]
fn every_truncation_of_every_request_is_an_error() {
    let mut source = Source::new(seed(), 1);
    let mut tried = Tried::default();
    for_each_version(|target, version| {
        for _ in 0..FRAMES {
            let frame = target.random_frame(&mut source, version);
            target.decode(&mut tried, frame.clone()).unwrap();
            tried.frames += 1;
            for length in 0..frame.len() {
                let result = target.decode(&mut tried, frame[..length].to_vec());
                assert!(
                    result.is_err(),
                    "version {version}: {length} bytes of {frame:02x?}"
                );
            }
            let mut longer = frame.clone();
            longer.push(0);
            let result = target.decode(&mut tried, longer);
            assert!(
                result.is_err(),
                "version {version}: a byte more than {frame:02x?}"
            );
        }
    });
    assert_eq!(tried.accepted, tried.frames);
    tried.print("truncations");
}

#[test]
fn every_change_of_one_byte_of_every_request_is_an_error_or_a_value() {
    let mut source = Source::new(seed(), 2);
    let mut tried = Tried::default();
    for_each_version(|target, version| {
        for _ in 0..FRAMES {
            let frame = target.random_frame(&mut source, version);
            tried.frames += 1;
            for at in 0..frame.len() {
                let flips = (0..8).map(|bit| frame[at] ^ 1 << bit);
                for byte in flips.chain([0x00, 0x7f, 0x80, 0xff]) {
                    let mut damaged = frame.clone();
                    damaged[at] = byte;
                    let _ = target.decode(&mut tried, damaged);
                }
            }
        }
    });
    tried.print("changes of one byte");
}

#[test]
fn lengths_and_counts_that_lie_take_no_memory() {
    const LIES: &[&[u8]] = &[
        &i32::MAX.to_be_bytes(),
        &(-2_i32).to_be_bytes(),
        &i32::MIN.to_be_bytes(),
        &[0x00, 0xff, 0xff, 0xff],
        &[0x00, 0x00, 0xff, 0xff],
        &i16::MAX.to_be_bytes(),
        &(-2_i16).to_be_bytes(),
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
        &[0xff, 0xff, 0x7f],
    ];
    let mut source = Source::new(seed(), 3);
    let mut tried = Tried::default();
    for_each_version(|target, version| {
        for _ in 0..FRAMES {
            let frame = target.random_frame(&mut source, version);
            tried.frames += 1;
            for at in 0..frame.len() {
                for lie in LIES {
                    // In the place of what is there, and before it.
                    let mut damaged = frame.clone();
                    let end = (at + lie.len()).min(frame.len());
                    damaged.splice(at..end, lie.iter().copied());
                    let _ = target.decode(&mut tried, damaged);
                    let mut damaged = frame.clone();
                    damaged.splice(at..at + 1, lie.iter().copied());
                    let _ = target.decode(&mut tried, damaged);
                }
            }
        }
    });
    tried.print("lies");
}

#[test]
fn damage_in_several_places_is_an_error_or_a_value() {
    let mut source = Source::new(seed(), 4);
    let mut tried = Tried::default();
    for_each_version(|target, version| {
        for _ in 0..FRAMES {
            let frame = target.random_frame(&mut source, version);
            tried.frames += 1;
            for _ in 0..500 {
                let mut damaged = frame.clone();
                mutate(&mut source, &mut damaged);
                let _ = target.decode(&mut tried, damaged);
            }
        }
    });
    tried.print("several places");
}

#[test]
fn unknown_tagged_fields_are_passed_over_and_their_lies_are_errors() {
    let mut tried = Tried::default();
    // Tag 100 without bytes, tag 3,000,000 with four, tag 100 again.
    let unknown: &[u8] = &[
        3, 100, 0, 0xc0, 0x8d, 0xb7, 0x01, 4, 1, 2, 3, 4, 100, 1, 0xff,
    ];
    // 16,000 of them.
    let mut many = vec![0x80, 0x7d];
    many.extend([100, 0].repeat(16_000));
    let lies: &[&[u8]] = &[
        // As many as a count can say, but only one there.
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 100, 0],
        // Longer than the frame.
        &[1, 100, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[1, 100, 2, 0],
        // Cut.
        &[],
        &[1],
        &[1, 100],
    ];
    for_each_version(|target, version| {
        for tags in [unknown, &many] {
            if let Some(frame) = target.with_unknown_tags(version, tags) {
                tried.frames += 1;
                assert!(target.is_default(&mut tried, frame), "version {version}");
            }
        }
        for lie in lies {
            if let Some(frame) = target.with_unknown_tags(version, lie) {
                assert!(target.decode(&mut tried, frame).is_err(), "{lie:?}");
            }
        }
    });
    assert!(tried.frames > 100);
    tried.print("tagged fields");
}

#[test]
fn a_known_tagged_field_that_is_longer_or_shorter_than_its_value_is_an_error() {
    let request = |tags: &[u8]| {
        let mut frame = encode_request(1, 12, None, &FetchRequest::default())
            .unwrap()
            .concat();
        frame.pop();
        frame.extend_from_slice(tags);
        let mut reader = Reader::new(Bytes::from(frame[4..].to_vec()));
        RequestHeader::decode(&mut reader).unwrap();
        decode_body::<FetchRequest>(reader, 12)
    };
    // Tag 0 is the cluster's name, a compact string.
    let cluster_id = request(&[1, 0, 4, 4, b'a', b'b', b'c']).unwrap().cluster_id;
    assert_eq!(cluster_id.as_deref(), Some("abc"));
    // What is left of the field, taken for the next field's tag, would make a valid request.
    let longer = request(&[2, 0, 5, 4, b'a', b'b', b'c', 100, 0]);
    assert!(
        matches!(longer, Err(DecodeError::Trailing { remaining: 1, .. })),
        "{longer:?}"
    );
    let shorter = request(&[1, 0, 3, 4, b'a', b'b', b'c']);
    assert!(
        matches!(shorter, Err(DecodeError::Truncated { needed: 3, .. })),
        "{shorter:?}"
    );
}

#[test]
fn a_frame_cannot_become_much_more_memory_than_it_is() {
    // Empty names cost a byte each here and 24 bytes there.
    let names = 100_000;
    let mut body = Writer::new();
    body.varint(names + 1);
    for _ in 0..=names {
        // The last one ends the struct: no tagged fields.
        body.varint(u32::from(body.len() < names as usize + 3));
    }
    let body = Bytes::from(body.into_parts().concat());
    let frame = body.clone();
    let (result, allocated) = counted(|| decode_body::<DeleteGroupsRequest>(Reader::new(frame), 2));
    let Err(DecodeError::Memory {
        needed, allowed, ..
    }) = result
    else {
        panic!("{result:?}");
    };
    assert_eq!(needed, 24 * names as usize);
    assert_eq!(allowed, Reader::memory_allowed(body.len()));
    assert_eq!(allocated.calls, 0);

    // The same number of names of one letter.
    let request = DeleteGroupsRequest {
        groups_names: vec!["g".to_owned(); names as usize],
    };
    let frame = encode_request(1, 2, None, &request).unwrap().concat();
    let mut reader = Reader::new(Bytes::from(frame).slice(4..));
    RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(decode_body::<DeleteGroupsRequest>(reader, 2), Ok(request));
}

#[test]
fn a_count_of_two_billion_allocates_nothing() {
    // Metadata version 4: the number of topics, and nothing else.
    let bytes = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let (result, allocated) = counted(|| decode_body::<MetadataRequest>(Reader::new(bytes), 4));
    let expected = DecodeError::Length {
        position: 0,
        what: "array",
        length: i32::MAX.into(),
        max: 0,
    };
    assert_eq!(result, Err(expected));
    assert_eq!(allocated.calls, 0);
}

#[test]
fn a_version_that_is_not_known_is_an_error_that_says_what_is() {
    let result = decode_body::<MetadataRequest>(Reader::new(Bytes::new()), 14);
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 14 of API 3 is not known; 0 to 13 are"
    );
    let written = MetadataRequest::default().encode(&mut Writer::new(), 14);
    assert_eq!(written.unwrap_err().to_string(), error.to_string());
}
