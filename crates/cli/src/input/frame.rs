//! Cuts a stream of bytes into frames (lines, CSV records) without copying them one by one.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

/// How much is asked for in one read. Large enough to make system calls cheap.
const READ_BYTES: usize = 256 << 10;

/// Finds the end of a frame.
pub(crate) trait Framing {
    /// Looks at the bytes of the current frame that it has not seen yet. Answers the position of
    /// the newline that ends the frame, or `None` when more bytes are needed; after a `Some` the
    /// next call begins a new frame.
    fn frame_end(&mut self, unseen: &[u8]) -> Option<usize>;
}

/// A frame is a line.
#[derive(Debug)]
pub(crate) struct LineFraming;

impl Framing for LineFraming {
    fn frame_end(&mut self, unseen: &[u8]) -> Option<usize> {
        memchr::memchr(b'\n', unseen)
    }
}

/// Reads a source and cuts it. The frames share the buffer that they were read into.
pub(crate) struct Framer<R, F> {
    reader: R,
    framing: F,
    frame_bytes_max: usize,
    buffer: BytesMut,
    /// How much of the buffer `framing` has seen.
    seen: usize,
    ended: bool,
    /// The line that the buffer begins with, from 1.
    line: u64,
    /// The line that the last frame began with.
    frame_line: u64,
}

impl<R: Read, F: Framing> Framer<R, F> {
    /// Frames may be up to `frame_bytes_max` bytes.
    pub(crate) fn new(reader: R, framing: F, frame_bytes_max: usize) -> Self {
        Self {
            reader,
            framing,
            frame_bytes_max,
            buffer: BytesMut::new(),
            seen: 0,
            ended: false,
            line: 1,
            frame_line: 1,
        }
    }

    /// Reads once; blocks. `false` when the source has ended: what [`Framer::next_frame`] gives
    /// after that is the rest.
    ///
    /// # Errors
    /// Those of the source; `FileTooLarge` when a frame reaches the limit without an end.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.len() > self.frame_bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A large frame doubles the buffer instead of growing it by one read at a time.
        let wanted = READ_BYTES
            .max(self.buffer.len())
            .min(self.frame_bytes_max.max(READ_BYTES));
        let start = self.buffer.len();
        self.buffer.resize(start + wanted, 0);
        let outcome = loop {
            match self.reader.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let got = outcome.as_ref().copied().unwrap_or(0);
        self.buffer.truncate(start + got);
        self.ended = outcome? == 0;
        Ok(!self.ended)
    }

    /// The next frame, without its newline, of what has been read.
    pub(crate) fn next_frame(&mut self) -> Option<Bytes> {
        match self.framing.frame_end(&self.buffer[self.seen..]) {
            Some(at) => {
                let end = self.seen + at;
                let mut frame = self.buffer.split_to(end + 1);
                frame.truncate(end);
                self.seen = 0;
                Some(self.taken(frame.freeze(), true))
            }
            None if self.ended && !self.buffer.is_empty() => {
                self.seen = 0;
                let rest = self.buffer.split().freeze();
                Some(self.taken(rest, false))
            }
            None => {
                self.seen = self.buffer.len();
                None
            }
        }
    }

    /// The line at which the next frame begins, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The line at which the last frame began, from 1.
    pub(crate) fn frame_line(&self) -> u64 {
        self.frame_line
    }

    fn taken(&mut self, frame: Bytes, newline: bool) -> Bytes {
        self.frame_line = self.line;
        // Only a quoted CSV field holds newlines of its own.
        self.line += memchr::memchr_iter(b'\n', &frame).count() as u64 + u64::from(newline);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, whatever is asked for.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buf.len());
            buf[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn frames(text: &[u8], step: usize) -> Vec<(u64, Bytes)> {
        let mut framer = Framer::new(Trickle(text, step), LineFraming, 1 << 20);
        let mut frames = Vec::new();
        loop {
            let more = framer.fill().unwrap();
            while let Some(frame) = framer.next_frame() {
                frames.push((framer.frame_line(), frame));
            }
            if !more {
                return frames;
            }
        }
    }

    #[test]
    fn the_same_frames_come_out_however_the_bytes_arrive() {
        let text = b"one\n\nthree\nfour";
        let expected: Vec<(u64, Bytes)> = [(1, "one"), (2, ""), (3, "three"), (4, "four")]
            .map(|(line, text)| (line, Bytes::from_static(text.as_bytes())))
            .into();
        for step in 1..=text.len() {
            assert_eq!(frames(text, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_frame_without_end_stops_at_the_limit() {
        let endless = io::repeat(b'x');
        let mut framer = Framer::new(endless, LineFraming, 1000);
        let error = loop {
            match framer.fill() {
                Ok(_) => assert_eq!(framer.next_frame(), None),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(framer.buffer.capacity() <= 4 * READ_BYTES);
    }
}
