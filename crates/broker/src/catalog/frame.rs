//! The catalog file's bytes.
//!
//! A header, then frames, then zeros to the end of the file. Everything is big-endian.
//!
//! | Byte | Header field | Byte | Frame field |
//! |---|---|---|---|
//! | 0 | magic `SWCATLOG` | 0 | start mark `5A` |
//! | 8 | version u32 = 1 | 1 | payload length u32, at least 1 |
//! | 12 | reserved u32 = 0 | 5 | number u64 |
//! | 16 | directory id u128 | 13 | CRC-32 of salt and bytes 0 to 13 |
//! | 32 | salt u64, random for each file | 17 | payload |
//! | 40 | CRC-32 of bytes 0 to 40 | 17 + length | CRC-32 of salt, number and payload |
//! | 44 | reserved u32 = 0 | 21 + length | end mark `A5` |
//!
//! The first frame holds a snapshot, each later one a group of commands that was decided, written and
//! synced together; its number is one above that of the frame before. A frame is written only after
//! the one before it was synced. So a crash leaves at most one unfinished frame, the last one, and
//! it looks like one: it stops somewhere and zeros follow, or a sector in the middle of it was never
//! written and reads as zeros. (That is what the marks and the head's own checksum are for: a finished
//! frame ends with a byte that is not zero, and its share of no sector is zeros by its marks alone.)
//! Whatever else fails a check is damage to something that was acknowledged, and stops the start.

use std::ops::Range;

use sapwood_model::DirectoryId;

use super::{
    codec::{self, Reader, Writer},
    command::Command,
    state::State,
};

pub(super) const MAGIC: [u8; 8] = *b"SWCATLOG";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 48;
const HEAD_BYTES: usize = 17;
const TRAILER_BYTES: usize = 5;
const FRAME_BYTES_MIN: usize = HEAD_BYTES + 1 + TRAILER_BYTES;
const START_MARK: u8 = 0x5A;
const END_MARK: u8 = 0xA5;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

const SNAPSHOT: u8 = 1;
const GROUP: u8 = 2;

/// What identifies one catalog file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) directory: DirectoryId,
    pub(super) salt: u64,
}

/// What a whole file says.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) header: Header,
    pub(super) state: State,
    /// The number that the next frame gets.
    pub(super) next_number: u64,
    /// Where the next frame goes.
    pub(super) end: usize,
    /// The snapshot's length, frame and all.
    pub(super) snapshot_bytes: usize,
    /// Where an unfinished frame was found, which is to be cut.
    pub(super) torn: Option<Range<usize>>,
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("version {found} is newer than {VERSION}")]
    Newer { found: u32 },
    #[error("it belongs to data directory {found}, this one is {expected}")]
    OtherDirectory {
        found: DirectoryId,
        expected: DirectoryId,
    },
    #[error("byte {position}: {what}")]
    Damaged { position: usize, what: String },
}

fn damaged(position: usize, what: impl Into<String>) -> FrameError {
    FrameError::Damaged {
        position,
        what: what.into(),
    }
}

pub(super) fn header(header: Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    bytes[16..32].copy_from_slice(&header.directory.0.to_be_bytes());
    bytes[32..40].copy_from_slice(&header.salt.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn snapshot_frame(salt: u64, number: u64, state: &State) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(SNAPSHOT);
    codec::write_state(&mut writer, state);
    frame(salt, number, &writer.0)
}

pub(super) fn group_frame(salt: u64, number: u64, commands: &[Command]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(GROUP);
    writer.count(commands.len());
    for command in commands {
        codec::write_command(&mut writer, command);
    }
    frame(salt, number, &writer.0)
}

fn frame(salt: u64, number: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a catalog frame is far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len() + TRAILER_BYTES);
    bytes.push(START_MARK);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    let head_crc = checksum(&[&salt.to_be_bytes(), &bytes]);
    bytes.extend_from_slice(&head_crc.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&payload_checksum(salt, number, payload).to_be_bytes());
    bytes.push(END_MARK);
    bytes
}

fn payload_checksum(salt: u64, number: u64, payload: &[u8]) -> u32 {
    checksum(&[&salt.to_be_bytes(), &number.to_be_bytes(), payload])
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A frame's head whose own checksum is right.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    number: u64,
}

