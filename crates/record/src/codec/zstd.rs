//! Zstandard frames (RFC 8878), decoded straight into the output.
//!
//! A streaming decoder would allocate a window of up to 128 MiB because a frame's header asks for
//! it; decoding into one piece needs none. A frame need not say how large its content is (Kafka's
//! Java client writes none that does): then the piece grows by a factor of 4 until the content fits,
//! which costs at most a third more than knowing it.

use std::ops::RangeInclusive;

use ::zstd::zstd_safe::{CompressionLevel, DCtx, get_error_name, get_frame_content_size};

use super::output::{Fault, Output};

/// Kafka's default, and zstd's.
const LEVEL: CompressionLevel = 3;

/// The levels that zstd has.
const LEVELS: RangeInclusive<CompressionLevel> = -131_072..=22;

/// What content of unknown size is first expected to grow by.
const RATIO_GUESS: usize = 8;

/// The least room that content of unknown size is given.
const CONTENT_BYTES_GUESS_MIN: usize = 4 * 1024;

/// The largest block, and the fewest bytes that one takes: the two bound the size of the content.
const BLOCK_BYTES_MAX: usize = 128 * 1024;
const BLOCK_HEADER_BYTES: usize = 3;

/// `ZSTD_error_dstSize_tooSmall`, as a function's result.
const OUTPUT_TOO_SMALL: usize = 0_usize.wrapping_sub(70);

pub(super) fn compress(bytes: &[u8], level: Option<i32>) -> Result<Vec<u8>, String> {
    let level = level.map_or(LEVEL, |level| level.clamp(*LEVELS.start(), *LEVELS.end()));
    ::zstd::bulk::compress(bytes, level).map_err(|error| error.to_string())
}

pub(super) fn decompress(bytes: &[u8], output: &mut Output) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Err(Fault::damaged("there is no frame"));
    }
    let most = (bytes.len() / BLOCK_HEADER_BYTES).saturating_mul(BLOCK_BYTES_MAX);
    let limit = output.room().min(most);
    let mut capacity = content_bytes(bytes)?.min(limit);
    let mut context =
        DCtx::try_create().ok_or_else(|| Fault::damaged("no memory for the decoder"))?;
    loop {
        match context.decompress(output.start_over(capacity)?, bytes) {
            Ok(_) => return Ok(()),
            Err(OUTPUT_TOO_SMALL) if capacity < limit => {
                capacity = capacity
                    .max(CONTENT_BYTES_GUESS_MIN)
                    .saturating_mul(4)
                    .min(limit);
            }
            Err(OUTPUT_TOO_SMALL) => return Err(Fault::TooLarge),
            Err(code) => return Err(Fault::damaged(get_error_name(code))),
        }
    }
}

/// What the first frame says, or a guess. Only a hint: more frames may follow.
fn content_bytes(bytes: &[u8]) -> Result<usize, Fault> {
    match get_frame_content_size(bytes) {
        Ok(Some(content)) => Ok(usize::try_from(content).unwrap_or(usize::MAX)),
        Ok(None) => Ok(bytes
            .len()
            .saturating_mul(RATIO_GUESS)
            .max(CONTENT_BYTES_GUESS_MIN)),
        Err(error) => Err(Fault::damaged(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decompressed(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let mut output = Output::new(bytes_max);
        decompress(bytes, &mut output).map(|()| output.into_bytes().to_vec())
    }

    /// A frame that does not say how large its content is, as a stream writes it.
    fn streamed(content: &[u8], level: i32) -> Vec<u8> {
        let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), level).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn content_of_unknown_size_is_read_up_to_the_cap() {
        let text = "topic,partition,offset\n".repeat(100_000).into_bytes();
        let zeros = vec![0; 5 << 20];
        for content in [text, zeros] {
            let frame = streamed(&content, 3);
            assert_eq!(get_frame_content_size(&frame).unwrap(), None);
            assert!(decompressed(&frame, content.len()).unwrap() == content);
            assert!(matches!(
                decompressed(&frame, content.len() - 1),
                Err(Fault::TooLarge)
            ));
        }
    }

    #[test]
    fn a_frame_that_asks_for_a_window_of_128_mib_is_read() {
        let frame = streamed(b"a small content under a large window", 22);
        assert_eq!(
            decompressed(&frame, 1_000).unwrap(),
            b"a small content under a large window"
        );
    }

    #[test]
    fn two_frames_are_read_as_one_content() {
        let frames = [
            compress(b"one", None).unwrap(),
            compress(&[9; 100_000], None).unwrap(),
        ]
        .concat();
        assert_eq!(decompressed(&frames, 100_003).unwrap().len(), 100_003);
        assert!(matches!(
            decompressed(&frames, 100_002),
            Err(Fault::TooLarge)
        ));
    }
}
