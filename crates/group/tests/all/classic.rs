//! Groups of the classic protocol.

use sapwood_group::{Generation, GroupError, GroupState, Join, Joined, MemberId, Request, Sync};

use crate::{
    host::{Host, text},
    members::{
        Members, beat, join, joined, joining, leave, protocol, settings, state, synced, syncing,
    },
};

fn host() -> Host {
    let mut host = Host::new(settings());
    host.create_topic("t", 1, 4);
    host
}

#[test]
fn the_first_generation_waits_for_more_members_and_goes_on_as_they_come() {
    let mut host = host();
    let first = join(&mut host, joining(None));
    host.pass(2_000);
    let second = join(&mut host, joining(None));
    host.pass(3_900);
    assert_eq!(
        joined(&mut host, first),
        None,
        "it was prolonged when the second came"
    );
    host.pass(100);
    let first = joined(&mut host, first).unwrap().unwrap();
    let second = joined(&mut host, second).unwrap().unwrap();
    assert_eq!(
        (first.generation, second.generation),
        (Generation(1), Generation(1))
    );
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
    assert_eq!(first.leader, Some(first.member_id.clone()));
    assert_eq!(first.protocol.as_deref(), Some("range"));
    assert_eq!(state(&host), GroupState::CompletingRebalance);
}

#[test]
fn the_delay_is_never_longer_than_a_member_may_take_to_join() {
    let mut host = host();
    let mut impatient = joining(None);
    impatient.rebalance_timeout_ms = 5_000;
    let first = join(&mut host, impatient);
    for _ in 0..3 {
        host.pass(1_500);
        join(&mut host, joining(None));
    }
    host.pass(500);
    assert!(joined(&mut host, first).is_some());
}

#[test]
fn a_member_without_an_id_gets_one_to_join_with_and_its_place_is_kept_for_a_while() {
    let mut host = host();
    let asking = Join {
        takes_member_id: true,
        ..joining(None)
    };
    let call = join(&mut host, asking.clone());
    let Some(Err(GroupError::MemberIdRequired { member_id })) = joined(&mut host, call) else {
        panic!("it has to join again");
    };
    assert!(member_id.as_str().starts_with("app-"));
    assert_eq!(state(&host), GroupState::Empty);
    let call = join(
        &mut host,
        Join {
            member_id: Some(member_id.clone()),
            ..asking.clone()
        },
    );
    host.pass(3_000);
    assert_eq!(
        joined(&mut host, call).unwrap().unwrap().member_id,
        member_id
    );
    // Another one that does not come back is waited for, but not for longer than its session.
    let call = join(&mut host, asking.clone());
    let Some(Err(GroupError::MemberIdRequired { member_id: lost })) = joined(&mut host, call)
    else {
        panic!("it has to join again");
    };
    let again = join(
        &mut host,
        Join {
            member_id: Some(member_id),
            ..joining(None)
        },
    );
    let changed = joined(&mut host, again);
    assert!(changed.is_some(), "it is in the generation already");
    host.pass(30_000);
    let call = join(
        &mut host,
        Join {
            member_id: Some(lost),
            ..asking
        },
    );
    assert_eq!(
        joined(&mut host, call),
        Some(Err(GroupError::UnknownMember))
    );
}

