//! Bytes that are no requests, and requests that lie.

use std::time::Duration;

use sapwood_kafka_wire::messages::{ApiVersionsRequest, MetadataRequest};

use crate::support::{
    Client, Server, batch,
    client::{fetch, frame, produce},
    random::Random,
};

/// The frame of a request with this key and version and body, without a client id.
fn raw(key: i16, version: i16, is_flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(7_i32.to_be_bytes());
    bytes.extend((-1_i16).to_be_bytes());
    if is_flexible {
        bytes.push(0);
    }
    bytes.extend(body);
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

async fn still_serves(server: &Server) {
    let mut client = server.connect().await;
    let response = client.ask(1, &MetadataRequest::default()).await;
    assert_eq!(response.brokers.len(), 1);
    assert_eq!(server.broker.budget().bytes_used(), 0);
}

#[tokio::test]
async fn lengths_that_no_request_has_close_the_connection_at_once() {
    let server = Server::start().await;
    let lengths = [i32::MIN, -1, 0, 7, (100 << 20) + 1, i32::MAX];
    for length in lengths {
        let mut client = server.connect().await;
        client.send_raw(&length.to_be_bytes()).await;
        assert!(client.is_closed().await, "{length}");
    }
    // Only a produce may have more than 8 MiB.
    for key in [1_i16, 3, 18, 999, -1] {
        let mut client = server.connect().await;
        let length = (8 << 20) + 1_i32;
        client.send_raw(&length.to_be_bytes()).await;
        client.send_raw(&key.to_be_bytes()).await;
        assert!(client.is_closed().await, "{key}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn unknown_keys_and_versions_close_the_connection_after_what_came_before_is_answered() {
    let server = Server::start().await;
    let unknown = [
        (999, 0),
        (-1, 0),
        (4, 0),
        (24, 0),
        (3, 14),
        (3, -1),
        (1, 3),
        (1, 19),
        (0, 14),
    ];
    for (key, version) in unknown {
        let mut client = server.connect().await;
        client.send(0, &ApiVersionsRequest::default()).await;
        client.send_raw(&raw(key, version, false, &[0; 20])).await;
        assert!(client.receive_frame().await.is_some(), "{key} {version}");
        assert!(client.is_closed().await, "{key} {version}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn counts_of_the_largest_number_close_the_connection() {
    let server = Server::start().await;
    let most = i32::MAX.to_be_bytes();
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    // Behind the fields that stand before the first array.
    let lies: [(&str, Vec<u8>); 7] = [
        ("Metadata 4", raw(3, 4, false, &most)),
        ("Metadata 12", raw(3, 12, true, &compact)),
        (
            "Produce 3",
            raw(
                0,
                3,
                false,
                &[&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9][..], &most].concat(),
            ),
        ),
        (
            "Produce 13",
            raw(
                0,
                13,
                true,
                &[&[0, 0xff, 0xff, 0, 0, 0, 9][..], &compact].concat(),
            ),
        ),
        ("Fetch 4", raw(1, 4, false, &[&[0; 17][..], &most].concat())),
        (
            "Fetch 18",
            raw(1, 18, true, &[&[0; 21][..], &compact].concat()),
        ),
        (
            "ListOffsets 6",
            raw(2, 6, true, &[&[0; 5][..], &compact].concat()),
        ),
    ];
    for (what, bytes) in lies {
        let mut client = server.connect().await;
        client.send_raw(&bytes).await;
        assert!(client.is_closed().await, "{what}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn bytes_left_over_close_the_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send_raw(&raw(3, 1, false, &[0, 0, 0, 0, 1])).await;
    assert!(client.is_closed().await);
    still_serves(&server).await;
}

/// Damages frames and sends them cut in random pieces, until the connection ends or every byte is
/// sent.
async fn torment(client: &mut Client, random: &mut Random, frames: &[Vec<u8>]) {
    for _ in 0..4 {
        let mut bytes = frames[random.below(frames.len())].clone();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(3) {
                0 => 0xff,
                1 => 0,
                _ => bytes[at] ^ (1 << random.below(8)),
            };
        }
        bytes.truncate(bytes.len() - random.below(3) * random.below(bytes.len()) / 8);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + random.below(rest.len()));
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, now)
                .await
                .is_err()
            {
                return;
            }
            rest = later;
        }
    }
}

#[tokio::test]
async fn damaged_requests_and_noise_end_in_errors_or_in_the_end_of_their_connection() {
    let mut random = Random::of_test();
    let server = Server::start().await;
    server.create("t", &[]).await;
    let frames = [
        frame(1, 4, &ApiVersionsRequest::default()),
        frame(2, 12, &MetadataRequest::default()),
        frame(3, 9, &produce("t", batch(&["some", "records"]))),
        frame(4, 12, &fetch("t", 0)),
        frame(5, 4, &fetch("t", 0)),
        (0..500).map(|_| random.next().to_be_bytes()[0]).collect(),
        b"GET / HTTP/1.1\r\nhost: here\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3],
    ];
    for _ in 0..500 {
        let mut client = server.connect().await;
        torment(&mut client, &mut random, &frames).await;
        // Whatever it answers, it must not hang on to bytes that came.
        let _ = tokio::time::timeout(Duration::from_millis(2), client.receive_frame()).await;
    }
    still_serves_soon(&server).await;
}

/// Connections that were dropped just now may still hold room for a moment.
async fn still_serves_soon(server: &Server) {
    crate::support::until(|| server.broker.budget().bytes_used() == 0).await;
    still_serves(server).await;
}
