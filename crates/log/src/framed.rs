//! The envelope of the small files that Sapwood writes for itself, and their atomic replacement.
//!
//! `magic[4] version:u32 length:u64 crc:u32 payload`, big-endian. The checksum is CRC-32 over
//! everything before it and the payload. See docs/format.md.

use std::{io, path::Path};

use crate::io::{Disk, OpenMode, is_of_the_device};

const HEAD_BYTES: usize = 20;
/// No such file comes near this; a length above it is damage, not a reason to allocate.
const PAYLOAD_BYTES_MAX: u64 = 4 << 30;

/// The name that a file has while it is written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Which file this is, and the newest version of it that is understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramedError {
    #[error("there is no such file")]
    Missing,
    #[error("its version is {found}; this program knows up to {known}")]
    Newer { found: u32, known: u32 },
    #[error("{0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The file's bytes for `payload`.
pub(crate) fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    let crc = checksum(&bytes, payload);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of a file's bytes.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<&[u8], FramedError> {
    let Some((head, payload)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Err(FramedError::Damaged("it is shorter than its header"));
    };
    if head[..4] != kind.magic {
        return Err(FramedError::Damaged("its magic number is wrong"));
    }
    let version = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let length = u64::from_be_bytes(head[8..16].try_into().expect("8 bytes"));
    let crc = u32::from_be_bytes(head[16..20].try_into().expect("4 bytes"));
    if length > PAYLOAD_BYTES_MAX || length != payload.len() as u64 {
        return Err(FramedError::Damaged(
            "its length is not what its header says",
        ));
    }
    if crc != checksum(&head[..16], payload) {
        return Err(FramedError::Damaged("its checksum does not match"));
    }
    // Only now: a version that was damaged must not pass for a newer one.
    if version > kind.version {
        return Err(FramedError::Newer {
            found: version,
            known: kind.version,
        });
    }
    Ok(payload)
}

/// Reads a whole file and checks it.
pub(crate) fn read(disk: &dyn Disk, path: &Path, kind: Kind) -> Result<Vec<u8>, FramedError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(FramedError::Missing),
        Err(e) => return Err(e.into()),
    };
    let length = file.len()?;
    if length > PAYLOAD_BYTES_MAX {
        return Err(FramedError::Damaged("it is larger than any such file"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(decode(kind, &bytes)?.to_vec())
}

/// The checksum in a file's header, not checked: what tells it from an older version of itself.
/// `None` when it is missing, cut or unreadable.
pub(crate) fn stamp(disk: &dyn Disk, path: &Path) -> io::Result<Option<[u8; 4]>> {
    let read = || -> io::Result<Option<[u8; 4]>> {
        let mut head = [0; HEAD_BYTES];
        let read = disk.open(path, OpenMode::Read)?.read_at(&mut head, 0)?;
        let [.., c0, c1, c2, c3] = head;
        Ok((read == HEAD_BYTES).then_some([c0, c1, c2, c3]))
    };
    match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_of_the_device(&e) => Ok(None),
        read => read,
    }
}

/// Replaces `path` so that after a crash at any moment the old or the new file is there, whole:
/// temporary file, fsync, rename, fsync of the folder. Durable when it returns. Blocks.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(&[bytes], 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(folder)
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        magic: *b"TEST",
        version: 2,
    };

    #[test]
    fn every_bit_flip_and_truncation_is_noticed() {
        let bytes = encode(KIND, b"payload");
        assert_eq!(decode(KIND, &bytes).unwrap(), b"payload");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    matches!(decode(KIND, &flipped), Err(FramedError::Damaged(_))),
                    "{at}/{bit}"
                );
            }
            assert!(decode(KIND, &bytes[..at]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = encode(Kind { version: 3, ..KIND }, b"");
        assert!(matches!(
            decode(KIND, &newer),
            Err(FramedError::Newer { found: 3, known: 2 })
        ));
    }
}
