//! What is in a record, and whether all of them came: each begins with who sent it, its number and the
//! time at which it was due. Producers go round the partitions, so in one partition the numbers of one
//! producer rise by the count of the partitions.

/// Bytes of a record that say which it is; no record is shorter.
pub(crate) const HEADER_BYTES: usize = 16;

/// Producers and partitions whose order is followed.
pub(crate) const PRODUCERS_MAX: u64 = 1 << 16;
const NUMBER_BITS: u32 = 48;

/// The start of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) producer: u64,
    pub(crate) number: u64,
    /// When the record was due, by the program's clock, in nanoseconds.
    pub(crate) due: u64,
}

impl Header {
    pub(crate) fn write(&self, to: &mut [u8]) {
        let name = self.producer << NUMBER_BITS | self.number;
        to[..8].copy_from_slice(&name.to_le_bytes());
        to[8..HEADER_BYTES].copy_from_slice(&self.due.to_le_bytes());
    }

    /// None when the record is too short to be one of this program's.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let (name, rest) = record.split_first_chunk::<8>()?;
        let (due, _) = rest.split_first_chunk::<8>()?;
        let name = u64::from_le_bytes(*name);
        Some(Self {
            producer: name >> NUMBER_BITS,
            number: name & ((1 << NUMBER_BITS) - 1),
            due: u64::from_le_bytes(*due),
        })
    }
}

/// The partition that a producer's record goes to.
pub(crate) fn partition_of(producer: u64, number: u64, partitions: u64) -> u64 {
    (producer + number) % partitions
}

/// Counts what was read and holds it against the order in which it was written.
#[derive(Debug)]
pub(crate) struct Check {
    partitions: u64,
    /// By producer and partition: the number that comes next.
    next: Vec<Vec<u64>>,
    /// Records read, each once.
    pub(crate) records: u64,
    /// Records that came again, or after a later one of theirs.
    pub(crate) repeated: u64,
    /// Records over which a later one jumped.
    pub(crate) skipped: u64,
    /// Records that are not this program's or lie in another partition than theirs.
    pub(crate) foreign: u64,
}

impl Check {
    pub(crate) fn new(partitions: u64) -> Self {
        Self {
            partitions,
            next: Vec::new(),
            records: 0,
            repeated: 0,
            skipped: 0,
            foreign: 0,
        }
    }

    pub(crate) fn take(&mut self, partition: u64, record: &[u8]) -> Option<Header> {
        let Some(header) = Header::read(record) else {
            self.foreign += 1;
            return None;
        };
        let Header {
            producer, number, ..
        } = header;
        if partition_of(producer, number, self.partitions) != partition {
            self.foreign += 1;
            return None;
        }
        let partitions = self.partitions;
        while self.next.len() as u64 <= producer {
            let producer = self.next.len() as u64;
            let first = |partition| (partition + partitions - producer % partitions) % partitions;
            self.next.push((0..partitions).map(first).collect());
        }
        let next = &mut self.next[producer as usize][partition as usize];
        if number < *next {
            self.repeated += 1;
            return None;
        }
        self.skipped += (number - *next) / partitions;
        *next = number + partitions;
        self.records += 1;
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, HEADER_BYTES, Header, partition_of};

    fn record(producer: u64, number: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let due = 77;
        Header {
            producer,
            number,
            due,
        }
        .write(&mut bytes);
        bytes
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header::read(&record(3, 1 << 40)).expect("it is long enough");
        assert_eq!(
            (header.producer, header.number, header.due),
            (3, 1 << 40, 77)
        );
        assert_eq!(Header::read(&[0; HEADER_BYTES - 1]), None);
    }

    #[test]
    fn all_records_in_order_leave_nothing_to_say() {
        let mut check = Check::new(3);
        for number in 0..10 {
            for producer in [1, 5] {
                let partition = partition_of(producer, number, 3);
                assert!(check.take(partition, &record(producer, number)).is_some());
            }
        }
        let rest = (check.repeated, check.skipped, check.foreign);
        assert_eq!((check.records, rest), (20, (0, 0, 0)));
    }

    #[test]
    fn gaps_repetitions_and_strangers_are_counted() {
        let mut check = Check::new(2);
        check.take(0, &record(0, 0));
        check.take(0, &record(0, 6));
        assert_eq!(check.skipped, 2);
        check.take(0, &record(0, 4));
        assert_eq!((check.records, check.repeated), (2, 1));
        check.take(1, &record(0, 8));
        check.take(1, b"short");
        assert_eq!(check.foreign, 2);
    }
}
