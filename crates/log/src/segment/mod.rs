//! Segment files.

mod open_files;

pub(crate) use open_files::OpenFiles;
