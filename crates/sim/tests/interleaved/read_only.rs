//! A failure of somebody else while a checkpoint is being taken. The kernel tells a failed sync once: those
//! of the checkpoint may succeed only because the other one was told.

use std::{path::Path, sync::Arc};

use sapwood_log::StoreError;
use sapwood_sim::{Machine, Rng};

use crate::{DATA, Shared, Turn, Work, disk::NEVER_WAITS, open_new, promises::Promises, specs};

/// What replaces the checkpoint file once it was decided.
const LAST_EVENTS: u64 = 4;

#[test]
fn no_checkpoint_is_written_once_the_directory_is_read_only() {
    let (mut refused, mut written) = (0, 0);
    for at in 0.. {
        let machine = Machine::new(5);
        let turn = Arc::new(Turn::default());
        let store = open_new(&machine, &turn, &Arc::default());
        let shared = Shared {
            store: Arc::clone(&store),
            promises: Promises::new(machine.disk.clone(), specs()),
            seed: 5,
        };
        store.create_partitions(specs()).unwrap();
        shared.act(Work::Roll, &mut Rng::new(5));
        let checkpoint = || {
            let disk = machine.environment().disk;
            let path = Path::new(DATA).join("checkpoint");
            let file = disk.open(&path, sapwood_log::io::OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        };
        let before = checkpoint();
        let other = Arc::clone(&store);
        turn.arm(
            at,
            NEVER_WAITS,
            Box::new(move || other.make_read_only("a folder could not be synced")),
        );
        let taken = store.checkpoint();
        if !turn.end().0 {
            break;
        }
        if let Err(error) = taken {
            assert!(
                matches!(error, StoreError::ReadOnly { .. }),
                "event {at}: {error}"
            );
            assert_eq!(
                checkpoint(),
                before,
                "event {at}: there is a new checkpoint"
            );
            assert_eq!(written, 0, "event {at}");
            refused += 1;
        } else {
            written += 1;
        }
    }
    eprintln!("{refused} events before the checkpoint is written, {written} from there on");
    assert!(refused > 10, "{refused}");
    assert!(written <= LAST_EVENTS, "{written}");
}