impl Head {
    fn read(bytes: &[u8], salt: u64) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let mut reader = Reader(head);
        let mark = reader.u8()?;
        let (length, number, crc) = (reader.u32()?, reader.u64()?, reader.u32()?);
        let summed = checksum(&[&salt.to_be_bytes(), &head[..HEAD_BYTES - 4]]);
        let right = mark == START_MARK && length > 0 && crc == summed;
        right.then_some(Self {
            length: usize::try_from(length).ok()?,
            number,
        })
    }
}

/// Reads a whole file and replays it.
pub(super) fn read(bytes: &[u8], directory: DirectoryId) -> Result<Contents, FrameError> {
    let header = read_header(bytes, directory)?;
    let content_end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let mut position = HEADER_BYTES;
    let mut replay = Replay {
        state: None,
        next_number: None,
        snapshot_bytes: 0,
    };
    let mut torn = None;
    while position < content_end {
        match read_frame(
            bytes,
            content_end,
            position,
            header.salt,
            replay.next_number,
        )? {
            Step::Frame {
                number,
                payload,
                end,
            } => {
                replay.frame(position, number, payload)?;
                position = end;
            }
            Step::Torn => {
                torn = Some(position..content_end);
                break;
            }
        }
    }
    let (Some(state), Some(next_number)) = (replay.state, replay.next_number) else {
        // The file got its name only after its snapshot was synced.
        return Err(damaged(HEADER_BYTES, "the snapshot is missing"));
    };
    let snapshot_bytes = replay.snapshot_bytes;
    Ok(Contents {
        header,
        state,
        next_number,
        end: position,
        snapshot_bytes,
        torn,
    })
}

fn read_header(bytes: &[u8], directory: DirectoryId) -> Result<Header, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
        let length = bytes.len();
        return Err(damaged(
            0,
            format!("the file is {length} bytes; the header is {HEADER_BYTES}"),
        ));
    };
    if head[..8] != MAGIC {
        return Err(damaged(0, "this is not a catalog file"));
    }
    let mut reader = Reader(&head[8..44]);
    let fields = (
        reader.u32(),
        reader.u32(),
        reader.u128(),
        reader.u64(),
        reader.u32(),
    );
    let (Some(version), Some(_), Some(id), Some(salt), Some(crc)) = fields else {
        unreachable!("the header has 36 bytes after its magic");
    };
    if crc != crc32fast::hash(&head[..40]) {
        return Err(damaged(0, "the header's checksum does not match"));
    }
    if version > VERSION {
        return Err(FrameError::Newer { found: version });
    }
    let found = DirectoryId(id);
    if found != directory {
        return Err(FrameError::OtherDirectory {
            found,
            expected: directory,
        });
    }
    Ok(Header { directory, salt })
}

enum Step<'a> {
    Frame {
        number: u64,
        payload: &'a [u8],
        end: usize,
    },
    Torn,
}

fn read_frame(
    bytes: &[u8],
    content_end: usize,
    position: usize,
    salt: u64,
    expected: Option<u64>,
) -> Result<Step<'_>, FrameError> {
    let Some(head) = Head::read(&bytes[position..], salt) else {
        let head = position..position + HEAD_BYTES;
        let is_short = content_end - position < FRAME_BYTES_MIN;
        if !is_short && !has_lost_sector(bytes, head) {
            return Err(damaged(position, "a frame's head fails its checksum"));
        }
        return match later_frame(bytes, position + 1, salt, expected) {
            Some(later) => {
                let what = format!("a frame is missing; a later one is at byte {later}");
                Err(damaged(position, what))
            }
            None => Ok(Step::Torn),
        };
    };
    if expected.is_some_and(|expected| head.number != expected) {
        let expected = expected.unwrap_or_default();
        let number = head.number;
        return Err(damaged(
            position,
            format!("frame {number} stands where {expected} belongs"),
        ));
    }
    let body = position + HEAD_BYTES;
    let end = body
        .checked_add(head.length)
        .and_then(|end| end.checked_add(TRAILER_BYTES));
    let Some(end) = end.filter(|end| *end <= bytes.len()) else {
        return Ok(Step::Torn);
    };
    let payload = &bytes[body..body + head.length];
    let trailer = &bytes[body + head.length..end];
    let crc = payload_checksum(salt, head.number, payload).to_be_bytes();
    if trailer[..4] == crc && trailer[4] == END_MARK {
        let number = head.number;
        return Ok(Step::Frame {
            number,
            payload,
            end,
        });
    }
    if content_end < end || (content_end == end && has_lost_sector(bytes, position..end)) {
        return Ok(Step::Torn);
    }
    Err(damaged(
        position,
        format!("frame {} fails its checksum", head.number),
    ))
}

