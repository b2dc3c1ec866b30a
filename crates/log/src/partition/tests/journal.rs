//! The watermark, what the journal takes, and the switch of durability.

use std::sync::Weak;

use super::*;

#[test]
fn nothing_is_readable_before_it_is_durable() {
    let fixture = Fixture::fsync(1 << 20);
    fixture.append(&batch(5));
    fixture.append(&batch(5));
    assert!(fixture.read_all().is_empty());
    fixture.partition.advance_durable(Offset(1));
    assert_eq!(fixture.read_all().len(), 1);
    fixture.partition.advance_durable(Offset(100));
    assert_eq!(
        fixture.partition.bounds().high_watermark,
        Offset(2),
        "never past the end"
    );
    fixture.partition.advance_durable(Offset(1));
    assert_eq!(
        fixture.partition.bounds().high_watermark,
        Offset(2),
        "never back"
    );
}

#[test]
fn the_journal_takes_each_batch_once_and_no_piece_crosses_a_segment() {
    let fixture = Fixture::fsync(1000);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    let pieces = fixture.partition.take_unjournaled(u64::MAX);
    let places: Vec<_> = pieces
        .iter()
        .map(|p| (p.segment.0, p.position, p.base_offset.0, p.end_offset.0))
        .collect();
    assert_eq!(places, [(0, 0, 0, 2), (2, 0, 2, 4), (4, 0, 4, 5)]);
    assert!(pieces.iter().all(|piece| !piece.starts_run));
    assert!(fixture.partition.take_unjournaled(u64::MAX).is_empty());
    fixture.append(&batch(300));
    let piece = &fixture.partition.take_unjournaled(u64::MAX)[0];
    assert_eq!((piece.base_offset, piece.segment), (Offset(5), Offset(4)));
    assert!(piece.position > 0);
}

#[test]
fn the_journal_takes_whole_batches_within_its_limit_and_at_least_one() {
    let fixture = Fixture::fsync(1 << 20);
    let size = batch(300).size_bytes() as u64;
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    let take = |bytes_max| -> Vec<u64> {
        let pieces = fixture.partition.take_unjournaled(bytes_max);
        pieces
            .iter()
            .map(|piece| piece.bytes.len() as u64 / size)
            .collect()
    };
    assert_eq!(take(1), [1]);
    assert_eq!(take(size * 3 - 1), [2]);
    assert_eq!(take(size * 2), [2]);
    assert_eq!(take(size * 2), [0; 0]);
}

#[test]
fn the_store_is_told_once_again_when_somebody_waits_and_of_what_was_left() {
    let fixture = Fixture::fsync(1 << 20);
    let urgent = AppendOptions {
        urgent: true,
        ..AppendOptions::default()
    };
    let told = || std::mem::take(&mut *fixture.store.appended.lock());
    let size = batch(5).size_bytes() as u64;
    fixture.append(&batch(5));
    fixture.append(&batch(5));
    assert_eq!(told(), [(size, false)]);
    fixture.partition.append(&batch(5), urgent, NOW).unwrap();
    fixture.partition.append(&batch(5), urgent, NOW).unwrap();
    assert_eq!(told(), [(2 * size, true)]);
    assert_eq!(fixture.partition.take_unjournaled(size).len(), 1);
    assert_eq!(told(), [(3 * size, true)], "handed over again");
    fixture.make_durable();
    told();
    fixture.append(&sequenced(9, 0, 0));
    fixture
        .partition
        .append(&sequenced(9, 0, 0), urgent, NOW)
        .unwrap();
    let told = told();
    assert_eq!(
        told.iter().map(|(_, urgent)| *urgent).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn what_nobody_waits_for_is_told_by_size() {
    let fixture = Fixture::fsync(1 << 20);
    let size = batch(10_000).size_bytes() as u64;
    for _ in 0..15 {
        fixture.append(&batch(10_000));
    }
    let told = fixture.store.appended.lock().clone();
    assert_eq!(told, [(size, false), (7 * size, false), (7 * size, false)]);
}

#[test]
fn an_os_partition_is_readable_at_once_and_never_in_the_journal() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    assert_eq!(fixture.read_all().len(), 1);
    assert!(fixture.partition.take_unjournaled(u64::MAX).is_empty());
    assert!(fixture.store.appended.lock().is_empty());
    assert_eq!(
        fixture.store.dirtied.load(Relaxed),
        batch(5).size_bytes() as u64
    );
}

#[test]
fn from_os_to_fsync_the_first_entry_starts_a_run() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    assert_eq!(fixture.partition.begin_journaling(), Offset(1));
    fixture.append(&batch(5));
    assert_eq!(fixture.partition.bounds().high_watermark, Offset(1));
    let pieces = fixture.partition.take_unjournaled(u64::MAX);
    assert_eq!(
        (pieces[0].base_offset, pieces[0].starts_run),
        (Offset(1), true)
    );
    fixture.append(&batch(5));
    assert!(!fixture.partition.take_unjournaled(u64::MAX)[0].starts_run);
    assert_eq!(fixture.partition.spec().config.durability, Kept::Fsync);
}

