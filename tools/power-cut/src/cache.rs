//! A disk with a volatile write cache: what was written since the last flush may be lost, block by block.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use crate::random::Random;

/// What is written as a whole or not at all: a page, and a block of the file system.
pub(crate) const BLOCK_BYTES: usize = 4096;
const BLOCK_BYTES_U64: u64 = 4096;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_BYTES_U64);

/// 4,096 bytes that nobody changes.
type Block = Arc<[u8]>;

/// The contents of a disk. A block that is not named is zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents(HashMap<u64, Block>);

impl Contents {
    /// Reads an image. Its length is a multiple of the block's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let mut image = File::open(path)?;
        let blocks = image.metadata()?.len() / BLOCK_BYTES_U64;
        let mut contents = HashMap::new();
        let mut bytes = [0; BLOCK_BYTES];
        for number in 0..blocks {
            image.read_exact(&mut bytes)?;
            if bytes != [0; BLOCK_BYTES] {
                contents.insert(number, Block::from(&bytes[..]));
            }
        }
        Ok(Self(contents))
    }

    /// Writes an image of so many bytes, with holes where nothing is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let image = File::create(path)?;
        image.set_len(bytes)?;
        for (number, block) in &self.0 {
            image.write_all_at(block, number * BLOCK_BYTES_U64)?;
        }
        image.sync_all()
    }
}

/// A moment to cut the power at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// When the next flush is asked for, and has not begun.
    Flush,
    /// When so many blocks have been written since the last flush.
    Volatile(usize),
}

/// What was on a disk, and in its cache, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    durable: Contents,
    /// Blocks written since the last flush, in the order of the writes.
    volatile: Vec<(u64, Block)>,
}

/// Which of the volatile writes reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survival {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Each block with this chance out of eight, and then any of its versions.
    Subset(u64),
    /// So many eighths from the beginning, in order.
    First(u64),
    /// So many eighths from the end: what was written late overtook what was written early.
    Last(u64),
}

impl std::fmt::Display for Survival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Everything => f.write_str("everything"),
            Self::Subset(eighths) => write!(f, "subset {eighths}/8"),
            Self::First(eighths) => write!(f, "first {eighths}/8"),
            Self::Last(eighths) => write!(f, "last {eighths}/8"),
        }
    }
}

impl Cut {
    /// How many blocks were written since the last flush; a block written twice counts twice.
    pub(crate) fn volatile(&self) -> usize {
        self.volatile.len()
    }

    /// A disk that may be found when the power is back.
    ///
    /// With writes to blocks `[7, 9, 7]`, `Subset` may keep block 7 as it was, as first or as last
    /// written, and block 9 as it was or as written.
    pub(crate) fn survivor(&self, survival: Survival, random: &mut Random) -> Contents {
        let mut contents = self.durable.clone();
        let count = self.volatile.len();
        let share = |eighths: u64| {
            let eighths = usize::try_from(eighths).unwrap_or(8).min(8);
            count * eighths / 8
        };
        match survival {
            Survival::Nothing => {}
            Survival::Everything => contents.apply(&self.volatile),
            Survival::First(eighths) => contents.apply(&self.volatile[..share(eighths)]),
            Survival::Last(eighths) => contents.apply(&self.volatile[count - share(eighths)..]),
            Survival::Subset(eighths) => {
                for (number, versions) in self.versions() {
                    if random.within(0..8) < eighths {
                        let version = Block::clone(random.one_of::<&Block>(&versions));
                        contents.0.insert(number, version);
                    }
                }
            }
        }
        contents
    }

    /// The versions of each volatile block, oldest first; the blocks in a fixed order, so that a seed
    /// chooses the same of the same cut.
    fn versions(&self) -> std::collections::BTreeMap<u64, Vec<&Block>> {
        let mut versions = std::collections::BTreeMap::<u64, Vec<&Block>>::new();
        for (number, block) in &self.volatile {
            versions.entry(*number).or_default().push(block);
        }
        versions
    }
}

impl Contents {
    fn apply(&mut self, writes: &[(u64, Block)]) {
        for (number, block) in writes {
            self.0.insert(*number, Block::clone(block));
        }
    }
}

/// What is called under the cache's lock just before a cut is taken.
pub(crate) type BeforeCut = Box<dyn FnOnce() + Send>;

