//! What consumer groups cost a broker, over real sockets with Kafka's protocol.
//!
//! ```sh
//! cargo run --release -p sapwood-kafka --example group_figures -- FIGURE ./an-empty-folder
//! ```
//!
//! `FIGURE` is one of
//! - `settle`: a group of 100 members over 1,000 partitions, into which a member comes and from which
//!   it goes: how long that takes from the last message that members have to send;
//! - `beats`: 1,000 members that stay, with the usual intervals: the broker's processor time, and that
//!   of a server that only sends back what it gets;
//! - `commits`: 64 connections that commit, each waiting for its answer; as fast as they can, and at
//!   20,000 a second: the broker's processor time;
//! - `replay`: a million records for 100,000 keys, read at the start;
//! - `others`: events in a group among 10, 1,000 and 100,000 groups.
//!
//! The broker is a process of its own, so that its processor time is its own.
//!
//! On a virtual machine of 2 cores of an EPYC with ext4, broker and clients on the same cores:
//! a join or a leave settles in 3 to 5 ms (classic) and in 4 to 14 ms with 3 to 6 rounds of heartbeats
//! (KIP-848); 1.5 % of a core for KIP-848's heartbeats and 1.9 % for the classic ones where an echo takes
//! 0.6 and 1.0 % (beside builds 2.1 to 2.9 %); 20,000 commits a second with 0.48 cores, and up to 55,400
//! with 1.1; 1,000,320 records replayed in 0.22 s; the same nanoseconds for an event among 10 and 100,000
//! groups.

mod client;
mod machine;
mod server;

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use sapwood_kafka_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use client::{Classic, Client, Consumer};
use server::Server;

/// What everybody reads.
pub(crate) const TOPIC: &str = "topic";
/// How many partitions it has.
pub(crate) const PARTITIONS: u32 = 1_000;

const CONNECTIONS: u32 = 64;
/// The rate that has to be had for one core.
const COMMITS_A_SECOND: u32 = 20_000;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let figure = arguments.next().ok_or("name a figure")?;
    let directory = arguments.next().unwrap_or_default();
    if !["others", "echo"].contains(&figure.as_str()) && directory.is_empty() {
        return Err("name an empty folder".into());
    }
    match figure.as_str() {
        "serve" => server::serve(&directory).await,
        "echo" => server::echo().await,
        "settle" => settle(&Server::start(&directory).await?).await,
        "beats" => beats(&Server::start(&directory).await?).await,
        "commits" => commits(&Server::start(&directory).await?).await,
        "replay" => server::replay(&directory).await,
        "others" => machine::others(),
        other => Err(format!("there is no figure {other:?}").into()),
    }
}

/// Does something with everybody at once.
async fn all<M, F, T>(members: Vec<M>, act: impl Fn(M) -> F) -> Result<Vec<(M, T)>, Failure>
where
    M: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<(M, T), Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for member in members {
        tasks.spawn(act(member));
    }
    let mut done = Vec::new();
    while let Some(result) = tasks.join_next().await {
        done.push(result??);
    }
    Ok(done)
}

/// Everybody joins and syncs; how long that took from the last join on.
async fn gather(members: Vec<Classic>) -> Result<(Vec<Classic>, Duration), Failure> {
    let entered = all(members, |mut member: Classic| async move {
        let entered = member.enter(PARTITIONS).await?;
        Ok((member, (entered, Instant::now())))
    });
    let entered = entered.await?;
    let times = entered.iter().map(|(_, ((sent, _), done))| (*sent, *done));
    let last = times.clone().map(|(sent, _)| sent).max();
    let done = times.map(|(_, done)| done).max();
    let took = done.zip(last).map(|(done, last)| done - last);
    let members = entered.into_iter().map(|(member, _)| member).collect();
    Ok((members, took.unwrap_or_default()))
}

