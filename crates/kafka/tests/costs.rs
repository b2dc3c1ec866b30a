//! What requests allocate, and what connections cost that do nothing.

#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.
#![allow(unsafe_code)] // An allocator that counts can only be written with it.

// The other test binary uses the rest of it.
#[allow(dead_code)]
#[path = "it/support/mod.rs"]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use sapwood_kafka_wire::messages::{FetchRequest, FetchRequestTopic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{
    Client, Server, batch,
    client::{fetch, frame, from, produce, produce_to},
    until,
};

/// Bytes of the whole process.
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Allocations of this thread, on which a test's broker runs its connections.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        LIVE_BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        LIVE_BYTES.fetch_add(size, Relaxed);
        LIVE_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests measure the process: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const CONNECTIONS: usize = 1000;

/// The allocations of one produce request, client included; the median of many.
async fn allocations_of_a_produce(server: &Server, records: usize) -> usize {
    let texts = vec!["x".repeat(100); records];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let request = frame(1, 9, &produce("t", batch(&texts)));
    let mut client = server.connect().await;
    let mut answer = [0; 1024];
    let mut counts = Vec::with_capacity(50);
    for _ in 0..50 {
        let before = ALLOCATIONS.get();
        client.stream.write_all(&request).await.unwrap();
        let read = client.stream.read(&mut answer).await.unwrap();
        counts.push(ALLOCATIONS.get() - before);
        // Length, correlation id, tags, one topic "t", one partition 0, no error.
        assert_eq!(
            answer[4..read][..15],
            [0, 0, 0, 1, 0, 2, 2, b't', 2, 0, 0, 0, 0, 0, 0]
        );
    }
    counts.sort_unstable();
    counts[counts.len() / 2]
}

#[tokio::test]
async fn a_produce_allocates_nothing_for_a_record() {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    server
        .create(
            "t",
            &[("durability", "os"), ("max.message.bytes", "10000000")],
        )
        .await;
    let few = allocations_of_a_produce(&server, 100).await;
    let many = allocations_of_a_produce(&server, 8_000).await;
    println!("allocations of a produce request: {few} with 100 records, {many} with 8,000");
    assert_eq!(few, many);
}

/// What a fetch takes of this thread, on which client and broker run, while one of 1,001 partitions is
/// written to; the median of many. The first is of a session, the second names all partitions.
async fn costs_of_fetches(client: &mut Client) -> (Duration, Duration) {
    const BUSY: i32 = 1000;
    let wanted = |session: (i32, i32), partitions| FetchRequest {
        session_id: session.0,
        session_epoch: session.1,
        topics: vec![FetchRequestTopic {
            topic: "t".to_owned(),
            partitions,
            ..FetchRequestTopic::default()
        }],
        ..fetch("t", 0)
    };
    let all = |offset| {
        let idle = (0..BUSY).map(|partition| from(partition, 0));
        idle.chain([from(BUSY, offset)]).collect()
    };
    let id = client.ask(12, &wanted((0, 0), all(0))).await.session_id;
    assert_ne!(id, 0);
    let mut costs = (Vec::new(), Vec::new());
    let time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    for round in 0..100 {
        let record = produce_to("t", BUSY, batch(&["x"]));
        assert_eq!(client.produce_as(9, &record).await.error_code, 0);
        let offset = i64::from(round);
        for (session, partitions, costs, told) in [
            ((id, round + 1), vec![from(BUSY, offset)], &mut costs.0, 1),
            ((0, -1), all(offset), &mut costs.1, 1001),
        ] {
            let request = wanted(session, partitions);
            let began = time();
            let response = client.ask(12, &request).await;
            costs.push(time() - began);
            assert_eq!(response.responses[0].partitions.len(), told);
        }
    }
    costs.0.sort_unstable();
    costs.1.sort_unstable();
    (costs.0[50], costs.1[50])
}

#[tokio::test]
async fn partitions_of_a_session_that_are_idle_cost_little_beside_one_that_is_busy() {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    let configs = [("durability", "os")];
    server.create_with("t", 1001, &configs).await;
    let mut client = server.connect().await;
    let (session, full) = costs_of_fetches(&mut client).await;
    println!(
        "a fetch of 1,000 idle partitions and a busy one: {session:?} in a session, {full:?} without"
    );
    assert!(session * 2 < full, "{session:?}, {full:?}");
}

/// A connection that has done something and does nothing more. Its own side takes no heap.
fn connection(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(request).unwrap();
    stream
}

fn take_answer(stream: &mut TcpStream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = [0; 1024];
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
    stream.read_exact(&mut answer[..length]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_do_nothing_take_less_than_20_mb() {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    server.create("t", &[("durability", "os")]).await;
    let request = frame(1, 9, &produce("t", batch(&[&"x".repeat(200_000)])));
    let mut first = connection(&server, &request);
    take_answer(&mut first);
    let before = LIVE_BYTES.load(Relaxed);
    let mut connections: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = connection(&server, &request);
        take_answer(&mut stream);
        connections.push(stream);
    }
    // The last answers are on their way before their connections have let go of everything.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let bytes = LIVE_BYTES.load(Relaxed).saturating_sub(before);
    println!("{CONNECTIONS} idle connections: {bytes} bytes on the heap");
    assert!(bytes < 20_000_000, "{bytes}");
    drop(connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_fetches_that_wait_use_no_processor() {
    let _alone = ALONE.lock().await;
    let server = Server::start().await;
    server.create("t", &[("durability", "os")]).await;
    let waiting = FetchRequest {
        max_wait_ms: 600_000,
        ..fetch("t", 0)
    };
    let request = frame(1, 12, &waiting);
    let before = LIVE_BYTES.load(Relaxed);
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| connection(&server, &request))
        .collect();
    let parked = || server.broker.metrics().fetches_parked() == CONNECTIONS as u64;
    until(parked).await;
    let bytes = LIVE_BYTES.load(Relaxed).saturating_sub(before);
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::try_from(time).unwrap()
    };
    let (began, over) = (used(), Duration::from_secs(2));
    tokio::time::sleep(over).await;
    let used = used() - began;
    println!(
        "{CONNECTIONS} waiting fetches: {bytes} bytes on the heap, {used:?} of processor time in {over:?}"
    );
    assert!(parked());
    assert!(used < Duration::from_millis(20), "{used:?}");
    drop(connections);
}
