//! The LZ4 frame format, decoded straight into the output.
//!
//! `lz4_flex` has a frame decoder, but it takes a stream that ends between two blocks for a whole
//! one, and allocates up to 12 MiB because a header asks for it. Its block decoder does the work.
//! The format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.

use std::io::Write;

use lz4_flex::{
    block::{DecompressError, decompress_into, decompress_into_with_dict},
    frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo},
};
use twox_hash::XxHash32;

use super::output::{Fault, Output};

const MAGIC: u32 = 0x184d_2204;

/// What linked blocks may refer back to.
const WINDOW_BYTES: usize = 64 * 1024;

/// A block cannot grow by more than this factor: one more byte of a match length gives 255 bytes.
const RATIO_MAX: usize = 255;

/// What a block is first expected to grow by; when it grows by more, it is decoded again.
const RATIO_GUESS: usize = 8;

/// Set in a block's length when its bytes are not compressed.
const STORED_BIT: u32 = 1 << 31;

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // Blocks of 64 KiB, each on its own: Kafka's Java client reads nothing else.
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(bytes.len() / 2));
    encoder
        .write_all(bytes)
        .map_err(|error| error.to_string())?;
    encoder.finish().map_err(|error| error.to_string())
}

/// Reads one frame, or several one after the other.
pub(super) fn decompress(bytes: &[u8], output: &mut Output) -> Result<(), Fault> {
    let mut input = Input { rest: bytes };
    loop {
        decompress_frame(&mut input, output)?;
        if input.rest.is_empty() {
            return Ok(());
        }
    }
}

/// Whether blocks refer back to those before them, which no reader of Kafka's can follow: its Java
/// client refuses to read such a frame, and its brokers to take one. Looks at the frame's header only.
pub(super) fn is_linked(bytes: &[u8]) -> Result<bool, Fault> {
    let frame = Frame::read(&mut Input { rest: bytes })?;
    Ok(frame.linked)
}

fn decompress_frame(input: &mut Input<'_>, output: &mut Output) -> Result<(), Fault> {
    let frame = Frame::read(input)?;
    let start = output.written().len();
    loop {
        let word = input.u32()?;
        if word == 0 {
            break;
        }
        let block = input.take((word & !STORED_BIT) as usize)?;
        if frame.block_checksum && input.u32()? != XxHash32::oneshot(0, block) {
            return Err(Fault::damaged("a block's checksum is wrong"));
        }
        if word & STORED_BIT == 0 {
            decompress_block(&frame, block, start, output)?;
        } else if block.len() > frame.block_bytes_max {
            return Err(Fault::damaged("a block is above the frame's maximum"));
        } else {
            output.extend(block)?;
        }
    }
    let content = &output.written()[start..];
    if frame.content_checksum && input.u32()? != XxHash32::oneshot(0, content) {
        return Err(Fault::damaged("the content's checksum is wrong"));
    }
    match frame.content_bytes {
        Some(bytes) if bytes != content.len() as u64 => Err(Fault::damaged(
            "the content is not as long as its header says",
        )),
        _ => Ok(()),
    }
}

/// Decodes one block. `start` is where the frame's content starts in the output.
fn decompress_block(
    frame: &Frame,
    block: &[u8],
    start: usize,
    output: &mut Output,
) -> Result<(), Fault> {
    let most = frame
        .block_bytes_max
        .min(block.len().saturating_mul(RATIO_MAX));
    let mut room = block
        .len()
        .saturating_mul(RATIO_GUESS)
        .min(most)
        .min(output.room());
    loop {
        let mut too_small = false;
        let result = output.fill(room, |before, room| {
            let decoded = if frame.linked {
                let window = &before[start.max(before.len().saturating_sub(WINDOW_BYTES))..];
                decompress_into_with_dict(block, room, window)
            } else {
                decompress_into(block, room)
            };
            too_small = matches!(decoded, Err(DecompressError::OutputTooSmall { .. }));
            decoded.map_err(Fault::damaged)
        });
        if !too_small {
            return result.map(drop);
        }
        if room == most {
            return Err(Fault::damaged("a block is above the frame's maximum"));
        }
        if room == output.room() {
            return Err(Fault::TooLarge);
        }
        room = room.saturating_mul(4).min(most).min(output.room());
    }
}

