//! Progress of a long command on standard error, when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    console::Console,
    input::Source,
    output::{bytes_text, thousands},
};

/// Counts the input and shows how far it has come.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    bytes: u64,
}

impl Progress {
    /// Shows nothing yet. When all sources are files, how much there is to do is known.
    pub(crate) fn new(console: &Console, sources: &[Source]) -> Self {
        if !console.shows_progress() {
            return Self {
                bar: ProgressBar::hidden(),
                bytes: 0,
            };
        }
        let total = sources.iter().map(Source::size_bytes).sum::<Option<u64>>();
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:30} {percent:>3}%  {msg}  eta {eta}",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {elapsed}  {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, bytes: 0 }
    }

    /// So many more bytes of input were read.
    pub(crate) fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.bar.set_position(self.bytes);
    }

    /// So many records have been acknowledged in all.
    pub(crate) fn acknowledged(&self, records: u64) {
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!(
            "{} records, {} read, {:.1} MB/s",
            thousands(records),
            bytes_text(self.bytes),
            self.bytes as f64 / 1e6 / seconds
        ));
        self.bar.tick();
    }

    /// Bytes of input so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes it off the screen.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
