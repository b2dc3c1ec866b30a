//! The listener with real sockets: every kind of opening, however it is cut.

use std::io;

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant as TokioInstant;

use super::sniff::HTTP2_PREFACE;
use super::*;

/// A listener whose doors lead to the test.
struct Harness {
    address: SocketAddr,
    counters: Arc<ConnectionCounters>,
    grpc: mpsc::Receiver<Connection>,
    kafka: mpsc::Receiver<KafkaConnection>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Harness {
    async fn new(connections: u64, handshake_timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let counters = Arc::new(ConnectionCounters::default());
        let limits = ListenerLimits {
            connections,
            handshake_timeout,
        };
        let http = Some("127.0.0.1:9644".parse().expect("is an address"));
        let shared = Arc::new(Shared::new(limits, Arc::clone(&counters), http));
        let (to_grpc, grpc) = mpsc::channel(8);
        let (to_kafka, kafka) = mpsc::channel(8);
        let doors = Doors {
            grpc: to_grpc,
            kafka: to_kafka,
            name: "inside".into(),
            advertised: Advertised::parse("kafka.example:9092"),
        };
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(serve(listener, shared, doors, stop.subscribe()));
        Self {
            address,
            counters,
            grpc,
            kafka,
            stop,
            task,
        }
    }

    async fn roomy() -> Self {
        Self::new(100, Duration::from_secs(60)).await
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        stream.set_nodelay(true).expect("is a TCP socket");
        stream
    }

    /// Waits until a count is reached; the test's own deadline is the runner's.
    async fn until(&self, reached: impl Fn(&ConnectionCounters) -> bool) {
        while !reached(&self.counters) {
            tokio::task::yield_now().await;
        }
    }
}

/// Everything that the other side sends until it closes. A reset counts as a close.
async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    rest
}

#[tokio::test]
async fn an_http2_preface_goes_to_grpc_with_all_its_bytes() {
    let mut harness = Harness::roomy().await;
    let mut client = harness.connect().await;
    client.write_all(HTTP2_PREFACE).await.expect("writes");
    client.write_all(b"and more").await.expect("writes");
    let mut connection = harness.grpc.recv().await.expect("is handed over");
    let mut read = vec![0; HTTP2_PREFACE.len() + 8];
    connection.read_exact(&mut read).await.expect("reads");
    assert_eq!(read, [HTTP2_PREFACE.as_slice(), b"and more"].concat());
    assert_eq!(
        (harness.counters.open(), harness.counters.open_grpc()),
        (1, 1)
    );
    drop(connection);
    assert_eq!(
        (harness.counters.open(), harness.counters.open_grpc()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_preface_that_comes_one_byte_at_a_time_is_recognised() {
    let mut harness = Harness::roomy().await;
    let mut client = harness.connect().await;
    for byte in HTTP2_PREFACE {
        client.write_all(&[*byte]).await.expect("writes");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut connection = harness.grpc.recv().await.expect("is handed over");
    let mut read = [0; HTTP2_PREFACE.len()];
    connection.read_exact(&mut read).await.expect("reads");
    assert_eq!(&read, HTTP2_PREFACE);
    client.write_all(b"later").await.expect("writes");
    let mut read = [0; 5];
    connection
        .read_exact(&mut read)
        .await
        .expect("the socket still wakes its reader");
}

#[tokio::test]
async fn half_a_preface_waits_without_using_the_processor() {
    let harness = Harness::roomy().await;
    let mut client = harness.connect().await;
    client.write_all(&HTTP2_PREFACE[..3]).await.expect("writes");
    harness.until(|counters| counters.open() == 1).await;
    let thread_time = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).expect("is positive")
    };
    let before = thread_time();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let used = thread_time() - before;
    assert!(
        used < Duration::from_millis(100),
        "{used:?} of processor time in 300 ms of waiting"
    );
}

#[tokio::test]
async fn half_a_preface_and_then_the_end_is_closed_at_once() {
    let harness = Harness::roomy().await;
    let mut client = harness.connect().await;
    client
        .write_all(&HTTP2_PREFACE[..10])
        .await
        .expect("writes");
    client.shutdown().await.expect("closes its side");
    assert_eq!(rest_of(&mut client).await, b"");
    harness
        .until(|counters| counters.ended(ConnectionEnd::ClosedEarly) == 1)
        .await;
}

#[tokio::test]
async fn a_client_that_connects_and_leaves_is_counted_and_forgotten() {
    let harness = Harness::roomy().await;
    drop(harness.connect().await);
    harness
        .until(|counters| counters.ended(ConnectionEnd::ClosedEarly) == 1)
        .await;
    harness.until(|counters| counters.open() == 0).await;
}

#[tokio::test]
async fn silence_is_closed_after_the_handshake_timeout() {
    let harness = Harness::new(10, Duration::from_millis(50)).await;
    let began = TokioInstant::now();
    let mut client = harness.connect().await;
    assert_eq!(rest_of(&mut client).await, b"");
    assert!(began.elapsed() >= Duration::from_millis(50));
    harness
        .until(|counters| counters.ended(ConnectionEnd::HandshakeTimeout) == 1)
        .await;
}

#[tokio::test]
async fn an_http1_request_is_told_where_http_is() {
    let harness = Harness::roomy().await;
    for request in [
        "GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = harness.connect().await;
        client.write_all(request.as_bytes()).await.expect("writes");
        // A client that has not finished its request gets its answer all the same.
        let answer = String::from_utf8(rest_of(&mut client).await).expect("is text");
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("http://127.0.0.1:9644"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{answer}"
        );
    }
    harness
        .until(|counters| counters.ended(ConnectionEnd::Http1) == 2)
        .await;
}

#[tokio::test]
async fn a_tls_hello_is_closed_and_counted() {
    let harness = Harness::roomy().await;
    let mut client = harness.connect().await;
    client
        .write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])
        .await
        .expect("writes");
    assert_eq!(rest_of(&mut client).await, b"");
    assert_eq!(harness.counters.ended(ConnectionEnd::Tls), 1);
}