/// Whether some sector's share of the range is all zeros.
fn has_lost_sector(bytes: &[u8], range: Range<usize>) -> bool {
    let mut start = range.start;
    while start < range.end {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end);
        if bytes[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

/// Where a frame that was written after frame `expected` begins, if there is one.
fn later_frame(bytes: &[u8], from: usize, salt: u64, expected: Option<u64>) -> Option<usize> {
    let expected = expected?;
    (from..bytes.len())
        .find(|at| Head::read(&bytes[*at..], salt).is_some_and(|head| head.number > expected))
}

struct Replay {
    state: Option<State>,
    next_number: Option<u64>,
    snapshot_bytes: usize,
}

impl Replay {
    fn frame(&mut self, position: usize, number: u64, payload: &[u8]) -> Result<(), FrameError> {
        let malformed = || damaged(position, format!("frame {number} cannot be understood"));
        let mut reader = Reader(payload);
        match (reader.u8(), &mut self.state) {
            (Some(SNAPSHOT), state @ None) => {
                *state = Some(codec::read_state(&mut reader).ok_or_else(malformed)?);
                self.snapshot_bytes = HEAD_BYTES + payload.len() + TRAILER_BYTES;
            }
            (Some(GROUP), Some(state)) => {
                for _ in 0..reader.u32().ok_or_else(malformed)? {
                    let command = codec::read_command(&mut reader).ok_or_else(malformed)?;
                    if let Err(rejected) = state.decide(&command) {
                        let what =
                            format!("frame {number} contradicts the ones before: {rejected}");
                        return Err(damaged(position, what));
                    }
                    state.apply(&command);
                }
            }
            _ => return Err(malformed()),
        }
        if !reader.is_at_end() {
            return Err(malformed());
        }
        self.next_number = Some(number.checked_add(1).ok_or_else(malformed)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName};

    use super::{super::command::NewTopicRecord, *};

    const DIRECTORY: DirectoryId = DirectoryId(0xD1);
    const SALT: u64 = 0x5A17;

    fn create(name: &str, id: u128) -> Command {
        let configs = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
        Command::CreateTopic(NewTopicRecord {
            id: TopicId(id),
            name: TopicName::new(name).unwrap(),
            created_at: Timestamp(-5),
            partitions: 3,
            configs,
        })
    }

    fn commands() -> Vec<Vec<Command>> {
        let topic = TopicId(1);
        vec![
            vec![create("a", 1), create("b", 2)],
            vec![Command::MoveLogStart {
                topic,
                partition: PartitionId(2),
                log_start: Offset(77),
            }],
            vec![
                Command::AlterConfigs {
                    topic,
                    configs: BTreeMap::new(),
                },
                Command::AddPartitions { topic, total: 5 },
                Command::ReserveProducerIds { count: 1000 },
            ],
            vec![Command::DeleteTopic { topic: TopicId(2) }],
            vec![create("c", 3)],
        ]
    }

    /// The file's bytes, where each frame begins, and the state after it.
    fn file() -> (Vec<u8>, Vec<usize>, Vec<State>) {
        let mut state = State::default();
        let mut bytes = header(Header {
            directory: DIRECTORY,
            salt: SALT,
        })
        .to_vec();
        let mut starts = vec![bytes.len()];
        bytes.extend(snapshot_frame(SALT, 41, &state));
        let mut states = vec![state.clone()];
        for (group, number) in commands().iter().zip(42..) {
            starts.push(bytes.len());
            for command in group {
                state.decide(command).unwrap();
                state.apply(command);
            }
            states.push(state.clone());
            bytes.extend(group_frame(SALT, number, group));
        }
        (bytes, starts, states)
    }

    #[test]
    fn what_was_written_is_read_back_and_a_snapshot_of_it_too() {
        let (mut bytes, _, states) = file();
        let contents = read(&bytes, DIRECTORY).unwrap();
        assert_eq!(contents.state, *states.last().unwrap());
        assert_eq!((contents.next_number, contents.end), (47, bytes.len()));
        bytes.resize(bytes.len() + 5000, 0);
        assert_eq!(read(&bytes, DIRECTORY).unwrap().end, contents.end);

        let mut again = header(Header {
            directory: DIRECTORY,
            salt: 9,
        })
        .to_vec();
        again.extend(snapshot_frame(9, 46, &contents.state));
        let again = read(&again, DIRECTORY).unwrap();
        assert_eq!((again.state, again.next_number), (contents.state, 47));
    }

    #[test]
    fn a_file_cut_anywhere_in_its_last_frame_loses_that_frame_only() {
        let (bytes, starts, states) = file();
        let last = *starts.last().unwrap();
        for cut in last..bytes.len() {
            for zeros in [0, 1, 15, 600, 5000] {
                let mut torn = bytes[..cut].to_vec();
                torn.resize(cut + zeros, 0);
                let contents = read(&torn, DIRECTORY).unwrap();
                assert_eq!(contents.end, last, "cut {cut} zeros {zeros}");
                assert_eq!(contents.state, states[states.len() - 2]);
                assert_eq!(
                    contents.torn.is_some(),
                    cut > last,
                    "cut {cut} zeros {zeros}"
                );
            }
        }
    }

    #[test]
    fn any_flipped_byte_stops_the_start_and_never_drops_a_topic() {
        let (bytes, _, _) = file();
        for position in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] ^= flip;
                let reserved = (12..16).contains(&position) || (44..48).contains(&position);
                match read(&damaged, DIRECTORY) {
                    Ok(_) => assert!(reserved && position >= 44, "byte {position} flip {flip:#x}"),
                    Err(e) => assert!(!matches!(e, FrameError::Newer { .. }), "byte {position}"),
                }
            }
        }
    }

    #[test]
    fn a_sector_that_never_reached_the_disk_is_a_torn_tail_only_in_the_last_frame() {
        let state = State::default();
        let mut bytes = header(Header {
            directory: DIRECTORY,
            salt: SALT,
        })
        .to_vec();
        bytes.extend(snapshot_frame(SALT, 0, &state));
        let first = bytes.len();
        let many: Vec<_> = (1..60)
            .map(|id| create(&format!("topic-{id}"), id))
            .collect();
        bytes.extend(group_frame(SALT, 1, &many));
        let second = bytes.len();
        assert!(second - first > 4 * SECTOR_BYTES);
        bytes.resize(second + 100, 0);
        for sector in first / SECTOR_BYTES..=(second - 1) / SECTOR_BYTES {
            let lost =
                (sector * SECTOR_BYTES).max(first)..((sector + 1) * SECTOR_BYTES).min(second);
            let mut torn = bytes.clone();
            torn[lost.clone()].fill(0);
            let contents = read(&torn, DIRECTORY).unwrap();
            assert_eq!(contents.end, first, "sector {sector}");
            // With a frame after it, it was acknowledged.
            let later = group_frame(SALT, 2, &[Command::ReserveProducerIds { count: 1 }]);
            torn[second..second + later.len()].copy_from_slice(&later);
            let error = read(&torn, DIRECTORY).unwrap_err();
            assert!(matches!(error, FrameError::Damaged { position, .. } if position == first));
        }
    }

    #[test]
    fn another_directorys_catalog_and_a_newer_one_are_told_apart() {
        let (mut bytes, _, _) = file();
        let error = read(&bytes, DirectoryId(2)).unwrap_err();
        assert!(matches!(error, FrameError::OtherDirectory { .. }));
        bytes[11] = 2;
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            read(&bytes, DIRECTORY).unwrap_err(),
            FrameError::Newer { found: 2 }
        );
    }

    #[test]
    fn garbage_of_any_length_is_an_error() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for length in 0..2000_usize {
            let mut bytes = header(Header {
                directory: DIRECTORY,
                salt: SALT,
            })
            .to_vec();
            for _ in 0..length {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push(u8::try_from(seed >> 56).unwrap());
            }
            assert!(read(&bytes, DIRECTORY).is_err(), "length {length}");
            assert!(
                read(&bytes[HEADER_BYTES..], DIRECTORY).is_err(),
                "length {length}"
            );
        }
    }
}
