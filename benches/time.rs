//! How long the hot paths take. `cargo bench -p sapwood-benches -- 'journal round'` times those whose names
//! have this in them.

mod workloads;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use workloads::Done;

fn time(criterion: &mut Criterion) {
    for workload in workloads::all() {
        let (group, id) = workload.name.rsplit_once('/').expect("a group and a name");
        let mut group = criterion.benchmark_group(group);
        group.throughput(match workload.done {
            Done::Bytes(bytes) => Throughput::Bytes(bytes as u64),
            Done::Events(events) => Throughput::Elements(events as u64),
        });
        // Only one that is asked for is prepared.
        let mut work = None;
        group.bench_function(id, |bencher| {
            let work = work.get_or_insert_with(workload.prepare);
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let started = Instant::now();
                    work.run();
                    spent += started.elapsed();
                    work.settle();
                }
                spent
            });
        });
        group.finish();
    }
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = time
}
criterion_main!(benches);
