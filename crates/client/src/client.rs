//! The way in: a client knows the brokers and makes producers, consumers and admins.

use std::{sync::Arc, time::Duration};

use crate::{
    Admin, Error, GroupConsumerBuilder, connection::Connections, consumer::ConsumerBuilder,
    producer::ProducerBuilder,
};

/// Knows the brokers. Cheap to clone; all clones and everything made from them share one connection
/// to a broker.
///
/// ```no_run
/// # async fn example() -> Result<(), sapwood_client::Error> {
/// let client = sapwood_client::Client::new("127.0.0.1:9092")?;
/// for topic in client.admin().list_topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) connections: Arc<Connections>,
}

impl Client {
    /// A client of the brokers at `HOST:PORT[,HOST:PORT...]`; without a port it is 9092. The
    /// addresses are tried in turn. Does no I/O: the first request connects.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::Code) when an address cannot be understood.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(brokers: &str) -> Result<Self, Error> {
        Self::builder(brokers).build()
    }

    /// As [`Client::new`], with settings.
    pub fn builder(brokers: &str) -> ClientBuilder {
        ClientBuilder {
            brokers: brokers.to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// Manages topics and groups, and reads and writes single records and batches.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.connections))
    }

    /// A producer with its settings to be chosen.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.connections))
    }

    /// A consumer with its partitions to be chosen.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.connections))
    }

    /// A consumer that shares topics with the other members of a group, with its settings to be chosen.
    pub fn group_consumer(&self, group: impl Into<Arc<str>>) -> GroupConsumerBuilder {
        GroupConsumerBuilder::new(Arc::clone(&self.connections), group.into())
    }
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    brokers: String,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl ClientBuilder {
    /// How long making a connection may take. 5 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a single request may take, making the connection included; not for producing and
    /// consuming, which have their own. 30 s by default.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The client. Does no I/O.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::Code) when an address cannot be understood.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let connections =
            Connections::new(&self.brokers, self.connect_timeout, self.request_timeout)?;
        Ok(Client { connections })
    }
}
