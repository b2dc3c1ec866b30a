//! Random records, round and round.

use std::hash::{BuildHasher, RandomState};

use sapwood_group::{
    ClassicMemberMetadata, ClassicMetadata, CommittedOffset, ConsumerMetadata, CurrentAssignment,
    Epoch, Generation, MemberMetadata, MemberState, Partitions, Record, ResolvedRegex,
};
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_sim::Rng;

use super::{super::encode, AT, decode, name, read};

fn seed() -> u64 {
    let seed = match std::env::var("SAPWOOD_TEST_SEED") {
        Ok(text) => text.parse().expect("SAPWOOD_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0) % 1_000_000_007,
    };
    eprintln!("SAPWOOD_TEST_SEED={seed}");
    seed
}

/// Random fields of records.
struct Source(Rng);

impl Source {
    fn text(&mut self) -> String {
        let length = self.0.below(200);
        (0..length)
            .map(|_| *self.0.pick(&['a', '.', 'é', '木', '\0']))
            .collect()
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.0.chance(1, 2).then(|| make(self))
    }

    fn u31(&mut self) -> u32 {
        u32::try_from(self.0.below(1 << 31)).unwrap()
    }

    fn time(&mut self) -> Timestamp {
        Timestamp(self.0.below(1 << 60).cast_signed())
    }

    fn topic(&mut self) -> TopicName {
        name(&format!("t{}", self.0.below(1 << 40)))
    }

    fn partitions(&mut self) -> Partitions {
        let count = self.0.below(200);
        let mut pair = |_| {
            (
                TopicId(self.0.below(5).into()),
                PartitionId(u32::try_from(self.0.below(1000)).unwrap()),
            )
        };
        (0..count).map(&mut pair).collect()
    }

    fn blob(&mut self) -> bytes::Bytes {
        (0..self.0.below(300))
            .map(|byte| byte.to_be_bytes()[7])
            .collect()
    }

    fn record(&mut self) -> Record {
        let group = self.text().into();
        match self.0.below(8) {
            0 => Record::Offset {
                group,
                topic: self.topic(),
                partition: PartitionId(self.u31()),
                value: self.some(Self::offset),
            },
            1 => Record::Classic {
                group,
                value: self.some(Self::classic),
            },
            2 => {
                let epoch = Epoch(self.u31());
                let metadata_hash = self.0.next_u64();
                let value = self.some(|_| ConsumerMetadata {
                    epoch,
                    metadata_hash,
                    changed_at: AT,
                });
                Record::Consumer { group, value }
            }
            3 => Record::Member {
                group,
                member: self.text().into(),
                value: self.some(Self::member),
            },
            4 => Record::Target {
                group,
                value: self.some(|source| Epoch(source.u31())),
            },
            5 => Record::TargetMember {
                group,
                member: self.text().into(),
                value: self.some(Self::partitions),
            },
            6 => Record::Current {
                group,
                member: self.text().into(),
                value: self.some(Self::current),
            },
            _ => Record::Regex {
                group,
                regex: self.text().into(),
                value: self.some(|source| ResolvedRegex {
                    topics: (0..source.0.below(4)).map(|_| source.topic()).collect(),
                    version: source.0.below(1 << 63),
                    timestamp: source.time(),
                }),
            },
        }
    }

    fn offset(&mut self) -> CommittedOffset {
        let leader_epoch = self.some(|source| LeaderEpoch(source.u31()));
        let topic_id = self.some(|source| TopicId(u128::from(source.0.next_u64()) + 1));
        let bare = leader_epoch.is_none() && topic_id.is_none();
        let expire_timestamp = self.some(Self::time).filter(|_| bare);
        CommittedOffset {
            topic_id,
            offset: Offset(self.0.below(1 << 63)),
            leader_epoch,
            metadata: self.text().into(),
            commit_timestamp: self.time(),
            expire_timestamp,
        }
    }

    fn classic(&mut self) -> ClassicMetadata {
        let members = self.0.below(4);
        ClassicMetadata {
            protocol_type: self.text().into(),
            generation: Generation(self.u31()),
            protocol: self.some(|source| source.text().into()),
            leader: self.some(|source| source.text().into()),
            current_state_timestamp: self.some(Self::time),
            members: (0..members)
                .map(|_| ClassicMemberMetadata {
                    member_id: self.text().into(),
                    instance_id: self.some(|source| source.text().into()),
                    client_id: self.text().into(),
                    client_host: self.text().into(),
                    rebalance_timeout_ms: self.u31(),
                    session_timeout_ms: self.u31(),
                    subscription: self.blob(),
                    assignment: self.blob(),
                })
                .collect(),
        }
    }

    fn member(&mut self) -> MemberMetadata {
        MemberMetadata {
            instance_id: self.some(|source| source.text().into()),
            rack_id: self.some(|source| source.text().into()),
            client_id: self.text().into(),
            client_host: self.text().into(),
            subscribed_topic_names: (0..self.0.below(200)).map(|_| self.topic()).collect(),
            subscribed_topic_regex: self.some(|source| source.text().into()),
            rebalance_timeout_ms: self.u31(),
            server_assignor: self.some(|source| source.text().into()),
        }
    }

    fn current(&mut self) -> CurrentAssignment {
        let states = [
            MemberState::Stable,
            MemberState::UnrevokedPartitions,
            MemberState::UnreleasedPartitions,
        ];
        CurrentAssignment {
            member_epoch: self.some(|source| Epoch(source.u31())),
            previous_member_epoch: Epoch(self.u31()),
            state: *self.0.pick(&states),
            assigned: self.partitions(),
            pending_revocation: self.partitions(),
        }
    }
}

#[test]
fn random_records_come_back_as_they_were_and_damaged_ones_never_panic() {
    let mut source = Source(Rng::new(seed()));
    for _ in 0..2_000 {
        let record = source.record();
        let (mut key, mut value) = encode(&record).unwrap();
        assert_eq!(read(&key, value.as_deref()).unwrap(), record);
        let at = source.0.below(key.len() as u64) as usize;
        key[at] ^= 1 << source.0.below(8);
        let _ = decode(Some(&key), value.as_deref());
        key[at] = source.0.below(256).to_be_bytes()[7];
        if let Some(value) = &mut value {
            let at = source.0.below(value.len() as u64) as usize;
            value[at] ^= 1 << source.0.below(8);
        }
        let _ = decode(Some(&key), value.as_deref());
    }
}
