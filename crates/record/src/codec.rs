//! Compression of a batch's records, and decompression under a cap.
//!
//! The cap is enforced while decompressing: the output buffer grows as output comes and never past
//! the cap, whatever the compressed bytes claim. Besides it a decoder holds only its fixed working
//! memory: 160 KiB for zstd, 80 KiB for gzip, none for snappy and lz4.

mod gzip;
mod lz4;
mod output;
mod snappy;
mod zstd;

use std::fmt;

use bytes::Bytes;

use self::output::{Fault, Output};
use crate::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952), level 6.
    Gzip,
    /// Snappy blocks in xerial framing, as Kafka's Java client writes them. A single raw block, as
    /// other clients write it, is read as well.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames (RFC 8878), level 3.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their numbers on the wire.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number in the attributes of a batch.
    pub(crate) fn from_bits(bits: u16) -> Result<Self, BatchError> {
        Self::ALL
            .get(usize::from(bits))
            .copied()
            .ok_or(BatchError::UnknownCodec { bits })
    }

    /// The codec's number in the attributes of a batch.
    pub(crate) fn bits(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Compresses what a builder gathered, at the codec's own level.
    pub(crate) fn compress(self, bytes: Vec<u8>) -> Result<Vec<u8>, BatchError> {
        match Compression::from(self).compress(&bytes)? {
            Some(compressed) => Ok(compressed),
            None => Ok(bytes),
        }
    }

    /// Looks at the first bytes of a client's records for what readers could not read.
    ///
    /// # Errors
    /// [`BatchError::Lz4Linked`]; [`BatchError::Decompress`] when they are not the start of an LZ4
    /// frame.
    pub(crate) fn check_start(self, bytes: &[u8]) -> Result<(), BatchError> {
        if self != Self::Lz4 {
            return Ok(());
        }
        match lz4::is_linked(bytes) {
            Ok(false) => Ok(()),
            Ok(true) => Err(BatchError::Lz4Linked),
            Err(fault) => Err(self.failed(fault, bytes.len())),
        }
    }

    /// Decompresses into at most `bytes_max` bytes. Uncompressed bytes come back as they are.
    pub(crate) fn decompress(self, bytes: &Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
        let mut output = Output::new(bytes_max);
        let result = match self {
            Self::None => return Ok(bytes.clone()),
            Self::Gzip => gzip::decompress(bytes, &mut output),
            Self::Snappy => snappy::decompress(bytes, &mut output),
            Self::Lz4 => lz4::decompress(bytes, &mut output),
            Self::Zstd => zstd::decompress(bytes, &mut output),
        };
        match result {
            Ok(()) => Ok(output.into_bytes()),
            Err(fault) => Err(self.failed(fault, bytes_max)),
        }
    }

    fn failed(self, fault: Fault, bytes_max: usize) -> BatchError {
        match fault {
            Fault::TooLarge => BatchError::DecompressedTooLarge { limit: bytes_max },
            Fault::Damaged(reason) => BatchError::Decompress {
                codec: self,
                reason,
            },
        }
    }
}

/// A codec, and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// Gzip: 1 to 9. Zstd: -131072 to 22. What lies outside is taken as the nearest; `None` is the
    /// codec's own level. The other codecs have one level only and do not look at it.
    pub level: Option<i32>,
}

impl From<Codec> for Compression {
    /// The codec at its own level.
    fn from(codec: Codec) -> Self {
        Self { codec, level: None }
    }
}

impl Compression {
    /// `None` when there is nothing to compress with: the bytes are what they should be.
    pub(crate) fn compress(self, bytes: &[u8]) -> Result<Option<Vec<u8>>, BatchError> {
        let compressed = match self.codec {
            Codec::None => return Ok(None),
            Codec::Gzip => gzip::compress(bytes, self.level),
            Codec::Snappy => snappy::compress(bytes),
            Codec::Lz4 => lz4::compress(bytes),
            Codec::Zstd => zstd::compress(bytes, self.level),
        };
        let compressed = compressed.map_err(|reason| BatchError::Compress {
            codec: self.codec,
            reason,
        })?;
        Ok(Some(compressed))
    }
}

