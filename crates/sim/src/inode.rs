//! One file: its page cache, its durable content, and the way from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::Rng;
use crate::image::{Change, Image, PAGE_BYTES, pages_of};
use crate::tally::Counters;

/// How much of what is dirty a power cut or a failed sync keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Nothing,
    Everything,
    /// Each page by itself.
    Coins,
    /// Each page by itself, and of some pages each sector by itself.
    Sectors,
}

/// What the device has of a dirty page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Whole,
    /// The sectors whose bits are set.
    Torn(u8),
}

impl Mood {
    /// Coins alone would hardly ever keep all of one file and nothing of the next, which is what finds
    /// missing syncs.
    pub(crate) fn draw(rng: &mut Rng) -> Mood {
        match rng.below(6) {
            0 => Mood::Nothing,
            1 => Mood::Everything,
            2 | 3 => Mood::Coins,
            _ => Mood::Sectors,
        }
    }

    pub(crate) fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Mood::Nothing => false,
            Mood::Everything => true,
            Mood::Coins | Mood::Sectors => rng.chance(1, 2),
        }
    }

    fn keeps_of_page(self, rng: &mut Rng) -> Kept {
        match self {
            Mood::Sectors if rng.chance(1, 2) => Kept::Torn(rng.below(256) as u8),
            _ if self.keeps(rng) => Kept::Whole,
            _ => Kept::Nothing,
        }
    }

    /// How many of a list of changes that are kept in order.
    pub(crate) fn prefix(self, all: usize, rng: &mut Rng) -> usize {
        match self {
            Mood::Nothing => 0,
            Mood::Everything => all,
            Mood::Coins | Mood::Sectors => rng.below(all as u64 + 1) as usize,
        }
    }
}

/// A failed write-out that has to be reported (Linux: `errseq_t`): once to each handle that was open,
/// and to the next one if nobody has seen it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WriteOutError {
    count: u64,
    seen: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FileNode {
    cache: Image,
    durable: Image,
    /// Dirty pages, each with the number of changes that must be durable before it can be: a page that
    /// was cut off and written again lives in new blocks.
    dirty: BTreeMap<u64, u64>,
    /// Changes that are not durable, in order.
    changes: Vec<Change>,
    /// How many changes became durable before those in `changes`.
    changes_durable: u64,
    /// Pages whose sector cannot be read.
    unreadable: BTreeSet<u64>,
    /// Pages that are not in memory: a read that may not wait finds nothing there.
    cold: BTreeSet<u64>,
    error: WriteOutError,
}

impl FileNode {
    pub(crate) fn len(&self) -> u64 {
        self.cache.len
    }

    pub(crate) fn cache(&self) -> &Image {
        &self.cache
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.changes.is_empty()
    }

    /// `None` if one of the pages cannot be read.
    pub(crate) fn read(&mut self, buf: &mut [u8], position: u64) -> Option<usize> {
        let pages = pages_of(&(position..position.saturating_add(buf.len() as u64)));
        if self.unreadable.range(pages.clone()).next().is_some() {
            return None;
        }
        self.warm(pages);
        Some(self.cache.read(buf, position))
    }

    /// Whether all pages of the range are in memory; brings in those that are not.
    pub(crate) fn probe(&mut self, range: &Range<u64>) -> bool {
        let pages = pages_of(range);
        let resident = self.cold.range(pages.clone()).next().is_none();
        self.warm(pages);
        resident
    }

    fn warm(&mut self, pages: Range<u64>) {
        if !self.cold.is_empty() {
            self.cold.retain(|page| !pages.contains(page));
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8], position: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = position + bytes.len() as u64;
        for page in pages_of(&(position..end)) {
            let needs = self.changes_needed(page);
            self.dirty.insert(page, needs);
            self.cold.remove(&page);
            if position <= page * PAGE_BYTES && (page + 1) * PAGE_BYTES <= end {
                self.unreadable.remove(&page); // a whole page written anew: the device remaps the sector
            }
        }
        self.cache.write(bytes, position);
        if end > self.cache.len {
            self.change(Change::Grow { len: end });
        }
    }

    /// The number of changes up to the last one that cut this page off, or through it: what is written
    /// behind a cut is not undone by it.
    fn changes_needed(&self, page: u64) -> u64 {
        let cut = self.changes.iter().rposition(|change| match change {
            Change::Cut { len } => *len < (page + 1) * PAGE_BYTES,
            _ => false,
        });
        cut.map_or(0, |index| self.changes_durable + index as u64 + 1)
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len > self.cache.len {
            self.change(Change::Grow { len });
        } else if len < self.cache.len {
            self.change(Change::Cut { len });
            self.dirty.split_off(&len.div_ceil(PAGE_BYTES));
            let last = len / PAGE_BYTES;
            if !len.is_multiple_of(PAGE_BYTES) && self.cache.page(last).is_some() {
                // The kernel zeroes the rest of the last page in the cache, which makes it dirty.
                let needs = self.changes_needed(last);
                self.dirty.insert(last, needs);
            }
        }
    }

    pub(crate) fn allocate(&mut self, range: Range<u64>) {
        self.change(Change::Allocate { range });
    }

