//! Telling protocols apart by a connection's first bytes, without taking them from the socket.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
pub(super) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS record that carries a handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Methods that open an HTTP/1 request, each with its space.
const HTTP1_METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
];

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
    /// Kafka's protocol, or something that is none of the others: a frame begins with its length,
    /// whose first byte is far below every letter.
    Kafka,
    /// HTTP/1: somebody with a browser or curl.
    Http1,
    /// A TLS handshake.
    Tls,
}

/// The verdict on a connection's first bytes; `None` when more are needed. Decides on the first byte
/// wherever that is enough, and never needs more than the preface's 24.
pub(super) fn classify(first: &[u8]) -> Option<Protocol> {
    let byte = *first.first()?;
    if byte == TLS_HANDSHAKE {
        return Some(Protocol::Tls);
    }
    if first.starts_with(HTTP2_PREFACE) {
        return Some(Protocol::Http2);
    }
    if HTTP1_METHODS.iter().any(|method| first.starts_with(method)) {
        return Some(Protocol::Http1);
    }
    let may_become = |whole: &[u8]| whole.starts_with(first);
    if may_become(HTTP2_PREFACE) || HTTP1_METHODS.iter().any(|method| may_become(method)) {
        return None;
    }
    Some(Protocol::Kafka)
}

/// Waits until the first bytes tell the protocol; `None` when the client closed before. The bytes
/// stay in the socket. Sleeps between bytes, however slowly they come; the caller sets the deadline.
pub(super) async fn sniff(stream: &TcpStream) -> io::Result<Option<Protocol>> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Bytes that do not decide yet are still there, so the socket stays readable. "Would block"
        // clears tokio's flag all the same, and the kernel's next edge, which comes with new bytes,
        // sets it: this waits for more instead of spinning on what is known.
        let verdict = stream.try_io(Interest::READABLE, || {
            let (count, _) = recv(stream, &mut first, RecvFlags::PEEK)?;
            if count == 0 {
                return Ok(None);
            }
            match classify(&first[..count]) {
                Some(protocol) => Ok(Some(protocol)),
                None => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match verdict {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Half of the preface and then the end: no byte will come any more.
                if ready.is_read_closed() {
                    return Ok(None);
                }
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_http2_only_when_it_is_whole() {
        for end in 0..HTTP2_PREFACE.len() {
            assert_eq!(classify(&HTTP2_PREFACE[..end]), None, "{end} bytes");
        }
        assert_eq!(classify(HTTP2_PREFACE), Some(Protocol::Http2));
        assert_eq!(classify(b"PRI * HTTP/2.1"), Some(Protocol::Kafka));
    }

    #[test]
    fn http1_is_known_by_its_method() {
        for request in [
            "GET / HTTP/1.1",
            "POST /x HTTP/1.1",
            "PUT ",
            "PATCH /",
            "OPTIONS * HTTP/1.1",
        ] {
            assert_eq!(
                classify(request.as_bytes()),
                Some(Protocol::Http1),
                "{request}"
            );
        }
        assert_eq!(classify(b"GE"), None);
        assert_eq!(classify(b"GETTING"), Some(Protocol::Kafka));
    }

    #[test]
    fn one_byte_is_enough_for_tls_and_for_a_kafka_frame() {
        assert_eq!(classify(&[0x16]), Some(Protocol::Tls));
        assert_eq!(classify(&[0x00]), Some(Protocol::Kafka));
        assert_eq!(classify(&[0xff]), Some(Protocol::Kafka));
    }

    #[test]
    fn every_verdict_is_the_same_however_the_bytes_are_cut() {
        let openings: [&[u8]; 5] = [
            HTTP2_PREFACE,
            b"GET /livez HTTP/1.1\r\n\r\n",
            &[0x16, 3, 1, 2, 0, 1],
            &[0, 0, 0, 35, 0, 18, 0, 4],
            b"PRIVATE",
        ];
        for opening in openings {
            let whole = classify(opening).expect("is decided");
            let first = (0..=opening.len()).find_map(|end| classify(&opening[..end]));
            assert_eq!(first, Some(whole), "{opening:?}");
        }
    }
}
