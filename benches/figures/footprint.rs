//! Start, idle time, memory and size.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use sapwood_client::{Assignment, NewTopic, PartitionId, Position};
use tempfile::TempDir;

use crate::{
    Outcome,
    broker::{Broker, command},
    table::{Table, Target, median},
};

const PARTITIONS: u32 = 1000;
const WAITING: u32 = 100;
const IDLE: Duration = Duration::from_secs(20);
const START_LIMIT: Duration = Duration::from_secs(30);

/// From the start of the process with an empty directory to `/readyz` 200.
pub(crate) async fn start(binary: &Path, rounds: usize, table: &mut Table) -> Outcome<()> {
    let mut times = Vec::new();
    for _ in 0..rounds.max(5) {
        times.push(start_once(binary)?);
    }
    table.add(
        "start with an empty directory to /readyz 200",
        median(times),
        "ms",
        Target::Max(50.0),
    );
    Ok(())
}

fn start_once(binary: &Path) -> Outcome<f64> {
    let folder = TempDir::with_prefix("sapwood-figures-")?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let data_dir = folder.path().join("data");
    let mut command = command(binary, &data_dir, &address.to_string());
    let started = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let ready = loop {
        if is_ready(address).unwrap_or(false) {
            break Ok(started.elapsed().as_secs_f64() * 1e3);
        }
        if started.elapsed() > START_LIMIT {
            break Err("the broker does not become ready".into());
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    child.kill()?;
    child.wait()?;
    ready
}

fn is_ready(address: std::net::SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// CPU time and memory of a broker that does nothing, with partitions and readers that wait.
pub(crate) async fn idle(binary: &Path, table: &mut Table) -> Outcome<()> {
    let broker = Broker::start(binary)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.add(
        "idle RssAnon, empty",
        broker.rss_anon_mb()?,
        "MB",
        Target::Max(20.0),
    );
    let client = broker.client()?;
    client
        .admin()
        .create_topic(&NewTopic::new("idle").partitions(PARTITIONS))
        .await?;
    let mut waiting = Vec::new();
    for reader in 0..WAITING {
        // A connection of its own for each, as with a hundred programs.
        let mut consumer = broker.client()?.consumer();
        for partition in (reader..PARTITIONS).step_by(WAITING as usize) {
            let assignment = Assignment::new("idle", PartitionId(partition));
            consumer = consumer.assign(assignment.from(Position::End));
        }
        let mut consumer = consumer.build().await?;
        waiting.push(tokio::spawn(async move { consumer.next().await }));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = broker.cpu_seconds()?;
    tokio::time::sleep(IDLE).await;
    let percent = (broker.cpu_seconds()? - before) / IDLE.as_secs_f64() * 100.0;
    if let Some(ended) = waiting
        .iter()
        .position(tokio::task::JoinHandle::is_finished)
    {
        return Err(format!("reader {ended} did not wait").into());
    }
    table.add(
        "idle CPU over 20 s, 1,000 partitions, 100 waiting readers",
        percent,
        "%",
        Target::Max(0.1),
    );
    let rss = broker.rss_anon_mb()?;
    table.add(
        "idle RssAnon, 1,000 partitions, 100 waiting readers",
        rss,
        "MB",
        Target::None,
    );
    Ok(())
}

/// The binary on disk.
pub(crate) fn size(binary: &Path, table: &mut Table) -> Outcome<()> {
    let mb = fs::metadata(binary)?.len() as f64 / 1e6;
    table.add("size of the stripped binary", mb, "MB", Target::Max(20.0));
    Ok(())
}
