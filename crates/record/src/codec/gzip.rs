//! Gzip (RFC 1952): one member is written, any number is read.

use std::io::{Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::output::{Fault, Output};

/// The least that is asked of the decoder at once.
const STEP_BYTES_MIN: usize = 4 * 1024;

/// Level 1 to 9, and 6 without one.
pub(super) fn compress(bytes: &[u8], level: Option<i32>) -> Result<Vec<u8>, String> {
    let level = level.map_or_else(Compression::default, |level| {
        Compression::new(level.clamp(1, 9).unsigned_abs())
    });
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), level);
    encoder
        .write_all(bytes)
        .map_err(|error| error.to_string())?;
    encoder.finish().map_err(|error| error.to_string())
}

pub(super) fn decompress(bytes: &[u8], output: &mut Output) -> Result<(), Fault> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut step = bytes.len().max(STEP_BYTES_MIN);
    while output.room() > 0 {
        let room = step.min(output.room());
        let read = output.fill(room, |_, room| decoder.read(room).map_err(Fault::damaged))?;
        if read == 0 {
            return Ok(());
        }
        step = step.saturating_mul(2);
    }
    // The cap is reached: fine when the stream ends exactly here.
    match decoder.read(&mut [0]).map_err(Fault::damaged)? {
        0 => Ok(()),
        _ => Err(Fault::TooLarge),
    }
}