#[test]
fn joins_that_cannot_be_are_refused_and_leave_no_group_behind() {
    let mut host = host();
    let limit = GroupError::InvalidSessionTimeout {
        given: 5_999,
        allowed: 6_000..=1_800_000,
    };
    let table: Vec<(Join, GroupError)> = vec![
        (
            Join {
                group: "".into(),
                ..joining(None)
            },
            GroupError::InvalidGroupId { length: 0 },
        ),
        (
            Join {
                group: "g".repeat(40_000).into(),
                ..joining(None)
            },
            GroupError::InvalidGroupId { length: 40_000 },
        ),
        (
            Join {
                session_timeout_ms: 5_999,
                ..joining(None)
            },
            limit,
        ),
        (
            Join {
                protocols: vec![],
                ..joining(None)
            },
            GroupError::InconsistentProtocol,
        ),
        (
            Join {
                protocol_type: text(""),
                ..joining(None)
            },
            GroupError::InconsistentProtocol,
        ),
        (joining(Some(&"nobody".into())), GroupError::UnknownMember),
    ];
    for (request, error) in table {
        let call = join(&mut host, request.clone());
        assert_eq!(joined(&mut host, call), Some(Err(error)), "{request:?}");
        assert_eq!(host.groups.list(), []);
    }
    let _members = Members::stable(&mut host, 1);
    let others = [
        Join {
            protocols: vec![protocol("other")],
            ..joining(None)
        },
        Join {
            protocol_type: text("connect"),
            ..joining(None)
        },
    ];
    for other in others {
        let call = join(&mut host, other);
        assert_eq!(
            joined(&mut host, call),
            Some(Err(GroupError::InconsistentProtocol))
        );
        assert_eq!(state(&host), GroupState::Stable);
    }
}

#[test]
fn a_full_group_takes_nobody_more_and_counts_those_with_promised_ids() {
    let mut host = host();
    let asking = Join {
        takes_member_id: true,
        ..joining(None)
    };
    let call = join(&mut host, asking);
    joined(&mut host, call);
    for _ in 0..3 {
        let call = join(&mut host, joining(None));
        assert_eq!(joined(&mut host, call), None);
    }
    let call = join(&mut host, joining(None));
    assert_eq!(
        joined(&mut host, call),
        Some(Err(GroupError::GroupFull { limit: 4 }))
    );
}

#[test]
fn the_protocol_that_most_members_prefer_of_those_that_all_speak_is_taken() {
    let mut host = host();
    let spoken = [["a", "b", "c"], ["b", "a", "x"], ["b", "a", "c"]];
    let calls = spoken.map(|names| {
        let protocols = names.into_iter().map(protocol).collect();
        join(
            &mut host,
            Join {
                protocols,
                ..joining(None)
            },
        )
    });
    host.pass(10_000);
    for call in calls {
        let joined = joined(&mut host, call).unwrap().unwrap();
        assert_eq!(joined.protocol.as_deref(), Some("b"));
    }
}

#[test]
fn who_waits_for_an_assignment_gets_the_leaders_and_who_comes_later_too() {
    let mut host = host();
    let calls = [0, 1, 2].map(|_| join(&mut host, joining(None)));
    host.pass(10_000);
    let mut ids: Vec<Joined> = calls
        .map(|call| joined(&mut host, call).unwrap().unwrap())
        .into();
    ids.sort_by_key(|joined| joined.members.is_empty());
    let [leader, early, late] = [0, 1, 2].map(|at| ids[at].member_id.clone());
    let waiting = host.call(Request::Sync(syncing(&early, 1, &[])));
    assert_eq!(synced(&mut host, waiting), None);
    assert_eq!(host.log, [], "nothing is logged before it is settled");
    let lead = host.call(Request::Sync(syncing(&leader, 1, &[&leader, &early])));
    assert_eq!(
        synced(&mut host, lead).unwrap().unwrap().assignment,
        format!("for {leader}")
    );
    assert_eq!(
        synced(&mut host, waiting).unwrap().unwrap().assignment,
        format!("for {early}")
    );
    let last = host.call(Request::Sync(syncing(&late, 1, &[&leader])));
    assert_eq!(
        synced(&mut host, last).unwrap().unwrap().assignment,
        "",
        "it was left out"
    );
    assert_eq!(host.log.len(), 1);
}

