//! One step of a member from what it owns to what it is to own.

use sapwood_model::{PartitionId, TopicId};

use crate::{CurrentAssignment, Epoch, Partitions, records::MemberState};

/// What a member is led towards.
pub(super) struct Goal<'a> {
    /// The epoch of the target assignment.
    pub(super) epoch: Epoch,
    /// The member's share of it.
    pub(super) target: &'a Partitions,
    /// What the member says it owns; none if it has not said.
    pub(super) owned: Option<&'a Partitions>,
}

/// The next step, or none if there is nothing to do, or something to wait for.
///
/// First a member gives up what it is not to own any more: it stays at its epoch until its heartbeats
/// no longer name those partitions. Then it gets the new epoch, and of what it is to get that which
/// nobody else holds (`held`); the rest when the others have given it up. So a partition is never
/// assigned before its former owner gave it up or was removed from the group. That relies, as in Kafka,
/// on a member that says it does not own a partition not taking it up by an earlier response than the
/// one to what it says.
///
/// A owns 0 and 1 and is to own 0: it is told 0, and its state is `UnrevokedPartitions` with 1. When it
/// says that it owns 0, it is `Stable`, and B, which was told nothing so far, is told 1.
pub(super) fn next(
    current: &CurrentAssignment,
    goal: &Goal<'_>,
    held: impl Fn(TopicId, PartitionId) -> bool,
) -> Option<CurrentAssignment> {
    let still_owns =
        |revoked: &Partitions| goal.owned.is_none_or(|owned| !owned.is_disjoint(revoked));
    match current.state {
        MemberState::Stable if current.member_epoch == Some(goal.epoch) => return None,
        MemberState::UnrevokedPartitions if still_owns(&current.pending_revocation) => return None,
        _ => {}
    }
    let kept = current.assigned.intersection(goal.target);
    let revoked = current.assigned.difference(goal.target);
    let step = if !revoked.is_empty() && still_owns(&revoked) {
        CurrentAssignment {
            member_epoch: current.member_epoch,
            previous_member_epoch: current.previous_member_epoch,
            state: MemberState::UnrevokedPartitions,
            assigned: kept,
            pending_revocation: revoked,
        }
    } else {
        let wanted = goal.target.difference(&current.assigned);
        let free = wanted.filtered(|topic, partition| !held(topic, partition));
        let mut assigned = kept;
        assigned.extend(free.iter());
        let state = if free.len() < wanted.len() {
            MemberState::UnreleasedPartitions
        } else {
            MemberState::Stable
        };
        let advances = current.member_epoch != Some(goal.epoch);
        CurrentAssignment {
            member_epoch: Some(goal.epoch),
            previous_member_epoch: if advances {
                current.member_epoch.unwrap_or_default()
            } else {
                current.previous_member_epoch
            },
            state,
            assigned,
            pending_revocation: Partitions::new(),
        }
    };
    (step != *current).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u32]) -> Partitions {
        let one = |number: &u32| (TopicId(1), PartitionId(*number));
        numbers.iter().map(one).collect()
    }

    fn at(epoch: u32, state: MemberState, assigned: &[u32], pending: &[u32]) -> CurrentAssignment {
        CurrentAssignment {
            member_epoch: Some(Epoch(epoch)),
            previous_member_epoch: Epoch(epoch - 1),
            state,
            assigned: set(assigned),
            pending_revocation: set(pending),
        }
    }

    /// From `current`, with the target at epoch 5, what the member says it owns, and what others hold.
    fn step(
        current: &CurrentAssignment,
        target: &[u32],
        owned: Option<&[u32]>,
        held: &[u32],
    ) -> Option<CurrentAssignment> {
        let owned = owned.map(set);
        let goal = Goal {
            epoch: Epoch(5),
            target: &set(target),
            owned: owned.as_ref(),
        };
        next(current, &goal, |_, partition| held.contains(&partition.0))
    }

    use MemberState::{
        Stable, UnreleasedPartitions as Unreleased, UnrevokedPartitions as Unrevoked,
    };

    #[test]
    fn every_state_goes_on_as_its_partitions_are_given_up_and_released() {
        type Row = (
            &'static str,
            CurrentAssignment,
            &'static [u32],
            Option<&'static [u32]>,
            &'static [u32],
            Option<CurrentAssignment>,
        );
        let table: Vec<Row> = vec![
            ("settled", at(5, Stable, &[1], &[]), &[1], None, &[], None),
            (
                "only the epoch",
                at(4, Stable, &[1], &[]),
                &[1],
                None,
                &[],
                Some(at(5, Stable, &[1], &[])),
            ),
            (
                "gets what is free",
                at(4, Stable, &[1], &[]),
                &[1, 2],
                None,
                &[],
                Some(at(5, Stable, &[1, 2], &[])),
            ),
            (
                "waits for what is held",
                at(4, Stable, &[1], &[]),
                &[1, 2, 3],
                None,
                &[3],
                Some(at(5, Unreleased, &[1, 2], &[])),
            ),
            (
                "gets all of it at last",
                at(5, Unreleased, &[1], &[]),
                &[1, 3],
                None,
                &[],
                Some(at(5, Stable, &[1, 3], &[])),
            ),
            (
                "goes on waiting",
                at(5, Unreleased, &[1], &[]),
                &[1, 3],
                None,
                &[3],
                None,
            ),
            (
                "has to give up first",
                at(4, Stable, &[1, 2], &[]),
                &[1, 3],
                None,
                &[],
                Some(at(4, Unrevoked, &[1], &[2])),
            ),
            (
                "has said that it does not own it",
                at(4, Stable, &[1, 2], &[]),
                &[1, 3],
                Some(&[1]),
                &[],
                Some(at(5, Stable, &[1, 3], &[])),
            ),
            (
                "has not given it up",
                at(4, Unrevoked, &[1], &[2]),
                &[1, 3],
                Some(&[1, 2]),
                &[],
                None,
            ),
            (
                "has not said so",
                at(4, Unrevoked, &[1], &[2]),
                &[1, 3],
                None,
                &[],
                None,
            ),
            (
                "has given it up",
                at(4, Unrevoked, &[1], &[2]),
                &[1, 3],
                Some(&[1]),
                &[],
                Some(at(5, Stable, &[1, 3], &[])),
            ),
            (
                "has more to give up",
                at(4, Unrevoked, &[1], &[2]),
                &[3],
                Some(&[1]),
                &[],
                Some(at(4, Unrevoked, &[], &[1])),
            ),
            (
                "gets back what it gave up",
                at(4, Unrevoked, &[1], &[2]),
                &[1, 2],
                Some(&[1]),
                &[],
                Some(at(5, Stable, &[1, 2], &[])),
            ),
            (
                "waits, and is to have less",
                at(4, Unreleased, &[1], &[]),
                &[],
                Some(&[1]),
                &[],
                Some(at(4, Unrevoked, &[], &[1])),
            ),
        ];
        for (name, from, target, owned, held, expected) in table {
            assert_eq!(step(&from, target, owned, held), expected, "{name}");
        }
    }
}
