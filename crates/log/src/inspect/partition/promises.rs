//! What the checkpoint says about a partition, held against the files that there are.

use super::*;

impl Inspection<'_> {
    /// What is wrong with a snapshot of the producers. Only what was synced is looked at.
    pub(super) fn snapshot_problem(&self, name: &str, path: &Path) -> Option<String> {
        let end = name.strip_suffix(".snapshot")?.parse().ok().map(Offset)?;
        if end > self.checkpoint.segment {
            return None; // of a segment that was perhaps not sealed yet
        }
        match read_small(self.now.disk, path) {
            Ok(bytes) => ProducerTable::decode(&bytes)
                .err()
                .map(|error| error.to_string()),
            Err(error) => Some(format!("it cannot be read: {error}")),
        }
    }

    /// Whether the log begins where something is known to be. Only the catalog knows its start.
    pub(super) fn look_at_start(&mut self, first: Option<Offset>) {
        let PartitionCheckpoint {
            segment,
            position,
            end,
            ..
        } = self.checkpoint;
        let promised_end = self.promised_end();
        match first {
            None if position > 0 => {
                let file = self.segment_path(segment);
                let problem = "the checkpoint knows records in it, and it is missing".into();
                self.push(Severity::Damage, file, None, Some(segment..end), problem);
            }
            // Otherwise it may have been deleted since the checkpoint.
            Some(first) if self.now.clean_stop && self.first_epoch().is_some_and(|e| e < first) => {
                let start = self.first_epoch().unwrap_or_default();
                let problem = format!("the log's records from offset {start} on are missing");
                let file = self.known.folder.clone();
                self.push(Severity::Damage, file, None, Some(start..first), problem);
            }
            Some(first) if first > promised_end && !self.known.same_boot => {
                let problem = "no segment is there before this one: the records before it were \
                               deleted, or a power cut took them before they were durable";
                let (file, offsets) = (self.segment_path(first), promised_end..first);
                self.push(
                    Severity::Unsettled,
                    file,
                    None,
                    Some(offsets),
                    problem.into(),
                );
            }
            _ => {}
        }
    }

    /// The segment that the checkpoint ends in is there, unless retention has come past it.
    pub(super) fn look_for_checkpoints_segment(&mut self, first: Option<Offset>) {
        let PartitionCheckpoint {
            segment,
            position,
            end,
            ..
        } = self.checkpoint;
        let file = self.segment_path(segment);
        let found = self
            .files
            .get(&segment)
            .filter(|found| found.file.is_some());
        let bytes = found.map_or(0, |found| found.bytes);
        let known =
            |finding: &Finding| finding.severity == Severity::Damage && finding.file == file;
        let deleted = found.is_none() && first.is_none_or(|first| first > segment);
        if bytes < position && !deleted && !self.findings.iter().any(known) {
            let problem = format!("it has {bytes} bytes; {position} were synced");
            let offsets = Some(segment..end);
            self.push(Severity::Damage, file, Some(bytes), offsets, problem);
        }
    }

    /// The checkpoint's end must be where it says, between two batches.
    pub(super) fn check_checkpoint(&mut self, base: Offset, found: Option<u64>) {
        let PartitionCheckpoint { end, position, .. } = self.checkpoint;
        if found == Some(position) {
            return;
        }
        let folder = self.known.folder.display();
        let found = match found {
            Some(found) => format!("it is at byte {found}"),
            None => "no batch starts or ends with it".into(),
        };
        let problem = format!(
            "it says that offset {end} is at byte {position} of segment {base} in {folder}; {found}"
        );
        let file = self.known.checkpoint_path.clone();
        self.push(Severity::Damage, file, None, Some(end..end.add(1)), problem);
    }
}
