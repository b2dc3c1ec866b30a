//! Who is at the other end, and what it is told about this one.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

/// A connection as its acceptor knows it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// What its clients are told to connect to; `None` for the address that they did connect to.
    pub advertised: Option<Advertised>,
    /// The client's address.
    pub peer: SocketAddr,
}

/// An address that clients are told to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Advertised {
    /// Reads `HOST:PORT`; an IPv6 address stands in brackets. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl From<SocketAddr> for Advertised {
    fn from(address: SocketAddr) -> Self {
        // An IPv4 client of an IPv6 socket cannot use what that socket calls itself.
        let host: IpAddr = address.ip().to_canonical();
        Self {
            host: host.to_string(),
            port: address.port(),
        }
    }
}

/// A connection that is served.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) listener: Arc<str>,
    pub(crate) peer: SocketAddr,
    pub(crate) advertised: Advertised,
    software: OnceLock<String>,
}

impl Connection {
    /// # Errors
    /// The socket has no local address any more.
    pub(super) fn new(info: ConnectionInfo, local: io::Result<SocketAddr>) -> io::Result<Self> {
        let advertised = match info.advertised {
            Some(advertised) => advertised,
            None => local?.into(),
        };
        Ok(Self {
            listener: info.listener,
            peer: info.peer,
            advertised,
            software: OnceLock::new(),
        })
    }

    /// What the client is, as it said itself: `librdkafka 2.16.0`.
    pub(crate) fn software(&self) -> Option<&str> {
        self.software.get().map(String::as_str)
    }

    /// Notes what the client says it is. The first time counts.
    pub(crate) fn set_software(&self, name: &str, version: &str) {
        let _ = self.software.set(format!("{name} {version}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        let parsed = |text| Advertised::parse(text).map(|a| (a.host, a.port));
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parsed("kafka.example:9092"), is("kafka.example", 9092));
        assert_eq!(parsed("10.0.0.1:1"), is("10.0.0.1", 1));
        assert_eq!(parsed("[::1]:9092"), is("::1", 9092));
        for wrong in [
            "",
            "host",
            ":1",
            "host:",
            "host:99999",
            "::1:9092",
            "[::1:1",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_told_an_ipv4_address() {
        let local: SocketAddr = "[::ffff:10.0.0.1]:9092".parse().unwrap();
        assert_eq!(Advertised::from(local).host, "10.0.0.1");
    }
}
