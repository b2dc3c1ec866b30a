//! Static members of the classic protocol.

use sapwood_group::{
    CallId, GroupError, GroupState, Heartbeat, Join, Joined, MemberId, Reply, Request, Sync,
};

use crate::{
    host::{Host, group, text},
    members::{join, joined, joining, leave, said, settings, state, synced, syncing},
};

fn instance(name: &str) -> Join {
    Join {
        instance_id: Some(name.into()),
        takes_member_id: true,
        ..joining(None)
    }
}

/// A stable group of the static members `a`, which leads, and `b`.
fn stable(host: &mut Host) -> [MemberId; 2] {
    host.create_topic("t", 1, 4);
    let calls = ["a", "b"].map(|name| join(host, instance(name)));
    host.pass(10_000);
    let ids = calls.map(|call| joined(host, call).unwrap().unwrap().member_id);
    let all = [&ids[0], &ids[1]];
    for id in all {
        let call = host.call(Request::Sync(syncing(id, 1, &all)));
        synced(host, call).unwrap().unwrap();
    }
    ids
}

fn at_once(host: &mut Host, call: CallId) -> Joined {
    joined(host, call).expect("without a rebalance").unwrap()
}

#[test]
fn a_static_member_that_is_started_again_gets_its_partitions_without_a_rebalance() {
    let mut host = Host::new(settings());
    let [a, b] = stable(&mut host);
    let mut again = instance("b");
    // What it owned it does not say again; that is no reason for a rebalance.
    again.protocols[0].metadata = said("t", "other user data");
    let call = join(&mut host, again);
    let back = at_once(&mut host, call);
    assert_eq!((back.generation.0, state(&host)), (1, GroupState::Stable));
    assert_ne!(back.member_id, b);
    assert_eq!(back.leader, Some(a));
    let call = host.call(Request::Sync(syncing(&back.member_id, 1, &[])));
    let kept = synced(&mut host, call).unwrap().unwrap();
    assert_eq!(kept.assignment, format!("for {b}"));
    host.restart(true);
    let call = host.call(Request::Sync(syncing(&back.member_id, 1, &[])));
    assert_eq!(synced(&mut host, call).unwrap().unwrap(), kept);
}

#[test]
fn a_leader_that_is_started_again_skips_the_assignment_or_does_not_know_that_it_leads() {
    let mut host = Host::new(settings());
    let [a, _] = stable(&mut host);
    let call = join(&mut host, instance("a"));
    let back = at_once(&mut host, call);
    assert!(back.skip_assignment);
    assert_eq!(
        (back.members.len(), back.leader),
        (2, Some(back.member_id.clone()))
    );
    let old = Join {
        takes_skip_assignment: false,
        ..instance("a")
    };
    let call = join(&mut host, old);
    let follows = at_once(&mut host, call);
    assert!(!follows.skip_assignment && follows.members.is_empty());
    assert_ne!(follows.leader, Some(follows.member_id));
    assert_ne!(follows.leader, Some(a));
}

#[test]
fn a_static_member_that_reads_something_else_now_makes_a_rebalance() {
    let mut host = Host::new(settings());
    stable(&mut host);
    let mut again = instance("b");
    again.protocols[0].metadata = said("u", "");
    let call = join(&mut host, again);
    assert_eq!(joined(&mut host, call), None);
    assert_eq!(state(&host), GroupState::PreparingRebalance);
}

#[test]
fn the_process_that_came_before_is_fenced() {
    let mut host = Host::new(settings());
    let [a, b] = stable(&mut host);
    join(&mut host, instance("b"));
    let beat = |host: &mut Host, instance: Option<&str>| {
        host.ask(Request::Heartbeat(Heartbeat {
            group: group(),
            member_id: b.clone(),
            instance_id: instance.map(Into::into),
            generation: sapwood_group::Generation(1),
        }))
    };
    let fenced = Err(GroupError::FencedInstance);
    assert_eq!(beat(&mut host, Some("b")), Reply::Heartbeat(fenced.clone()));
    assert_eq!(
        beat(&mut host, None),
        Reply::Heartbeat(Err(GroupError::UnknownMember))
    );
    let sync = Sync {
        instance_id: Some("b".into()),
        ..syncing(&b, 1, &[])
    };
    let call = host.call(Request::Sync(sync));
    assert_eq!(
        synced(&mut host, call),
        Some(Err(GroupError::FencedInstance))
    );
    let call = join(
        &mut host,
        Join {
            member_id: Some(b.clone()),
            ..instance("b")
        },
    );
    assert_eq!(
        joined(&mut host, call),
        Some(Err(GroupError::FencedInstance))
    );
    let results = leave(
        &mut host,
        &[(Some(b.as_str()), Some("b")), (Some(a.as_str()), Some("b"))],
    );
    assert_eq!(results, Ok(vec![fenced.clone(), fenced]));
    assert_eq!(state(&host), GroupState::Stable);
}

#[test]
fn a_process_that_waits_is_fenced_when_its_successor_joins() {
    let mut host = Host::new(settings());
    stable(&mut host);
    let mut changed = instance("b");
    changed.protocols[0].name = text("range");
    changed.protocols[0].metadata = said("u", "");
    let waits = join(&mut host, changed.clone());
    assert_eq!(joined(&mut host, waits), None);
    let next = join(&mut host, changed);
    assert_eq!(
        joined(&mut host, waits),
        Some(Err(GroupError::FencedInstance))
    );
    assert_eq!(joined(&mut host, next), None);
}

#[test]
fn a_static_member_outlives_a_rebalance_that_it_misses_but_not_its_session() {
    let mut host = Host::new(settings());
    let [a, b] = stable(&mut host);
    let again = join(
        &mut host,
        Join {
            member_id: Some(a.clone()),
            ..instance("a")
        },
    );
    assert_eq!(
        joined(&mut host, again),
        None,
        "the leader makes a rebalance"
    );
    host.pass(25_000);
    assert_eq!(state(&host), GroupState::PreparingRebalance);
    host.pass(5_000);
    let alone = joined(&mut host, again).unwrap().unwrap();
    assert_eq!(alone.members.len(), 1, "the session of the other is over");
    assert_eq!(
        leave(&mut host, &[(None, Some("b"))]),
        Ok(vec![Err(GroupError::UnknownMember)])
    );
    let _ = b;
}

#[test]
fn an_administrator_takes_a_static_member_out_by_its_instance_id() {
    let mut host = Host::new(settings());
    let [a, _] = stable(&mut host);
    assert_eq!(leave(&mut host, &[(None, Some("b"))]), Ok(vec![Ok(())]));
    let again = join(
        &mut host,
        Join {
            member_id: Some(a),
            ..instance("a")
        },
    );
    assert_eq!(joined(&mut host, again).unwrap().unwrap().members.len(), 1);
}
