//! Random histories of one partition, held against a list of batches.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        timestamps: Vec<i64>,
        value_bytes: usize,
        urgent: bool,
    },
    /// The producer sends its next batch, or this many batches back again.
    Produce {
        back: u8,
    },
    Take {
        bytes_max: u64,
    },
    Durable,
    Maintain,
    Checkpoint,
    /// In percent of what is allowed.
    Trim {
        percent: u8,
    },
    Truncate {
        percent: u8,
    },
    Read {
        percent: u8,
        bytes_max: usize,
    },
    Find {
        at: i64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let timestamps = prop::collection::vec(0i64..200, 1..5);
    let append = (timestamps, 0usize..400, any::<bool>());
    prop_oneof![
        8 => append.prop_map(|(timestamps, value_bytes, urgent)| Step::Append {
            timestamps, value_bytes, urgent
        }),
        4 => (0u8..8).prop_map(|back| Step::Produce { back }),
        3 => (1u64..2000).prop_map(|bytes_max| Step::Take { bytes_max }),
        3 => Just(Step::Durable),
        3 => Just(Step::Maintain),
        1 => Just(Step::Checkpoint),
        1 => (0u8..=100).prop_map(|percent| Step::Trim { percent }),
        2 => (0u8..=100).prop_map(|percent| Step::Truncate { percent }),
        3 => (0u8..=100, 1usize..2000).prop_map(|(percent, bytes_max)| Step::Read {
            percent, bytes_max
        }),
        2 => (0i64..220).prop_map(|at| Step::Find { at }),
        1 => Just(Step::Reopen),
    ]
}

/// What the partition should be.
#[derive(Debug, Default)]
struct Model {
    /// Batches as they should be on the disk, from offset 0 on.
    batches: Vec<Batch>,
    log_start: u64,
    high_watermark: u64,
    /// The journal has taken up to here, and a checkpoint was cut here.
    taken: u64,
    captured: u64,
    epoch: u32,
}

impl Model {
    fn end(&self) -> u64 {
        self.batches
            .last()
            .map_or(0, |batch| batch.header().next_offset().0)
    }

    fn push(&mut self, mut batch: Batch) {
        let end = self.end();
        batch.header_mut().set_base_offset(Offset(end));
        batch.header_mut().set_leader_epoch(LeaderEpoch(self.epoch));
        self.batches.push(batch);
    }

    /// The batches that a read from `from` gets.
    fn read(&self, from: u64, bytes_max: usize) -> Vec<Batch> {
        let mut read: Vec<Batch> = Vec::new();
        for batch in &self.batches {
            let next = batch.header().next_offset().0;
            let bytes: usize = read.iter().chain([batch]).map(Batch::size_bytes).sum();
            if next <= from {
                continue;
            }
            if next > self.high_watermark || (!read.is_empty() && bytes > bytes_max) {
                break;
            }
            read.push(batch.clone());
        }
        read
    }

    /// Every record that can be read: offset and timestamp.
    fn records(&self) -> impl Iterator<Item = (u64, i64)> {
        let visible = self.log_start..self.high_watermark;
        let records = self
            .batches
            .iter()
            .flat_map(|batch| batch.records(0).unwrap());
        let records = records.map(|record| {
            let record = record.unwrap();
            (record.offset.0, record.timestamp.0)
        });
        records.filter(move |(offset, _)| visible.contains(offset))
    }

    fn next_sequence(&self) -> i32 {
        let sequenced = self
            .batches
            .iter()
            .filter_map(|batch| batch.header().producer());
        sequenced.last().map_or(0, |stamp| stamp.last_sequence + 1)
    }
}

struct Run {
    fixture: Fixture,
    model: Model,
    journaled: bool,
}

impl Run {
    fn step(&mut self, step: &Step) {
        let partition = Arc::clone(&self.fixture.partition);
        match step {
            Step::Append {
                timestamps,
                value_bytes,
                urgent,
            } => {
                let batch = batch_at(timestamps, *value_bytes);
                let options = AppendOptions {
                    urgent: *urgent,
                    expected_end: None,
                };
                let appended = partition.append(&batch, options, NOW).unwrap();
                assert_eq!(appended.base_offset.0, self.model.end());
                self.model.push(batch);
            }
            Step::Produce { back } => self.produce(i32::from(*back)),
            Step::Take { bytes_max } => self.take(*bytes_max),
            Step::Durable => {
                partition.advance_durable(Offset(self.model.taken));
                self.model.high_watermark = self.model.high_watermark.max(self.model.taken);
            }
            Step::Maintain => self.fixture.maintain(),
            Step::Checkpoint => {
                let cut = self.fixture.checkpoint();
                assert_eq!(cut.end.0, self.model.end());
                self.model.captured = cut.end.0;
            }
            Step::Trim { percent } => {
                let room = self.model.high_watermark - self.model.log_start;
                let log_start = self.model.log_start + room * u64::from(*percent) / 100;
                partition.trim(Offset(log_start)).unwrap();
                self.model.log_start = log_start;
            }
            Step::Truncate { percent } => self.truncate(u64::from(*percent)),
            Step::Read { percent, bytes_max } => {
                let room = self.model.high_watermark - self.model.log_start;
                let from = self.model.log_start + room * u64::from(*percent) / 100;
                self.read(from, *bytes_max);
            }
            Step::Find { at } => {
                let found = partition.find_timestamp(Timestamp(*at)).unwrap();
                let expected = self.model.records().find(|(_, timestamp)| timestamp >= at);
                assert_eq!(found.map(|f| (f.offset.0, f.timestamp.0)), expected);
            }
            Step::Reopen => {
                self.fixture.reopen();
                let end = self.model.end();
                self.model.epoch += 1;
                (self.model.high_watermark, self.model.taken) = (end, end);
                self.model.captured = end;
            }
        }
        if !self.journaled {
            (self.model.high_watermark, self.model.taken) = (self.model.end(), self.model.end());
        }
        let bounds = self.fixture.partition.bounds();
        let expected = (
            self.model.log_start,
            self.model.high_watermark,
            self.model.end(),
        );
        assert_eq!(
            (
                bounds.log_start.0,
                bounds.high_watermark.0,
                bounds.log_end.0
            ),
            expected
        );
        assert_eq!(self.fixture.offline_reason(), "");
    }