/// The disk as the machine sees it while it runs.
pub(crate) struct Cache {
    bytes: u64,
    durable: Contents,
    volatile: Vec<(u64, Block)>,
    /// The last version of each volatile block.
    newest: HashMap<u64, Block>,
    /// Whether a flush is answered and not done.
    lies: bool,
    flushes: u64,
    armed: Option<(Moment, BeforeCut)>,
    cut: Option<Cut>,
}

impl Cache {
    /// A disk of so many bytes whose cache is empty. One that lies answers flushes and forgets them.
    pub(crate) fn new(contents: Contents, bytes: u64, lies: bool) -> Self {
        Self {
            bytes,
            durable: contents,
            volatile: Vec::new(),
            newest: HashMap::new(),
            lies,
            flushes: 0,
            armed: None,
            cut: None,
        }
    }

    /// The size of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes asked for so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Bytes from a position on, fewer at the end of the disk.
    pub(crate) fn read(&self, position: u64, bytes: usize) -> Vec<u8> {
        let end = (position + bytes as u64).min(self.bytes);
        let mut data = Vec::with_capacity(bytes);
        let mut at = position;
        while at < end {
            let (number, inner) = place(at);
            let take = (BLOCK_BYTES - inner).min(usize::try_from(end - at).unwrap_or(BLOCK_BYTES));
            match self.block(number) {
                Some(block) => data.extend_from_slice(&block[inner..inner + take]),
                None => data.resize(data.len() + take, 0),
            }
            at += take as u64;
        }
        data
    }

    /// Takes a write into the cache. What lies behind the disk's end is refused.
    ///
    /// # Errors
    /// When it would go past the end.
    pub(crate) fn write(&mut self, position: u64, mut data: &[u8]) -> io::Result<()> {
        if position + data.len() as u64 > self.bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut at = position;
        while !data.is_empty() {
            let (number, inner) = place(at);
            let take = (BLOCK_BYTES - inner).min(data.len());
            let block = if take == BLOCK_BYTES {
                Block::from(&data[..take])
            } else {
                let mut whole = self
                    .block(number)
                    .map_or_else(|| vec![0; BLOCK_BYTES], |block| block.to_vec());
                whole[inner..inner + take].copy_from_slice(&data[..take]);
                Block::from(whole)
            };
            self.volatile.push((number, Block::clone(&block)));
            self.newest.insert(number, block);
            at += take as u64;
            data = &data[take..];
            let written = self.volatile.len();
            self.cut_if(|moment| matches!(moment, Moment::Volatile(n) if written >= n));
        }
        Ok(())
    }

    /// Everything written so far is durable when this returns.
    pub(crate) fn flush(&mut self) {
        self.cut_if(|moment| moment == Moment::Flush);
        self.flushes += 1;
        if self.lies {
            return;
        }
        let volatile = std::mem::take(&mut self.volatile);
        self.durable.apply(&volatile);
        self.newest.clear();
    }

    /// Cuts at this moment, and calls `before` first, both before anything else is written or flushed.
    pub(crate) fn arm(&mut self, moment: Moment, before: BeforeCut) {
        self.armed = Some((moment, before));
    }

    /// The cut, once its moment has come.
    pub(crate) fn taken(&mut self) -> Option<Cut> {
        self.cut.take()
    }

    /// Cuts now if the moment has not come yet.
    ///
    /// # Panics
    /// When no moment was set.
    pub(crate) fn cut_now(&mut self) -> Cut {
        self.cut_if(|_| true);
        self.cut
            .take()
            .expect("a moment was set, so a cut is there")
    }

    fn cut_if(&mut self, is_due: impl FnOnce(Moment) -> bool) {
        if self
            .armed
            .as_ref()
            .is_none_or(|(moment, _)| !is_due(*moment))
        {
            return;
        }
        if let Some((_, before)) = self.armed.take() {
            before();
            self.cut = Some(Cut {
                durable: self.durable.clone(),
                volatile: self.volatile.clone(),
            });
        }
    }

    fn block(&self, number: u64) -> Option<&Block> {
        self.newest
            .get(&number)
            .or_else(|| self.durable.0.get(&number))
    }
}