#[test]
fn a_leaders_assignment_that_cannot_be_logged_leaves_everybody_waiting() {
    let mut host = host();
    let call = join(&mut host, joining(None));
    let other = join(&mut host, joining(None));
    host.pass(10_000);
    let mut ids = [call, other].map(|call| joined(&mut host, call).unwrap().unwrap());
    ids.sort_by_key(|joined| joined.members.is_empty());
    let [leader, follower] = ids.map(|joined| joined.member_id);
    let waiting = host.call(Request::Sync(syncing(&follower, 1, &[])));
    host.failures = 1;
    let failed = host.call(Request::Sync(syncing(&leader, 1, &[&follower])));
    assert_eq!(host.take(failed), Some(None));
    assert_eq!(synced(&mut host, waiting), None);
    assert_eq!(state(&host), GroupState::CompletingRebalance);
    let again = host.call(Request::Sync(syncing(&leader, 1, &[&follower])));
    assert!(synced(&mut host, again).unwrap().is_ok());
    assert_eq!(
        synced(&mut host, waiting).unwrap().unwrap().assignment,
        format!("for {follower}")
    );
}

#[test]
fn syncs_and_heartbeats_are_refused_by_state_member_generation_and_protocol() {
    let mut host = host();
    let nobody = MemberId::from("nobody");
    let call = host.call(Request::Sync(syncing(&nobody, 1, &[])));
    assert_eq!(
        synced(&mut host, call),
        Some(Err(GroupError::UnknownMember))
    );
    assert_eq!(beat(&mut host, &nobody, 1), Err(GroupError::UnknownMember));
    let members = Members::stable(&mut host, 2);
    let id = &members.ids[1];
    let old = GroupError::IllegalGeneration {
        given: Generation(0),
        current: Generation(1),
    };
    let table: Vec<(Sync, Option<GroupError>)> = vec![
        (syncing(&nobody, 1, &[]), Some(GroupError::UnknownMember)),
        (syncing(id, 0, &[]), Some(old.clone())),
        (
            Sync {
                protocol_type: Some(text("connect")),
                ..syncing(id, 1, &[])
            },
            Some(GroupError::InconsistentProtocol),
        ),
        (
            Sync {
                protocol: Some(text("sticky")),
                ..syncing(id, 1, &[])
            },
            Some(GroupError::InconsistentProtocol),
        ),
        (
            Sync {
                protocol_type: Some(text("consumer")),
                protocol: Some(text("range")),
                ..syncing(id, 1, &[])
            },
            None,
        ),
    ];
    for (request, error) in table {
        let call = host.call(Request::Sync(request.clone()));
        assert_eq!(synced(&mut host, call).unwrap().err(), error, "{request:?}");
    }
    assert_eq!(beat(&mut host, &nobody, 1), Err(GroupError::UnknownMember));
    assert_eq!(beat(&mut host, id, 0), Err(old));
    assert_eq!(members.beat(&mut host, 1), Ok(()));
    members.rejoin(&mut host, 0);
    assert_eq!(
        members.beat(&mut host, 1),
        Err(GroupError::RebalanceInProgress)
    );
    let call = host.call(Request::Sync(syncing(id, 1, &[])));
    assert_eq!(
        synced(&mut host, call),
        Some(Err(GroupError::RebalanceInProgress))
    );
    members.rejoin(&mut host, 1);
    assert_eq!(
        beat(&mut host, id, 2),
        Ok(()),
        "the leader may take its time"
    );
}

#[test]
fn a_member_that_joins_again_unchanged_is_told_the_generation_and_disturbs_nobody() {
    let mut host = host();
    let members = Members::stable(&mut host, 2);
    let again = join(&mut host, joining(Some(&members.ids[1])));
    assert_eq!(
        joined(&mut host, again).unwrap().unwrap().generation,
        Generation(1)
    );
    assert_eq!(state(&host), GroupState::Stable);
    // But the leader wants a rebalance when it does.
    let again = join(&mut host, joining(Some(&members.ids[0])));
    assert_eq!(joined(&mut host, again), None);
    assert_eq!(state(&host), GroupState::PreparingRebalance);
}

