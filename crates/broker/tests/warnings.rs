//! What clients can make the broker log at will. A binary of its own: it looks at the whole log.

// Helpers are not tests to clippy, which allows it there.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use sapwood_broker::{
    Broker, BrokerOptions, ConfigChange, NewTopic, ReplicationPolicy, StoreOptions, TailKind,
};
use sapwood_sim::Machine;

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines that say that replicas were taken as one.
    fn warnings(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(str::to_owned);
        lines.filter(|line| line.contains("as one")).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_asking_for_replicas_get_one_warning_into_the_log() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let machine = Machine::new(1);
    let store = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 4 << 20,
        journal_files: 2,
        boot_id: "boot-1".into(),
        tail: Some(TailKind::Mmap),
        ..StoreOptions::default()
    };
    let options = BrokerOptions {
        replication: ReplicationPolicy::AsOne,
        ..BrokerOptions::new("/data", store)
    };
    let opened = Broker::open_in(machine.environment(), options, Arc::default()).await;
    let broker = opened.unwrap();
    let pair = |value: &str| ("min.insync.replicas".to_owned(), value.to_owned());
    let create = async |name: &str, factor, configs| {
        let topic = NewTopic {
            replication_factor: Some(factor),
            configs,
            ..NewTopic::named(name)
        };
        broker.create_topic(topic).await.unwrap();
    };
    create("one", 1, vec![pair("1")]).await;
    assert!(log.warnings().is_empty());

    for n in 0..5 {
        create(&n.to_string(), 3, vec![pair("2")]).await;
    }
    let (key, value) = pair("2");
    let set = vec![ConfigChange::Set { key, value }];
    broker.alter_topic("one", set.clone(), false).await.unwrap();
    let first = log.warnings();
    assert_eq!(first.len(), 1, "{first:?}");
    for field in ["WARN", "topic=0", "asked=3", "replication factor"] {
        assert!(first[0].contains(field), "{first:?}");
    }

    machine.clock.advance(Duration::from_secs(60 * 60));
    broker.alter_topic("one", set, false).await.unwrap();
    let then = log.warnings();
    assert_eq!(then.len(), 2, "{then:?}");
    for field in ["topic=one", "min.insync.replicas", "suppressed=10"] {
        assert!(then[1].contains(field), "{then:?}");
    }
}
