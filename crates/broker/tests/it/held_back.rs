//! What is not synced yet, seen from outside: a journal whose sync does not return.

use std::{sync::Arc, time::Duration};

use sapwood_broker::Broker;
use sapwood_model::Offset;
use tempfile::TempDir;

use crate::{
    gated::{Gate, environment},
    support::{P0, batch, create, options, produce, read_all, to},
};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_held_back_while_their_sync_is_blocked_then_acknowledged_and_readable() {
    let dir = TempDir::new().unwrap();
    let gate = Arc::new(Gate::default());
    let broker = Broker::open_in(environment(&gate), options(dir.path()), Arc::default())
        .await
        .unwrap();
    create(&broker, "held", &[]).await;
    create(&broker, "free", &[("durability", "os")]).await;
    produce(&broker, to("held", batch(&["before"])))
        .await
        .unwrap();

    gate.shut();
    let pending = broker.produce(to("held", batch(&["after"]))).await.unwrap();
    tokio::pin!(pending);
    let waiting = Arc::clone(&gate);
    tokio::task::spawn_blocking(move || waiting.wait_until_held())
        .await
        .unwrap();
    // The batch is in the log and its round is written: only the sync is missing.
    let bounds = broker.bounds("held", P0).unwrap();
    assert_eq!(
        (bounds.high_watermark, bounds.log_end),
        (Offset(1), Offset(2))
    );
    let early = tokio::time::timeout(Duration::from_millis(100), &mut pending).await;
    assert!(early.is_err(), "acknowledged before its sync: {early:?}");
    assert_eq!(read_all(&broker, "held").await, [(0, "before".to_owned())]);
    // Topics whose records need no sync go on.
    produce(&broker, to("free", batch(&["x"]))).await.unwrap();

    gate.open();
    assert_eq!(pending.await.unwrap().base_offset, Offset(1));
    assert_eq!(broker.bounds("held", P0).unwrap().high_watermark, Offset(2));
    let records = [(0, "before".to_owned()), (1, "after".to_owned())];
    assert_eq!(read_all(&broker, "held").await, records);
    broker.drain_and_close().await.unwrap();
}