/// The block of a position, and the place in it.
fn place(position: u64) -> (u64, usize) {
    let inner = usize::try_from(position % BLOCK_BYTES_U64).unwrap_or_default();
    (position / BLOCK_BYTES_U64, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK_BYTES: u64 = 16 * BLOCK_BYTES_U64;

    fn cache() -> Cache {
        Cache::new(Contents::default(), DISK_BYTES, false)
    }

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; BLOCK_BYTES]
    }

    fn cut(mut cache: Cache) -> Cut {
        cache.arm(Moment::Flush, Box::new(|| ()));
        cache.cut_now()
    }

    /// The first byte of each of the first blocks of a survivor.
    fn found<const N: usize>(cut: &Cut, survival: Survival, seed: u64) -> [u8; N] {
        let contents = cut.survivor(survival, &mut Random::new(seed, 0));
        let disk = Cache::new(contents, DISK_BYTES, false);
        std::array::from_fn(|number| disk.read(number as u64 * BLOCK_BYTES_U64, 1)[0])
    }

    #[test]
    fn what_was_flushed_survives_in_every_case_and_the_rest_as_the_case_says() {
        let mut cache = cache();
        cache.write(0, &page(1)).expect("it fits");
        cache.flush();
        for (block, byte) in [(1, 2), (2, 3), (3, 4), (4, 5)] {
            cache
                .write(block * BLOCK_BYTES_U64, &page(byte))
                .expect("it fits");
        }
        let cut = cut(cache);
        assert_eq!(cut.volatile(), 4);
        assert_eq!(found(&cut, Survival::Nothing, 1), [1, 0, 0, 0, 0]);
        assert_eq!(found(&cut, Survival::Everything, 1), [1, 2, 3, 4, 5]);
        assert_eq!(found(&cut, Survival::First(4), 1), [1, 2, 3, 0, 0]);
        assert_eq!(found(&cut, Survival::Last(4), 1), [1, 0, 0, 4, 5]);
    }

    #[test]
    fn subsets_come_in_every_form_of_every_version() {
        let mut cache = cache();
        cache.write(0, &page(1)).expect("it fits");
        cache.flush();
        for byte in [2, 3] {
            cache.write(0, &page(byte)).expect("it fits");
        }
        cache.write(BLOCK_BYTES_U64, &page(9)).expect("it fits");
        let cut = cut(cache);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.insert(found::<2>(&cut, Survival::Subset(4), seed));
        }
        let all = [[1, 0], [1, 9], [2, 0], [2, 9], [3, 0], [3, 9]];
        assert_eq!(seen, all.into());
    }

    #[test]
    fn a_write_of_two_blocks_is_torn_between_them() {
        let mut cache = cache();
        let mut both = page(1);
        both.extend(page(2));
        cache.write(0, &both).expect("it fits");
        let cut = cut(cache);
        let torn = (0..100).any(|seed| found(&cut, Survival::Subset(4), seed) == [0, 2]);
        assert!(torn);
    }

    #[test]
    fn the_running_machine_reads_what_it_wrote_flushed_or_not() {
        let mut cache = cache();
        cache.write(100, b"one").expect("it fits");
        cache.flush();
        cache.write(101, b"x").expect("it fits");
        assert_eq!(cache.read(99, 5), b"\0oxe\0");
        assert_eq!(cache.read(DISK_BYTES - 1, 5), b"\0");
        assert!(cache.write(DISK_BYTES - 1, b"xx").is_err());
    }

    #[test]
    fn a_cut_at_a_flush_has_what_the_flush_would_have_made_durable_in_the_cache() {
        let mut cache = cache();
        cache.arm(Moment::Flush, Box::new(|| ()));
        cache.write(0, &page(1)).expect("it fits");
        assert!(cache.taken().is_none());
        cache.flush();
        let cut = cache.taken().expect("a flush was asked for");
        assert_eq!(found(&cut, Survival::Nothing, 1), [0]);
        assert_eq!(found(&cut, Survival::Everything, 1), [1]);
    }

    #[test]
    fn a_cut_at_a_number_of_writes_tears_the_write_that_reaches_it() {
        let mut cache = cache();
        cache.arm(Moment::Volatile(2), Box::new(|| ()));
        cache
            .write(0, &[page(1), page(2), page(3)].concat())
            .expect("it fits");
        let cut = cache.taken().expect("two blocks were written");
        assert_eq!(found(&cut, Survival::Everything, 1), [1, 2, 0]);
    }

    #[test]
    fn a_disk_that_lies_loses_what_was_flushed() {
        let mut cache = Cache::new(Contents::default(), DISK_BYTES, true);
        cache.write(0, &page(1)).expect("it fits");
        cache.flush();
        assert_eq!(cache.read(0, 1), [1]);
        assert_eq!(found(&cut(cache), Survival::Nothing, 1), [0]);
    }
}
