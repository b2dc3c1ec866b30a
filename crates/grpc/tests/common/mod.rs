//! A broker in a temporary directory that serves the native API on a real socket.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use sapwood_broker::{Broker, BrokerOptions, Progress, StoreOptions};
use sapwood_grpc::{GrpcOptions, serve};
use sapwood_model::Code;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Small files, so that many tests can run at once.
pub(crate) fn broker_options(data_dir: &Path) -> BrokerOptions {
    let store = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 4 << 20,
        boot_id: "test".to_owned(),
        ..StoreOptions::default()
    };
    BrokerOptions {
        auto_create: true,
        ..BrokerOptions::new(data_dir, store)
    }
}

impl Server {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        Self::start_with(broker_options(data_dir), GrpcOptions::default(), None).await
    }

    /// On the port of a server that was there before, if `at` is given.
    pub(crate) async fn start_with(
        options: BrokerOptions,
        grpc: GrpcOptions,
        at: Option<SocketAddr>,
    ) -> Self {
        let broker = open(options).await;
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(at).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            stream.inspect(|stream| stream.set_nodelay(true).expect("the socket is open"))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(incoming, broker.clone(), grpc, async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async { serving.await.expect("serving ends well") });
        Self {
            address,
            broker,
            stop: Some(stop),
            task,
        }
    }

    /// Drains and closes.
    pub(crate) async fn stop(mut self) {
        self.stop
            .take()
            .expect("it runs")
            .send(())
            .expect("it runs");
        self.task.await.expect("serving does not panic");
        self.broker.drain_and_close().await.expect("it closes");
    }

    /// Ends without closing anything, as a killed process would: connections break, nothing more is
    /// written.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("an address")
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.endpoint().connect().await.expect("it serves")
    }
}

/// After a kill the directory is in use until the last connection's task is gone.
async fn open(options: BrokerOptions) -> Broker {
    for _ in 0..500 {
        match Broker::open(options.clone(), Arc::new(Progress::default())).await {
            Err(error) if error.code() == Code::DirectoryInUse => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => return opened.expect("the broker opens"),
        }
    }
    panic!("the directory stays in use")
}
