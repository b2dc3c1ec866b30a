//! Which partition a group is in, and what a crash leaves of its offsets.

use std::{path::Path, sync::Arc};

use sapwood_group::{Commit, CommitOffset, Committer, FetchOffsets};
use sapwood_log::{StoreOptions, io::TailKind};
use sapwood_model::{Offset, PartitionId, TopicName, TopicPartition};
use sapwood_sim::Machine as Computer;

use super::{TOPIC, partition_of};
use crate::{Broker, BrokerOptions, NewTopic, catalog::Command, registry::TopicRef};

#[test]
fn a_group_is_in_the_partition_that_kafkas_hash_gives() {
    // "a" is 97, "ab" is 97 * 31 + 98; the others were worked out with another program.
    for (group, partition) in [
        ("", 0),
        ("a", 97 % 16),
        ("ab", 3105 % 16),
        ("my-consumer-group", 9),
        ("console-consumer-12345", 2),
        // The least hash there is, which counts as 0.
        ("polygenelubricants", 0),
        // Outside of the basic plane: two units.
        ("\u{1fab5}", (0xd83e * 31 + 0xdeb5) % 16),
        // A negative hash.
        ("invoice-writer", 13),
    ] {
        assert_eq!(partition_of(&group.into(), 16), partition, "{group:?}");
    }
}

async fn open(computer: &Computer) -> Broker {
    let store = StoreOptions {
        ballast_bytes: 128 << 10,
        journal_file_bytes: 1 << 20,
        journal_files: 2,
        boot_id: computer.disk.boot_id(),
        tail: Some(TailKind::Mmap),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(Path::new("/data"), store);
    let opened = Broker::open_in(computer.environment(), options, Arc::default()).await;
    let broker = opened.unwrap();
    while broker.groups().load_progress().loading > 0 {
        tokio::task::yield_now().await;
    }
    broker
}

async fn commit(broker: &Broker, offset: u64) {
    let commit = Commit {
        group: "g".into(),
        by: Committer::Alone,
        offsets: vec![CommitOffset {
            partition: TopicPartition {
                topic: TopicName::new("t").unwrap(),
                partition: PartitionId(0),
            },
            offset: Offset(offset),
            leader_epoch: None,
            metadata: "".into(),
            expire_timestamp: None,
        }],
    };
    assert_eq!(broker.groups().commit(commit).await.unwrap(), [Ok(())]);
}

async fn committed(broker: &Broker) -> Vec<u64> {
    let all = FetchOffsets {
        group: "g".into(),
        by: None,
        partitions: None,
    };
    let fetched = broker.groups().fetch_offsets(all).await.unwrap();
    let offsets = fetched.into_iter().filter_map(|one| one.committed);
    offsets.map(|committed| committed.offset.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_before_a_crash_has_none_of_the_old_ones_offsets() {
    let computer = Computer::new(1);
    let broker = open(&computer).await;
    broker.create_topic(NewTopic::named("t")).await.unwrap();
    broker.groups().prepare().await.unwrap();
    commit(&broker, 5).await;
    // A deletion that gets no further than its record, and then the crash would come; but the name is
    // taken again before that.
    let core = broker.core.clone();
    let deleted = tokio::task::spawn_blocking(move || {
        let topic = core.registry.find(TopicRef::Name("t")).unwrap();
        let command = Command::DeleteTopic { topic: topic.id };
        core.catalog.propose(command).unwrap();
        core.registry.remove(&topic);
    });
    deleted.await.unwrap();
    assert_eq!(committed(&broker).await, [], "a topic that is gone");
    broker.create_topic(NewTopic::named("t")).await.unwrap();
    assert_eq!(committed(&broker).await, [], "another topic of the name");

    let survivor = computer.fork();
    survivor.disk.kill();
    let broker = open(&survivor).await;
    let partition = broker.groups().partition(&"g".into());
    let end = || broker.bounds(TOPIC, partition).unwrap().log_end;
    assert_eq!(committed(&broker).await, []);
    assert_eq!(end(), Offset(2), "the commit and its tombstone");
    commit(&broker, 6).await;
    let survivor = survivor.fork();
    survivor.disk.kill();
    let broker = open(&survivor).await;
    assert_eq!(committed(&broker).await, [6]);
    assert_eq!(
        broker.bounds(TOPIC, partition).unwrap().log_end,
        Offset(3),
        "nothing more to remove"
    );
}