/// Everybody's heartbeats; whether all of them say that the group rebalances.
async fn hear(members: Vec<Classic>) -> Result<Vec<Classic>, Failure> {
    let heard = all(members, |mut member: Classic| async move {
        let heard = member.beat().await?;
        Ok((member, heard))
    });
    let heard = heard.await?;
    if heard.iter().any(|(_, heard)| !heard) {
        return Err("a member was not told of the rebalance".into());
    }
    Ok(heard.into_iter().map(|(member, _)| member).collect())
}

async fn settle(server: &Server) -> Result<(), Failure> {
    let mut members = Vec::new();
    for _ in 0..100 {
        members.push(Classic::connect(&server.address, "classic").await?);
    }
    // The first generation waits for more to come.
    let (mut members, _) = gather(members).await?;
    for round in 1..=3 {
        let mut newcomer = Classic::connect(&server.address, "classic").await?;
        let newcomer = tokio::spawn(async move {
            let entered = newcomer.enter(PARTITIONS).await?;
            Ok::<_, Failure>((newcomer, entered, Instant::now()))
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        members = hear(members).await?;
        let took;
        (members, took) = gather(members).await?;
        let (mut leaver, _, _) = newcomer.await??;
        println!("classic, round {round}: a join settles in {took:.1?}");
        leaver.leave().await?;
        members = hear(members).await?;
        let took;
        (members, took) = gather(members).await?;
        println!("classic, round {round}: a leave settles in {took:.1?}");
    }

    let mut members = Vec::new();
    for number in 0..100 {
        let id = format!("member-{number}");
        members.push(Consumer::connect(&server.address, "consumer", id).await?);
    }
    (members, _) = reconcile(members).await?;
    for round in 1..=3 {
        let id = format!("newcomer-{round}");
        members.push(Consumer::connect(&server.address, "consumer", id).await?);
        let took;
        (members, took) = reconcile(members).await?;
        println!("KIP-848, round {round}: a join, {took}");
        let mut leaver = members.remove(0);
        leaver.leave().await?;
        let took;
        (members, took) = reconcile(members).await?;
        println!("KIP-848, round {round}: a leave, {took}");
    }
    Ok(())
}

/// Heartbeats until everybody has what it is to have, all members at once and one round after the
/// other, as if their intervals were nothing.
async fn reconcile(mut members: Vec<Consumer>) -> Result<(Vec<Consumer>, String), Failure> {
    let began = Instant::now();
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    loop {
        let beaten = all(members, |mut member: Consumer| async move {
            let sent = Instant::now();
            let moved = member.beat().await?;
            Ok((member, (moved, sent.elapsed())))
        });
        let beaten = beaten.await?;
        rounds += 1;
        let times = beaten.iter().map(|(_, (_, took))| *took);
        slowest = times.max().unwrap_or_default().max(slowest);
        let moved = beaten.iter().any(|(_, (moved, _))| *moved);
        members = beaten.into_iter().map(|(member, _)| member).collect();
        let owned: usize = members.iter().map(Consumer::owned).sum();
        let epochs = members.iter().map(|member| member.epoch);
        let same = epochs.clone().min() == epochs.max();
        if !moved && same && owned == PARTITIONS as usize {
            let all = began.elapsed();
            let took = format!(
                "{rounds} rounds of heartbeats in {all:.1?}, the slowest answer {slowest:.1?}"
            );
            return Ok((members, took));
        }
    }
}

async fn beats(server: &Server) -> Result<(), Failure> {
    const MEMBERS: u32 = 1_000;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let id = format!("member-{number}");
        members.push(Consumer::connect(&server.address, "consumer", id).await?);
    }
    let members = reconcile(members).await?.0;
    let interval = Duration::from_secs(5);
    let cores = steady(server, members, interval, |mut member| async move {
        let moved = member.beat().await?;
        Ok((member, moved))
    });
    println!(
        "KIP-848: 1,000 members every 5 s, {:.2} % of a core",
        cores.await? * 100.0
    );
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Classic::connect(&server.address, "classic").await?);
    }
    let members = gather(members).await?.0;
    let interval = Duration::from_secs(3);
    let cores = steady(server, members, interval, |mut member| async move {
        let moved = member.beat().await?;
        Ok((member, moved))
    });
    println!(
        "classic: 1,000 members every 3 s, {:.2} % of a core",
        cores.await? * 100.0
    );
    for seconds in [5, 3] {
        println!(
            "the same from a server that only sends back what it gets, every {seconds} s: {:.2} %",
            echoes(Duration::from_secs(seconds)).await? * 100.0
        );
    }
    Ok(())
}

