//! Damage at rest, found before a reader finds it.

use std::os::unix::fs::FileExt;

use super::*;

/// From the log start to the end of what is sealed, in steps.
fn scrub_all(fixture: &Fixture, step_bytes: u64) -> Result<u64, ReadError> {
    let (mut from, mut bytes) = (Offset(0), 0);
    loop {
        let scrubbed = fixture.partition.scrub(from, step_bytes)?;
        bytes += scrubbed.bytes;
        match scrubbed.next {
            Some(next) => assert!(next > from, "it goes on"),
            None => return Ok(bytes),
        }
        from = scrubbed.next.unwrap_or(from);
    }
}

fn sealed() -> (Fixture, u64) {
    let fixture = Fixture::os(1000);
    for _ in 0..30 {
        fixture.append(&batch(100));
    }
    fixture.maintain();
    let size = batch(100).size_bytes() as u64;
    let active = fixture.files();
    let last = active
        .iter()
        .filter_map(|name| names::parse_segment_file_name(name))
        .max();
    (fixture, last.unwrap().0 * size)
}

#[test]
fn a_scrub_reads_every_sealed_segment_once_whatever_its_steps() {
    let (fixture, sealed_bytes) = sealed();
    for step_bytes in [1, 300, 1 << 20] {
        assert_eq!(scrub_all(&fixture, step_bytes).unwrap(), sealed_bytes);
    }
    assert_eq!(fixture.store.metrics.scrubbed_bytes.get(), 3 * sealed_bytes);
    fixture.partition.trim(Offset(9)).unwrap();
    let left = scrub_all(&fixture, 1 << 20).unwrap();
    assert!(left < sealed_bytes, "below the log start nothing is read");
}

#[test]
fn a_flipped_bit_in_a_record_takes_the_partition_offline_and_names_the_batch() {
    let (fixture, _) = sealed();
    let size = batch(100).size_bytes() as u64;
    let path = fixture.path("00000000000000000000.log");
    let file = std::fs::File::options().read(true).write(true).open(&path);
    let (file, position) = (file.unwrap(), 2 * size + 80);
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 4], position).unwrap();
    assert!(matches!(
        scrub_all(&fixture, 300),
        Err(ReadError::Corrupt { .. })
    ));
    let reason = fixture.offline_reason();
    let place = format!("position {} (offsets 2 to 3)", 2 * size);
    assert!(reason.contains("00000000000000000000.log"), "{reason}");
    assert!(reason.contains(&place), "{reason} has no {place}");
}
