//! The content of one file at one level: the page cache, or what is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The unit in which content becomes dirty.
pub const PAGE_BYTES: u64 = 4096;

/// The unit that a device writes as a whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

pub(crate) type Page = Arc<[u8; PAGE_BYTES as usize]>;

/// A change of a file's length or allocation. File systems make these durable in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Grow { len: u64 },
    Cut { len: u64 },
    Allocate { range: Range<u64> },
}

/// Length, pages and allocated blocks. A page that is not there reads as zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) len: u64,
    pages: BTreeMap<u64, Page>,
    allocated: BTreeSet<u64>,
}

impl Image {
    /// Reads up to the end of the file and returns the count.
    pub(crate) fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let size = self.len.saturating_sub(position).min(buf.len() as u64) as usize;
        for part in parts(position, size) {
            let target = &mut buf[part.bytes];
            match self.pages.get(&part.page) {
                Some(page) => target.copy_from_slice(&page[part.within]),
                None => target.fill(0),
            }
        }
        size
    }

    /// Puts bytes in place and takes blocks for them; the length is the caller's business.
    pub(crate) fn write(&mut self, bytes: &[u8], position: u64) {
        for part in parts(position, bytes.len()) {
            let page = self
                .pages
                .entry(part.page)
                .or_insert_with(|| Arc::new([0; _]));
            Arc::make_mut(page)[part.within].copy_from_slice(&bytes[part.bytes]);
            self.allocated.insert(part.page);
        }
    }

    pub(crate) fn page(&self, number: u64) -> Option<&Page> {
        self.pages.get(&number)
    }

    /// Puts a whole page in place, as write-out does.
    pub(crate) fn set_page(&mut self, number: u64, page: Option<Page>) {
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
        self.allocated.insert(number);
    }

    /// Puts the sectors of a page in place whose bits are set; the others stay.
    pub(crate) fn set_sectors(&mut self, number: u64, page: Option<&Page>, sectors: u8) {
        const SECTOR: usize = SECTOR_BYTES as usize;
        let mut torn = match self.pages.get(&number) {
            Some(page) => **page,
            None => [0; _],
        };
        let zeros = [0; SECTOR];
        for (index, sector) in torn.chunks_mut(SECTOR).enumerate() {
            if sectors & (1 << index) != 0 {
                let from = page.map_or(&zeros[..], |page| &page[index * SECTOR..][..SECTOR]);
                sector.copy_from_slice(from);
            }
        }
        self.set_page(number, Some(Arc::new(torn)));
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Grow { len } => self.len = *len,
            Change::Cut { len } => {
                self.len = *len;
                self.drop_beyond_end();
            }
            Change::Allocate { range } => {
                self.allocated.extend(pages_of(range));
                self.len = self.len.max(range.end);
            }
        }
    }

    /// Forgets what lies beyond the length: if the file grows again, it reads as zeros there.
    pub(crate) fn drop_beyond_end(&mut self) {
        let whole = self.len.div_ceil(PAGE_BYTES);
        self.pages.split_off(&whole);
        self.allocated.split_off(&whole);
        let within = (self.len % PAGE_BYTES) as usize;
        if within > 0
            && let Some(page) = self.pages.get_mut(&(self.len / PAGE_BYTES))
        {
            Arc::make_mut(page)[within..].fill(0);
        }
    }

    pub(crate) fn is_allocated(&self, page: u64) -> bool {
        self.allocated.contains(&page)
    }

    /// Allocated blocks in pages.
    pub(crate) fn blocks(&self) -> u64 {
        self.allocated.len() as u64
    }

    /// How many pages of the range have no block yet.
    pub(crate) fn missing_blocks(&self, range: &Range<u64>) -> u64 {
        pages_of(range)
            .filter(|page| !self.is_allocated(*page))
            .count() as u64
    }

    /// The numbers of all pages that hold anything.
    pub(crate) fn page_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }
}

/// The pages that a byte range touches.
pub(crate) fn pages_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// One page's share of a byte range.
struct Part {
    page: u64,
    within: Range<usize>,
    bytes: Range<usize>,
}

fn parts(position: u64, size: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let at = position + done as u64;
        let start = (at % PAGE_BYTES) as usize;
        let count = (PAGE_BYTES as usize - start).min(size - done);
        let part = Part {
            page: at / PAGE_BYTES,
            within: start..start + count,
            bytes: done..done + count,
        };
        done += count;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: &Image, range: Range<u64>) -> Vec<u8> {
        let mut buf = vec![9; (range.end - range.start) as usize];
        let count = image.read(&mut buf, range.start);
        buf.truncate(count);
        buf
    }

    #[test]
    fn a_write_across_pages_reads_back_and_holes_read_as_zeros() {
        let mut image = Image {
            len: 10_000,
            ..Image::default()
        };
        image.write(&[1, 2, 3, 4], 4094);
        assert_eq!(read(&image, 4092..4100), [0, 0, 1, 2, 3, 4, 0, 0]);
        assert_eq!(read(&image, 9_999..12_000), [0]);
        assert_eq!(read(&image, 10_000..10_001), []);
        assert_eq!(image.blocks(), 2);
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
        let mut image = Image {
            len: 8192,
            ..Image::default()
        };
        image.write(&[7; 8192], 0);
        image.apply(&Change::Cut { len: 100 });
        image.apply(&Change::Grow { len: 8192 });
        assert_eq!(read(&image, 98..102), [7, 7, 0, 0]);
        assert_eq!(read(&image, 5000..5001), [0]);
        assert_eq!(image.blocks(), 1);
    }

    #[test]
    fn allocation_takes_blocks_and_only_lengthens() {
        let mut image = Image {
            len: 100,
            ..Image::default()
        };
        assert_eq!(image.missing_blocks(&(0..8193)), 3);
        image.apply(&Change::Allocate { range: 0..50 });
        assert_eq!((image.len, image.blocks()), (100, 1));
        image.apply(&Change::Allocate { range: 4096..9000 });
        assert_eq!((image.len, image.blocks()), (9000, 3));
    }
}
