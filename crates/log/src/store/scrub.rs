//! When everything at rest was last read from end to end.

use std::io;

use sapwood_model::Timestamp;
use tracing::warn;

use super::Store;
use crate::framed;

/// The file in the data directory that says so. Without it nobody knows, and nothing else is lost.
pub(crate) const SCRUB: &str = "scrub";

const KIND: framed::Kind = framed::Kind {
    magic: *b"SWSC",
    version: 1,
};

impl Store {
    /// When the last scrub of everything ended; `None` when there was none, or nobody knows. Blocks.
    pub fn last_scrub(&self) -> Option<Timestamp> {
        let path = self.inner.dir.path().join(SCRUB);
        match framed::read(self.inner.disk(), &path, KIND) {
            Ok(payload) => Some(Timestamp(i64::from_be_bytes(payload.try_into().ok()?))),
            Err(framed::FramedError::Missing) => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "when the last scrub was is not known");
                None
            }
        }
    }

    /// Notes that a scrub of everything ended. Durable when it returns. Blocks.
    ///
    /// # Errors
    /// What the disk reports; the next scrub then comes earlier than it would.
    pub fn note_scrub(&self, now: Timestamp) -> io::Result<()> {
        let bytes = framed::encode(KIND, &now.0.to_be_bytes());
        framed::replace(
            self.inner.disk(),
            &self.inner.dir.path().join(SCRUB),
            &bytes,
        )
    }
}
