//! A write-out that the kernel began on its own and that failed, before a checkpoint that syncs the file
//! system as a whole. The kernel tells such a failure once; another program may have been told.

use std::{path::Path, sync::Arc};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, PartitionSpec, PartitionState, Progress,
    Store,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_sim::{Machine, Rng};

use crate::{DATA, batch, options};

/// Enough dirty files that a checkpoint syncs the file system.
const PARTITIONS: u32 = 80;

fn specs(durability: Durability) -> Vec<PartitionSpec> {
    let spec = |number| PartitionSpec {
        topic: TopicName::new("wide").unwrap(),
        topic_id: TopicId(1),
        partition: PartitionId(number),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            ..LogConfig::default()
        },
    };
    (0..PARTITIONS).map(spec).collect()
}

fn open(machine: &Machine, partitions: Vec<PartitionSpec>) -> Arc<Store> {
    let dir = DataDir::open(machine.environment(), Path::new(DATA)).unwrap();
    let known = Known {
        partitions,
        deleted: Vec::new(),
    };
    let opened = Store::open(dir, options(&machine.disk), known, &Progress::default());
    opened.unwrap().0
}

#[test]
fn a_failed_write_out_of_which_only_its_own_file_knows_takes_one_partition_offline() {
    for durability in [Durability::Fsync, Durability::Os] {
        let mut rng = Rng::new(7);
        let machine = Machine::new(7);
        let store = open(&machine, Vec::new());
        let partitions = store.create_partitions(specs(durability)).unwrap();
        for partition in &partitions {
            let urgent = AppendOptions {
                urgent: true,
                ..AppendOptions::default()
            };
            partition
                .append(&batch(&mut rng), urgent, Timestamp(0))
                .unwrap();
        }
        while store.step_journal() == JournalStep::Synced {}
        let unlucky = 17;
        let segment = format!("{DATA}/topics/wide-{unlucky}/00000000000000000000.log");
        machine.disk.fail_write_out(Path::new(&segment)).unwrap();
        let failing_syncs = machine.disk.syncs();
        store.checkpoint().unwrap();
        assert!(
            machine.disk.syncs() < failing_syncs + 20,
            "one sync of the file system was meant"
        );
        for (number, partition) in partitions.iter().enumerate() {
            let online = matches!(partition.state(), PartitionState::Online);
            assert_eq!(online, number != unlucky, "partition {number}");
        }
        let ends: Vec<Offset> = partitions.iter().map(|one| one.bounds().log_end).collect();
        drop((store, partitions));
        machine.disk.power_cut(&mut rng);
        let store = open(&machine, specs(durability));
        for (number, end) in ends.into_iter().enumerate() {
            let partition = store.partition(TopicId(1), PartitionId(number as u32));
            let partition = partition.unwrap();
            let found = (partition.bounds().log_end, partition.state());
            assert!(matches!(found.1, PartitionState::Online), "{found:?}");
            if durability == Durability::Fsync || number != unlucky {
                assert_eq!(found.0, end, "partition {number}");
            }
        }
    }
}
