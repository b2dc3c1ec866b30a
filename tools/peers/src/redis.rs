//! Redis Streams: a partition is a stream, a record an entry with one field. XADD is pipelined; readers ask
//! with XREAD from the first entry on.

use std::{
    io::{self, Write},
    ops::Range,
    sync::{Arc, Mutex},
};

use crate::{
    pace::Clock,
    peer::{Ack, Acks, Peer, Receiver, Sender, Topic},
    wire::{Frames, PARTITION_DIGITS, Wire, broken, connect, number},
};

/// Bytes of records that one XREAD asks for.
const READ_BYTES: usize = 1 << 20;
/// How long an XREAD waits for a first entry.
const BLOCK_MS: &str = "100";

pub(crate) struct Redis {
    address: String,
    clock: Clock,
}

impl Redis {
    pub(crate) fn new(address: String, clock: Clock) -> Self {
        Self { address, clock }
    }

    /// Sends one command for each partition and hands each answer, a number, to `each`.
    fn for_partitions(
        &self,
        topic: &Topic,
        command: &str,
        mut each: impl FnMut(u64),
    ) -> io::Result<()> {
        let mut stream = connect(&self.address)?;
        let mut wire = Wire::new(stream.try_clone()?, self.clock);
        for partition in 0..topic.partitions {
            let key = key(&topic.name, partition);
            stream.write_all(&request(&[command.as_bytes(), key.as_bytes()]))?;
            let line = wire.line()?;
            match line.split_first() {
                Some((b':', digits)) => each(number(digits)?),
                _ => return Err(unexpected(line)),
            }
        }
        Ok(())
    }
}

impl Peer for Redis {
    fn create(&self, topic: &Topic) -> io::Result<()> {
        // A stream comes into being with its first entry.
        self.for_partitions(topic, "UNLINK", |_| ())
    }

    fn stored(&self, topic: &Topic) -> io::Result<u64> {
        let mut records = 0;
        self.for_partitions(topic, "XLEN", |count| records += count)?;
        Ok(records)
    }

    fn sender(&self, topic: &Topic, _: u64) -> io::Result<Sender> {
        let stream = connect(&self.address)?;
        let record = vec![0; topic.record_bytes];
        let key = key(&topic.name, 0);
        let frame = request(&[b"XADD", key.as_bytes(), b"*", b"r", &record]);
        let record_end = frame.len() - 2;
        let key_end = b"*5\r\n$4\r\nXADD\r\n".len() + format!("${}\r\n{key}", key.len()).len();
        let record = record_end - topic.record_bytes..record_end;
        Ok(Sender {
            frames: Frames::new(frame, key_end - PARTITION_DIGITS, None, record),
            acks: Box::new(Replies(Wire::new(stream.try_clone()?, self.clock))),
            stream: Arc::new(Mutex::new(stream)),
        })
    }

    fn receiver(&self, topic: &Topic, partitions: Range<u64>) -> io::Result<Box<dyn Receiver>> {
        let stream = connect(&self.address)?;
        let shared = READ_BYTES / topic.record_bytes / partitions.clone().count().max(1);
        Ok(Box::new(Reader {
            wire: Wire::new(stream.try_clone()?, self.clock),
            stream,
            keys: partitions
                .clone()
                .map(|partition| key(&topic.name, partition))
                .collect(),
            read_to: partitions.clone().map(|_| b"0".to_vec()).collect(),
            first: partitions.start,
            count: shared.clamp(10, 10_000).to_string(),
        }))
    }
}

/// The answers to XADD, in the order of the requests.
struct Replies(Wire);

impl Acks for Replies {
    fn next(&mut self) -> io::Result<Ack> {
        let line = self.0.line()?;
        let error = match line.split_first() {
            Some((b'$', digits)) => {
                let length = number(digits)? as usize;
                self.0.block(length + 2)?;
                None
            }
            Some((b'-', text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => return Err(unexpected(line)),
        };
        let at = self.0.filled_at();
        Ok(Ack {
            at,
            due: None,
            error,
        })
    }

    fn is_drained(&self) -> bool {
        self.0.is_drained()
    }
}

struct Reader {
    stream: std::net::TcpStream,
    wire: Wire,
    keys: Vec<String>,
    /// By partition: the entry that was read last.
    read_to: Vec<Vec<u8>>,
    first: u64,
    count: String,
}

impl Receiver for Reader {
    fn read(&mut self, each: &mut dyn FnMut(u64, &[u8], u64)) -> io::Result<()> {
        let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", self.count.as_bytes()];
        words.extend([b"BLOCK", BLOCK_MS.as_bytes(), b"STREAMS"]);
        words.extend(self.keys.iter().map(String::as_bytes));
        words.extend(self.read_to.iter().map(Vec::as_slice));
        self.stream.write_all(&request(&words))?;
        let Some(streams) = self.length(b'*')? else {
            return Ok(());
        };
        for _ in 0..streams {
            self.expect(2)?;
            let key = self.text()?;
            let digits = key.last_chunk::<PARTITION_DIGITS>();
            let partition = number(digits.ok_or_else(|| broken("a key of somebody else"))?)?;
            let index = (partition - self.first) as usize;
            let entries = self.length(b'*')?.unwrap_or(0);
            for _ in 0..entries {
                self.expect(2)?;
                let length = self.length(b'$')?.unwrap_or(0);
                let id = self.wire.block(length + 2)?;
                self.read_to[index].clear();
                self.read_to[index].extend_from_slice(&id[..length]);
                self.expect(2)?;
                self.text()?;
                let length = self.length(b'$')?.unwrap_or(0);
                let at = self.wire.filled_at();
                each(partition, &self.wire.block(length + 2)?[..length], at);
            }
        }
        Ok(())
    }
}

impl Reader {
    /// The length after a mark of type; None for null.
    fn length(&mut self, mark: u8) -> io::Result<Option<usize>> {
        let line = self.wire.line()?;
        match line.split_first() {
            Some((first, b"-1")) if *first == mark => Ok(None),
            Some((first, digits)) if *first == mark => Ok(Some(number(digits)? as usize)),
            _ => Err(unexpected(line)),
        }
    }

    fn expect(&mut self, length: usize) -> io::Result<()> {
        match self.length(b'*')? {
            Some(found) if found == length => Ok(()),
            found => Err(broken(format!(
                "{length} elements are expected, not {found:?}"
            ))),
        }
    }

    fn text(&mut self) -> io::Result<&[u8]> {
        let length = self.length(b'$')?.unwrap_or(0);
        Ok(&self.wire.block(length + 2)?[..length])
    }
}

fn key(topic: &str, partition: u64) -> String {
    format!("{topic}-{partition:0width$}", width = PARTITION_DIGITS)
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn unexpected(line: &[u8]) -> io::Error {
    broken(format!("Redis answers {:?}", String::from_utf8_lossy(line)))
}
