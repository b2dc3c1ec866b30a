//! Producer and consumer through a proxy that cuts connections at random places, in the middle of
//! requests and of answers, while requests may still arrive from a connection that is gone for the
//! client.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::Server;
use sapwood_client::{Client, NewTopic, PartitionId, Position, Record};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// Listens, and passes on between clients and `to`; each connection for a random number of bytes.
struct Proxy {
    address: SocketAddr,
    cuts: Arc<AtomicU64>,
}

fn random(state: &AtomicU64, bound: u64) -> u64 {
    let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % bound
}

impl Proxy {
    async fn start(to: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            let state = AtomicU64::new(seed);
            // The first connection lasts long enough to begin.
            let mut limit = 20_000;
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(to).await.unwrap();
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                let allowed = std::mem::replace(&mut limit, 200 + random(&state, 30_000));
                // Either direction may be the one that is cut first; the other goes on for a while.
                let passed = Arc::new(AtomicU64::new(0));
                for (from, into) in [(client_reads, server_writes), (server_reads, client_writes)] {
                    let (passed, counted) = (Arc::clone(&passed), Arc::clone(&counted));
                    tokio::spawn(async move {
                        pass(from, into, &passed, allowed).await;
                        counted.fetch_add(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Self { address, cuts }
    }
}

async fn pass(mut from: OwnedReadHalf, mut into: OwnedWriteHalf, passed: &AtomicU64, limit: u64) {
    let mut buffer = [0; 700];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = passed.fetch_add(count as u64, Ordering::Relaxed);
        let allowed = limit.saturating_sub(before).min(count as u64) as usize;
        if into.write_all(&buffer[..allowed]).await.is_err() || allowed < count {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_arrive_once_in_order_however_connections_are_cut() {
    for seed in [1, 2, 3, 4] {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let direct = Client::new(&server.address.to_string()).unwrap();
        let new = NewTopic::new("t")
            .partitions(2)
            .config("max.message.bytes", "2000");
        direct.admin().create_topic(&new).await.unwrap();
        let proxy = Proxy::start(server.address, seed).await;
        let client = Client::new(&proxy.address.to_string()).unwrap();

        let builder = client
            .producer()
            .batch_bytes(600)
            .linger(Duration::from_millis(1));
        let producer = builder.build().await.unwrap();
        let consumer = client.consumer().topic("t", Position::Start, None);
        let mut consumer = consumer.prefetch_bytes(4000).build().await.unwrap();

        let mut receipts = Vec::new();
        let mut written = [0u32; 2];
        for n in 0..4000u32 {
            let partition = n % 2;
            // Some are refused for good, in the middle of all this.
            let is_bad = n % 500 == 499;
            let value = if is_bad {
                "x".repeat(3000)
            } else {
                format!("{n:06}")
            };
            let record = Record::to("t")
                .partition(PartitionId(partition))
                .value(value);
            receipts.push((is_bad, producer.send(record).await.unwrap()));
            written[partition as usize] += u32::from(!is_bad);
            if n % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        for (is_bad, receipt) in receipts {
            assert_eq!(receipt.await.is_err(), is_bad);
        }
        assert!(producer.close().await.is_err(), "the bad ones");

        let mut last = [None; 2];
        for _ in 0..written[0] + written[1] {
            let message = consumer.next().await.expect("more to come").unwrap();
            let number: u32 = std::str::from_utf8(message.value.as_ref().unwrap())
                .unwrap()
                .parse()
                .unwrap();
            let last = &mut last[message.partition.0 as usize];
            assert!(last.is_none_or(|(offset, before)| {
                message.offset.0 == offset + 1 && number > before
            }));
            *last = Some((message.offset.0, number));
        }
        for partition in 0..2 {
            let bounds = direct
                .admin()
                .bounds("t", PartitionId(partition))
                .await
                .unwrap();
            assert_eq!(bounds.log_end.0, u64::from(written[partition as usize]));
        }
        assert!(
            proxy.cuts.load(Ordering::Relaxed) > 10,
            "hardly anything was cut"
        );
        drop(consumer);
        server.stop().await;
    }
}
