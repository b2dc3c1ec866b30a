//! Removing what lies below the log start.

use std::{
    any::Any,
    io,
    path::Path,
    sync::{Arc, Weak},
};

use sapwood_model::Offset;
use tracing::warn;

use super::{Partition, Upkeep, View};
use crate::{durability::Retired, names, segment::Segment};

impl Partition {
    /// Removes the segments that are wholly below the log start. The active one stays.
    pub(super) fn remove_trimmed(&self, upkeep: &mut Upkeep) {
        let log_start = self.bounds().log_start;
        let removed: Vec<Segment> = {
            let mut writer = self.writer.lock();
            let view = self.view.load_full();
            let ends = view.segments.iter().skip(1).map(Segment::base_offset);
            let removed = ends.take_while(|end| *end <= log_start).count();
            if removed == 0 {
                return;
            }
            while let Some(waiting) = writer.waiting.front()
                && waiting.end_offset <= log_start
            {
                writer.kept_producers = waiting.end_producers();
                writer.waiting.pop_front();
            }
            let (removed, kept) = view.segments.split_at(removed);
            self.view.store(Arc::new(View {
                segments: kept.to_vec(),
            }));
            removed.to_vec()
        };
        upkeep.removed = true;
        for segment in removed {
            let base = segment.base_offset();
            self.open_files.forget(&self.file_key(&segment));
            self.remove_segment(base, &segment);
            self.remove(&names::index_file_name(base));
            self.remove(&names::time_index_file_name(base));
            self.remove(&names::sums_file_name(base));
            self.remove(&names::snapshot_file_name(base));
            self.durability.metrics().segments_removed.add(1);
        }
    }

    /// A small file goes at once. A large one gets a name that is no segment's, and the store takes it
    /// away piece by piece. Says whether the name is gone.
    pub(super) fn remove_segment(&self, base: Offset, segment: &Segment) -> bool {
        let name = match segment {
            Segment::Open(_) => names::segment_file_name(base),
            Segment::Sealed(sealed) => sealed.file_name(),
        };
        let path = self.folder.join(names::removed_file_name(base));
        let disk = &self.environment.disk;
        let is_large = segment.bytes() > self.durability.removal_step_bytes();
        let renamed = is_large
            && self
                .durability
                .with_ballast(&mut || disk.rename(&self.folder.join(&name), &path))
                .is_ok();
        match self.me.upgrade() {
            Some(me) if renamed => {
                self.durability.retire(Retired {
                    partition: me,
                    path,
                    readers: readers(segment),
                });
                true
            }
            _ => self.remove(&name),
        }
    }

    /// Removes a file that is not part of the log any more. If that fails, the next start does it. Says
    /// whether it is gone.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.remove_path(&self.folder.join(name))
    }

    /// As [`Partition::remove`].
    pub(crate) fn remove_path(&self, path: &Path) -> bool {
        let disk = &self.environment.disk;
        match self.durability.with_ballast(&mut || disk.remove_file(path)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                warn!(path = %path.display(), %error, "could not remove a file");
                false
            }
        }
    }
}

/// Who may still have bytes of the segment's mapping in hand.
fn readers(segment: &Segment) -> Weak<dyn Any + Send + Sync> {
    match segment {
        Segment::Sealed(sealed) => sealed.mapping.clone(),
        Segment::Open(open) => open.mapping(),
    }
}