#[tokio::test]
async fn kafka_frames_and_whatever_is_nothing_else_go_to_kafka_with_the_listeners_names() {
    let mut harness = Harness::roomy().await;
    let api_versions = [0, 0, 0, 20, 0, 18, 0, 3];
    let openings: [&[u8]; 5] = [&api_versions, &[0xff; 64], &[0; 1], b"PRIVATE", b"hello\n"];
    for opening in openings {
        let mut client = harness.connect().await;
        client.write_all(opening).await.expect("writes");
        let mut connection = harness.kafka.recv().await.expect("is handed over");
        assert_eq!(&*connection.info.listener, "inside");
        assert_eq!(
            connection.info.advertised.as_ref().map(|a| a.port),
            Some(9092)
        );
        assert_eq!(connection.info.peer, client.local_addr().expect("is open"));
        let mut read = vec![0; opening.len()];
        connection
            .stream
            .read_exact(&mut read)
            .await
            .expect("reads");
        assert_eq!(read, opening);
        assert_eq!(harness.counters.open_kafka(), 1);
    }
    harness.until(|counters| counters.open() == 0).await;
    assert_eq!(harness.counters.open_kafka(), 0);
}

#[tokio::test]
async fn connections_past_the_limit_are_closed_until_one_ends() {
    let mut harness = Harness::new(2, Duration::from_secs(60)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = harness.connect().await;
        client.write_all(HTTP2_PREFACE).await.expect("writes");
        held.push((client, harness.grpc.recv().await.expect("is handed over")));
    }
    let mut refused = harness.connect().await;
    assert_eq!(rest_of(&mut refused).await, b"");
    assert_eq!(harness.counters.ended(ConnectionEnd::Limit), 1);

    held.pop();
    let mut client = harness.connect().await;
    client.write_all(HTTP2_PREFACE).await.expect("writes");
    harness
        .grpc
        .recv()
        .await
        .expect("the freed slot serves another");
    assert_eq!(harness.counters.accepted(), 3);
}

#[tokio::test]
async fn stopping_closes_the_port_and_what_is_not_known_yet() {
    let mut harness = Harness::roomy().await;
    let mut silent = harness.connect().await;
    harness.until(|counters| counters.open() == 1).await;
    harness.stop.send_replace(true);
    assert_eq!(rest_of(&mut silent).await, b"");
    harness.task.await.expect("ends");
    assert!(harness.grpc.recv().await.is_none());
    let error = TcpStream::connect(harness.address)
        .await
        .expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let again = TcpSocket::new_v4().expect("is a socket");
    again.set_reuseaddr(true).expect("is a socket");
    again.bind(harness.address).expect("the address is free");
}
