//! The broker: as a process of its own, and in this one to be filled and opened again.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use sapwood_broker::{
    Broker, BrokerOptions, GroupCoordinator, NewTopic, Progress, StoreOptions,
    group::{Commit, CommitOffset, Committer},
};
use sapwood_kafka::{ConnectionInfo, Kafka, KafkaOptions};
use sapwood_model::{Offset, PartitionId, TopicName, TopicPartition};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use crate::{Failure, PARTITIONS, TOPIC};

const COMMITS: u64 = 1_000_000;
const KEYS: u64 = 100_000;
/// Each commit says something about so many partitions of a group.
const AT_ONCE: u32 = 10;
const CALLERS: u64 = 64;

/// A broker in a process of its own, which ends with this.
pub(crate) struct Server {
    pub(crate) address: String,
    child: Child,
}

impl Server {
    pub(crate) async fn start(directory: &str) -> Result<Self, Failure> {
        Self::run(&["serve", directory])
    }

    /// What only sends back what it gets.
    pub(crate) async fn start_echo() -> Result<Self, Failure> {
        Self::run(&["echo"])
    }

    fn run(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let address = address.trim().to_owned();
        Ok(Self { address, child })
    }

    /// Processor time of the process so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        cpu_seconds(&stat)
    }
}

fn cpu_seconds(stat: &str) -> Result<f64, Failure> {
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = 0_u32;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u32>()?;
    }
    // Linux counts hundredths of a second for user space.
    Ok(f64::from(ticks) / 100.0)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its input ends with this, and that ends it; here only nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until the input ends.
pub(crate) async fn serve(directory: &str) -> Result<(), Failure> {
    let broker = open(directory).await?;
    let kafka = Kafka::new(broker.clone(), KafkaOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let stop = watch::Sender::new(false);
    let accept = async {
        loop {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let info = ConnectionInfo {
                listener: "figures".into(),
                advertised: None,
                peer,
            };
            let (kafka, stop) = (kafka.clone(), stop.subscribe());
            tokio::spawn(async move { kafka.serve_connection(stream, info, stop).await });
        }
    };
    let ends = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        failed = accept => failed,
        _ = ends => Ok(()),
    }
}

/// Sends back what it gets until the input ends: the least that a server of connections can cost.
pub(crate) async fn echo() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let accept = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut bytes = [0; 512];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    };
    let ends = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        failed = accept => failed,
        _ = ends => Ok(()),
    }
}

/// A broker with the topic and its groups.
async fn open(directory: &str) -> Result<Broker, Failure> {
    let options = BrokerOptions::new(directory, StoreOptions::default());
    let broker = Broker::open(options, Arc::new(Progress::default())).await?;
    if broker.topic(TOPIC).is_none() {
        let topic = NewTopic {
            partitions: Some(PARTITIONS),
            ..NewTopic::named(TOPIC)
        };
        broker.create_topic(topic).await?;
    }
    broker.groups().prepare().await?;
    Ok(broker)
}

/// Writes a million records for 100,000 keys, and opens the directory again.
pub(crate) async fn replay(directory: &str) -> Result<(), Failure> {
    let broker = open(directory).await?;
    loaded(&broker).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let groups = broker.groups();
        callers.spawn(async move {
            let all = COMMITS / u64::from(AT_ONCE) / CALLERS;
            for number in 0..=all {
                let key = (caller * all + number) * u64::from(AT_ONCE) % KEYS;
                commit(&groups, key, number).await?;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(result) = callers.join_next().await {
        result??;
    }
    broker.drain_and_close().await?;
    drop(broker);
    let cpu = || cpu_seconds(&std::fs::read_to_string("/proc/self/stat")?);
    let (began, before) = (Instant::now(), cpu()?);
    let broker = open(directory).await?;
    let opened = began.elapsed();
    loaded(&broker).await;
    println!(
        "replayed {} records in {:.2?} behind an open of {opened:.2?}; {:.2} s of processor time",
        broker.groups().load_progress().replayed,
        began.elapsed() - opened,
        cpu()? - before
    );
    Ok(())
}

async fn loaded(broker: &Broker) {
    while broker.groups().load_progress().loading > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn commit(groups: &GroupCoordinator, key: u64, offset: u64) -> Result<(), Failure> {
    let topic = TopicName::new(TOPIC)?;
    let first = u32::try_from(key % 100)?;
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
        group: format!("group-{}", key / 100).into(),
        by: Committer::Alone,
        offsets: (first..first + AT_ONCE).map(offset).collect(),
    };
    for result in groups.commit(commit).await? {
        result?;
    }
    Ok(())
}
