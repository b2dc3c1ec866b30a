//! DescribeTopicPartitions and DescribeLogDirs.

use sapwood_kafka_wire::{
    Uuid,
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsRequestTopic, DescribeLogDirsResponse,
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsRequestCursor,
        DescribeTopicPartitionsRequestTopic, DescribeTopicPartitionsResponse,
    },
};

use super::error;
use crate::support::{Client, Server, batch};

async fn page(
    client: &mut Client,
    names: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsResponse {
    let request = DescribeTopicPartitionsRequest {
        topics: names
            .iter()
            .map(|name| DescribeTopicPartitionsRequestTopic {
                name: (*name).to_owned(),
            })
            .collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic, partition)| DescribeTopicPartitionsRequestCursor {
            topic_name: topic.to_owned(),
            partition_index: partition,
        }),
    };
    client.ask(0, &request).await
}

/// The partitions of each topic on a page.
fn shown(page: &DescribeTopicPartitionsResponse) -> Vec<(String, Vec<i32>)> {
    let topics = page.topics.iter();
    topics
        .map(|topic| {
            let partitions = topic.partitions.iter();
            let numbers = partitions.map(|partition| partition.partition_index);
            (topic.name.clone().unwrap(), numbers.collect())
        })
        .collect()
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_whatever_their_size() {
    let server = Server::start().await;
    for (name, partitions) in [("a", 3), ("b", 1), ("c", 5)] {
        server.create_with(name, partitions, &[]).await;
    }
    let mut client = server.connect().await;
    let whole = page(&mut client, &[], 2000, None).await;
    assert!(whole.next_cursor.is_none());
    let pairs = |page: &DescribeTopicPartitionsResponse| -> Vec<(String, i32)> {
        let topics = shown(page).into_iter();
        topics
            .flat_map(|(name, numbers)| numbers.into_iter().map(move |one| (name.clone(), one)))
            .collect()
    };
    assert_eq!(pairs(&whole).len(), 9);
    for limit in 1..=9 {
        let mut collected = Vec::new();
        let mut cursor: Option<(String, i32)> = None;
        loop {
            let from = cursor
                .as_ref()
                .map(|(topic, partition)| (topic.as_str(), *partition));
            let next = page(&mut client, &[], limit, from).await;
            let pairs = pairs(&next);
            assert!(
                (1..=limit as usize).contains(&pairs.len()),
                "{limit}: {next:?}"
            );
            collected.extend(pairs);
            assert!(collected.len() <= 9, "pages of {limit} go round in circles");
            match next.next_cursor {
                Some(next) => cursor = Some((next.topic_name, next.partition_index)),
                None => break,
            }
        }
        assert_eq!(collected, pairs(&whole), "pages of {limit}");
    }
    // A limit that means nothing still makes progress.
    let one = page(&mut client, &[], -5, None).await;
    assert_eq!(shown(&one), [("a".to_owned(), vec![0])]);
    // Cursors that lead nowhere end.
    let past = page(&mut client, &[], 10, Some(("c", 7))).await;
    assert!(past.next_cursor.is_none());
    assert!(
        page(&mut client, &[], 10, Some(("z", -3)))
            .await
            .topics
            .is_empty()
    );
}

#[tokio::test]
async fn topics_are_described_once_in_the_order_of_their_names() {
    let server = Server::start().await;
    let info = server.create_with("t", 2, &[]).await;
    let mut client = server.connect().await;
    let answer = page(&mut client, &["t", "nobody", "t", "no spaces"], 2000, None).await;
    let codes: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| (topic.name.as_deref().unwrap(), error(topic.error_code)))
        .collect();
    assert_eq!(
        codes,
        [
            ("no spaces", "INVALID_TOPIC_EXCEPTION"),
            ("nobody", "UNKNOWN_TOPIC_OR_PARTITION"),
            ("t", "NONE"),
        ]
    );
    let topic = &answer.topics[2];
    assert_eq!(topic.topic_id, Uuid(info.id.0));
    assert!(!topic.is_internal);
    let partition = &topic.partitions[1];
    // Each partition has an epoch of its own.
    assert_eq!((partition.leader_id, partition.leader_epoch), (1, 1));
    assert_eq!(
        (&partition.replica_nodes[..], &partition.isr_nodes[..]),
        (&[1][..], &[1][..])
    );
    assert!(partition.offline_replicas.is_empty());
}

async fn log_dirs(
    client: &mut Client,
    version: i16,
    topics: Option<&[(&str, &[i32])]>,
) -> DescribeLogDirsResponse {
    let topic = |(topic, partitions): &(&str, &[i32])| DescribeLogDirsRequestTopic {
        topic: (*topic).to_owned(),
        partitions: partitions.to_vec(),
    };
    let request = DescribeLogDirsRequest {
        topics: topics.map(|topics| topics.iter().map(topic).collect()),
    };
    client.ask(version, &request).await
}

#[tokio::test]
async fn the_data_directory_is_described_with_real_sizes() {
    let server = Server::start().await;
    server.create_with("a", 2, &[]).await;
    server.create("b", &[]).await;
    let mut client = server.connect().await;
    let records = batch(&["some", "records"]);
    let size = i64::try_from(records.len()).unwrap();
    assert_eq!(client.produce("a", records).await.error_code, 0);
    let space = server.broker.disk_space().unwrap();
    for version in 1..=4 {
        let answer = log_dirs(&mut client, version, None).await;
        assert_eq!(answer.error_code, 0);
        let [dir] = &answer.results[..] else {
            panic!("there is one directory");
        };
        assert!(std::path::Path::new(&dir.log_dir).is_absolute());
        let sizes: Vec<_> = dir
            .topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|one| (topic.name.as_str(), one.partition_index, one.partition_size))
            })
            .collect();
        assert_eq!(sizes, [("a", 0, size), ("a", 1, 0), ("b", 0, 0)]);
        if version >= 4 {
            assert_eq!(dir.total_bytes, i64::try_from(space.total_bytes).unwrap());
            assert!(dir.usable_bytes > 0 && dir.usable_bytes < dir.total_bytes);
        }
    }
    let some = log_dirs(
        &mut client,
        4,
        Some(&[("a", &[1, 7]), ("nobody", &[0]), ("a", &[1])]),
    )
    .await;
    let topics = &some.results[0].topics;
    assert_eq!(topics.len(), 1);
    assert_eq!(topics[0].partitions.len(), 1);
    assert_eq!(topics[0].partitions[0].partition_index, 1);
}