    fn produce(&mut self, back: i32) {
        let sequence = self.model.next_sequence() - back.max(1) + 1;
        if sequence < 0 {
            return;
        }
        let batch = sequenced(9, 0, sequence);
        let options = AppendOptions::default();
        let outcome = self.fixture.partition.append(&batch, options, NOW);
        let first = self.model.batches.iter().find(|known| {
            known
                .header()
                .producer()
                .is_some_and(|stamp| stamp.base_sequence == sequence)
        });
        let known = self.fixture.partition.producers();
        match (first, outcome) {
            (None, outcome) => {
                assert!(!outcome.unwrap().duplicate);
                self.model.push(batch);
            }
            (Some(first), Ok(appended)) => {
                assert!(appended.duplicate && back <= 6, "{back} back: {appended:?}");
                assert_eq!(appended.base_offset, first.header().base_offset());
            }
            (Some(_), Err(error)) => {
                assert!(
                    matches!(error, AppendError::OutOfSequence { .. }),
                    "{error}"
                );
                assert!(
                    back > 6,
                    "only what is more than five batches back is forgotten"
                );
            }
        }
        assert!(known.len() <= 1);
    }

    fn take(&mut self, bytes_max: u64) {
        for piece in self.fixture.partition.take_unjournaled(bytes_max) {
            assert_eq!(piece.base_offset.0, self.model.taken, "no gap, no overlap");
            for batch in sapwood_record::batches(piece.bytes) {
                let batch = batch.unwrap();
                assert!(self.model.batches.contains(&batch));
                self.model.taken = batch.header().next_offset().0;
            }
            assert_eq!(piece.end_offset.0, self.model.taken);
        }
    }

    fn truncate(&mut self, percent: u64) {
        let least = self.model.high_watermark;
        let offset = least + (self.model.end() - least) * percent / 100;
        let ends = self
            .model
            .batches
            .iter()
            .map(|batch| batch.header().next_offset().0);
        let at_boundary = offset == 0 || ends.clone().any(|end| end == offset);
        let recorded = self.model.taken.max(self.model.captured);
        let outcome = self.fixture.partition.truncate_to(Offset(offset));
        if offset == self.model.end() {
            outcome.unwrap();
        } else if offset < recorded {
            assert!(
                matches!(outcome, Err(TruncateError::Recorded { .. })),
                "{outcome:?}"
            );
        } else if at_boundary {
            outcome.unwrap();
            self.model
                .batches
                .retain(|batch| batch.header().next_offset().0 <= offset);
        } else {
            assert!(
                matches!(outcome, Err(TruncateError::InsideBatch { .. })),
                "{outcome:?}"
            );
        }
    }

    fn read(&self, from: u64, bytes_max: usize) {
        let (bytes, next) = read(&self.fixture.partition, Offset(from), bytes_max).unwrap();
        let read: Vec<Batch> = sapwood_record::batches(bytes).map(Result::unwrap).collect();
        let mut expected = self.model.read(from, bytes_max);
        // A read ends with its segment.
        assert!(
            !read.is_empty() || expected.is_empty(),
            "nothing came of {expected:?}"
        );
        expected.truncate(read.len());
        assert_eq!(read, expected);
        let last = expected
            .last()
            .map_or(from, |batch| batch.header().next_offset().0);
        assert_eq!(next.0, last);
    }

    /// Everything that can be asked, at the end.
    fn check(&self) {
        let partition = &self.fixture.partition;
        assert_eq!(
            self.fixture.read_all(),
            self.model.read(self.model.log_start, usize::MAX)
        );
        for (offset, _) in self.model.records() {
            self.read(offset, 1);
        }
        let largest = partition.find_max_timestamp().unwrap();
        let expected = self
            .model
            .records()
            .max_by_key(|(offset, timestamp)| (*timestamp, std::cmp::Reverse(*offset)));
        assert_eq!(
            largest.map(|found| (found.offset.0, found.timestamp.0)),
            expected
        );
        let sequence = partition
            .producers()
            .first()
            .map_or(0, |state| state.last_sequence + 1);
        assert_eq!(sequence, self.model.next_sequence());
    }
}

/// Most of the time goes into syncs of the real disk.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    // A failing case prints its steps; they become a test of their own.
    #![proptest_config(ProptestConfig {
        cases: cases(), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_partition_behaves_like_a_list_of_batches(
        steps in prop::collection::vec(step(), 1..120),
        journaled in any::<bool>(),
        mapped in any::<bool>(),
        segment_bytes in 300u64..4000,
    ) {
        let durability = if journaled { Kept::Fsync } else { Kept::Os };
        let tail = if mapped { TailKind::Mmap } else { TailKind::Pwrite };
        let fixture = Fixture::new(config(durability, segment_bytes), tail);
        let mut run = Run { fixture, model: Model::default(), journaled };
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::Maintain);
        run.check();
    }
}
