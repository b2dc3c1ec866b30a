//! A connection that is read line by line and block by block, and frames that are made once and only
//! stamped when they are sent: what a record costs the one who sends it is a store of a few bytes and its
//! share of one write.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use memchr::memchr;

use crate::{
    pace::Clock,
    record::{HEADER_BYTES, Header},
};

/// Bytes asked of the socket at once, and bytes written to it at once when there is much to send.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// How long one read of a socket waits.
const TURN: Duration = Duration::from_millis(100);
/// Turns after which a server that owes an answer is given up.
const TURNS_MAX: u32 = 300;

/// The reading half of a connection. Blocks until what is asked for is there, for half a minute at most.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    clock: Clock,
    filled_at: u64,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, clock: Clock) -> Self {
        Self {
            stream,
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            clock,
            filled_at: 0,
        }
    }

    /// When the bytes that were read last came from the socket.
    pub(crate) fn filled_at(&self) -> u64 {
        self.filled_at
    }

    /// Whether everything that was received has been read.
    pub(crate) fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Waits a moment for something to read. False when nothing came.
    pub(crate) fn is_ready(&mut self) -> io::Result<bool> {
        Ok(!self.is_drained() || self.receive()?)
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> io::Result<&[u8]> {
        let mut searched = 0;
        loop {
            let pending = &self.buffer[self.start + searched..self.end];
            if let Some(at) = memchr(b'\n', pending) {
                let line = self.start..self.start + searched + at;
                self.start = line.end + 1;
                let line = &self.buffer[line];
                return Ok(line.strip_suffix(b"\r").unwrap_or(line));
            }
            searched = self.end - self.start;
            self.fill()?;
        }
    }

    /// The next `count` bytes.
    pub(crate) fn block(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.end - self.start < count {
            self.fill()?;
        }
        self.start += count;
        Ok(&self.buffer[self.start - count..self.start])
    }

    fn fill(&mut self) -> io::Result<()> {
        for _ in 0..TURNS_MAX {
            if self.receive()? {
                return Ok(());
            }
        }
        Err(broken("the server owes an answer and is silent"))
    }

    /// Reads from the socket once. False when nothing came in one turn.
    fn receive(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(broken("the server closed the connection")),
            Ok(count) => {
                self.end += count;
                self.filled_at = self.clock.now();
                Ok(true)
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TURN))?;
    Ok(stream)
}

pub(crate) fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// A number in decimal digits, as both protocols write lengths.
pub(crate) fn number(digits: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(digits).ok();
    let value = text.and_then(|text| text.parse().ok());
    value.ok_or_else(|| {
        broken(format!(
            "not a number: {:?}",
            String::from_utf8_lossy(digits)
        ))
    })
}

/// Digits of a partition's number in the names of keys and subjects: always as many, so that all frames
/// have one length.
pub(crate) const PARTITION_DIGITS: usize = 5;
/// Hexadecimal digits of a time in a frame.
pub(crate) const TIME_DIGITS: usize = 16;

/// Requests that differ in the partition, the start of the record and perhaps a time in hexadecimal.
pub(crate) struct Frames {
    bytes: Vec<u8>,
    stride: usize,
    partition_at: usize,
    time_at: Option<usize>,
    record_at: usize,
}

impl Frames {
    /// `frame` is one request, whose record is filled with what does not compress.
    pub(crate) fn new(
        mut frame: Vec<u8>,
        partition_at: usize,
        time_at: Option<usize>,
        record: std::ops::Range<usize>,
    ) -> Self {
        assert!(record.len() >= HEADER_BYTES && record.end <= frame.len());
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in &mut frame[record.clone()] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        let stride = frame.len();
        let count = (CHUNK_BYTES / stride).max(1);
        Self {
            bytes: frame.repeat(count),
            stride,
            partition_at,
            time_at,
            record_at: record.start,
        }
    }

    /// How many requests are sent at once at most.
    pub(crate) fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }

    pub(crate) fn stamp(&mut self, slot: usize, partition: u64, header: Header) {
        let frame = &mut self.bytes[slot * self.stride..][..self.stride];
        decimal(
            partition,
            &mut frame[self.partition_at..][..PARTITION_DIGITS],
        );
        if let Some(at) = self.time_at {
            hexadecimal(header.due, &mut frame[at..][..TIME_DIGITS]);
        }
        header.write(&mut frame[self.record_at..]);
    }

    /// Sends the requests that are in the first slots.
    pub(crate) fn send(&self, count: usize, to: &mut TcpStream) -> io::Result<()> {
        to.write_all(&self.bytes[..count * self.stride])
    }
}

fn decimal(mut value: u64, to: &mut [u8]) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn hexadecimal(mut value: u64, to: &mut [u8]) {
    for digit in to.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// What `hexadecimal` wrote; None for anything else.
pub(crate) fn time_of(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::{CHUNK_BYTES, Frames, PARTITION_DIGITS, TIME_DIGITS, Wire, connect, time_of};
    use crate::{pace::Clock, record::Header};

    #[test]
    fn lines_and_blocks_come_whole_however_the_bytes_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let stream = connect(&address).expect("a connection");
        let (mut other, _) = listener.accept().expect("a connection");
        let sender = std::thread::spawn(move || {
            for part in [
                &b"one\r"[..],
                b"\ntw",
                b"o\r\n",
                &[7; CHUNK_BYTES + 5],
                b"end\n",
            ] {
                other.write_all(part).expect("it is read");
                std::thread::yield_now();
            }
        });
        let mut wire = Wire::new(stream, Clock::start());
        assert_eq!(wire.line().expect("a line"), b"one");
        assert_eq!(wire.line().expect("a line"), b"two");
        let block = wire.block(CHUNK_BYTES + 5).expect("a block");
        assert_eq!(block, [7; CHUNK_BYTES + 5]);
        assert_eq!(wire.line().expect("a line"), b"end");
        assert!(wire.is_drained() && wire.line().is_err());
        sender.join().expect("it sends");
    }

    #[test]
    fn a_stamp_changes_its_own_frame_only() {
        let frame = format!("p={:5} t={:16} r={:20}\n", "", "", "").into_bytes();
        let record = 29..49;
        let mut frames = Frames::new(frame, 2, Some(10), record.clone());
        let header = Header {
            producer: 1,
            number: 2,
            due: 0xabc,
        };
        frames.stamp(1, 42, header);
        let stride = 50;
        let other = &frames.bytes[stride..2 * stride];
        assert_eq!(&other[2..][..PARTITION_DIGITS], b"00042");
        assert_eq!(time_of(&other[10..][..TIME_DIGITS]), Some(0xabc));
        assert_eq!(Header::read(&other[record]), Some(header));
        assert_eq!(&frames.bytes[2..7], b"     ");
        assert_eq!(frames.count(), CHUNK_BYTES / stride);
    }
}
