//! Damage at rest is found without a reader.

use std::{path::Path, time::Duration};

use sapwood_broker::{Broker, BrokerOptions, PartitionState};
use sapwood_sim::Machine;

use crate::support::*;

fn scrubbing(machine: &Machine) -> BrokerOptions {
    let mut options = options(Path::new("/data"));
    options.store.boot_id = machine.disk.boot_id();
    options.scrub_bytes_per_second = 1 << 30;
    options
}

fn state(broker: &Broker, topic: &str) -> PartitionState {
    broker.partitions(topic).unwrap()[0].state.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flipped_while_the_broker_was_stopped_takes_one_partition_offline() {
    let machine = Machine::new(1);
    let open = || async {
        let environment = machine.environment();
        Broker::open_in(environment, scrubbing(&machine), Default::default())
            .await
            .unwrap()
    };
    let broker = open().await;
    for topic in ["sound", "rotten"] {
        create(&broker, topic, &[("segment.bytes", "2048")]).await;
        for n in 0..100 {
            let value = format!("value {n} of {topic}, with some more bytes to fill its segment");
            produce(&broker, to(topic, batch(&[&value]))).await.unwrap();
        }
    }
    broker.drain_and_close().await.unwrap();
    drop(broker);
    machine.disk.kill();
    let segment = Path::new("/data/topics/rotten-0/00000000000000000000.log");
    machine.disk.corrupt(segment, 100, 1).unwrap();
    // A week and a bit: the last pass was when the directory was new.
    machine.clock.advance(Duration::from_secs(8 * 24 * 3600));

    let broker = open().await;
    assert!(broker.recovery().clean, "so that nothing else looks there");
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            if let PartitionState::Offline { reason } = state(&broker, "rotten") {
                return reason.to_string();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let reason = found.await.unwrap();
    assert!(
        reason.contains("rotten-0/00000000000000000000.log"),
        "{reason}"
    );
    assert!(matches!(state(&broker, "sound"), PartitionState::Online));
    assert_eq!(read_all(&broker, "sound").await.len(), 100);
}