/// What a thousand connections cost that send something now and then, in cores: the part of a heartbeat
/// that is the machine's.
async fn echoes(interval: Duration) -> Result<f64, Failure> {
    const CONNECTIONS: usize = 1_000;
    const HEARTBEAT_BYTES: usize = 80;
    let server = Server::start_echo().await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(&server.address).await?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let beat = |mut stream: TcpStream| async move {
        let mut bytes = [7; HEARTBEAT_BYTES];
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        Ok((stream, false))
    };
    steady(&server, connections, interval, beat).await
}

/// Has everybody do something in each interval, one after the other; says how many cores that takes
/// the broker.
async fn steady<M, F>(
    server: &Server,
    members: Vec<M>,
    interval: Duration,
    act: impl Fn(M) -> F + Copy + Send + 'static,
) -> Result<f64, Failure>
where
    M: Send + 'static,
    F: Future<Output = Result<(M, bool), Failure>> + Send,
{
    const INTERVALS: u32 = 4;
    let count = u32::try_from(members.len())?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (place, mut member) in (0..).zip(members) {
        tasks.spawn(async move {
            for round in 0..=INTERVALS {
                let at = interval * round + interval * place / count;
                tokio::time::sleep_until((began + at).into()).await;
                let moved;
                (member, moved) = act(member).await?;
                if moved && round > 0 {
                    return Err("the group was not settled".into());
                }
            }
            Ok::<(), Failure>(())
        });
    }
    // The first interval warms it up.
    tokio::time::sleep_until((began + interval).into()).await;
    let (from, cpu) = (Instant::now(), server.cpu_seconds()?);
    tokio::time::sleep_until((began + interval * INTERVALS).into()).await;
    let cores = (server.cpu_seconds()? - cpu) / from.elapsed().as_secs_f64();
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(cores)
}

async fn commits(server: &Server) -> Result<(), Failure> {
    for pace in [None, Some(COMMITS_A_SECOND)] {
        let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
        let mut tasks = JoinSet::new();
        for number in 0..CONNECTIONS {
            let address = server.address.clone();
            tasks.spawn(async move { committer(&address, number, began, pace).await });
        }
        let (mut commits, mut slowest) = (0_u64, Duration::ZERO);
        while let Some(result) = tasks.join_next().await {
            let (made, slow) = result??;
            commits += made;
            slowest = slowest.max(slow);
        }
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{:.0} commits a second of {CONNECTIONS} connections ({}), {:.2} cores, the slowest \
             answer {slowest:.1?}",
            commits as f64 / seconds,
            pace.map_or("as fast as they can".to_owned(), |pace| format!(
                "{pace} a second asked for"
            )),
            (server.cpu_seconds()? - cpu) / seconds
        );
    }
    Ok(())
}

/// Commits for ten seconds, one after the other.
async fn committer(
    address: &str,
    number: u32,
    began: Instant,
    pace: Option<u32>,
) -> Result<(u64, Duration), Failure> {
    let mut client = Client::connect(address).await?;
    let (mut commits, mut slowest) = (0_u32, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(10) {
        if let Some(pace) = pace {
            let due = Duration::from_secs(1) * CONNECTIONS * commits / pace;
            tokio::time::sleep_until((began + due).into()).await;
        }
        let request = OffsetCommitRequest {
            group_id: format!("committer-{number}"),
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: i32::try_from(number)?,
                    committed_offset: i64::from(commits),
                    ..OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        let sent = Instant::now();
        let answer = client.ask(8, &request).await?;
        slowest = slowest.max(sent.elapsed());
        if answer.topics[0].partitions[0].error_code != 0 {
            return Err(format!("a commit was refused: {answer:?}").into());
        }
        commits += 1;
    }
    Ok((commits.into(), slowest))
}