#[test]
fn from_fsync_to_os_everything_becomes_readable() {
    let fixture = Fixture::fsync(1 << 20);
    fixture.append(&batch(5));
    fixture.partition.end_journaling();
    assert_eq!(fixture.read_all().len(), 1);
    fixture.append(&batch(5));
    assert_eq!(fixture.read_all().len(), 2);
    assert!(fixture.partition.take_unjournaled(u64::MAX).is_empty());
}

#[derive(Debug, Default)]
struct Listener {
    high_watermark: AtomicU64,
    failed: AtomicU64,
    partition: parking_lot::Mutex<Option<Weak<Partition>>>,
}

impl PartitionObserver for Listener {
    fn high_watermark_moved(&self, high_watermark: Offset) {
        self.high_watermark.fetch_max(high_watermark.0, Relaxed);
    }
    fn failed(&self) {
        // Would wait for ever if a lock were held.
        if let Some(partition) = self.partition.lock().as_ref().and_then(Weak::upgrade) {
            let _guards = (
                partition.upkeep.lock(),
                partition.cursor.lock(),
                partition.writer.lock(),
            );
        }
        self.failed.fetch_add(1, Relaxed);
    }
}

#[test]
fn the_observer_hears_of_the_watermark_and_of_the_first_failure() {
    let fixture = Fixture::fsync(1 << 20);
    let listener = Arc::new(Listener::default());
    fixture.partition.observe(listener.clone());
    fixture.append(&batch(5));
    assert_eq!(listener.high_watermark.load(Relaxed), 0);
    fixture.make_durable();
    assert_eq!(listener.high_watermark.load(Relaxed), 1);
    let reason = |operation| OfflineReason::Io {
        operation,
        file: "x".into(),
        error: io::Error::other("injected"),
    };
    fixture.partition.take_offline(reason("first"));
    fixture.partition.take_offline(reason("second"));
    assert_eq!(listener.failed.load(Relaxed), 1);
    assert!(fixture.offline_reason().contains("first"));
    let late = Arc::new(Listener::default());
    let other = Fixture::fsync(1 << 20);
    other.partition.take_offline(reason("early"));
    other.partition.observe(late.clone());
    assert_eq!(late.failed.load(Relaxed), 1, "who comes late is told too");
}

#[test]
fn the_observer_hears_of_failures_without_any_lock_held() {
    type Fail = fn(&Fixture);
    let ways: [Fail; 4] = [
        |fixture| {
            fixture.faults.tail_write.store(true, Relaxed);
            let append = fixture
                .partition
                .append(&batch(5), AppendOptions::default(), NOW);
            assert!(append.is_err());
        },
        |fixture| {
            fixture.faults.sync.store(true, Relaxed);
            fixture.make_durable();
            fixture.maintain();
        },
        |fixture| {
            fixture.faults.sync.store(true, Relaxed);
            assert!(fixture.partition.cut().write_indexes().is_err());
        },
        |fixture| {
            fixture.faults.sync.store(true, Relaxed);
            assert!(fixture.partition.close().is_err());
        },
    ];
    for fail in ways {
        let fixture = Fixture::fsync(1000);
        for _ in 0..4 {
            fixture.append(&batch(300));
        }
        let listener = Arc::new(Listener::default());
        *listener.partition.lock() = Some(Arc::downgrade(&fixture.partition));
        fixture.partition.observe(listener.clone());
        fail(&fixture);
        assert_eq!(listener.failed.load(Relaxed), 1);
    }
}
