//! Committed offsets.

use sapwood_group::{
    Commit, CommitOffset, Committer, DeleteOffsets, Epoch, FetchOffsets, GroupError, Record, Reply,
    Request, Settings, TimerKey, TimerKind,
};
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicPartition};

use crate::{
    consumer,
    host::{GROUP, Host, group, text, topic},
    members::{Members, settings},
};

pub(crate) fn offset(name: &str, partition: u32, offset: u64) -> CommitOffset {
    CommitOffset {
        partition: TopicPartition {
            topic: topic(name),
            partition: PartitionId(partition),
        },
        offset: Offset(offset),
        leader_epoch: Some(LeaderEpoch(3)),
        metadata: text("kept as it is"),
        expire_timestamp: None,
    }
}

pub(crate) fn member(id: &str, instance: Option<&str>, number: Option<u32>) -> Committer {
    Committer::Member {
        member_id: id.into(),
        instance_id: instance.map(Into::into),
        generation_or_epoch: number,
    }
}

pub(crate) fn commit(host: &mut Host, by: Committer, offsets: Vec<CommitOffset>) -> Reply {
    let group = group();
    host.ask(Request::Commit(Commit { group, by, offsets }))
}

fn taken(host: &mut Host, by: Committer) -> Result<(), GroupError> {
    match commit(host, by, vec![offset("t", 0, 5)]) {
        Reply::Commit(Ok(results)) => results.into_iter().collect(),
        Reply::Commit(Err(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn committed(host: &Host, name: &str, partition: u32) -> Option<u64> {
    let partition = TopicPartition {
        topic: topic(name),
        partition: PartitionId(partition),
    };
    let fetched = host.fetch(FetchOffsets {
        group: group(),
        by: None,
        partitions: Some(vec![partition]),
    });
    fetched.unwrap()[0]
        .committed
        .as_ref()
        .map(|committed| committed.offset.0)
}

fn host() -> Host {
    let mut host = Host::new(settings());
    host.create_topic("t", 1, 4);
    host
}

#[test]
fn an_offset_is_read_as_it_was_committed_also_after_a_restart() {
    let mut host = host();
    let reply = commit(
        &mut host,
        Committer::Alone,
        vec![offset("t", 0, 5), offset("t", 3, 9)],
    );
    assert_eq!(reply, Reply::Commit(Ok(vec![Ok(()), Ok(())])));
    for _ in 0..2 {
        let all = FetchOffsets {
            group: group(),
            by: None,
            partitions: None,
        };
        let fetched = host.fetch(all).unwrap();
        assert_eq!(fetched.len(), 2);
        let first = fetched[0].committed.as_ref().unwrap();
        assert_eq!(
            (first.offset, first.leader_epoch),
            (Offset(5), Some(LeaderEpoch(3)))
        );
        assert_eq!(
            (&*first.metadata, first.commit_timestamp),
            ("kept as it is", Timestamp(1_000_000))
        );
        host.restart(true);
    }
    assert_eq!(committed(&host, "t", 1), None);
}

#[test]
fn a_group_that_is_not_there_has_no_offsets_and_that_is_no_error() {
    let host = host();
    assert_eq!(committed(&host, "t", 0), None);
    let by = Some(("m".into(), Epoch(1)));
    let fetched = host.fetch(FetchOffsets {
        group: group(),
        by,
        partitions: None,
    });
    assert_eq!(fetched, Ok(vec![]));
}

#[test]
fn a_partition_that_cannot_be_committed_does_not_hold_up_the_others() {
    let mut host = host();
    let mut long = offset("t", 1, 5);
    long.metadata = "x".repeat(4_097).into();
    let mut longest = offset("t", 2, 5);
    longest.metadata = "x".repeat(4_096).into();
    let offsets = vec![
        offset("t", 4, 1),
        offset("gone", 0, 1),
        long,
        longest,
        offset("t", 0, 7),
    ];
    let Reply::Commit(Ok(results)) = commit(&mut host, Committer::Alone, offsets) else {
        panic!("some are taken");
    };
    assert!(matches!(
        results[0],
        Err(GroupError::UnknownPartition { .. })
    ));
    assert!(matches!(
        results[1],
        Err(GroupError::UnknownPartition { .. })
    ));
    assert_eq!(
        results[2],
        Err(GroupError::MetadataTooLarge {
            length: 4_097,
            limit: 4_096
        })
    );
    assert_eq!(results[3..], [Ok(()), Ok(())]);
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "t", 1)),
        (Some(7), None)
    );
}

#[test]
fn commits_are_taken_from_whoever_may_speak_for_a_classic_group() {
    let mut host = host();
    let stranger = || member("nobody", None, None);
    assert_eq!(taken(&mut host, Committer::Alone), Ok(()));
    assert_eq!(
        taken(&mut host, member("nobody", None, Some(1))),
        Err(GroupError::UnknownMember)
    );
    let members = Members::stable(&mut host, 2);
    let (id, generation) = (members.ids[0].clone(), members.generation);
    let id = id.as_str();
    assert_eq!(
        taken(&mut host, Committer::Alone),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(taken(&mut host, stranger()), Err(GroupError::UnknownMember));
    assert_eq!(taken(&mut host, member(id, None, Some(generation))), Ok(()));
    let older = taken(&mut host, member(id, None, Some(generation - 1)));
    assert!(
        matches!(older, Err(GroupError::IllegalGeneration { .. })),
        "{older:?}"
    );
    let newer = taken(&mut host, member(id, None, Some(generation + 1)));
    assert!(
        matches!(newer, Err(GroupError::IllegalGeneration { .. })),
        "{newer:?}"
    );
    let fenced = taken(&mut host, member(id, Some("i"), Some(generation)));
    assert_eq!(fenced, Err(GroupError::UnknownMember));
    // While the others gather it commits what it is to give up; then it has to wait for its share.
    members.rejoin(&mut host, 0);
    assert_eq!(taken(&mut host, member(id, None, Some(generation))), Ok(()));
    members.rejoin(&mut host, 1);
    let between = taken(&mut host, member(id, None, Some(generation + 1)));
    assert_eq!(between, Err(GroupError::RebalanceInProgress));
}

#[test]
fn commits_and_reads_are_taken_from_whoever_may_speak_for_a_group_of_the_newer_kind() {
    let mut host = host();
    let missing = taken(&mut host, member("m", None, Some(1)));
    assert_eq!(missing, Err(GroupError::GroupNotFound));
    let beat = consumer::join(&mut host, "m", &["t"]);
    let sapwood_group::Presence::Stay(epoch) = beat.presence else {
        panic!("it stays");
    };
    assert_eq!(taken(&mut host, member("m", None, Some(epoch.0))), Ok(()));
    assert_eq!(
        taken(&mut host, Committer::Alone),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        taken(&mut host, member("x", None, Some(epoch.0))),
        Err(GroupError::UnknownMember)
    );
    let stale = GroupError::StaleMemberEpoch {
        given: Epoch(epoch.0 + 1),
        current: epoch,
    };
    assert_eq!(
        taken(&mut host, member("m", None, Some(epoch.0 + 1))),
        Err(stale.clone())
    );
    let fetch = |by| {
        host.fetch(FetchOffsets {
            group: group(),
            by,
            partitions: None,
        })
    };
    assert!(fetch(Some(("m".into(), epoch))).is_ok());
    assert_eq!(fetch(Some(("m".into(), Epoch(epoch.0 + 1)))), Err(stale));
    assert_eq!(
        fetch(Some(("x".into(), epoch))),
        Err(GroupError::UnknownMember)
    );
    assert!(fetch(None).is_ok());
}

#[test]
fn offsets_of_topics_that_nobody_reads_can_be_deleted() {
    let mut host = host();
    host.create_topic("u", 2, 1);
    let delete = |host: &mut Host, name: &str| {
        let partitions = vec![(topic(name), PartitionId(0))];
        let group = group();
        match host.ask(Request::DeleteOffsets(DeleteOffsets { group, partitions })) {
            Reply::DeleteOffsets(reply) => reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut host, "t"), Err(GroupError::GroupNotFound));
    commit(
        &mut host,
        Committer::Alone,
        vec![offset("t", 0, 5), offset("u", 0, 5)],
    );
    let mut members = Members::stable(&mut host, 1);
    let read = Err(GroupError::SubscribedToTopic { topic: topic("t") });
    assert_eq!(delete(&mut host, "t"), Ok(vec![read]));
    assert_eq!(delete(&mut host, "u"), Ok(vec![Ok(())]));
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "u", 0)),
        (Some(5), None)
    );
    members.leave(&mut host, 0);
    assert_eq!(delete(&mut host, "t"), Ok(vec![Ok(())]));
    assert_eq!(committed(&host, "t", 0), None);
}

