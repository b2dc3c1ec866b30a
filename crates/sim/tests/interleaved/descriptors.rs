//! No file descriptor is left to sync the folder of a new segment with. What lies behind the roll waits for one;
//! only when none comes for long does the data directory become read-only.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use sapwood_log::{AppendOptions, JournalStep};
use sapwood_model::Timestamp;
use sapwood_sim::{Machine, Rng};

use crate::{
    batch,
    disk::{NEVER_WAITS, Shortage},
    open_new, specs,
};

fn soon(happens: impl Fn() -> bool, what: &str) {
    let began = Instant::now();
    while !happens() {
        assert!(began.elapsed() < NEVER_WAITS, "{what}");
        thread::yield_now();
    }
}

/// Waits until the store has tried again, which it does after a short pause in real time.
fn tries_again(shortage: &Shortage) {
    let before = shortage.met.load(Relaxed);
    // One may have been under way; the second one began afterwards.
    let has_tried = || shortage.met.load(Relaxed) >= before + 2;
    soon(has_tried, "it does not try again");
}

#[test]
fn a_roll_waits_for_a_descriptor_and_after_long_for_nothing_more() {
    for comes in [true, false] {
        let machine = Machine::new(9);
        let shortage = Arc::new(Shortage::default());
        let store = open_new(&machine, &Arc::default(), &shortage);
        let partition = store.create_partitions(specs()).unwrap().swap_remove(0);
        shortage.lasts.store(true, Relaxed);
        let mut rng = Rng::new(9);
        for _ in 0..12 {
            let options = AppendOptions::default();
            partition
                .append(&batch(&mut rng), options, Timestamp(0))
                .unwrap();
        }
        let ends = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                loop {
                    match store.step_journal() {
                        JournalStep::Synced => {}
                        step => return step,
                    }
                }
            })
        };
        tries_again(&shortage);
        machine.clock.advance(Duration::from_secs(29));
        tries_again(&shortage);
        let waiting = partition.bounds();
        assert!(waiting.high_watermark < waiting.log_end, "{waiting:?}");
        assert_eq!(store.read_only(), None);
        if comes {
            shortage.lasts.store(false, Relaxed);
        } else {
            machine.clock.advance(Duration::from_secs(1));
        }
        soon(|| ends.is_finished(), "it waits for ever");
        let step = ends.join().unwrap();
        let bounds = partition.bounds();
        if comes {
            assert_eq!(step, JournalStep::Idle);
            assert_eq!(bounds.high_watermark, bounds.log_end);
        } else {
            assert_eq!(step, JournalStep::ReadOnly);
            assert_eq!(bounds, waiting, "nothing more was acknowledged");
            let reason = store.read_only().unwrap();
            assert!(reason.contains("could not sync /data/topics"), "{reason}");
        }
    }
}
