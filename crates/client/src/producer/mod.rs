//! Writing records: gathered into batches, sent in order, sent again when a connection breaks.

mod lane;
mod link;
mod partitioner;
mod queue;
mod receipt;
mod sender;
mod shared;

use std::{sync::Arc, time::Duration};

use sapwood_model::{Acks, Code, ProducerId};
use sapwood_record::Codec;
use sapwood_rpc::v1::{self, produce_service_client::ProduceServiceClient};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{Error, Record, connection::Connections};
use sender::Sender;
use shared::{Shared, ended};

pub use receipt::{Delivery, Receipt};

/// Timeouts are added to instants, which must not overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Batches carry 32-bit lengths, and the buffer is counted in 32 bits.
const BYTES_MAX: usize = 1 << 30;

/// Settings of a [`Producer`].
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    connections: Arc<Connections>,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    acks: Acks,
    compression: Codec,
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    delivery_timeout: Duration,
    idempotent: bool,
    auto_create: bool,
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::local(Code::InvalidArgument, message));
        for (name, bytes) in [("batch", self.batch_bytes), ("buffer", self.buffer_bytes)] {
            if !(1..=BYTES_MAX).contains(&bytes) {
                return invalid(format!(
                    "{name}_bytes is {bytes} bytes; it must be 1 to {BYTES_MAX} bytes"
                ));
            }
        }
        if self.delivery_timeout > TIMEOUT_MAX {
            return invalid(format!(
                "delivery_timeout is {} s; the limit is {} s",
                self.delivery_timeout.as_secs(),
                TIMEOUT_MAX.as_secs()
            ));
        }
        if self.linger >= self.delivery_timeout {
            return invalid(format!(
                "linger is {} ms; it must be below delivery_timeout, which is {} ms",
                self.linger.as_millis(),
                self.delivery_timeout.as_millis()
            ));
        }
        Ok(())
    }
}

impl ProducerBuilder {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        let settings = Settings {
            acks: Acks::All,
            compression: Codec::None,
            linger: Duration::from_millis(5),
            batch_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
            auto_create: true,
        };
        Self {
            connections,
            settings,
        }
    }

    /// What a receipt waits for. [`Acks::All`] by default. With [`Acks::None`] receipts are ready
    /// once their batch was handed to the connection, name no offset, and nothing is sent again.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// How batches are compressed. [`Codec::None`] by default.
    #[must_use]
    pub fn compression(mut self, codec: Codec) -> Self {
        self.settings.compression = codec;
        self
    }

    /// How long a batch that is not full waits for more records. 5 ms by default; 0 sends at once.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// At how many uncompressed bytes a batch is full: 1 byte to 1 GiB. 1 MiB by default, which is
    /// Kafka's limit for a batch (`max.message.bytes`); a larger record is a batch of its own.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// How many bytes of records may be on their way, 1 byte to 1 GiB; then [`Producer::send`]
    /// waits. 32 MiB by default. Memory may be up to twice as much while batches are being made.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// How long a record may take from [`Producer::send`] to its receipt, with all tries. Then it
    /// fails with [`Code::TimedOut`](crate::Code); it may have been written all the same. 2 min by
    /// default.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Whether the broker recognises a batch that is sent again. On by default; without it, a
    /// connection that breaks may duplicate or reorder batches.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Whether a topic that does not exist is created, if the broker allows it. On by default.
    #[must_use]
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.settings.auto_create = auto_create;
        self
    }

    /// Asks the broker for a producer id and starts the producer.
    ///
    /// # Errors
    /// [`Code::Unreachable`](crate::Code) when no broker answers (nothing is retried here);
    /// [`Code::InvalidArgument`](crate::Code) when a setting is out of bounds.
    pub async fn build(self) -> Result<Producer, Error> {
        let Self {
            connections,
            settings,
        } = self;
        settings.check()?;
        // With acks=0 nothing is answered, so nothing is ever sent again.
        let id = match settings.idempotent && settings.acks != Acks::None {
            true => Some(init_producer(&connections).await?),
            false => None,
        };
        let shared = Arc::new(Shared::new(connections, settings));
        let task = tokio::spawn(Sender::new(Arc::clone(&shared), id).run());
        let handle = Handle {
            shared,
            task: Mutex::new(Some(task)),
        };
        Ok(Producer {
            handle: Arc::new(handle),
        })
    }
}

/// A producer id that nobody had before. Asking twice costs an id.
async fn init_producer(connections: &Connections) -> Result<ProducerId, Error> {
    let answer = connections
        .call(true, |channel| async move {
            ProduceServiceClient::new(channel)
                .init_producer(v1::InitProducerRequest {})
                .await
        })
        .await?;
    Ok(ProducerId(answer.into_inner().producer_id))
}

/// Writes records. Cheap to clone; clones share buffers, order and producer id. Records of one task
/// for one partition are written in the order of its `send` calls, and each once, even when
/// connections break and brokers restart in between.
///
/// When the last clone is dropped without [`Producer::close`], what was handed over is still sent in
/// the background as long as the runtime lives, but nobody hears of failures.
///
/// ```no_run
/// use sapwood_client::{Client, Codec, Record};
///
/// # async fn example() -> Result<(), sapwood_client::Error> {
/// let client = Client::new("127.0.0.1:9092")?;
/// let producer = client.producer().compression(Codec::Lz4).build().await?;
///
/// let receipt = producer.send(Record::to("orders").key("7").value("paid")).await?;
/// let delivery = receipt.await?; // durable now
/// println!("{}/{} at {:?}", "orders", delivery.partition, delivery.offset);
///
/// for n in 0..1000 {
///     producer.send(Record::to("orders").value(n.to_string())).await?; // receipt not needed
/// }
/// producer.close().await?; // waits for all of them; the first failure, if any
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Shared by the clones; the task does not hold it, so it is dropped with the last of them.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Producer {
    /// Hands a record over. Waits while the buffer is full, and for the number of partitions when
    /// the topic is new to this producer. The record is on its way when this returns, whether or not
    /// the receipt is kept; awaiting the receipt gives durability. Cancel-safe: a future that is
    /// dropped before it is ready has handed nothing over.
    ///
    /// # Errors
    /// Nothing was handed over: the record is larger than the buffer
    /// ([`Code::RecordTooLarge`](crate::Code)), a header's key is not UTF-8
    /// ([`Code::InvalidRecord`](crate::Code)), the topic or the partition does not exist, the broker
    /// could not be asked within the delivery timeout, or the producer is closed
    /// ([`Code::InvalidArgument`](crate::Code)).
    pub async fn send(&self, record: Record) -> Result<Receipt, Error> {
        self.handle.shared.send(record).await
    }

    /// Sends what is buffered without waiting for batches to fill, and waits until every record
    /// handed over before has its result.
    ///
    /// # Errors
    /// The first failure of a record that no earlier `flush` has returned.
    pub async fn flush(&self) -> Result<(), Error> {
        self.handle.shared.flush().await
    }

    /// Takes no more records, flushes, and ends the stream. Clones are closed too.
    ///
    /// # Errors
    /// The first failure of a record that no earlier `flush` has returned.
    pub async fn close(self) -> Result<(), Error> {
        let handle = &self.handle;
        handle.shared.close();
        let flushed = handle.shared.flush().await;
        if let Some(task) = handle.task.lock().await.take() {
            // It cannot fail but by the end of the runtime, which `flush` has reported.
            let _ = task.await;
        }
        flushed
    }
}
