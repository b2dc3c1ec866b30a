//! Snappy in the framing of xerial's snappy-java, which Kafka's Java client uses: a header of 16
//! bytes, then chunks of a big-endian length and one raw snappy block each. A batch that does not
//! start with the header is one raw block, as Go and C clients write it.

use snap::raw::{Decoder, Encoder, decompress_len};

use super::output::{Fault, Output};

/// `\x82SNAPPY\0`, version 1, readable by version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// The part of the header that tells the framing from a raw block.
const MAGIC_BYTES: usize = 8;

/// How much goes into one block: what snappy-java takes.
const BLOCK_BYTES: usize = 32 * 1024;

/// A block cannot grow by more than this factor: the shortest copy takes 2 bytes and gives up to
/// 11, the one with the best ratio takes 3 and gives 64.
const RATIO_MAX: usize = 22;

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder::new();
    let mut framed = Vec::with_capacity(HEADER.len() + bytes.len() / 2);
    framed.extend_from_slice(&HEADER);
    for block in bytes.chunks(BLOCK_BYTES) {
        let chunk = encoder
            .compress_vec(block)
            .map_err(|error| error.to_string())?;
        let length = u32::try_from(chunk.len()).expect("a block of 32 KiB stays below 4 GiB");
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&chunk);
    }
    Ok(framed)
}

pub(super) fn decompress(bytes: &[u8], output: &mut Output) -> Result<(), Fault> {
    if !bytes.starts_with(&HEADER[..MAGIC_BYTES]) {
        return decompress_block(bytes, output);
    }
    // The two version numbers are not compared: snappy-java only demands that they are there.
    let mut rest = bytes
        .get(HEADER.len()..)
        .ok_or_else(|| Fault::damaged("the header is cut off"))?;
    while !rest.is_empty() {
        let (length, blocks) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| Fault::damaged("a chunk's length is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, next) = blocks
            .split_at_checked(length)
            .ok_or_else(|| Fault::damaged("a chunk is longer than what is there"))?;
        decompress_block(block, output)?;
        rest = next;
    }
    Ok(())
}

fn decompress_block(block: &[u8], output: &mut Output) -> Result<(), Fault> {
    if block.is_empty() {
        return Err(Fault::damaged("a block is empty"));
    }
    let claimed = decompress_len(block).map_err(Fault::damaged)?;
    // A claim that the bytes cannot keep is not worth an allocation.
    if claimed > block.len().saturating_mul(RATIO_MAX) {
        return Err(Fault::damaged(
            "a block claims more than its bytes can hold",
        ));
    }
    output.fill(claimed, |_, room| {
        Decoder::new()
            .decompress(block, room)
            .map_err(Fault::damaged)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompressed(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
        let mut output = Output::new(bytes_max);
        decompress(bytes, &mut output).map(|()| output.into_bytes().to_vec())
    }

    #[test]
    fn a_raw_block_is_read_like_a_framed_one() {
        let text = b"the same bytes, the same bytes, the same bytes";
        let raw = Encoder::new().compress_vec(text).unwrap();
        assert_eq!(decompressed(&raw, 100).unwrap(), text);
        assert_eq!(decompressed(&compress(text).unwrap(), 100).unwrap(), text);
    }

    #[test]
    fn the_best_ratio_of_snappy_is_within_the_bound() {
        let zeros = vec![0; 1 << 20];
        let raw = Encoder::new().compress_vec(&zeros).unwrap();
        assert!(zeros.len() <= raw.len() * RATIO_MAX);
        assert_eq!(decompressed(&raw, zeros.len()).unwrap(), zeros);
    }

    #[test]
    fn a_chunk_longer_than_what_is_there_is_an_error() {
        let mut framed = compress(b"abc").unwrap();
        framed[HEADER.len()] = 0x7f;
        assert!(matches!(decompressed(&framed, 100), Err(Fault::Damaged(_))));
    }
}
