//! Groups of the newer protocol: members that an administrator takes out, and members that come back
//! though nobody took them out.

use sapwood_group::{
    ConsumerHeartbeat, GroupError, GroupState, Leave, LeavingMember, Presence, Reply, Request,
};

use crate::{
    consumer::{beat, epoch, heartbeat, host, join, joining, leave, set, state, stay, two},
    host::{Host, group},
};

fn is_static(member: &str, instance: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        instance_id: Some(instance.into()),
        ..joining(member, &["t"])
    }
}

fn take_out(
    host: &mut Host,
    members: &[(Option<&str>, Option<&str>)],
) -> Vec<Result<(), GroupError>> {
    let members = members.iter().map(|(member, instance)| LeavingMember {
        member_id: member.map(Into::into),
        instance_id: instance.map(Into::into),
    });
    let leave = Leave {
        group: group(),
        members: members.collect(),
    };
    match host.ask(Request::Leave(leave)) {
        Reply::Leave(Ok(results)) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_administrator_takes_members_out_by_id_and_static_ones_by_their_instance_alone() {
    let mut host = host();
    two(&mut host);
    beat(&mut host, is_static("c", "i")).unwrap();
    beat(&mut host, is_static("d", "j")).unwrap();
    let unknown = Err(GroupError::UnknownMember);
    let nobody = [
        (Some("x"), None),
        (None, Some("x")),
        (Some("c"), Some("j")),
        (None, None),
    ];
    let refused = take_out(&mut host, &nobody);
    let fenced = Err(GroupError::FencedInstance);
    assert_eq!(
        refused,
        [unknown.clone(), unknown.clone(), fenced, unknown.clone()]
    );
    let epoch_of = |host: &Host| host.groups.describe_consumer(&group()).unwrap().epoch;
    let before = epoch_of(&host);
    let some = [
        (Some("a"), None),
        (None, Some("i")),
        (Some("d"), Some("j")),
        (Some("a"), None),
    ];
    let results = take_out(&mut host, &some);
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), unknown]);
    assert_eq!(epoch_of(&host).0, before.0 + 1, "one change");
    let gone = stay(&mut host, "a", 2, None);
    assert_eq!(gone, Err(GroupError::UnknownMember));
    let rest = stay(&mut host, "b", 2, None).unwrap();
    assert_eq!(rest.assignment, Some(set(&[0, 1, 2, 3])));
    assert_eq!(take_out(&mut host, &[(Some("b"), None)]), [Ok(())]);
    assert_eq!(state(&host), GroupState::Empty);
    host.restart(true);
}

/// What the KIP says, and Kafka does since 4.2 (before that it fenced the member until its session
/// was over): epoch 0 is taken from a member that is still there, wherever its reconciliation is.
#[test]
fn a_member_that_joins_again_owns_nothing_and_goes_on_with_its_share() {
    let mut host = host();
    let [a, _] = two(&mut host);
    let again = join(&mut host, "a", &["t"]);
    assert_eq!(
        (epoch(&again), again.assignment),
        (2, Some(a)),
        "nobody else has noticed"
    );

    // While it has something to give up: it has given everything up.
    let c = join(&mut host, "c", &["t"]);
    assert_eq!(c.assignment, Some(set(&[])));
    let told = ["a", "b"].map(|id| (id, stay(&mut host, id, 2, None).unwrap().assignment));
    let told = told
        .into_iter()
        .find_map(|(id, less)| Some((id, less.filter(|less| less.len() == 1)?)));
    let (id, less) = told.unwrap();
    let again = join(&mut host, id, &["t"]);
    assert_eq!((epoch(&again), again.assignment), (3, Some(less)));
    let c = stay(&mut host, "c", 3, None).unwrap().assignment.unwrap();
    assert_eq!(c.len(), 1, "what the member gave up");

    // While it waits for others: it goes on waiting.
    leave(&mut host, "c");
    let d = join(&mut host, "d", &["t"]);
    assert_eq!(d.assignment.unwrap().len(), 1, "what c left");
    host.restart(false);
    let again = join(&mut host, "d", &["t"]);
    assert_eq!(again.assignment.unwrap().len(), 1);
}

#[test]
fn a_static_member_that_joins_again_without_having_left_has_to_be_the_same_process() {
    let mut host = host();
    let first = beat(&mut host, is_static("a", "i")).unwrap();
    let other = beat(&mut host, is_static("b", "i"));
    assert_eq!(other, Err(GroupError::UnreleasedInstance));
    // Only it can know its id; Kafka has it wait for the end of its session.
    let again = beat(&mut host, is_static("a", "i")).unwrap();
    assert_eq!(again.assignment, first.assignment);
    let pauses = ConsumerHeartbeat {
        instance_id: Some("i".into()),
        ..heartbeat("a", Presence::Pause)
    };
    beat(&mut host, pauses).unwrap();
    let back = beat(&mut host, is_static("b", "i")).unwrap();
    assert_eq!(back.assignment, first.assignment);
}
