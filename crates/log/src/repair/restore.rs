//! Setting a batch's header right where its body is whole.

use bytes::Bytes;
use sapwood_model::Offset;
use sapwood_record::{CRC_START, HEADER_BYTES, Header, LENGTH_POSITION};

use super::salvage::{Part, Salvage};

impl Salvage<'_> {
    /// A batch whose body is whole, and whose offset, length, epoch or magic is not: no checksum holds
    /// these, but its neighbours say what they were.
    pub(super) fn restore(&mut self) -> bool {
        let (expected, position) = (self.expected, self.position);
        let next_segment = self.next_segment();
        let promised_end = self.promised_end;
        let journal: Vec<Offset> = self
            .found
            .entries
            .iter()
            .map(|entry| entry.base_offset)
            .collect();
        let Some(raw) = self.current.and_then(|base| self.raws.get_mut(&base)) else {
            return false;
        };
        if raw.content_end(position) == position {
            return false;
        }
        let by_length = raw.body_at(position).filter(|header| {
            let end = position + header.size_bytes() as u64;
            let next = expected.add(offsets_in(header));
            let fits = |following: Header| following.base_offset() == next;
            raw.batch_at(end).is_some_and(fits)
                || raw.ends_at(end)
                    && (next_segment == Some(next)
                        || next == promised_end
                        || journal.contains(&next))
        });
        let restored = match by_length {
            Some(header) => Some((header, position + header.size_bytes() as u64)),
            None => {
                let behind = expected.add(1)..next_segment.unwrap_or(Offset(1 << 62));
                let found = raw.find(position + HEADER_BYTES as u64, &behind);
                // Without a batch behind it, the body reaches to the end of the file.
                let (end, next) = match (found, next_segment) {
                    (Some((at, header)), _) => (at, Some(header.base_offset())),
                    (None, next) => (raw.bytes, next),
                };
                raw.body_between(position..end)
                    .filter(|header| next == Some(expected.add(offsets_in(header))))
                    .map(|header| (header, end))
            }
        };
        let Some((header, end)) = restored else {
            return false;
        };
        let path = raw.path.clone();
        let mut head = *header.as_bytes();
        let length = u32::try_from(end - position - 12).unwrap_or(u32::MAX);
        let next = raw.batch_at(end).map(|next| next.leader_epoch());
        let epoch = self.right_epoch(&header, next);
        head[..8].copy_from_slice(&expected.0.to_be_bytes());
        head[LENGTH_POSITION..12].copy_from_slice(&length.to_be_bytes());
        head[12..16].copy_from_slice(&epoch.0.to_be_bytes());
        head[16] = 2;
        let header = Header::read(&head).unwrap_or(header);
        let parts = vec![
            Part::Bytes(Bytes::copy_from_slice(&head[..CRC_START])),
            Part::File {
                path: path.clone(),
                range: position + CRC_START as u64..end,
            },
        ];
        self.out.restored.push((path, position, expected));
        self.push(&header, parts);
        (self.position, self.taken_to) = (end, end);
        true
    }
}

fn offsets_in(header: &Header) -> u64 {
    u64::try_from(header.last_offset_delta()).unwrap_or(0) + 1
}
