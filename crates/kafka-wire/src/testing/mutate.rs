//! Damage to bytes.

use super::Source;

/// Numbers that lengths and counts lie with: null, below null, one too many, the ends of the types.
const LIES: &[i32] = &[
    -1,
    -2,
    0,
    1,
    2,
    0x7f,
    0x80,
    0x7fff,
    0xffff,
    i32::MAX,
    i32::MIN,
];

/// Varints that lie: the largest, too long ones, zero said in five bytes.
const VARINTS: &[&[u8]] = &[
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x00],
    &[0x80, 0x80, 0x80, 0x80, 0x08],
    &[0xff, 0x7f],
    &[0x00],
    &[0x01],
];

/// Damages bytes in one to four places. They may get a little longer or shorter.
pub fn mutate(source: &mut Source, bytes: &mut Vec<u8>) {
    for _ in 0..source.within(1..5) {
        mutate_once(source, bytes);
    }
}

fn mutate_once(source: &mut Source, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(source.number() as u8);
        return;
    }
    let at = source.within(0..bytes.len());
    match source.within(0..9) {
        0 => bytes[at] ^= 1 << source.within(0..8),
        1 => bytes[at] = *source.one_of(&[0x00, 0x01, 0x7f, 0x80, 0xff]),
        2 => bytes[at] = source.number() as u8,
        3 => bytes.truncate(at),
        4 => {
            let lie = source.one_of(LIES).to_be_bytes();
            overwrite(bytes, at, &lie);
        }
        5 => {
            let lie = source.one_of(LIES).to_be_bytes();
            overwrite(bytes, at, &lie[2..]);
        }
        6 => {
            let varint = *source.one_of(VARINTS);
            let end = (at + source.within(0..3)).min(bytes.len());
            bytes.splice(at..end, varint.iter().copied());
        }
        7 => {
            let end = (at + source.within(1..9)).min(bytes.len());
            bytes.drain(at..end);
        }
        // A piece of itself somewhere else.
        _ => {
            let end = (at + source.within(1..33)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = source.within(0..bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(with) {
        *byte = *new;
    }
}
