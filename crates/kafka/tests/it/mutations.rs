//! Every truncation and every change of one byte of a request of each API that is served.

use std::{collections::BTreeMap, time::Duration};

use sapwood_kafka_wire::{
    Message,
    messages::{ApiVersionsRequest, *},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Server, batch,
    client::{fetch, frame, produce},
    until,
};

/// Connections at a time.
const AT_ONCE: usize = 32;
/// What becomes of a byte, one after the other.
const CHANGES: [fn(u8) -> u8; 4] = [
    |_| 0,
    |_| 0xff,
    |byte| byte ^ 0x80,
    |byte| byte.wrapping_add(1),
];

/// A request of each API that is served, in the last version that is, by its key.
async fn requests(server: &Server) -> BTreeMap<i16, Vec<u8>> {
    let mut client = server.connect().await;
    let served = client.ask(0, &ApiVersionsRequest::default()).await;
    let mut requests = BTreeMap::new();
    macro_rules! defaults {
        ($($request:ident),*) => {$(
            let row = served.api_keys.iter().find(|api| api.api_key == $request::KEY);
            if let Some(api) = row {
                let request = frame(1, api.max_version, &$request::default());
                requests.insert($request::KEY, request);
            }
        )*};
    }
    sapwood_kafka_wire::for_each_request!(defaults);
    // Those that are worth more than their defaults.
    let topic = MetadataRequestTopic {
        name: Some("t".to_owned()),
        ..MetadataRequestTopic::default()
    };
    let metadata = MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    };
    requests.insert(0, frame(1, 9, &produce("t", batch(&["some", "records"]))));
    requests.insert(1, frame(1, 12, &fetch("t", 0)));
    requests.insert(3, frame(1, 12, &metadata));
    requests
}

/// A frame with the length that it has now.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// All that is made of one request.
fn mutations(request: &[u8]) -> Vec<Vec<u8>> {
    let cut = (4..request.len()).map(|end| with_length(request[..end].to_vec()));
    let changed = (0..request.len()).flat_map(|at| {
        CHANGES.iter().map(move |change| {
            let mut bytes = request.to_vec();
            bytes[at] = change(bytes[at]);
            bytes
        })
    });
    cut.chain(changed).collect()
}

/// Sends bytes, takes whatever comes back, and sees the end of the connection.
async fn send(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // It may be closed before everything is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let end = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the connection hangs after {bytes:x?}");
    assert!(answer.len() < 1 << 20, "{} bytes come back", answer.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_to_a_request_does_more_than_end_its_connection() {
    let server = Server::start().await;
    server.create("t", &[("durability", "os")]).await;
    let mut sent = 0;
    for (key, request) in requests(&server).await {
        let mutations = mutations(&request);
        for some in mutations.chunks(AT_ONCE) {
            let sending = some.iter().map(|bytes| send(&server, bytes));
            futures_util::future::join_all(sending).await;
        }
        assert_eq!(server.kafka.metrics().faults(), 0, "API {key}");
        sent += mutations.len();
    }
    println!("{sent} damaged requests");
    until(|| server.broker.budget().bytes_used() == 0).await;
    let mut client = server.connect().await;
    assert_eq!(client.fetch_as(12, &fetch("t", 0)).await.error_code, 0);
}