#[test]
fn only_a_group_without_members_can_be_deleted_and_then_nothing_is_left() {
    let mut host = host();
    let delete = |host: &mut Host| match host.ask(Request::DeleteGroup(group())) {
        Reply::DeleteGroup(reply) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(delete(&mut host), Err(GroupError::GroupNotFound));
    commit(&mut host, Committer::Alone, vec![offset("t", 0, 5)]);
    let mut members = Members::stable(&mut host, 1);
    assert_eq!(delete(&mut host), Err(GroupError::NonEmptyGroup));
    members.leave(&mut host, 0);
    assert_eq!(delete(&mut host), Ok(()));
    assert_eq!(host.groups.listed(&group()), None);
    host.restart(true);
    assert_eq!(host.log, []);
    // The same with the newer kind.
    consumer::join(&mut host, "m", &["t"]);
    assert_eq!(delete(&mut host), Err(GroupError::NonEmptyGroup));
    consumer::leave(&mut host, "m");
    assert_eq!(delete(&mut host), Ok(()));
    host.restart(true);
    assert_eq!(host.log, []);
}

#[test]
fn deleting_a_topic_deletes_its_offsets_in_every_group_and_no_others() {
    let mut host = host();
    host.create_topic("u", 2, 1);
    for name in [GROUP, "another"] {
        host.ask(Request::Commit(Commit {
            group: name.into(),
            by: Committer::Alone,
            offsets: vec![offset("t", 0, 5), offset("u", 0, 5)],
        }));
    }
    host.delete_topic("t");
    let deleted = host
        .log
        .iter()
        .filter(|record| matches!(record, Record::Offset { value: None, .. }));
    assert_eq!(deleted.count(), 2);
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "u", 0)),
        (None, Some(5))
    );
}

