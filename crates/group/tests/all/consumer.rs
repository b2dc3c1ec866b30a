//! Groups of the newer protocol.

use sapwood_group::{
    Beat, ConsumerHeartbeat, Epoch, GroupError, GroupState, MemberState, Partitions, Presence,
    Reply, Request,
};
use sapwood_model::{PartitionId, TopicId};

use crate::{
    host::{Host, client, group, text, topic},
    members::settings,
};

pub(crate) fn heartbeat(member: &str, presence: Presence) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: group(),
        member_id: Some(member.into()),
        presence,
        instance_id: None,
        client: client(),
        rack_id: None,
        rebalance_timeout_ms: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: None,
    }
}

pub(crate) fn joining(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(20_000),
        subscribed_topic_names: Some(topics.iter().map(|name| topic(name)).collect()),
        owned: Some(Partitions::new()),
        ..heartbeat(member, Presence::Join)
    }
}

pub(crate) fn beat(host: &mut Host, beat: ConsumerHeartbeat) -> Result<Beat, GroupError> {
    match host.ask(Request::ConsumerHeartbeat(beat)) {
        Reply::ConsumerHeartbeat(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn join(host: &mut Host, member: &str, topics: &[&str]) -> Beat {
    beat(host, joining(member, topics)).unwrap()
}

pub(crate) fn stay(
    host: &mut Host,
    member: &str,
    epoch: u32,
    owned: Option<Partitions>,
) -> Result<Beat, GroupError> {
    beat(
        host,
        ConsumerHeartbeat {
            owned,
            ..heartbeat(member, Presence::Stay(Epoch(epoch)))
        },
    )
}

pub(crate) fn leave(host: &mut Host, member: &str) {
    beat(host, heartbeat(member, Presence::Leave)).unwrap();
}

pub(crate) fn host() -> Host {
    let mut host = Host::new(settings());
    host.create_topic("t", 1, 4);
    host
}

/// Partitions of topic `t`.
pub(crate) fn set(numbers: &[u32]) -> Partitions {
    numbers
        .iter()
        .map(|number| (TopicId(1), PartitionId(*number)))
        .collect()
}

pub(crate) fn epoch(beat: &Beat) -> u32 {
    match beat.presence {
        Presence::Stay(epoch) => epoch.0,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn state(host: &Host) -> GroupState {
    host.groups
        .listed(&group())
        .map_or(GroupState::Dead, |group| group.state)
}

/// `a` and `b` share `t` at epoch 2; what each has.
pub(crate) fn two(host: &mut Host) -> [Partitions; 2] {
    join(host, "a", &["t"]);
    let b = join(host, "b", &["t"]);
    assert_eq!(b.assignment, Some(set(&[])), "a has to give up some first");
    let a = stay(host, "a", 1, Some(set(&[0, 1, 2, 3]))).unwrap();
    assert_eq!(epoch(&a), 1);
    let kept = a.assignment.unwrap();
    assert_eq!(kept.len(), 2);
    let b = stay(host, "b", 2, None).unwrap();
    assert_eq!(b.assignment, None, "a has not given them up yet");
    let a = stay(host, "a", 1, Some(kept.clone())).unwrap();
    assert_eq!((epoch(&a), a.assignment), (2, None));
    let b = stay(host, "b", 2, None).unwrap().assignment.unwrap();
    assert_eq!(state(host), GroupState::Stable);
    [kept, b]
}

#[test]
fn the_only_member_gets_everything_at_once() {
    let mut host = host();
    let beat = join(&mut host, "a", &["t"]);
    assert_eq!(beat.assignment, Some(set(&[0, 1, 2, 3])));
    assert_eq!((epoch(&beat), beat.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(state(&host), GroupState::Stable);
}

#[test]
fn partitions_are_given_up_before_they_are_given_to_another() {
    let mut host = host();
    let [a, b] = two(&mut host);
    assert!(a.is_disjoint(&b));
    assert_eq!((a.len(), b.len()), (2, 2));
}

#[test]
fn what_a_member_leaves_goes_to_the_others_with_their_next_heartbeats() {
    let mut host = host();
    two(&mut host);
    leave(&mut host, "b");
    assert_eq!(state(&host), GroupState::Assigning);
    let a = stay(&mut host, "a", 2, None).unwrap();
    assert_eq!(a.assignment, Some(set(&[0, 1, 2, 3])));
    assert_eq!(epoch(&a), 3);
    leave(&mut host, "a");
    assert_eq!(state(&host), GroupState::Empty);
}

#[test]
fn heartbeats_that_contradict_themselves_are_refused() {
    let mut host = host();
    let table: Vec<(&str, ConsumerHeartbeat)> = vec![
        (
            "no id",
            ConsumerHeartbeat {
                member_id: Some("".into()),
                ..joining("a", &["t"])
            },
        ),
        (
            "no id",
            ConsumerHeartbeat {
                member_id: None,
                ..heartbeat("a", Presence::Stay(Epoch(1)))
            },
        ),
        (
            "an empty instance id",
            ConsumerHeartbeat {
                instance_id: Some("".into()),
                ..joining("a", &["t"])
            },
        ),
        (
            "no timeout",
            ConsumerHeartbeat {
                rebalance_timeout_ms: None,
                ..joining("a", &["t"])
            },
        ),
        (
            "no topics",
            ConsumerHeartbeat {
                subscribed_topic_names: None,
                ..joining("a", &["t"])
            },
        ),
        (
            "nothing owned",
            ConsumerHeartbeat {
                owned: None,
                ..joining("a", &["t"])
            },
        ),
        (
            "something owned",
            ConsumerHeartbeat {
                owned: Some(set(&[1])),
                ..joining("a", &["t"])
            },
        ),
    ];
    for (name, request) in table {
        let refused = beat(&mut host, request);
        assert!(
            matches!(refused, Err(GroupError::InvalidRequest(_))),
            "{name}: {refused:?}"
        );
    }
    let other = ConsumerHeartbeat {
        server_assignor: Some(text("best")),
        ..joining("a", &["t"])
    };
    let given = "best".to_owned();
    assert_eq!(
        beat(&mut host, other),
        Err(GroupError::UnsupportedAssignor { given })
    );
    let wrong = ConsumerHeartbeat {
        subscribed_topic_regex: Some(text("(")),
        ..joining("a", &["t"])
    };
    let refused = beat(&mut host, wrong);
    assert!(
        matches!(refused, Err(GroupError::InvalidRegularExpression { .. })),
        "{refused:?}"
    );
    let nameless = ConsumerHeartbeat {
        group: "".into(),
        ..joining("a", &["t"])
    };
    assert_eq!(
        beat(&mut host, nameless),
        Err(GroupError::InvalidGroupId { length: 0 })
    );
    assert_eq!(
        stay(&mut host, "a", 1, None),
        Err(GroupError::GroupNotFound)
    );
    assert_eq!(host.groups.list(), [], "nothing is left of all that");
}

#[test]
fn a_member_without_an_id_is_given_one() {
    let mut host = host();
    let nameless = ConsumerHeartbeat {
        member_id: None,
        ..joining("", &["t"])
    };
    let joined = beat(&mut host, nameless).unwrap();
    assert_eq!(joined.member_id.as_str().len(), 36);
}

#[test]
fn members_that_the_group_does_not_know_and_one_too_many_are_refused() {
    let mut host = host();
    join(&mut host, "a", &["t"]);
    assert_eq!(
        stay(&mut host, "x", 1, None),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        beat(&mut host, heartbeat("x", Presence::Leave)),
        Err(GroupError::UnknownMember)
    );
    for name in ["b", "c", "d"] {
        join(&mut host, name, &["t"]);
    }
    let full = beat(&mut host, joining("e", &["t"]));
    assert_eq!(full, Err(GroupError::GroupFull { limit: 4 }));
}

#[test]
fn an_epoch_that_is_not_the_members_is_fenced_but_for_one_lost_response() {
    let mut host = host();
    let [a, b] = two(&mut host);
    let fenced = |given| {
        Err(GroupError::FencedMemberEpoch {
            given: Epoch(given),
            current: Epoch(2),
        })
    };
    assert_eq!(stay(&mut host, "a", 3, None), fenced(3));
    // The response that took it from 1 to 2 may have been lost; then it owns no more than it may.
    assert_eq!(stay(&mut host, "a", 1, None), fenced(1));
    assert_eq!(stay(&mut host, "a", 1, Some(set(&[0, 1, 2, 3]))), fenced(1));
    // What the lost response said is said again.
    let told = stay(&mut host, "a", 1, Some(set(&[]))).unwrap();
    assert_eq!((epoch(&told), told.assignment), (2, Some(a)));
    // Who was fenced joins again with nothing, and gets what it is to have.
    let again = join(&mut host, "b", &["t"]);
    assert_eq!(epoch(&again), 2);
    assert_eq!(again.assignment, Some(b));
}

#[test]
fn a_member_that_says_everything_is_told_everything() {
    let mut host = host();
    let [a, _] = two(&mut host);
    assert_eq!(
        stay(&mut host, "a", 2, Some(a.clone())).unwrap().assignment,
        None
    );
    let everything = ConsumerHeartbeat {
        owned: Some(a.clone()),
        ..joining("a", &["t"])
    };
    let everything = ConsumerHeartbeat {
        presence: Presence::Stay(Epoch(2)),
        ..everything
    };
    assert_eq!(beat(&mut host, everything).unwrap().assignment, Some(a));
}

#[test]
fn a_silent_member_is_out_after_its_session_and_its_partitions_go_to_the_others() {
    let mut host = host();
    two(&mut host);
    host.pass(44_000);
    stay(&mut host, "a", 2, None).unwrap();
    host.pass(1_000);
    let a = stay(&mut host, "a", 2, None).unwrap();
    assert_eq!(a.assignment, Some(set(&[0, 1, 2, 3])));
    assert_eq!(
        stay(&mut host, "b", 2, None),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_member_that_gives_nothing_up_is_out_after_its_rebalance_timeout() {
    let mut host = host();
    join(&mut host, "a", &["t"]);
    join(&mut host, "b", &["t"]);
    let all = || Some(set(&[0, 1, 2, 3]));
    stay(&mut host, "a", 1, all()).unwrap();
    for _ in 0..19 {
        host.pass(1_000);
        stay(&mut host, "a", 1, all()).unwrap();
        stay(&mut host, "b", 2, None).unwrap();
    }
    host.pass(1_000);
    assert_eq!(
        stay(&mut host, "a", 1, all()),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(stay(&mut host, "b", 2, None).unwrap().assignment, all());
}

#[test]
fn the_time_to_give_up_starts_anew_with_a_restart() {
    let mut host = host();
    join(&mut host, "a", &["t"]);
    join(&mut host, "b", &["t"]);
    stay(&mut host, "a", 1, Some(set(&[0, 1, 2, 3]))).unwrap();
    host.pass(15_000);
    host.restart(true);
    host.pass(15_000);
    assert!(stay(&mut host, "a", 1, None).is_ok());
    host.pass(5_000);
    assert_eq!(
        stay(&mut host, "a", 1, None),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_static_member_that_comes_back_gets_what_it_had_and_nobody_notices() {
    let mut host = host();
    let as_static = |id: &str, presence| ConsumerHeartbeat {
        instance_id: Some("i".into()),
        presence,
        ..joining(id, &["t"])
    };
    beat(&mut host, as_static("a", Presence::Join)).unwrap();
    let taken = beat(&mut host, as_static("a2", Presence::Join));
    assert_eq!(taken, Err(GroupError::UnreleasedInstance));
    let paused = beat(&mut host, as_static("a", Presence::Pause)).unwrap();
    assert_eq!(paused.presence, Presence::Pause);
    host.restart(true);
    join(&mut host, "b", &["t"]);
    let back = beat(&mut host, as_static("a2", Presence::Join)).unwrap();
    assert_eq!(back.assignment.unwrap().len(), 2, "b has joined meanwhile");
    assert_eq!(
        stay(&mut host, "b", 2, None)
            .unwrap()
            .assignment
            .unwrap()
            .len(),
        2
    );
    let before = host.groups.describe_consumer(&group()).unwrap();
    beat(&mut host, as_static("a2", Presence::Pause)).unwrap();
    beat(&mut host, as_static("a3", Presence::Join)).unwrap();
    let after = host.groups.describe_consumer(&group()).unwrap();
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(
        after.members[0].current.assigned,
        before.members[0].current.assigned
    );
    // The process before is fenced, whatever it says.
    for presence in [Presence::Stay(Epoch(2)), Presence::Leave, Presence::Pause] {
        let fenced = beat(&mut host, as_static("a2", presence));
        assert_eq!(fenced, Err(GroupError::FencedInstance), "{presence:?}");
    }
    // One that does not come back is gone after its session.
    beat(&mut host, as_static("a3", Presence::Pause)).unwrap();
    host.pass(44_000);
    stay(&mut host, "b", 2, None).unwrap();
    host.pass(1_000);
    assert_eq!(
        stay(&mut host, "b", 2, None).unwrap().assignment,
        Some(set(&[0, 1, 2, 3]))
    );
}

#[test]
fn a_static_member_need_not_say_its_instance_id_again() {
    let mut host = host();
    let first = ConsumerHeartbeat {
        instance_id: Some("i".into()),
        ..joining("a", &["t"])
    };
    beat(&mut host, first).unwrap();
    stay(&mut host, "a", 1, Some(set(&[0, 1, 2, 3]))).unwrap();
    // Nor when it changes something else.
    let other = ConsumerHeartbeat {
        subscribed_topic_names: Some([topic("t"), topic("u")].into()),
        ..heartbeat("a", Presence::Stay(Epoch(1)))
    };
    assert_eq!(epoch(&beat(&mut host, other).unwrap()), 2);
    let pause = beat(&mut host, heartbeat("a", Presence::Pause)).unwrap();
    assert_eq!(pause.presence, Presence::Pause);
    join(&mut host, "b", &["t"]);
    let dynamic = beat(&mut host, heartbeat("b", Presence::Pause));
    assert!(
        matches!(dynamic, Err(GroupError::InvalidRequest(_))),
        "{dynamic:?}"
    );
    // Another instance's it is not.
    let wrong = ConsumerHeartbeat {
        instance_id: Some("j".into()),
        ..heartbeat("a", Presence::Stay(Epoch(2)))
    };
    assert_eq!(beat(&mut host, wrong), Err(GroupError::UnknownMember));
}

#[test]
fn changes_of_topics_are_seen_with_the_next_heartbeat() {
    let mut host = host();
    join(&mut host, "a", &["t", "u"]);
    host.create_topic("t", 1, 5);
    assert_eq!(
        stay(&mut host, "a", 1, None).unwrap().assignment,
        Some(set(&[0, 1, 2, 3, 4]))
    );
    host.create_topic("x", 9, 5);
    let same = stay(&mut host, "a", 2, None).unwrap();
    assert_eq!(
        (epoch(&same), same.assignment),
        (2, None),
        "it does not read that one"
    );
    host.create_topic("u", 2, 1);
    let more = stay(&mut host, "a", 2, None).unwrap();
    assert_eq!(more.assignment.unwrap().len(), 6);
    host.delete_topic("t");
    let less = stay(&mut host, "a", 3, None).unwrap().assignment.unwrap();
    assert_eq!(less.len(), 1);
    assert_eq!(epoch(&stay(&mut host, "a", 3, Some(less)).unwrap()), 4);
    // Also when they happen while nobody looks.
    host.create_topic("u", 2, 2);
    host.restart(false);
    assert_eq!(
        stay(&mut host, "a", 4, None)
            .unwrap()
            .assignment
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_subscription_by_pattern_follows_the_topics_that_match() {
    let mut host = host();
    host.create_topic("tx", 2, 1);
    host.create_topic("xt", 3, 1);
    let by_pattern = |pattern: &str| ConsumerHeartbeat {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(text(pattern)),
        ..joining("a", &[])
    };
    let joined = beat(&mut host, by_pattern("t.*")).unwrap();
    assert_eq!(joined.assignment.unwrap().len(), 5);
    host.create_topic("ty", 4, 2);
    assert_eq!(
        stay(&mut host, "a", 1, None)
            .unwrap()
            .assignment
            .unwrap()
            .len(),
        7
    );
    let none = ConsumerHeartbeat {
        presence: Presence::Stay(Epoch(2)),
        owned: None,
        rebalance_timeout_ms: None,
        ..by_pattern("")
    };
    assert_eq!(
        beat(&mut host, none).unwrap().assignment,
        Some(Partitions::new())
    );
    let patterns = host
        .groups
        .records()
        .filter(|record| matches!(record, sapwood_group::Record::Regex { .. }));
    assert_eq!(patterns.count(), 0, "nobody uses it any more");
}

#[test]
fn the_assignor_that_most_members_prefer_is_taken() {
    let mut host = host();
    host.create_topic("u", 2, 4);
    let preferring = |id: &str, assignor: &str| ConsumerHeartbeat {
        server_assignor: Some(text(assignor)),
        ..joining(id, &["t", "u"])
    };
    beat(&mut host, preferring("a", "range")).unwrap();
    beat(&mut host, preferring("b", "range")).unwrap();
    beat(&mut host, preferring("c", "uniform")).unwrap();
    let description = host.groups.describe_consumer(&group()).unwrap();
    assert_eq!(description.assignor.name(), "range");
    let target = |at: usize| &description.members[at].target;
    let ends = |at: usize| {
        target(at)
            .topics()
            .map(|(_, set)| set.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        [ends(0), ends(1), ends(2)],
        [vec![2, 2], vec![1, 1], vec![1, 1]]
    );
}

#[test]
fn nothing_of_a_heartbeat_that_cannot_be_logged_is_seen() {
    let mut host = host();
    let [a, _] = two(&mut host);
    host.failures = 1;
    let call = host.call(Request::ConsumerHeartbeat(joining("c", &["t"])));
    assert_eq!(host.take(call), Some(None));
    assert_eq!(state(&host), GroupState::Stable);
    assert_eq!(stay(&mut host, "a", 2, Some(a)).unwrap().assignment, None);
    assert_eq!(
        stay(&mut host, "c", 3, None),
        Err(GroupError::UnknownMember)
    );
    let unowned = host.groups.describe_consumer(&group()).unwrap();
    assert!(
        unowned
            .members
            .iter()
            .all(|member| member.current.state == MemberState::Stable)
    );
}
