//! Sealed segments that were read lately: open files and their indexes, bounded.

/// Files of sealed segments that are kept open for readers, least recently used out first.
#[derive(Debug)]
pub(crate) struct OpenFiles {}

impl OpenFiles {
    /// Keeps at most `files_max` files open, at least 1.
    pub(crate) fn new(files_max: usize) -> Self {
        let _ = files_max;
        todo!()
    }
}
