//! The fuzz targets' checks without a fuzzer: random requests, damaged, for as many seconds as
//! `SAPWOOD_FUZZ_SECONDS` says (2 without it). `fuzz/` has the same checks for cargo-fuzz.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use std::time::{Duration, Instant};

use sapwood_kafka_wire::{
    Request, Wire, for_each_request,
    messages::*,
    testing::{Random, Source, check_body, check_frame, check_request, mutate, random_frame, seed},
};

/// Damages of one random request before the next API has its turn.
const DAMAGES: usize = 50;

#[test]
fn damaged_requests_and_responses_never_panic_and_read_back_when_they_are_values() {
    let seconds = std::env::var("SAPWOOD_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| text.parse().unwrap());
    let seed = seed();
    let mut source = Source::new(seed, 0);
    let (mut rounds, mut executions, mut values) = (0, 0_u64, 0_u64);
    let mut count = |is_value: bool| {
        executions += 1;
        values += u64::from(is_value);
    };
    let started = Instant::now();
    while rounds == 0 || started.elapsed() < Duration::from_secs(seconds) {
        rounds += 1;
        macro_rules! fuzz_all {
            ($($request:ident),*) => {$( fuzz::<$request>(&mut source, &mut count); )*};
        }
        for_each_request!(fuzz_all);
    }
    println!(
        "seed {seed}: {executions} executions in {rounds} rounds and {:.1} s, {values} of them values",
        started.elapsed().as_secs_f64()
    );
}

/// One random request and response in one random version, and what is left of them when damaged.
fn fuzz<R>(source: &mut Source, count: &mut impl FnMut(bool))
where
    R: Request<Response: Random + PartialEq + std::fmt::Debug>
        + Random
        + PartialEq
        + std::fmt::Debug,
{
    let versions: Vec<i16> = R::VERSIONS.collect();
    let version = *source.one_of(&versions);
    let frame = random_frame::<R>(source, version).unwrap();
    assert!(check_frame(&frame), "{frame:02x?}");
    for _ in 0..DAMAGES {
        let mut damaged = frame.clone();
        mutate(source, &mut damaged);
        count(check_frame(&damaged));
    }
    let mut writer = sapwood_kafka_wire::Writer::new();
    R::Response::random(source, version)
        .encode(&mut writer, version)
        .unwrap();
    let response = writer.into_parts().concat();
    assert!(
        check_body::<R::Response>(&response, version),
        "{response:02x?}"
    );
    for _ in 0..DAMAGES {
        let mut damaged = response.clone();
        mutate(source, &mut damaged);
        // As a fuzzer hands it over: what to read it as comes first.
        damaged.insert(0, source.number() as u8);
        count(check_request::<R>(&damaged));
    }
}

#[test]
fn every_api_has_a_target_for_the_fuzzer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let named = manifest
        .lines()
        .filter(|line| line.starts_with("path = \"fuzz_targets/"));
    assert_eq!(named.count(), APIS.len() + 1);
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder.join("fuzz_targets")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            manifest.contains(&format!("fuzz_targets/{name}")),
            "{name} is not named"
        );
        sources.push(std::fs::read_to_string(path).unwrap());
    }
    for api in APIS {
        let call = format!("check_request::<{}Request>(data)", api.name);
        assert!(
            sources.iter().any(|source| source.contains(&call)),
            "nothing calls {call}"
        );
    }
}
