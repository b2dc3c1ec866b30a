//! One directory: the names that the process sees, those that are durable, and the changes between.

use std::collections::BTreeMap;

use crate::Rng;
use crate::inode::Mood;

pub(crate) type InodeId = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NameChange {
    Link {
        name: String,
        inode: InodeId,
    },
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
        inode: InodeId,
    },
}

impl NameChange {
    fn names(&self) -> [&str; 2] {
        match self {
            NameChange::Link { name, .. } | NameChange::Unlink { name } => [name, name],
            NameChange::Rename { from, to, .. } => [from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            NameChange::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Unlink { name } => {
                names.remove(name);
            }
            NameChange::Rename { from, to, inode } => {
                // After a failed sync the durable directory may hold something else under this name.
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DirNode {
    pub(crate) names: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
    changes: Vec<NameChange>,
}

impl DirNode {
    pub(crate) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Some names become durable. The others can be seen, and no later sync writes them: they have to
    /// be made anew.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        let mood = Mood::draw(rng);
        self.keep_some(mood, rng);
    }

    /// The file system commits some of the changes on its own.
    pub(crate) fn write_back(&mut self, rng: &mut Rng) {
        let count = rng.below(self.changes.len() as u64 + 1) as usize;
        for change in self.changes.drain(..count) {
            change.apply(&mut self.durable);
        }
    }

    pub(crate) fn power_cut(&mut self, mood: Mood, rng: &mut Rng) {
        self.keep_some(mood, rng);
        self.names = self.durable.clone();
    }

    fn keep_some(&mut self, mood: Mood, rng: &mut Rng) {
        let changes = std::mem::take(&mut self.changes);
        let kept = if rng.chance(1, 2) {
            // A journaling file system: the changes up to some moment.
            let count = mood.prefix(changes.len(), rng);
            (0..changes.len()).map(|index| index < count).collect()
        } else {
            subset(&changes, mood, rng)
        };
        for (change, kept) in changes.iter().zip(kept) {
            if kept {
                change.apply(&mut self.durable);
            }
        }
    }

    /// Everything that a name here may still lead to.
    pub(crate) fn referenced(&self) -> impl Iterator<Item = InodeId> + '_ {
        let pending = self.changes.iter().filter_map(|change| match change {
            NameChange::Link { inode, .. } | NameChange::Rename { inode, .. } => Some(*inode),
            NameChange::Unlink { .. } => None,
        });
        self.names
            .values()
            .chain(self.durable.values())
            .copied()
            .chain(pending)
    }
}

/// Any subset in which a change is kept only if all earlier ones of the same names are: no file system
/// gives a name to a second file before it took it from the first.
fn subset(changes: &[NameChange], mood: Mood, rng: &mut Rng) -> Vec<bool> {
    let mut lost: Vec<&str> = Vec::new();
    let mut kept = Vec::with_capacity(changes.len());
    for change in changes {
        let names = change.names();
        let keep = mood.keeps(rng) && !names.iter().any(|name| lost.contains(name));
        if !keep {
            lost.extend(names);
        }
        kept.push(keep);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn survivors(build: impl Fn(&mut DirNode)) -> BTreeSet<Vec<(String, InodeId)>> {
        let mut seen = BTreeSet::new();
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let mut dir = DirNode::default();
            build(&mut dir);
            dir.power_cut(Mood::draw(&mut rng), &mut rng);
            seen.insert(dir.names.into_iter().collect());
        }
        seen
    }

    fn link(name: &str, inode: InodeId) -> NameChange {
        NameChange::Link {
            name: name.to_owned(),
            inode,
        }
    }

    fn rename(from: &str, to: &str, inode: InodeId) -> NameChange {
        NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            inode,
        }
    }

    fn names(names: &[(&str, InodeId)]) -> Vec<(String, InodeId)> {
        names
            .iter()
            .map(|(name, inode)| ((*name).to_owned(), *inode))
            .collect()
    }

    #[test]
    fn unsynced_names_survive_a_power_cut_in_any_subset() {
        let seen = survivors(|dir| {
            dir.change(link("a", 1));
            dir.change(link("b", 2));
        });
        let all = [
            vec![],
            names(&[("a", 1)]),
            names(&[("b", 2)]),
            names(&[("a", 1), ("b", 2)]),
        ];
        assert_eq!(seen, BTreeSet::from(all));
    }

    #[test]
    fn synced_names_survive_every_power_cut() {
        let seen = survivors(|dir| {
            dir.change(link("a", 1));
            dir.sync();
        });
        assert_eq!(seen, BTreeSet::from([names(&[("a", 1)])]));
    }

    #[test]
    fn an_unsynced_rename_over_a_synced_name_leaves_the_old_or_the_new_file_there() {
        let seen = survivors(|dir| {
            dir.change(link("checkpoint", 1));
            dir.sync();
            dir.change(link("checkpoint.tmp", 2));
            dir.change(rename("checkpoint.tmp", "checkpoint", 2));
        });
        let all = [
            names(&[("checkpoint", 1)]),
            names(&[("checkpoint", 1), ("checkpoint.tmp", 2)]),
            names(&[("checkpoint", 2)]),
        ];
        assert_eq!(seen, BTreeSet::from(all));
    }

    #[test]
    fn a_name_is_never_given_away_before_it_was_taken() {
        let seen = survivors(|dir| {
            dir.change(link("topic-0", 1));
            dir.sync();
            dir.change(rename("topic-0", "topic-0.deleted", 1));
            dir.change(link("new", 2));
            dir.change(rename("new", "topic-0", 2));
        });
        for names in &seen {
            assert!(
                names.iter().any(|(_, inode)| *inode == 1),
                "the old folder is lost: {names:?}"
            );
        }
        assert!(seen.contains(&names(&[("topic-0.deleted", 1)])));
        assert!(seen.contains(&names(&[("new", 2), ("topic-0", 1)])));
    }

    #[test]
    fn names_of_a_failed_sync_are_not_written_by_the_next_one() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut dir = DirNode::default();
            dir.change(link("a", 1));
            dir.fail_sync(&mut rng);
            assert_eq!(dir.names.len(), 1, "the name can still be seen");
            dir.sync();
            dir.power_cut(Mood::Everything, &mut rng);
            lost += usize::from(dir.names.is_empty());
        }
        assert!((1..100).contains(&lost), "{lost} of 100 names were lost");
    }
}