#[test]
fn who_does_not_join_in_time_is_out_and_another_leads() {
    let mut host = host();
    let members = Members::stable(&mut host, 2);
    let follower = members.rejoin(&mut host, 1);
    for _ in 0..59 {
        host.pass(1_000);
        // The leader is alive, but does not join.
        assert_eq!(
            members.beat(&mut host, 0),
            Err(GroupError::RebalanceInProgress)
        );
    }
    host.pass(1_000);
    let alone = joined(&mut host, follower).unwrap().unwrap();
    assert_eq!((alone.generation, alone.members.len()), (Generation(2), 1));
    assert_eq!(
        beat(&mut host, &members.ids[0], 2),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn silence_ends_a_session_and_every_sign_of_life_prolongs_it() {
    let mut host = host();
    let members = Members::stable(&mut host, 2);
    host.pass(29_000);
    assert_eq!(members.beat(&mut host, 0), Ok(()));
    host.pass(900);
    assert_eq!(state(&host), GroupState::Stable);
    host.pass(100);
    assert_eq!(
        state(&host),
        GroupState::PreparingRebalance,
        "the second one is gone"
    );
    let alone = members.rejoin(&mut host, 0);
    assert_eq!(joined(&mut host, alone).unwrap().unwrap().members.len(), 1);
    assert_eq!(
        beat(&mut host, &members.ids[1], 2),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn who_does_not_ask_for_its_assignment_is_out() {
    let mut host = host();
    let members = Members::stable(&mut host, 2);
    let calls = [members.rejoin(&mut host, 0), members.rejoin(&mut host, 1)];
    let leads = joined(&mut host, calls[0]).unwrap().unwrap();
    assert_eq!(leads.generation, Generation(2));
    let waiting = host.call(Request::Sync(syncing(&members.ids[1], 2, &[])));
    for _ in 0..59 {
        host.pass(1_000);
        assert_eq!(beat(&mut host, &members.ids[0], 2), Ok(()));
    }
    host.pass(1_000);
    assert_eq!(
        synced(&mut host, waiting),
        Some(Err(GroupError::RebalanceInProgress))
    );
    assert_eq!(
        beat(&mut host, &members.ids[0], 2),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_group_that_its_last_member_leaves_is_empty_and_can_be_joined_again() {
    let mut host = host();
    let mut members = Members::stable(&mut host, 1);
    members.leave(&mut host, 0);
    assert_eq!(state(&host), GroupState::Empty);
    host.restart(false);
    let again = Members::stable(&mut host, 1);
    assert_eq!(again.generation, 3, "2 was the empty one");
}

#[test]
fn several_can_leave_at_once_and_each_has_its_own_answer() {
    let mut host = host();
    let members = Members::stable(&mut host, 3);
    let [a, b] = [0, 1].map(|at| members.ids[at].as_str());
    let results = leave(
        &mut host,
        &[
            (Some(a), None),
            (Some("nobody"), None),
            (Some(b), None),
            (None, None),
        ],
    );
    let unknown = Err(GroupError::UnknownMember);
    assert_eq!(results, Ok(vec![Ok(()), unknown.clone(), Ok(()), unknown]));
    assert_eq!(state(&host), GroupState::PreparingRebalance);
    assert_eq!(
        leave(&mut Host::new(settings()), &[(Some(a), None)]),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn after_a_restart_a_group_is_as_its_last_rebalance_left_it() {
    let mut host = host();
    let members = Members::stable(&mut host, 2);
    let lost = members.rejoin(&mut host, 0);
    host.restart(true);
    assert_eq!(host.take(lost), Some(None));
    assert_eq!(state(&host), GroupState::Stable);
    assert_eq!(members.beat(&mut host, 1), Ok(()));
    let call = host.call(Request::Sync(syncing(&members.ids[0], 1, &[])));
    let kept = synced(&mut host, call).unwrap().unwrap();
    assert_eq!(kept.assignment, format!("for {}", members.ids[0]));
    host.pass(30_000);
    assert_eq!(
        state(&host),
        GroupState::Empty,
        "sessions start with the restart"
    );
}
