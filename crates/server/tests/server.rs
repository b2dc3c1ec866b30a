//! A whole server inside the test's process.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use sapwood_broker::{Broker, BrokerOptions, NewTopic, Progress, StoreOptions};
use sapwood_kafka_wire::messages::{MetadataRequest, MetadataResponse};
use sapwood_kafka_wire::{decode_response, encode_request};
use sapwood_model::Code;
use sapwood_server::{BindError, Config, Inputs, Profile, RunError, Server};
use support::{get, open_http2, small, until};
use tokio::task::spawn_blocking;

/// A small server in `folder`, on free ports of loopback, with further `section.key=value`.
fn config(folder: &Path, set: &[&str]) -> Config {
    let mut inputs = Inputs::new(Profile::Dev);
    inputs.flags.set = small(folder)
        .into_iter()
        .chain(set.iter().map(|one| (*one).to_owned()))
        .collect();
    Config::load(&inputs).expect("is valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_grpc_and_http_and_stops_cleanly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(config(folder.path(), &[]))
        .await
        .expect("starts");
    let ready = server.ready().clone();
    assert_eq!(ready.listeners[0].0, "main");
    assert_eq!(ready.pid, std::process::id());
    assert_eq!(ready.data_dir, folder.path().join("data"));
    let http = ready.http.expect("http is on");
    let stream = spawn_blocking(move || {
        assert_eq!(
            get(http, "/readyz"),
            (200, r#"{"status":"ready"}"#.to_owned())
        );
        let stream = open_http2(ready.listen());
        let (_, metrics) = get(http, "/metrics");
        assert!(
            metrics.contains("sapwood_connections{protocol=\"grpc\"} 1\n"),
            "{metrics}"
        );
        stream
    });
    let stream = stream.await.expect("is served");
    server
        .broker()
        .create_topic(NewTopic::named("kept"))
        .await
        .expect("creates");
    drop(stream);
    server.stop().await.expect("stops cleanly");

    let server = Server::start(config(folder.path(), &[]))
        .await
        .expect("starts again");
    assert!(server.broker().recovery().clean);
    assert_eq!(server.broker().topics().len(), 1);
    server.stop().await.expect("stops cleanly");
}

/// What a Kafka client is told to connect to when it comes to `address`.
fn told(address: SocketAddr) -> (String, i32) {
    let request = encode_request(7, 9, None, &MetadataRequest::default()).expect("encodes");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(&request.concat()).expect("writes");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("reads");
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
    stream.read_exact(&mut frame).expect("reads");
    let (_, response): (_, MetadataResponse) = decode_response(frame.into(), 9).expect("decodes");
    let broker = &response.brokers[0];
    (broker.host.clone(), broker.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_tells_kafka_clients_its_own_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let set = [
        "listeners.outside.address=127.0.0.1:0",
        "listeners.outside.advertised=kafka.example.org:443",
        "listeners.v6.address=127.0.0.1:0",
        "listeners.v6.advertised=[2001:db8::7]:9092",
    ];
    let server = Server::start(config(folder.path(), &set))
        .await
        .expect("starts");
    let listeners = server.ready().listeners.clone();
    let names: Vec<_> = listeners.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["main", "outside", "v6"]);
    let ask = move || {
        listeners
            .into_iter()
            .map(|(_, address)| (told(address), address))
    };
    let answers = spawn_blocking(move || ask().collect::<Vec<_>>());
    let answers = answers.await.expect("are served");
    let (main, address) = &answers[0];
    // Without an advertised address, the one that was connected to.
    assert_eq!(*main, ("127.0.0.1".to_owned(), i32::from(address.port())));
    assert_eq!(answers[1].0, ("kafka.example.org".to_owned(), 443));
    assert_eq!(answers[2].0, ("2001:db8::7".to_owned(), 9092));
    server.stop().await.expect("stops cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_before_the_data_directory_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("is bound");
    for key in ["listeners.main.address", "http.address"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let set = format!("{key}={address}");
        let error = Server::start(config(folder.path(), &[&set]))
            .await
            .expect_err("is in use");
        assert_eq!(error.code(), Code::PortInUse);
        assert!(
            matches!(&error, RunError::Bind(BindError::InUse { key: at, address: of })
            if at == key && *of == address),
            "{error}"
        );
        assert!(!folder.path().join("data").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_an_error_that_leaves_no_port_bound() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = Server::start(config(folder.path(), &[]))
        .await
        .expect("starts");
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("binds")
        .local_addr()
        .expect("is bound");
    let set = format!("http.address={free}");
    let error = Server::start(config(folder.path(), &[&set]))
        .await
        .expect_err("is in use");
    assert_eq!(error.code(), Code::DirectoryInUse, "{error}");
    until("the port's release", || TcpListener::bind(free).is_ok());
    first.stop().await.expect("stops cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_id_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = format!(
        "storage.boot_id_file={}",
        folder.path().join("none").display()
    );
    let error = Server::start(config(folder.path(), &[&missing]))
        .await
        .expect_err("has none");
    assert!(matches!(error, RunError::Machine(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_listeners_and_no_http_are_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let set = ["http.address=off", "listeners.second.address=127.0.0.1:0"];
    let server = Server::start(config(folder.path(), &set))
        .await
        .expect("starts");
    let ready = server.ready().clone();
    assert_eq!(ready.http, None);
    let names: Vec<&str> = ready
        .listeners
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["main", "second"]);
    let addresses: Vec<SocketAddr> = ready
        .listeners
        .iter()
        .map(|(_, address)| *address)
        .collect();
    spawn_blocking(move || addresses.into_iter().map(open_http2).for_each(drop))
        .await
        .expect("both are served");
    server.stop().await.expect("stops cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_connections_of_clients_that_do_not_leave() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let set = ["limits.drain_timeout_ms=200"];
    let server = Server::start(config(folder.path(), &set))
        .await
        .expect("starts");
    let address = server.ready().listen();
    // It answers nothing, not even the ping by which HTTP/2 says goodbye.
    let mut mute = spawn_blocking(move || open_http2(address))
        .await
        .expect("opens");
    server.stop().await.expect("stops cleanly");
    let ended = spawn_blocking(move || {
        let mut rest = Vec::new();
        mute.read_to_end(&mut rest)
    });
    // Closed or reset: both are an end.
    let _ = ended.await.expect("does not hang");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_a_broker_wrote_is_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path(), &[]);
    let store = StoreOptions {
        ballast_bytes: 0,
        boot_id: "x".to_owned(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(folder.path().join("data"), store);
    let broker = Broker::open(options, Arc::new(Progress::default()))
        .await
        .expect("opens");
    broker
        .create_topic(NewTopic::named("kept"))
        .await
        .expect("creates");
    broker.drain_and_close().await.expect("closes");
    drop(broker);
    let server = Server::start(config).await.expect("starts");
    assert_eq!(server.broker().topics().len(), 1);
    server.stop().await.expect("stops cleanly");
}
