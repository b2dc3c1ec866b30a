//! What the tests of a whole server share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// HTTP/2's preface and an empty SETTINGS frame: what every gRPC client opens with.
pub(crate) const HTTP2_OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The settings of a small server in `folder`, on free ports of loopback.
pub(crate) fn small(folder: &Path) -> Vec<String> {
    vec![
        format!("storage.data_dir={}", folder.join("data").display()),
        "storage.ballast_bytes=0".to_owned(),
        "storage.journal_file_bytes=256KiB".to_owned(),
        "storage.journal_files=2".to_owned(),
        "listeners.main.address=127.0.0.1:0".to_owned(),
        "http.address=127.0.0.1:0".to_owned(),
    ]
}

/// Status and body of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").expect("has a head");
    (status.expect("has a status"), body.to_owned())
}

/// Opens an HTTP/2 connection and waits for the server's first frame, which is SETTINGS.
pub(crate) fn open_http2(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(HTTP2_OPENING).expect("writes");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("reads");
    assert_eq!(frame[3], 4, "SETTINGS comes first: {frame:?}");
    stream
}

/// Waits, at most half a minute, until `reached` says so.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
