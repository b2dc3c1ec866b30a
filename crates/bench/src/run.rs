//! The three runs: produce, consume, and both at once.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    Error,
    clock::Clock,
    consumer::{Place, Progress, Sink},
    grpc::{self, GrpcProducer},
    kafka::{Cluster, KafkaConsumer, KafkaProducer},
    ledger::{Findings, Ledger},
    plan::{Plan, Protocol},
    producer::{self, Outlet, Produced, Task},
    report::{Measured, Report},
    shape::{self, STAMP_BYTES},
    watch::{Sampler, Usage, Used, Watch, listener},
};

/// How long after everything is ready the first record is due.
const LEAD_NS: u64 = 50_000_000;
/// How long consumers wait for the rest once nothing comes any more.
const SILENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Sends records. Unless the plan says otherwise, it reads them again in the end, outside of the measurement, and
/// checks that each is there once and as it was sent. `tick` is called now and then with the number of records so
/// far. Blocks; the calling thread must not be one of a tokio runtime.
///
/// # Errors
/// When the run cannot be made or is cut short; a batch that the broker refuses is counted instead.
pub fn produce(plan: Plan, tick: &mut dyn FnMut(u64)) -> Result<Report, Error> {
    let mut bench = Bench::new(plan, tick)?;
    let before = bench.bounds()?;
    let producing = bench.start_producers()?;
    let produced = bench.finish(producing, tick)?;
    let (used, own) = bench.stop();
    let found = match bench.plan.check {
        true => Some(bench.read_back(&before, &produced)?),
        false => None,
    };
    let mut measured = Measured::of_producers("produce", produced);
    measured.found = found;
    bench.report(measured, used, own)
}

/// Reads the topic from its first offset to what was its end in the beginning. As [`produce`].
///
/// # Errors
/// As [`produce`]; an empty topic is one.
pub fn consume(plan: Plan, tick: &mut dyn FnMut(u64)) -> Result<Report, Error> {
    let mut bench = Bench::find(plan)?;
    let bounds = bench.bounds()?;
    if bounds.iter().all(|(start, end)| start >= end) {
        return Err(Error::Setting(format!(
            "topic {:?} has no records to read; fill it with `sapwood bench produce` first",
            bench.plan.topic.name
        )));
    }
    let places = bounds.iter().map(|&(next, end)| Place {
        next,
        until: Some(end),
        is_whole: next == 0,
    });
    let places = places.collect();
    bench.watch.measure_from(bench.clock.now_ns());
    bench.start_sampler();
    let progress = Arc::new(Progress::default());
    let consuming = bench.start_consumers(places, None, &bench.watch, &progress)?;
    let load = &bench.plan.load;
    let ends = load.duration.map(|time| Instant::now() + time);
    while consuming.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(LOOK);
        tick(progress.records());
        let is_enough = load.records.is_some_and(|all| progress.records() >= all);
        if is_enough || ends.is_some_and(|ends| Instant::now() >= ends) {
            progress.end();
        }
    }
    let mut sinks = join(consuming)?;
    let (used, own) = bench.stop();
    let mut measured = Measured::new("consume");
    let mut found = Findings::default();
    for sink in sinks.drain(..) {
        measured.add(sink.tally);
        found = found.plus(sink.ledger.close());
    }
    measured.found = bench.plan.check.then_some(found);
    bench.report(measured, used, own)
}

/// Sends records and reads them at once: a latency counts from when a record was due to when a consumer has it.
///
/// # Errors
/// As [`produce`].
pub fn e2e(plan: Plan, tick: &mut dyn FnMut(u64)) -> Result<Report, Error> {
    if plan.load.record_bytes.min() < STAMP_BYTES as u64 {
        return Err(Error::Setting(format!(
            "record-bytes is {}; a record whose latency is measured has at least {STAMP_BYTES}",
            plan.load.record_bytes
        )));
    }
    let mut bench = Bench::new(plan, tick)?;
    let places = bench.bounds()?.into_iter().map(|(_, end)| Place {
        next: end,
        until: None,
        is_whole: true,
    });
    let progress = Arc::new(Progress::default());
    let consuming =
        bench.start_consumers(places.collect(), Some(bench.run), &bench.watch, &progress)?;
    let producing = bench.start_producers()?;
    let produced = bench.finish(producing, &mut |_| tick(progress.records()))?;
    let readers = match bench.plan.fan_out {
        true => u64::from(bench.plan.consumers),
        false => 1,
    };
    let acknowledged = produced.iter().map(acknowledged).sum::<u64>() * readers;
    let (mut seen, mut since) = (0, Instant::now());
    while progress.records() < acknowledged && since.elapsed() < SILENCE {
        if consuming.iter().any(JoinHandle::is_finished) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
        if progress.records() > seen {
            (seen, since) = (progress.records(), Instant::now());
        }
    }
    progress.end();
    let sinks = join(consuming)?;
    let (used, own) = bench.stop();
    let sent: Vec<_> = produced
        .iter()
        .map(|produced| produced.sent.clone())
        .collect();
    let mut measured = Measured::of_producers("e2e", produced);
    measured.turn_to_consumers();
    let mut ledgers: BTreeMap<usize, Vec<Ledger>> = BTreeMap::new();
    for sink in sinks {
        measured.add(sink.tally);
        ledgers.entry(sink.reader).or_default().push(sink.ledger);
    }
    let found = ledgers
        .into_values()
        .map(|ledgers| Ledger::settle(ledgers, bench.run, &sent))
        .fold(Findings::default(), Findings::plus);
    measured.found = bench.plan.check.then_some(found);
    bench.report(measured, used, own)
}

