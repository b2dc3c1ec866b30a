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
use sapwood_kafka_wire::messages::FetchRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{
    Server, batch,
    client::{fetch, frame, produce},
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