/// Kafka's name: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(codec: Codec, bytes: &[u8], bytes_max: usize) -> Result<Bytes, BatchError> {
        codec.decompress(&Bytes::copy_from_slice(bytes), bytes_max)
    }

    /// Runs, text and noise: stored blocks, long matches and literals.
    fn samples() -> Vec<Vec<u8>> {
        let text = "a partition is a sequence of segment files; "
            .repeat(5_000)
            .into_bytes();
        let mut noise = Vec::new();
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..100_000 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            noise.push(state.to_le_bytes()[0]);
        }
        let mixed = [&text[..70_000], &noise, &[0; 300_000], &text].concat();
        vec![Vec::new(), vec![7], vec![0; 1 << 20], text, noise, mixed]
    }

    #[test]
    fn what_is_compressed_decompresses_to_the_same_bytes() {
        for codec in Codec::ALL {
            for sample in samples() {
                let compressed = codec.compress(sample.clone()).unwrap();
                let back = decompress(codec, &compressed, sample.len()).unwrap();
                assert!(back == sample, "{codec}, {} bytes", sample.len());
            }
        }
    }

    #[test]
    fn one_byte_above_the_cap_is_refused() {
        for codec in &Codec::ALL[1..] {
            for sample in &samples()[1..] {
                let compressed = codec.compress(sample.clone()).unwrap();
                let limit = sample.len() - 1;
                assert_eq!(
                    decompress(*codec, &compressed, limit).unwrap_err(),
                    BatchError::DecompressedTooLarge { limit },
                    "{codec}",
                );
            }
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        for codec in &Codec::ALL[1..] {
            for sample in samples() {
                let compressed = codec.compress(sample).unwrap();
                let cuts = [0, 1, compressed.len() / 2, compressed.len() - 1];
                for cut in cuts {
                    let result = decompress(*codec, &compressed[..cut], 1 << 22);
                    let error = result.expect_err("a truncated stream");
                    assert!(
                        matches!(error, BatchError::Decompress { .. }),
                        "{codec} {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_level_says_how_hard_a_codec_tries_and_one_out_of_bounds_is_the_nearest() {
        let sample = &samples()[5];
        let size = |codec, level| {
            let compression = Compression { codec, level };
            let compressed = compression.compress(sample).unwrap().unwrap();
            assert!(decompress(codec, &compressed, sample.len()).unwrap() == *sample);
            compressed.len()
        };
        assert!(size(Codec::Gzip, Some(1)) > size(Codec::Gzip, Some(9)));
        assert_eq!(size(Codec::Gzip, None), size(Codec::Gzip, Some(6)));
        assert_eq!(size(Codec::Gzip, Some(-5)), size(Codec::Gzip, Some(1)));
        assert_eq!(
            size(Codec::Gzip, Some(i32::MAX)),
            size(Codec::Gzip, Some(9))
        );
        assert!(size(Codec::Zstd, Some(-131_072)) > size(Codec::Zstd, Some(19)));
        assert_eq!(size(Codec::Zstd, None), size(Codec::Zstd, Some(3)));
        assert_eq!(
            size(Codec::Zstd, Some(i32::MAX)),
            size(Codec::Zstd, Some(22))
        );
        assert_eq!(size(Codec::Lz4, Some(1)), size(Codec::Lz4, None));
    }

    #[test]
    fn bits_and_codecs_correspond() {
        for (bits, codec) in Codec::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(codec.bits()), bits);
            assert_eq!(Codec::from_bits(codec.bits()), Ok(codec));
        }
        assert_eq!(
            Codec::from_bits(5),
            Err(BatchError::UnknownCodec { bits: 5 })
        );
    }
}