#[test]
fn an_offset_counts_only_for_the_topic_that_it_was_committed_for() {
    let mut host = host();
    let expiring = CommitOffset {
        expire_timestamp: Some(Timestamp(host.now.0 + DAY)),
        ..offset("t", 1, 6)
    };
    commit(
        &mut host,
        Committer::Alone,
        vec![offset("t", 0, 5), expiring],
    );
    // The broker stops between the deletion and the tombstones, and the name is taken again.
    host.topics.remove(&topic("t"));
    assert_eq!(committed(&host, "t", 0), None);
    host.restart(true);
    host.create_topic("t", 2, 4);
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "t", 1)),
        // What came with an expiry is known by its name only.
        (None, Some(6))
    );
    let all = FetchOffsets {
        group: group(),
        by: None,
        partitions: None,
    };
    assert_eq!(host.fetch(all).unwrap().len(), 1);
    commit(&mut host, Committer::Alone, vec![offset("t", 2, 7)]);
    let before = host.log.len();
    host.tell_deleted("t");
    assert_eq!(host.log.len(), before + 1, "one tombstone");
    let offsets = [0, 1, 2].map(|partition| committed(&host, "t", partition));
    assert_eq!(offsets, [None, Some(6), Some(7)]);
    host.delete_topic("t");
    assert_eq!(host.groups.listed(&group()), None, "nothing is left");
}

const DAY: i64 = 24 * 3_600 * 1_000;

#[test]
fn offsets_of_a_group_that_never_had_members_expire_by_their_commits() {
    let mut host = host();
    commit(&mut host, Committer::Alone, vec![offset("t", 0, 5)]);
    host.pass(4 * DAY);
    commit(&mut host, Committer::Alone, vec![offset("t", 1, 6)]);
    host.pass(4 * DAY);
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "t", 1)),
        (None, Some(6))
    );
    host.pass(4 * DAY);
    assert_eq!(
        host.groups.listed(&group()),
        None,
        "nothing is left of the group"
    );
}

#[test]
fn offsets_of_a_group_are_kept_while_it_has_members_and_from_when_it_has_none() {
    for newer in [false, true] {
        let mut host = host();
        let mut members = None;
        let epoch = if newer {
            consumer::join(&mut host, "m", &["t"]);
            1
        } else {
            members = Some(Members::stable(&mut host, 1));
            1
        };
        let id = members
            .as_ref()
            .map_or("m".to_owned(), |members| members.ids[0].to_string());
        assert_eq!(taken(&mut host, member(&id, None, Some(epoch))), Ok(()));
        for _ in 0..(8 * DAY / 25_000) {
            host.now = Timestamp(host.now.0 + 25_000);
            match &members {
                Some(members) => members.beat(&mut host, 0).unwrap(),
                None => {
                    consumer::stay(&mut host, "m", epoch, None).unwrap();
                }
            }
        }
        let expiry = TimerKey {
            group: group(),
            kind: TimerKind::Expiry,
        };
        host.fire(expiry.clone());
        assert_eq!(committed(&host, "t", 0), Some(5));
        match &mut members {
            Some(members) => members.leave(&mut host, 0),
            None => consumer::leave(&mut host, "m"),
        }
        host.pass(5 * DAY);
        host.restart(true);
        host.pass(2 * DAY - 1_000_000);
        assert_eq!(committed(&host, "t", 0), Some(5), "newer: {newer}");
        host.pass(2_000_000);
        assert_eq!(committed(&host, "t", 0), None, "newer: {newer}");
        assert_eq!(host.groups.listed(&group()), None);
    }
}

#[test]
fn offsets_of_topics_that_members_do_not_read_expire_under_them() {
    let mut host = Host::new(Settings {
        offsets_retention_ms: 2_000,
        ..settings()
    });
    host.create_topic("t", 1, 1);
    host.create_topic("u", 2, 1);
    commit(
        &mut host,
        Committer::Alone,
        vec![offset("t", 0, 5), offset("u", 0, 5)],
    );
    let _members = Members::stable(&mut host, 1);
    host.now = Timestamp(host.now.0 + 2_000);
    host.fire(TimerKey {
        group: group(),
        kind: TimerKind::Expiry,
    });
    assert_eq!(
        (committed(&host, "t", 0), committed(&host, "u", 0)),
        (Some(5), None)
    );
}

#[test]
fn an_expiry_that_came_with_the_commit_goes_before_the_retention() {
    let mut host = host();
    let mut short = offset("t", 0, 5);
    short.expire_timestamp = Some(Timestamp(host.now.0 + 1_000));
    commit(&mut host, Committer::Alone, vec![short]);
    host.pass(600_000);
    assert_eq!(committed(&host, "t", 0), None);
}
