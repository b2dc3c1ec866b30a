//! What takes something out of service, and whether `verify` had said so.

use super::*;

impl Case<'_> {
    /// What is sound must not be called damaged.
    pub(super) fn check_accusations(&mut self, findings: &[Finding]) {
        for finding in findings {
            // A partition's finding may be in the folder of the damaged file: it is the checkpoint
            // that contradicts a swapped file, and the journal that a lost folder is missed by.
            let folder = finding.file.parent().unwrap_or(Path::new("/"));
            let near = folder != Path::new(ROOT) && self.concerns(folder);
            let contradicts = self.contradicts_checkpoint(finding);
            let accuses = finding.severity == Severity::Damage;
            let mut paths = self.paths().into_iter();
            let names = paths.any(|path| finding.problem.contains(&path.display().to_string()));
            let right = self.concerns(&finding.file) || near || contradicts || names;
            if accuses && !right {
                self.violation(format!("verify accuses another file: {finding}"));
            }
        }
    }

    /// A checkpoint and a log that do not fit each other: one of the two was changed.
    fn contradicts_checkpoint(&self, finding: &Finding) -> bool {
        let checkpoint = Path::new(ROOT).join("checkpoint");
        let mut folders = self.paths();
        folders.iter_mut().for_each(|path| {
            if self
                .scene
                .logs
                .values()
                .all(|log| !path.ends_with(folder(log)))
            {
                path.pop();
            }
        });
        let names = |path: &PathBuf| finding.problem.contains(&path.display().to_string());
        let other_way_round = self.paths() == [checkpoint.clone()];
        (finding.file == checkpoint && folders.iter().any(names)) || other_way_round
    }

    pub(super) fn refused(&mut self, error: &OpenError, verified: Verified) {
        self.raise(Class::Refused);
        self.story.push(format!("refused: {error}"));
        let topics = Path::new(ROOT).join("topics");
        let in_topics = |path: &PathBuf| path.starts_with(&topics) && *path != topics;
        if self.paths().iter().all(in_topics) {
            self.violation(format!("one partition's files stop the start: {error}"));
        }
        let text = error.to_string();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let names = |path: &PathBuf| text.contains(&name(path));
        if !self.paths().iter().any(names) {
            self.violation(format!(
                "the refusal does not name the damaged file: {error}"
            ));
        }
        if verified != Verified::Damage {
            self.violation(format!(
                "verify did not find what refuses the start: {error}"
            ));
        }
    }

    pub(super) fn offline(
        &mut self,
        name: &str,
        log: &Log,
        reason: &OfflineReason,
        findings: &[Finding],
    ) {
        self.story.push(format!("{name} is offline: {reason}"));
        let folder = Path::new(ROOT).join("topics").join(name);
        let shared = self
            .paths()
            .iter()
            .any(|path| !path.starts_with(Path::new(ROOT).join("topics")));
        if !shared && !self.concerns(&folder) {
            self.violation(format!("{name} is offline for another's damage: {reason}"));
        }
        let (file, place) = match reason {
            OfflineReason::Damage {
                file,
                position,
                offsets,
                ..
            } => {
                if offsets.is_empty() && log.appended.len() > 1 {
                    self.violation(format!("{name}: names no offsets: {reason}"));
                }
                (file, Some((*position, offsets.clone())))
            }
            OfflineReason::Io { file, .. } => (file, None),
        };
        if !shared && !self.concerns(file) && *file != folder {
            let near = file.parent().is_some_and(|parent| self.concerns(parent));
            if !near {
                self.violation(format!("{name} names another file: {reason}"));
            }
        }
        let damage = || {
            findings
                .iter()
                .filter(|finding| finding.severity == Severity::Damage)
        };
        let is_sector = matches!(self.damage, Damage::Unreadable { .. });
        let right_place = |finding: &&Finding| match (&place, &finding.offsets) {
            (Some((position, offsets)), Some(found)) => {
                let overlap = found.start < offsets.end && offsets.start < found.end;
                // A start looks from the checkpoint on, `verify` from the beginning.
                let earlier = finding.position.is_some_and(|found| found < *position);
                overlap || (earlier && finding.file == *file) || is_sector
            }
            _ => true,
        };
        let seen = damage().any(|finding| {
            let file_fits = finding.file == *file || self.concerns(&finding.file);
            let in_journal = finding.file.starts_with(Path::new(ROOT).join("journal"));
            (file_fits && (shared || right_place(&finding)))
                || (shared && in_journal)
                || self.contradicts_checkpoint(finding)
        });
        // Which folder belongs to which topic only the catalog knows for certain.
        let is_id = reason.to_string().contains("topic id");
        let lost = self.cases.kind(self.damage) == "partition folder";
        let unsettled = findings.iter().any(|f| f.severity == Severity::Unsettled);
        let is_start = reason.to_string().contains("holds its start");
        let by_catalog = ((is_id || lost) && unsettled) || is_start;
        let by_catalog = by_catalog && self.scene.end != End::CleanStop;
        let consistent = is_id && matches!(self.damage, Damage::Swap { .. });
        if !seen && !by_catalog && !consistent {
            self.violation(format!(
                "verify did not find what takes {name} offline: {reason}"
            ));
        }
    }
}
