//! The end of a partition's recovery: cut what is beyond the log's end, write again what no journal
//! entry covers, and hand the partition over.

use std::{collections::BTreeMap, io, ops::Range};

use sapwood_model::{LeaderEpoch, Offset};
use tracing::warn;

use super::{
    rebuild::Rebuilt,
    replay::{Replay, Settled},
    walk::{Cursor, SegmentOnDisk},
};
use crate::{
    index::IndexCounts,
    io::{Disk, OpenMode},
    names,
    store::TouchedFile,
};

const COPY_BYTES: u64 = 1 << 20;

impl Replay {
    /// Cuts, writes again, and hands over.
    pub(super) fn finish(
        &mut self,
        disk: &dyn Disk,
        mut rebuilt: Rebuilt,
        epoch: LeaderEpoch,
    ) -> io::Result<Settled> {
        let start = self.start();
        let mut touched = Vec::new();
        for (base, range) in &rebuilt.kept {
            rewrite(&self.segments[base], range.clone())?;
        }
        // From the highest down: what a crash leaves is a shorter log, never one with a hole.
        let beyond: Vec<Offset> = self
            .segments
            .range(start.segment..)
            .map(|(base, _)| *base)
            .filter(|base| !rebuilt.ends.contains_key(base))
            .collect();
        for base in beyond.into_iter().rev() {
            self.remove_segment(disk, base)?;
        }
        for (base, end) in &rebuilt.ends {
            if let Some(segment) = self.segments.get_mut(base) {
                segment.file.set_len(*end)?;
                segment.bytes = *end;
                touched.push(self.touched(*base));
            }
        }
        let mut end = rebuilt.end;
        let emptied = self.is_emptied() && end.segment == self.spec.log_start && end.position == 0;
        if end.offset < self.spec.log_start || emptied {
            for base in self
                .segments
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                self.remove_segment(disk, base)?;
            }
            touched.clear();
            rebuilt.indexes.clear();
            let log_start = self.spec.log_start;
            end = Cursor {
                segment: log_start,
                position: 0,
                offset: log_start,
            };
        }
        let below: Vec<Offset> = {
            let bases: Vec<Offset> = self.segments.keys().copied().collect();
            let wholly_below = |pair: &[Offset]| pair[1] <= self.spec.log_start;
            bases
                .windows(2)
                .filter(|pair| wholly_below(pair))
                .map(|pair| pair[0])
                .collect()
        };
        for base in below {
            self.remove_segment(disk, base)?;
            touched.retain(|file| file.segment != Some(base));
        }
        for (base, index) in &mut rebuilt.indexes {
            if *base != end.segment && self.segments.contains_key(base) {
                index.complete();
                let encoded = index.encode_from(IndexCounts::default());
                for file in encoded.write(disk, &self.folder, *base)? {
                    touched.push(TouchedFile {
                        segment: Some(*base),
                        path: self.folder.clone(),
                        file,
                    });
                }
            }
        }
        self.write_snapshots(disk, &rebuilt.snapshots, &mut touched)?;
        // The new epoch begins where the log ends: a client that tracks epochs sees what was cut.
        rebuilt.epochs.truncate(end.offset);
        rebuilt.epochs.push(epoch, end.offset);
        rebuilt.epochs.trim(self.spec.log_start);
        let cut = rebuilt.cut.map(|what| (end.offset, what));
        if let Some((offset, what)) = &cut {
            warn!(event = "recovery.segment_truncated", topic = %self.spec.topic,
                partition = %self.spec.partition, log_end_offset = %offset, reason = %what,
                "cut the end of a log that was not durable");
        }
        let Rebuilt {
            indexes,
            epochs,
            producers,
            ..
        } = rebuilt;
        let parts = self.parts(end.segment, indexes, end.offset, epoch, epochs, producers);
        Ok(Settled {
            parts,
            offline: None,
            touched,
            has_removed: self.has_removed,
            cut,
        })
    }

    /// Writes the snapshots of the segments that were walked. Those that stand there behind the
    /// checkpoint were perhaps never synced, or tell of records that are cut.
    fn write_snapshots(
        &self,
        disk: &dyn Disk,
        snapshots: &BTreeMap<Offset, Vec<u8>>,
        touched: &mut Vec<TouchedFile>,
    ) -> io::Result<()> {
        let synced = self.checkpoint.segment;
        let is_known = |offset: &Offset| self.segments.contains_key(offset);
        for entry in disk.read_dir(&self.folder)? {
            if let Some(offset) = names::parse_snapshot_file_name(&entry.name)
                && offset > synced
                && !(snapshots.contains_key(&offset) && is_known(&offset))
            {
                disk.remove_file(&self.folder.join(&entry.name))?;
            }
        }
        for (offset, producers) in snapshots.iter().filter(|(offset, _)| is_known(offset)) {
            let path = self.folder.join(names::snapshot_file_name(*offset));
            let file = disk.open(&path, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&[producers], 0)?;
            touched.push(TouchedFile {
                segment: Some(*offset),
                path,
                file,
            });
        }
        Ok(())
    }

    fn touched(&self, base: Offset) -> TouchedFile {
        let SegmentOnDisk { path, file, .. } = &self.segments[&base];
        TouchedFile {
            segment: Some(base),
            path: path.clone(),
            file: file.clone(),
        }
    }

    fn remove_segment(&mut self, disk: &dyn Disk, base: Offset) -> io::Result<()> {
        self.segments.remove(&base);
        self.has_removed = true;
        let companions = [
            names::index_file_name(base),
            names::time_index_file_name(base),
            names::sums_file_name(base),
            names::snapshot_file_name(base),
            names::segment_file_name(base),
        ];
        for name in companions {
            match disk.remove_file(&self.folder.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes the same bytes again: the kernel may hold them as clean although they never reached the
/// disk.
fn rewrite(segment: &SegmentOnDisk, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let mut bytes = vec![0; COPY_BYTES.min(range.end - at) as usize];
        let read = segment.file.read_at(&mut bytes, at)?;
        if read < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        segment.file.write_at(&[&bytes], at)?;
        at += read as u64;
    }
    Ok(())
}
