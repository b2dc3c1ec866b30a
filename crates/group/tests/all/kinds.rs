//! A group is of one kind while it has members; an empty one becomes whichever comes.

use sapwood_group::{GroupError, GroupKind, Presence};

use crate::{
    consumer,
    host::{Host, group},
    members::{self, Members, settings},
    offsets::{commit, offset},
};

fn host() -> Host {
    let mut host = Host::new(settings());
    host.create_topic("t", 1, 4);
    commit(
        &mut host,
        sapwood_group::Committer::Alone,
        vec![offset("t", 0, 5)],
    );
    host
}

fn kind(host: &Host) -> GroupKind {
    host.groups.listed(&group()).unwrap().kind
}

fn offsets(host: &Host) -> usize {
    let all = sapwood_group::FetchOffsets {
        group: group(),
        by: None,
        partitions: None,
    };
    host.fetch(all).unwrap().len()
}

#[test]
fn a_group_with_members_does_not_take_members_of_the_other_kind() {
    let mut host = host();
    let mut members = Members::stable(&mut host, 1);
    let refused = consumer::beat(&mut host, consumer::joining("m", &["t"]));
    assert_eq!(refused, Err(GroupError::GroupNotFound));
    assert_eq!(members.beat(&mut host, 0), Ok(()));
    members.leave(&mut host, 0);
    consumer::join(&mut host, "m", &["t"]);
    let call = members::join(&mut host, members::joining(None));
    assert_eq!(
        members::joined(&mut host, call),
        Some(Err(GroupError::InconsistentProtocol))
    );
    let unknown = Err(GroupError::UnknownMember);
    assert_eq!(members::beat(&mut host, &"m".into(), 1), unknown);
    assert!(consumer::stay(&mut host, "m", 1, None).is_ok());
}

#[test]
fn an_empty_group_becomes_the_other_kind_and_keeps_its_offsets() {
    let mut host = host();
    for compact in [false, true] {
        let mut members = Members::stable(&mut host, 1);
        assert_eq!((kind(&host), offsets(&host)), (GroupKind::Classic, 1));
        members.leave(&mut host, 0);
        host.restart(compact);
        let gone = consumer::stay(&mut host, "m", 1, None);
        assert_eq!(gone, Err(GroupError::GroupNotFound));
        consumer::join(&mut host, "m", &["t"]);
        assert_eq!((kind(&host), offsets(&host)), (GroupKind::Consumer, 1));
        host.restart(compact);
        assert_eq!((kind(&host), offsets(&host)), (GroupKind::Consumer, 1));
        consumer::leave(&mut host, "m");
        host.restart(compact);
    }
}

#[test]
fn descriptions_are_of_the_kind_that_the_group_is() {
    let mut host = host();
    assert_eq!(
        host.groups
            .describe_classic(&group())
            .unwrap()
            .state
            .to_string(),
        "Empty"
    );
    assert_eq!(host.groups.describe_classic(&"x".into()), None);
    let members = Members::stable(&mut host, 2);
    let description = host.groups.describe_classic(&group()).unwrap();
    assert_eq!(
        (description.state.to_string(), &*description.protocol),
        ("Stable".to_owned(), "range")
    );
    assert_eq!(description.members.len(), 2);
    assert!(
        description
            .members
            .iter()
            .all(|member| !member.assignment.is_empty())
    );
    members.rejoin(&mut host, 0);
    let description = host.groups.describe_classic(&group()).unwrap();
    assert_eq!(description.state.to_string(), "PreparingRebalance");
    assert!(
        description
            .members
            .iter()
            .all(|member| member.assignment.is_empty())
    );
    assert_eq!(host.groups.describe_consumer(&group()), None);

    let mut host = self::host();
    let joined = consumer::join(&mut host, "m", &["t"]);
    let description = host.groups.describe_consumer(&group()).unwrap();
    let Presence::Stay(epoch) = joined.presence else {
        panic!("it stays");
    };
    assert_eq!(
        (description.epoch, description.assignment_epoch),
        (epoch, epoch)
    );
    assert_eq!(description.members[0].target.len(), 4);
    assert_eq!(host.groups.describe_classic(&group()), None);
}
