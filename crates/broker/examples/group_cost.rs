//! What committed offsets cost: commits a second of 64 callers with fsync, and the replay of a
//! million of them for 100,000 keys.
//!
//! ```sh
//! cargo run --release -p sapwood-broker --example group_cost -- ./an-empty-folder
//! ```
//!
//! On 2 cores of an EPYC (Zen 4) with ext4, not otherwise idle: 63,000 to 96,000 commits a second with
//! 0.5 to 0.7 cores, and 1,316,184 records replayed in 0.40 s.

use std::{
    env,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use sapwood_broker::{
    Broker, BrokerOptions, GroupCoordinator, NewTopic, Progress, StoreOptions,
    group::{Commit, CommitOffset, Committer},
};
use sapwood_model::{Code, Offset, PartitionId, TopicName, TopicPartition};

const CALLERS: u32 = 64;
const SECONDS: u64 = 5;
const COMMITS: u64 = 1_000_000;
const KEYS: u64 = 100_000;
/// Partitions of the topic: keys are so many groups times these.
const PARTITIONS: u32 = 100;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = env::args().nth(1).ok_or("name an empty folder")?;
    let broker = open(&directory).await?;
    broker
        .create_topic(NewTopic {
            partitions: Some(PARTITIONS),
            ..NewTopic::named("topic")
        })
        .await?;
    broker.groups().prepare().await?;
    loaded(&broker).await;

    let (began, cpu) = (Instant::now(), cpu_seconds());
    let until = began + Duration::from_secs(SECONDS);
    let caller = move |groups: GroupCoordinator, number: u32| async move {
        let mut commits = 0_u64;
        while Instant::now() < until {
            let group = format!("caller-{number}");
            commit(&groups, group, number, 1, commits).await?;
            commits += 1;
        }
        Ok::<u64, Failure>(commits)
    };
    let callers = (0..CALLERS).map(|number| tokio::spawn(caller(broker.groups(), number)));
    let mut commits = 0;
    for caller in callers.collect::<Vec<_>>() {
        commits += caller.await??;
    }
    println!(
        "{:.0} commits a second of {CALLERS} callers, {:.2} cores",
        commits as f64 / began.elapsed().as_secs_f64(),
        (cpu_seconds() - cpu) / began.elapsed().as_secs_f64()
    );

    // A million records: each commit says something about 10 partitions of a group.
    let fill = |groups: GroupCoordinator, caller: u64| async move {
        let all = COMMITS / 10 / u64::from(CALLERS);
        for number in 0..=all {
            let key = (caller * all + number) * 10 % KEYS;
            let group = format!("group-{}", key / u64::from(PARTITIONS));
            let first = u32::try_from(key % u64::from(PARTITIONS))?;
            commit(&groups, group, first, 10, number).await?;
        }
        Ok::<(), Failure>(())
    };
    let callers = (0..CALLERS).map(|caller| tokio::spawn(fill(broker.groups(), caller.into())));
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    broker.drain_and_close().await?;
    drop(broker);

    let broker = open(&directory).await?;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    loaded(&broker).await;
    println!(
        "replayed {} records in {:.2} s, {:.2} s of processor time",
        broker.groups().load_progress().replayed,
        began.elapsed().as_secs_f64(),
        cpu_seconds() - cpu
    );
    Ok(())
}

async fn open(directory: &str) -> Result<Broker, Failure> {
    let options = BrokerOptions::new(directory, StoreOptions::default());
    let began = Instant::now();
    loop {
        match Broker::open(options.clone(), Arc::new(Progress::default())).await {
            // The tasks of the broker before may need a moment to let go of the directory.
            Err(e) if e.code() == Code::DirectoryInUse && began.elapsed().as_secs() < 10 => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            opened => return Ok(opened?),
        }
    }
}

async fn loaded(broker: &Broker) {
    while broker.groups().load_progress().loading > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn commit(
    groups: &GroupCoordinator,
    group: String,
    first: u32,
    count: u32,
    offset: u64,
) -> Result<(), Failure> {
    let topic = TopicName::new("topic")?;
    let offset = |partition| CommitOffset {
        partition: TopicPartition {
            topic: topic.clone(),
            partition: PartitionId(partition),
        },
        offset: Offset(offset),
        leader_epoch: None,
        metadata: "".into(),
        expire_timestamp: None,
    };
    let commit = Commit {
        group: group.into(),
        by: Committer::Alone,
        offsets: (first..first + count).map(offset).collect(),
    };
    for result in groups.commit(commit).await? {
        result?;
    }
    Ok(())
}

/// Processor time of this process so far; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // Linux counts hundredths of a second for user space.
    ticks as f64 / 100.0
}
