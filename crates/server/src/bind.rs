//! Binding listening sockets: names looked up, errors that say whose address it is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use sapwood_model::Code;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{key}: {address} is in use by another process")]
    InUse {
        /// The configuration key of the address.
        key: String,
        /// The address.
        address: SocketAddr,
    },
    /// The name has no address.
    #[error("{key}: cannot look up {address:?}: {reason}")]
    NotFound {
        /// The configuration key of the address.
        key: String,
        /// `HOST:PORT` as configured.
        address: String,
        /// What the resolver said.
        reason: String,
    },
    /// `serve` would listen beyond loopback while authentication is off.
    #[error(
        "{key}: {address} is beyond loopback while authentication is off; \
         pass --insecure if the network is trusted"
    )]
    Insecure {
        /// The configuration key of the address.
        key: String,
        /// The address that the name led to.
        address: SocketAddr,
    },
    /// Anything else: no such address on this machine, a port that needs privileges.
    #[error("{key}: cannot listen on {address}: {source}")]
    Failed {
        /// The configuration key of the address.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::PortInUse,
            Self::NotFound { .. } | Self::Failed { .. } => Code::InvalidConfig,
            Self::Insecure { .. } => Code::InsecureListen,
        }
    }
}

/// Listens on the first address that `address` (`HOST:PORT`) leads to. `loopback_only` refuses any
/// other kind of address before it is bound.
///
/// # Errors
///
/// See [`BindError`]; each names `key`.
pub(crate) async fn bind(
    key: &str,
    address: &str,
    loopback_only: bool,
) -> Result<TcpListener, BindError> {
    let not_found = |reason: String| BindError::NotFound {
        key: key.to_owned(),
        address: address.to_owned(),
        reason,
    };
    let found = lookup_host(address)
        .await
        .map_err(|error| not_found(error.to_string()))?
        .next();
    let address = found.ok_or_else(|| not_found("it has no address".to_owned()))?;
    if loopback_only && !is_loopback(address.ip()) {
        return Err(BindError::Insecure {
            key: key.to_owned(),
            address,
        });
    }
    listen(address).map_err(|source| {
        let key = key.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { key, address },
            _ => BindError::Failed {
                key,
                address,
                source,
            },
        }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for the old process's closed connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether only this machine can reach `address`.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_key() {
        let first = bind("listeners.main.address", "127.0.0.1:0", true)
            .await
            .expect("binds");
        let address = first.local_addr().expect("is bound");
        let error = bind("http.address", &address.to_string(), true)
            .await
            .expect_err("is in use");
        assert!(
            matches!(&error, BindError::InUse { key, address: at }
            if key == "http.address" && *at == address),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_name_that_leads_beyond_loopback_is_refused_before_it_is_bound() {
        let error = bind("listeners.main.address", "0.0.0.0:0", true)
            .await
            .expect_err("is refused");
        assert!(matches!(error, BindError::Insecure { .. }), "{error}");
        bind("listeners.main.address", "localhost:0", true)
            .await
            .expect("is loopback");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error() {
        let error = bind("http.address", "192.0.2.1:0", false)
            .await
            .expect_err("is not ours");
        assert!(matches!(error, BindError::Failed { .. }), "{error}");
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(text.parse().expect("is an address")), "{text}");
        }
        for text in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(!is_loopback(text.parse().expect("is an address")), "{text}");
        }
    }
}
