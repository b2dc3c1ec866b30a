//! A connection that can be cut from outside: after a shutdown, a client that does not read must not
//! keep its connection's task for ever.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use sapwood_broker::ConnectionBudget;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A connection that may know where it comes from.
pub trait Remote {
    /// The client's address; `None` when there is none, or it is not known any more.
    fn remote_address(&self) -> Option<SocketAddr>;
}

impl Remote for TcpStream {
    fn remote_address(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

/// A connection, its share of the budget, and the cut.
pub(crate) struct Cuttable<I> {
    io: I,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    peer: Peer,
}

/// What each request knows of its connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) budget: Arc<ConnectionBudget>,
    pub(crate) address: Option<SocketAddr>,
}

impl<I: Remote> Cuttable<I> {
    pub(crate) fn new(io: I, cut: CancellationToken, budget: ConnectionBudget) -> Self {
        let peer = Peer {
            budget: Arc::new(budget),
            address: io.remote_address(),
        };
        Self {
            io,
            cut: Box::pin(cut.cancelled_owned()),
            peer,
        }
    }
}

impl<I> Cuttable<I> {
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<I> Connected for Cuttable<I> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Cuttable<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cuttable<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
