//! The Kafka door of one broker.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use sapwood_broker::{Broker, BufferPool};
use tokio::{net::TcpStream, sync::watch};
use tracing::error;

use crate::{
    ConnectionInfo, KafkaOptions, Metrics,
    connection::{self, Mistakes},
    fetched::FetchedBytes,
    sessions::Sessions,
};

/// Bytes of buffers for large frames that are kept while no frame is in them.
const FRAME_BUFFERS_BYTES: usize = 8 << 20;

/// The Kafka door of a broker: what its connections share. Cheap to clone.
#[derive(Clone)]
pub struct Kafka {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) options: KafkaOptions,
    pub(crate) cluster_id: String,
    pub(crate) sessions: Sessions,
    pub(crate) fetched: FetchedBytes,
    pub(crate) metrics: Metrics,
    pub(crate) buffers: Arc<BufferPool>,
    pub(crate) mistakes: Mistakes,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// A door to `broker`.
    ///
    /// # Panics
    /// When the broker id is negative.
    pub fn new(broker: Broker, options: KafkaOptions) -> Self {
        assert!(options.broker_id >= 0, "broker ids are 0 or more");
        let cluster_id = URL_SAFE_NO_PAD.encode(broker.directory_id().0.to_be_bytes());
        Self {
            shared: Arc::new(Shared {
                cluster_id,
                sessions: Sessions::new(
                    options.fetch_sessions_max,
                    options.fetch_session_partitions_max,
                ),
                fetched: FetchedBytes::new(options.fetched_bytes_max),
                metrics: Metrics::new(),
                buffers: BufferPool::new(FRAME_BUFFERS_BYTES),
                mistakes: Mistakes::default(),
                broker,
                options,
            }),
        }
    }

    /// Serves one connection until its end: the client closes it or breaks a rule, or it is idle for
    /// too long. TCP_NODELAY shall be set. When `stop` turns true or its sender goes, the requests
    /// that were read are answered and no more are read.
    ///
    /// What a client does costs only its own connection; a fault in the broker's code too.
    pub async fn serve_connection(
        &self,
        stream: TcpStream,
        info: ConnectionInfo,
        stop: watch::Receiver<bool>,
    ) {
        let peer = info.peer;
        let serving = connection::serve(&self.shared, stream, info, stop);
        if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
            self.shared.metrics.faults.add(1);
            error!(event = "kafka.request_panicked", %peer, "a request failed unexpectedly; its connection is closed");
        }
    }

    /// The numbers of this door.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Fetch sessions that are kept now.
    pub fn fetch_sessions(&self) -> usize {
        self.shared.sessions.len()
    }

    /// The id of the cluster, as clients see it: the data directory's, in 22 characters.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }
}