/// A frame's header, as far as decoding needs it.
#[derive(Debug)]
struct Frame {
    linked: bool,
    block_checksum: bool,
    content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

impl Frame {
    fn read(input: &mut Input<'_>) -> Result<Self, Fault> {
        if input.u32()? != MAGIC {
            return Err(Fault::damaged("this is not an LZ4 frame"));
        }
        let descriptor = input.rest;
        let flags = input.byte()?;
        if flags >> 6 != 1 {
            return Err(Fault::damaged("the frame's version is not 1"));
        }
        if flags & 1 != 0 {
            return Err(Fault::damaged("the frame needs a dictionary"));
        }
        let block_bytes_max = match input.byte()? >> 4 & 7 {
            size @ 4..=7 => 1 << (8 + 2 * size),
            _ => return Err(Fault::damaged("the frame's block size is not defined")),
        };
        let content_bytes = if flags & 1 << 3 == 0 {
            None
        } else {
            Some(input.u64()?)
        };
        let descriptor = &descriptor[..descriptor.len() - input.rest.len()];
        if input.byte()? != XxHash32::oneshot(0, descriptor).to_be_bytes()[2] {
            return Err(Fault::damaged("the frame header's checksum is wrong"));
        }
        Ok(Self {
            linked: flags & 1 << 5 == 0,
            block_checksum: flags & 1 << 4 != 0,
            content_checksum: flags & 1 << 2 != 0,
            content_bytes,
            block_bytes_max,
        })
    }
}

/// The compressed bytes that are left.
#[derive(Debug)]
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or_else(|| Fault::damaged("the frame ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(*self.take(N)?.first_chunk().expect("N bytes were taken"))
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompressed(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let mut output = Output::new(bytes_max);
        decompress(bytes, &mut output).map(|()| output.into_bytes().to_vec())
    }

    fn encoded(info: FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..40_000_u32)
            .flat_map(|number| format!("{number},").into_bytes())
            .collect()
    }

    #[test]
    fn every_option_of_a_frame_is_read() {
        let content = content();
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                let info = FrameInfo::new()
                    .block_size(block_size)
                    .block_mode(mode)
                    .block_checksums(true)
                    .content_checksum(true)
                    .content_size(Some(content.len() as u64));
                let frame = encoded(info, &content);
                assert_eq!(decompressed(&frame, content.len()).unwrap(), content);
                let limit = content.len() - 1;
                assert!(matches!(decompressed(&frame, limit), Err(Fault::TooLarge)));
            }
        }
    }

    #[test]
    fn two_frames_are_read_as_one_content() {
        let frames = [compress(b"one").unwrap(), compress(b"two").unwrap()].concat();
        assert_eq!(decompressed(&frames, 6).unwrap(), b"onetwo");
    }

    #[test]
    fn a_linked_block_cannot_look_into_the_frame_before() {
        // A frame of one block that copies 4 bytes from 3 bytes before its start, then has a literal.
        let linked = encoded(FrameInfo::new().block_mode(BlockMode::Linked), b"");
        let header = &linked[..7];
        let block = [0x00, 3, 0, 0x10, b'x'];
        let length = u32::try_from(block.len()).unwrap().to_le_bytes();
        let second = [header, &length, &block, &[0; 4]].concat();
        let frames = [compress(b"secret").unwrap(), second].concat();
        assert!(matches!(decompressed(&frames, 100), Err(Fault::Damaged(_))));
    }

    #[test]
    fn a_frame_that_ends_between_two_blocks_is_an_error() {
        let frame = compress(b"abc").unwrap();
        let without_end_mark = &frame[..frame.len() - 4];
        assert!(matches!(
            decompressed(without_end_mark, 100),
            Err(Fault::Damaged(_))
        ));
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let info = FrameInfo::new()
            .block_checksums(true)
            .content_checksum(true);
        let frame = encoded(info, b"some content");
        for position in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[position] ^= 0x10;
            assert!(decompressed(&damaged, 1 << 20).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_block_above_the_maximum_of_its_frame_is_an_error() {
        let mut small = encoded(
            FrameInfo::new().block_size(BlockSize::Max4MB),
            &[0; 100_000],
        );
        // Say 64 KiB in the header, with the checksum of that header.
        small[5] = 4 << 4;
        small[6] = XxHash32::oneshot(0, &small[4..6]).to_be_bytes()[2];
        assert!(matches!(
            decompressed(&small, 1 << 20),
            Err(Fault::Damaged(_))
        ));
    }
}