fn acknowledged(produced: &Produced) -> u64 {
    let sent: u64 = produced.sent.counts.values().sum();
    sent - produced.tally.errors.records
}

fn join<T>(threads: Vec<JoinHandle<Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let joined = threads.into_iter().map(|thread| {
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // All are waited for, also behind one that failed.
    joined.collect::<Vec<_>>().into_iter().collect()
}

/// Everything that a run shares.
struct Bench {
    plan: Arc<Plan>,
    target: Target,
    partitions: u32,
    run: u32,
    clock: Clock,
    watch: Arc<Watch>,
    pid: Option<u32>,
    sampler: Option<Sampler>,
    own_before: f64,
}

/// The other side.
enum Target {
    Kafka(Cluster),
    Grpc(Runtime),
}

type Producing = Vec<JoinHandle<Result<Produced, Error>>>;
type Consuming = Vec<JoinHandle<Result<Sink, Error>>>;

impl Bench {
    /// Makes the topic.
    fn new(plan: Plan, tick: &mut dyn FnMut(u64)) -> Result<Self, Error> {
        plan.validate()?;
        if plan.load.duration.is_none() && plan.load.records.is_none() {
            let wrong = "neither records nor duration is given: the run would not end";
            return Err(Error::Setting(wrong.into()));
        }
        tick(0);
        let target = match plan.protocol {
            Protocol::Kafka => Target::Kafka(Cluster::prepare(&plan.brokers, &plan.topic)?),
            Protocol::Grpc => {
                let runtime = start_runtime()?;
                let client = grpc::client(&plan, runtime.handle())?;
                runtime.block_on(grpc::prepare(&client, &plan.topic))?;
                Target::Grpc(runtime)
            }
        };
        Self::with(plan, target)
    }

    /// Takes the topic that is there.
    fn find(plan: Plan) -> Result<Self, Error> {
        plan.validate()?;
        let target = match plan.protocol {
            Protocol::Kafka => Target::Kafka(Cluster::find(&plan.brokers, &plan.topic.name)?),
            Protocol::Grpc => Target::Grpc(start_runtime()?),
        };
        Self::with(plan, target)
    }

    fn with(plan: Plan, target: Target) -> Result<Self, Error> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(|error| Error::Setting(error.to_string()))?;
        let known = || plan.brokers.iter().find_map(|address| listener(address));
        let pid = plan.broker_pid.or_else(known);
        let mut bench = Self {
            plan: Arc::new(plan),
            target,
            partitions: 0,
            run: u32::from_le_bytes(run),
            clock: Clock::start(),
            watch: Watch::new(),
            pid,
            sampler: None,
            own_before: 0.0,
        };
        bench.partitions = u32::try_from(bench.bounds()?.len()).unwrap_or(u32::MAX);
        Ok(bench)
    }

    /// The first offset of each partition and the one behind its last.
    fn bounds(&self) -> Result<Vec<(i64, i64)>, Error> {
        match &self.target {
            Target::Kafka(cluster) => cluster.bounds(),
            Target::Grpc(runtime) => {
                let client = grpc::client(&self.plan, runtime.handle())?;
                runtime.block_on(grpc::bounds(&client, &self.plan.topic.name))
            }
        }
    }

    /// Connects all producers, then starts them together.
    fn start_producers(&mut self) -> Result<Producing, Error> {
        let count = self.plan.producers;
        let outlets: Result<Vec<Box<dyn Outlet>>, Error> =
            (0..count).map(|_| self.outlet()).collect();
        let outlets = outlets?;
        let pool = shape::pool(self.plan.load.payload, self.plan.load.seed);
        let start_ns = self.clock.now_ns() + LEAD_NS;
        let warm_up = u64::try_from(self.plan.load.warm_up.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = start_ns.saturating_add(warm_up);
        self.watch.measure_from(from_ns);
        self.start_sampler();
        let threads = (0..).zip(outlets).map(|(producer, outlet)| {
            let task = Task {
                plan: Arc::clone(&self.plan),
                producer,
                partitions: self.partitions,
                run: self.run,
                clock: self.clock,
                start_ns,
                pool: Arc::clone(&pool),
                watch: Arc::clone(&self.watch),
            };
            std::thread::spawn(move || producer::run(&task, outlet))
        });
        Ok(threads.collect())
    }

    fn outlet(&self) -> Result<Box<dyn Outlet>, Error> {
        Ok(match &self.target {
            Target::Kafka(cluster) => Box::new(KafkaProducer::open(
                &self.plan,
                cluster,
                self.clock,
                &self.watch,
            )?),
            Target::Grpc(runtime) => Box::new(GrpcProducer::open(
                &self.plan,
                runtime.handle(),
                self.clock,
                &self.watch,
            )?),
        })
    }

    fn start_sampler(&mut self) {
        self.sampler = Some(Sampler::start(self.pid, self.clock, &self.watch));
        self.own_before = Usage::own().map_or(0.0, |usage| usage.cpu_seconds);
    }

    /// What the broker and the generator used since the producers or consumers started.
    fn stop(&mut self) -> (Option<Used>, f64) {
        let used = self.sampler.take().and_then(Sampler::stop);
        let own = Usage::own().map_or(0.0, |usage| usage.cpu_seconds);
        (used, own - self.own_before)
    }

    fn finish(
        &self,
        producing: Producing,
        tick: &mut dyn FnMut(u64),
    ) -> Result<Vec<Produced>, Error> {
        while producing.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(LOOK);
            tick(self.watch.records());
        }
        join(producing)
    }

    /// Starts consumers of these places, one for each partition. Partition `p` goes to consumer `p % consumers`, or
    /// to each; a consumer has a thread for each broker that leads one of its partitions.
    fn start_consumers(
        &self,
        places: Vec<Place>,
        run: Option<u32>,
        watch: &Arc<Watch>,
        progress: &Arc<Progress>,
    ) -> Result<Consuming, Error> {
        let consumers = self.plan.consumers as usize;
        let mut dealt: BTreeMap<(usize, i32), BTreeMap<i32, Place>> = BTreeMap::new();
        let is_to_be_read = |place: &Place| place.until.is_none_or(|until| place.next < until);
        let places = places.into_iter().enumerate();
        for (partition, place) in places.filter(|(_, place)| is_to_be_read(place)) {
            let leader = match &self.target {
                Target::Kafka(cluster) => cluster.leaders[partition],
                Target::Grpc(_) => 0,
            };
            let readers = match self.plan.fan_out {
                true => 0..consumers,
                false => partition % consumers..partition % consumers + 1,
            };
            for reader in readers {
                let hand = dealt.entry((reader, leader)).or_default();
                hand.insert(i32::try_from(partition).unwrap_or(i32::MAX), place);
            }
        }
        let mut threads = Vec::new();
        for ((consumer, leader), hand) in dealt {
            let reader = if self.plan.fan_out { consumer } else { 0 };
            let mut sink = Sink::new(reader, run, self.plan.check, self.clock, watch, progress);
            let plan = Arc::clone(&self.plan);
            match &self.target {
                Target::Kafka(cluster) => {
                    let consumer = KafkaConsumer::open(cluster, leader, hand, &plan)?;
                    threads.push(std::thread::spawn(move || {
                        consumer.run(&mut sink).map(|()| sink)
                    }));
                }
                Target::Grpc(runtime) => {
                    let runtime = runtime.handle().clone();
                    threads.push(std::thread::spawn(move || {
                        grpc::consume(&plan, &runtime, &hand, &mut sink).map(|()| sink)
                    }));
                }
            }
        }
        Ok(threads)
    }

    /// Reads what lies behind the old ends and holds it against what was sent.
    fn read_back(&self, before: &[(i64, i64)], produced: &[Produced]) -> Result<Findings, Error> {
        let ends = self.bounds()?;
        let places = before.iter().zip(ends).map(|(&(_, next), (_, end))| Place {
            next,
            until: Some(end),
            is_whole: true,
        });
        // Nothing of this is measured.
        let watch = Watch::new();
        let progress = Arc::new(Progress::default());
        let reading = self.start_consumers(places.collect(), Some(self.run), &watch, &progress)?;
        let ledgers = join(reading)?.into_iter().map(|sink| sink.ledger).collect();
        let sent: Vec<_> = produced
            .iter()
            .map(|produced| produced.sent.clone())
            .collect();
        Ok(Ledger::settle(ledgers, self.run, &sent))
    }

    fn report(
        self,
        measured: Measured,
        used: Option<Used>,
        own_cpu_seconds: f64,
    ) -> Result<Report, Error> {
        if self.plan.topic.remove {
            match &self.target {
                Target::Kafka(_) => Cluster::remove(&self.plan.brokers, &self.plan.topic.name)?,
                Target::Grpc(runtime) => {
                    let client = grpc::client(&self.plan, runtime.handle())?;
                    runtime.block_on(grpc::remove(&client, &self.plan.topic.name))?;
                }
            }
        }
        Ok(Report::new(
            &self.plan,
            self.partitions,
            self.pid,
            &self.watch,
            measured,
            used,
            own_cpu_seconds,
        ))
    }
}

fn start_runtime() -> Result<Runtime, Error> {
    Runtime::new().map_err(|source| Error::Io {
        what: "starting threads",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        null::NullBroker,
        plan::{Keys, Load, Payload, Rate, Sizes, Topic},
    };

    fn plan(address: String, rate: Rate, records: u64) -> Plan {
        Plan {
            brokers: vec![address],
            protocol: Protocol::Kafka,
            topic: Topic {
                name: "null".into(),
                partitions: 1,
                config: Vec::new(),
                fresh: false,
                remove: false,
            },
            load: Load {
                rate,
                record_bytes: Sizes::Fixed(100),
                keys: Keys::None,
                payload: Payload::Random,
                records: Some(records),
                duration: None,
                warm_up: Duration::ZERO,
                seed: 1,
            },
            producers: 1,
            consumers: 1,
            acks: -1,
            batch_bytes: 1 << 20,
            linger: Duration::ZERO,
            compression: "none".into(),
            in_flight: 5,
            fan_out: false,
            fetch_bytes: 1 << 20,
            fetch_wait: Duration::from_millis(500),
            check: false,
            broker_pid: None,
        }
    }

    fn run(broker: NullBroker, rate: Rate, records: u64) -> Report {
        let address = broker.start("127.0.0.1:0");
        let address = address.unwrap_or_else(|error| panic!("{error}"));
        let report = produce(plan(address.to_string(), rate, records), &mut |_| {});
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((report.records, report.errors), (records, 0));
        report
    }

    #[test]
    fn against_a_broker_that_only_answers_it_reports_its_own_ceiling() {
        let report = run(NullBroker::new(3), Rate::Max, 100_000);
        assert!(report.records_per_second > 10_000.0, "{report:?}");
        // Many records went with each request, or the loop would not be closed.
        assert!(report.requests < 50_000, "{report:?}");
    }

    #[test]
    fn a_broker_that_delays_by_5_ms_is_reported_with_5_ms() {
        let delay = Duration::from_millis(5);
        let report = run(NullBroker::new(1).delay(delay), Rate::PerSecond(500.0), 500);
        let latency = report.latency_us.unwrap_or_else(|| panic!("{report:?}"));
        assert!((5_000.0..7_500.0).contains(&latency.p50), "{latency:?}");
    }

    #[test]
    fn a_stall_of_1_s_is_charged_to_every_record_that_was_due_in_it() {
        let stall = Duration::from_secs(1);
        let broker = NullBroker::new(1).stall(stall, stall);
        let report = run(broker, Rate::PerSecond(1000.0), 4000);
        let latency = report.latency_us.unwrap_or_else(|| panic!("{report:?}"));
        // A quarter of all records were due while nothing was answered: they waited 0 to 1 s, evenly. A closed loop
        // would have charged only the few requests that were on their way.
        assert!(
            (930_000.0..1_200_000.0).contains(&latency.p99),
            "{latency:?}"
        );
        let share_of_quick = report.latency_percentiles.iter();
        let share_of_quick = share_of_quick
            .filter(|(_, us)| *us < 500_000.0)
            .map(|(share, _)| *share)
            .fold(0.0, f64::max);
        assert!((80.0..93.0).contains(&share_of_quick), "{share_of_quick}");
    }

    #[test]
    fn what_a_broker_acknowledged_but_did_not_keep_is_lost() {
        let address = NullBroker::new(2).start("127.0.0.1:0");
        let address = address.unwrap_or_else(|error| panic!("{error}"));
        let mut plan = plan(address.to_string(), Rate::Max, 1000);
        plan.check = true;
        let report = produce(plan, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.lost, Some(1000));
        assert!(!report.is_sound());
    }

    #[test]
    fn what_is_out_of_bounds_is_said_before_anything_is_sent() {
        let nowhere = || plan("127.0.0.1:1".into(), Rate::Max, 1);
        let mut plans = [nowhere(), nowhere(), nowhere()];
        plans[0].producers = 0;
        plans[1].compression = "xz".into();
        (plans[2].check, plans[2].load.record_bytes) = (true, Sizes::Fixed(31));
        for plan in plans {
            let error = produce(plan, &mut |_| {});
            assert!(matches!(error, Err(Error::Setting(_))), "{error:?}");
        }
        let unreachable = produce(nowhere(), &mut |_| {});
        assert!(
            matches!(unreachable, Err(Error::Connect { .. })),
            "{unreachable:?}"
        );
    }
}