    fn change(&mut self, change: Change) {
        self.cache.apply(&change);
        self.changes.push(change);
    }

    pub(crate) fn sync(&mut self) {
        self.keep_changes(self.changes.len());
        for page in std::mem::take(&mut self.dirty).into_keys() {
            self.durable.set_page(page, self.cache.page(page).cloned());
        }
    }

    /// A part becomes durable, and nothing is dirty any more. The error is new; `seen` says whether
    /// somebody is being told.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng, seen: bool, counts: &Counters) {
        let mood = Mood::draw(rng);
        self.keep_changes(mood.prefix(self.changes.len(), rng));
        self.keep_pages(mood, rng, counts);
        self.error.count += 1;
        self.error.seen = seen;
    }

    /// The kernel writes some dirty pages on its own: what they hold now may survive a power cut, also
    /// when they change again.
    pub(crate) fn write_back(&mut self, rng: &mut Rng, counts: &Counters) {
        if !self.is_dirty() {
            return;
        }
        if rng.chance(1, 2) {
            self.keep_changes(rng.below(self.changes.len() as u64 + 1) as usize);
        }
        let pages: Vec<(u64, u64)> = self
            .dirty
            .iter()
            .map(|(page, needs)| (*page, *needs))
            .collect();
        for (page, needs) in pages {
            if needs <= self.changes_durable && rng.chance(1, 2) {
                self.dirty.remove(&page);
                self.durable.set_page(page, self.cache.page(page).cloned());
                counts.pages_written_back.add(1);
            }
        }
    }

    pub(crate) fn power_cut(&mut self, mood: Mood, rng: &mut Rng, counts: &Counters) {
        self.keep_changes(mood.prefix(self.changes.len(), rng));
        self.changes.clear();
        self.keep_pages(mood, rng, counts);
        self.durable.drop_beyond_end();
        self.cache = self.durable.clone();
        self.cold = self.cache.page_numbers().collect();
        self.forget_error();
    }

    fn keep_changes(&mut self, count: usize) {
        for change in self.changes.drain(..count) {
            self.durable.apply(&change);
            self.changes_durable += 1;
        }
    }

    fn keep_pages(&mut self, mood: Mood, rng: &mut Rng, counts: &Counters) {
        for (page, needs) in std::mem::take(&mut self.dirty) {
            let kept = mood.keeps_of_page(rng);
            if needs > self.changes_durable {
                counts.pages_lost.add(1);
                continue;
            }
            match kept {
                Kept::Nothing => counts.pages_lost.add(1),
                Kept::Whole => {
                    counts.pages_kept.add(1);
                    self.durable.set_page(page, self.cache.page(page).cloned());
                }
                Kept::Torn(sectors) => {
                    counts.pages_torn.add(1);
                    let page_now = self.cache.page(page).cloned();
                    self.durable.set_sectors(page, page_now.as_ref(), sectors);
                }
            }
        }
    }

    /// The kernel drops clean pages from memory: what a failed sync left behind is gone.
    pub(crate) fn drop_clean_pages(&mut self) {
        let numbers: BTreeSet<u64> = self
            .cache
            .page_numbers()
            .chain(self.durable.page_numbers())
            .collect();
        for page in numbers {
            let inside = page * PAGE_BYTES < self.cache.len;
            if inside && !self.dirty.contains_key(&page) {
                self.cache.set_page(page, self.durable.page(page).cloned());
                self.cold.insert(page);
            }
        }
    }

    /// What a handle that is opened now has already been told.
    pub(crate) fn errors_at_open(&self) -> u64 {
        if self.error.seen {
            self.error.count
        } else {
            self.error.count.saturating_sub(1)
        }
    }

    /// Whether there is an error that this handle was not told, and tells it.
    pub(crate) fn tell_error(&mut self, told: &mut u64) -> bool {
        let news = self.error.count > *told;
        if news {
            self.error.seen = true;
        }
        *told = self.error.count;
        news
    }

    /// The last handle is closed and the kernel drops the file from memory.
    pub(crate) fn forget_error(&mut self) {
        self.error = WriteOutError {
            count: self.error.count,
            seen: true,
        };
    }

    pub(crate) fn make_unreadable(&mut self, range: &Range<u64>) {
        self.unreadable.extend(pages_of(range));
    }

    pub(crate) fn make_readable(&mut self) {
        self.unreadable.clear();
    }

    /// Changes a byte where it lies, in memory and on the device, without a trace.
    pub(crate) fn corrupt(&mut self, position: u64, mask: u8) {
        for image in [&mut self.cache, &mut self.durable] {
            let mut byte = [0];
            if image.read(&mut byte, position) == 1 {
                image.write(&[byte[0] ^ mask], position);
            }
        }
    }

    /// Puts bytes where they do not belong, in memory and on the device, without a trace. What lies
    /// beyond the end is dropped.
    pub(crate) fn replace_at_rest(&mut self, bytes: &[u8], position: u64) {
        for image in [&mut self.cache, &mut self.durable] {
            let inside = image.len.saturating_sub(position).min(bytes.len() as u64);
            image.write(&bytes[..inside as usize], position);
        }
    }
}
