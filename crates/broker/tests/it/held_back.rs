//! What is not synced yet, seen from outside: a journal whose sync does not return.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use sapwood_broker::{Broker, Environment};
use sapwood_log::io::{
    DirEntry, Disk, File, OpenMode, RealDisk, Space, TailKind, TailReader, TailWriter,
};
use sapwood_model::Offset;
use tempfile::TempDir;

use crate::support::{P0, batch, create, options, produce, read_all, to};

/// Holds every sync of a journal file up while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    held: usize,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().unwrap().is_shut = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().is_shut = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.held += 1;
        self.changed.notify_all();
        while state.is_shut {
            state = self.changed.wait(state).unwrap();
        }
        state.held -= 1;
    }

    fn wait_until_held(&self) {
        let mut state = self.state.lock().unwrap();
        while state.held == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

#[derive(Debug)]
struct GatedDisk {
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealDisk.open(path, how)?;
        match path
            .extension()
            .is_some_and(|extension| extension == "journal")
        {
            true => Ok(Arc::new(GatedFile {
                file,
                gate: Arc::clone(&self.gate),
            })),
            false => Ok(file),
        }
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_filesystem(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealDisk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
    fn tail_kind(&self, path: &Path) -> TailKind {
        RealDisk.tail_kind(path)
    }
}

impl File for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.file.read_resident_at(buf, position)
    }
    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_at(bufs, position)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.file.allocate(range)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
    fn start_write_out(&self, range: Range<u64>) -> io::Result<()> {
        self.file.start_write_out(range)
    }
    fn tail(
        &self,
        kind: TailKind,
        capacity: u64,
        written: u64,
    ) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)> {
        self.file.tail(kind, capacity, written)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_held_back_while_their_sync_is_blocked_then_acknowledged_and_readable() {
    let dir = TempDir::new().unwrap();
    let gate = Arc::new(Gate::default());
    let environment = Environment {
        disk: Arc::new(GatedDisk {
            gate: Arc::clone(&gate),
        }),
        ..Environment::real()
    };
    let broker = Broker::open_in(environment, options(dir.path()), Arc::default())
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
