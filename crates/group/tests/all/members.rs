//! Members of the classic protocol, and what they say.

use bytes::{BufMut, Bytes, BytesMut};
use sapwood_group::{
    CallId, Generation, GroupError, GroupState, Heartbeat, Join, Joined, Leave, LeavingMember,
    MemberId, Protocol, Reply, Request, Settings, Sync, Synced,
};

use crate::host::{Host, client, group, text};

pub(crate) fn settings() -> Settings {
    Settings {
        members_max: 4,
        ..Settings::default()
    }
}

/// What a consumer says that reads topic `t`, and something that changes.
pub(crate) fn said(topic: &str, and: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(1);
    out.put_i16(1);
    out.put_slice(topic.as_bytes());
    out.put_slice(and.as_bytes());
    out.freeze()
}

pub(crate) fn protocol(name: &str) -> Protocol {
    Protocol {
        name: text(name),
        metadata: said("t", ""),
    }
}

/// A join of a dynamic member that takes what it gets.
pub(crate) fn joining(member: Option<&MemberId>) -> Join {
    Join {
        group: group(),
        member_id: member.cloned(),
        instance_id: None,
        client: client(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: text("consumer"),
        protocols: vec![protocol("range")],
        takes_member_id: false,
        takes_skip_assignment: true,
    }
}

pub(crate) fn join(host: &mut Host, join: Join) -> CallId {
    host.call(Request::Join(join))
}

/// The answer to a join: none while it waits.
pub(crate) fn joined(host: &mut Host, call: CallId) -> Option<Result<Joined, GroupError>> {
    match host.take(call)? {
        Some(Reply::Join(reply)) => Some(reply),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn syncing(member: &MemberId, generation: u32, gives: &[&MemberId]) -> Sync {
    let give = |to: &&MemberId| ((*to).clone(), Bytes::from(format!("for {to}")));
    Sync {
        group: group(),
        member_id: member.clone(),
        instance_id: None,
        generation: Generation(generation),
        protocol_type: None,
        protocol: None,
        assignments: gives.iter().map(give).collect(),
    }
}

pub(crate) fn synced(host: &mut Host, call: CallId) -> Option<Result<Synced, GroupError>> {
    match host.take(call)? {
        Some(Reply::Sync(reply)) => Some(reply),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn beat(host: &mut Host, member: &MemberId, generation: u32) -> Result<(), GroupError> {
    match host.ask(Request::Heartbeat(Heartbeat {
        group: group(),
        member_id: member.clone(),
        instance_id: None,
        generation: Generation(generation),
    })) {
        Reply::Heartbeat(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn leave(
    host: &mut Host,
    members: &[(Option<&str>, Option<&str>)],
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let leaving = |(id, instance): &(Option<&str>, Option<&str>)| LeavingMember {
        member_id: id.map(Into::into),
        instance_id: instance.map(Into::into),
    };
    let members = members.iter().map(leaving).collect();
    match host.ask(Request::Leave(Leave {
        group: group(),
        members,
    })) {
        Reply::Leave(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn state(host: &Host) -> GroupState {
    host.groups
        .listed(&group())
        .map_or(GroupState::Dead, |group| group.state)
}

/// Dynamic members of a stable group; the first one leads.
pub(crate) struct Members {
    pub(crate) ids: Vec<MemberId>,
    pub(crate) generation: u32,
}

impl Members {
    pub(crate) fn stable(host: &mut Host, count: usize) -> Self {
        let calls: Vec<CallId> = (0..count).map(|_| join(host, joining(None))).collect();
        host.pass(10_000);
        let places = calls
            .into_iter()
            .map(|call| joined(host, call).unwrap().unwrap());
        let mut places: Vec<Joined> = places.collect();
        places.sort_by_key(|joined| joined.members.is_empty());
        let generation = places[0].generation.0;
        let ids: Vec<MemberId> = places.into_iter().map(|joined| joined.member_id).collect();
        let all: Vec<&MemberId> = ids.iter().collect();
        for id in &ids {
            let call = host.call(Request::Sync(syncing(id, generation, &all)));
            let got = synced(host, call).unwrap().unwrap();
            assert_eq!(got.assignment, format!("for {id}"));
        }
        assert_eq!(state(host), GroupState::Stable);
        Self { ids, generation }
    }

    /// A member joins again, with something new to say.
    pub(crate) fn rejoin(&self, host: &mut Host, at: usize) -> CallId {
        let mut again = joining(Some(&self.ids[at]));
        again.protocols[0].metadata = said("t", "new");
        join(host, again)
    }

    pub(crate) fn beat(&self, host: &mut Host, at: usize) -> Result<(), GroupError> {
        beat(host, &self.ids[at], self.generation)
    }

    pub(crate) fn leave(&mut self, host: &mut Host, at: usize) {
        let id = self.ids.remove(at);
        assert_eq!(leave(host, &[(Some(id.as_str()), None)]), Ok(vec![Ok(())]));
    }
}
