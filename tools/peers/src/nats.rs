//! NATS JetStream: a partition is a stream of its own with one subject, kept in files. Producers publish with
//! a reply subject that carries the time at which the record was due, so that acknowledgements of several
//! streams may come in any order. Readers have a push consumer without acknowledgements, with flow control.

use std::{
    io::{self, Write},
    net::TcpStream,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    pace::Clock,
    peer::{Ack, Acks, Peer, Receiver, Sender, Topic},
    wire::{Frames, PARTITION_DIGITS, TIME_DIGITS, Wire, broken, connect, number, time_of},
};

const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\
    \"protocol\":1,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";
const HEARTBEAT_NANOS: u64 = 5_000_000_000;
/// What JetStream answers about a stream that is not there.
const STREAM_NOT_FOUND: u64 = 10_059;

pub(crate) struct Nats {
    address: String,
    clock: Clock,
}

impl Nats {
    pub(crate) fn new(address: String, clock: Clock) -> Self {
        Self { address, clock }
    }

    fn connect(&self) -> io::Result<Connection> {
        let stream = connect(&self.address)?;
        let mut wire = Wire::new(stream.try_clone()?, self.clock);
        wire.line()?; // INFO
        let mut connection = Connection {
            wire,
            stream: Arc::new(Mutex::new(stream)),
        };
        connection.write(CONNECT)?;
        loop {
            match connection.wire.line()? {
                b"PONG" => return Ok(connection),
                line if line.starts_with(b"-ERR") => return Err(unexpected(line)),
                _ => (),
            }
        }
    }

    fn api(&self) -> io::Result<Api> {
        let connection = self.connect()?;
        connection.write(b"SUB _INBOX.api 1\r\n")?;
        Ok(Api(connection))
    }
}

impl Peer for Nats {
    fn create(&self, topic: &Topic) -> io::Result<()> {
        let mut api = self.api()?;
        for partition in 0..topic.partitions {
            let name = name(&topic.name, partition);
            let answer = api.ask(&format!("STREAM.DELETE.{name}"), "")?;
            if let Some(code) = answer["error"]["err_code"].as_u64()
                && code != STREAM_NOT_FOUND
            {
                return Err(refused(&answer));
            }
            let stream = json!({
                "name": name, "subjects": [name], "storage": "file", "retention": "limits",
                "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
                "num_replicas": 1,
            });
            api.must(&format!("STREAM.CREATE.{name}"), &stream.to_string())?;
        }
        Ok(())
    }

    fn stored(&self, topic: &Topic) -> io::Result<u64> {
        let mut api = self.api()?;
        let mut records = 0;
        for partition in 0..topic.partitions {
            let name = name(&topic.name, partition);
            let answer = api.must(&format!("STREAM.INFO.{name}"), "")?;
            let messages = answer["state"]["messages"].as_u64();
            records += messages.ok_or_else(|| refused(&answer))?;
        }
        Ok(records)
    }

    fn sender(&self, topic: &Topic, producer: u64) -> io::Result<Sender> {
        let connection = self.connect()?;
        connection.write(format!("SUB _INBOX.p{producer}.* 1\r\n").as_bytes())?;
        let subject = format!("PUB {}", name(&topic.name, 0));
        let inbox = format!("{subject} _INBOX.p{producer}.");
        let length = topic.record_bytes;
        let mut frame =
            format!("{inbox}{:0width$} {length}\r\n", 0, width = TIME_DIGITS).into_bytes();
        let record = frame.len()..frame.len() + length;
        frame.resize(record.end, 0);
        frame.extend_from_slice(b"\r\n");
        let partition_at = subject.len() - PARTITION_DIGITS;
        Ok(Sender {
            frames: Frames::new(frame, partition_at, Some(inbox.len()), record),
            stream: connection.stream.clone(),
            acks: Box::new(connection),
        })
    }

    fn receiver(&self, topic: &Topic, partitions: Range<u64>) -> io::Result<Box<dyn Receiver>> {
        let mut api = self.api()?;
        let mut connection = self.connect()?;
        let inbox = format!("_INBOX.c{}", partitions.start);
        // The server must know of the subscriptions before it is asked to deliver to them. A wildcard would
        // not do: it looks for interest in the very subject.
        let subscribe = |partition| format!("SUB {inbox}.{partition} {}\r\n", partition + 1);
        let mut subscriptions: String = partitions.clone().map(subscribe).collect();
        subscriptions.push_str("PING\r\n");
        connection.write(subscriptions.as_bytes())?;
        while connection.wire.line()? != b"PONG" {}
        for partition in partitions {
            let stream = name(&topic.name, partition);
            let consumer = json!({
                "stream_name": stream,
                "config": {
                    "deliver_subject": format!("{inbox}.{partition}"), "deliver_policy": "all",
                    "ack_policy": "none", "replay_policy": "instant",
                    "flow_control": true, "idle_heartbeat": HEARTBEAT_NANOS, "mem_storage": true,
                    "num_replicas": 1,
                },
            });
            api.must(&format!("CONSUMER.CREATE.{stream}"), &consumer.to_string())?;
        }
        Ok(Box::new(connection))
    }
}

/// A connection to the server, of which another thread may have the half that writes.
struct Connection {
    wire: Wire,
    stream: Arc<Mutex<TcpStream>>,
}

/// A message without its payload.
struct Message {
    /// Digits at the end of the subject.
    subject: Vec<u8>,
    reply: Option<Vec<u8>>,
    /// Bytes of its headers, which come before the payload.
    header_bytes: usize,
    bytes: usize,
}

impl Connection {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(bytes)
    }

    /// Reads up to the payload of the next message, which the caller must take. None when a line was
    /// something else.
    fn message(&mut self, message: &mut Message) -> io::Result<bool> {
        let line = self.wire.line()?;
        let mut words = line.split(|byte| *byte == b' ');
        let kind = words.next().unwrap_or_default();
        match kind {
            b"MSG" | b"HMSG" => (),
            b"PING" => return self.write(b"PONG\r\n").map(|()| false),
            b"PONG" | b"+OK" | b"INFO" => return Ok(false),
            _ => return Err(unexpected(line)),
        }
        let subject = words.next().unwrap_or_default();
        message.subject.clear();
        message.subject.extend_from_slice(subject);
        let bytes = words.next_back().unwrap_or_default();
        message.bytes = number(bytes)? as usize;
        message.header_bytes = match kind {
            b"HMSG" => number(words.next_back().unwrap_or_default())? as usize,
            _ => 0,
        };
        let _subscription = words.next();
        message.reply = match kind {
            // Only answers to these are ever wanted, and copying one for every record would cost.
            b"HMSG" => words
                .next()
                .filter(|subject| !subject.is_empty())
                .map(<[u8]>::to_vec),
            _ => None,
        };
        Ok(true)
    }
}

impl Message {
    fn empty() -> Self {
        Self {
            subject: Vec::new(),
            reply: None,
            header_bytes: 0,
            bytes: 0,
        }
    }
}

impl Acks for Connection {
    fn next(&mut self) -> io::Result<Ack> {
        let mut message = Message::empty();
        while !self.message(&mut message)? {}
        let due = message
            .subject
            .last_chunk::<TIME_DIGITS>()
            .and_then(|digits| time_of(digits));
        let payload = self.wire.block(message.bytes + 2)?;
        let is_taken = message.header_bytes == 0 && !payload.starts_with(b"{\"error\"");
        let error = (!is_taken).then(|| String::from_utf8_lossy(payload).trim().to_owned());
        let at = self.wire.filled_at();
        Ok(Ack { at, due, error })
    }

    fn is_drained(&self) -> bool {
        self.wire.is_drained()
    }
}

impl Receiver for Connection {
    fn read(&mut self, each: &mut dyn FnMut(u64, &[u8], u64)) -> io::Result<()> {
        if !self.wire.is_ready()? {
            return Ok(());
        }
        let mut message = Message::empty();
        while !self.wire.is_drained() {
            if !self.message(&mut message)? {
                continue;
            }
            if message.header_bytes > 0 {
                self.answer_status(&message)?;
                continue;
            }
            let digits = message.subject.last_chunk::<PARTITION_DIGITS>();
            let partition = number(digits.ok_or_else(|| broken("a subject of somebody else"))?)?;
            let at = self.wire.filled_at();
            let payload = self.wire.block(message.bytes + 2)?;
            each(partition, &payload[..message.bytes], at);
        }
        Ok(())
    }
}

impl Connection {
    /// Flow control asks to be answered when everything before it has been read; a heartbeat that speaks of
    /// a stall names where to answer.
    fn answer_status(&mut self, message: &Message) -> io::Result<()> {
        let headers = self.wire.block(message.bytes + 2)?;
        let mut lines = headers.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let stalled = lines.find_map(|line| line.strip_prefix(b"Nats-Consumer-Stalled: "));
        let asked = message.reply.as_deref().or(stalled).map(<[u8]>::to_vec);
        match asked {
            Some(subject) => self.write(&[b"PUB ", &subject[..], b" 0\r\n\r\n"].concat()),
            None => Ok(()),
        }
    }
}

/// Questions to JetStream, one at a time.
struct Api(Connection);

impl Api {
    fn ask(&mut self, subject: &str, request: &str) -> io::Result<Value> {
        let length = request.len();
        let publish = format!("PUB $JS.API.{subject} _INBOX.api {length}\r\n{request}\r\n");
        self.0.write(publish.as_bytes())?;
        let mut message = Message::empty();
        while !self.0.message(&mut message)? {}
        let payload = &self.0.wire.block(message.bytes + 2)?[message.header_bytes..];
        serde_json::from_slice(payload).map_err(|_| unexpected(payload))
    }

    fn must(&mut self, subject: &str, request: &str) -> io::Result<Value> {
        let answer = self.ask(subject, request)?;
        match answer.get("error") {
            Some(_) => Err(refused(&answer)),
            None => Ok(answer),
        }
    }
}

/// The name of a partition's stream, and its subject.
fn name(topic: &str, partition: u64) -> String {
    format!("{topic}-{partition:0width$}", width = PARTITION_DIGITS)
}

fn refused(answer: &Value) -> io::Error {
    broken(format!("JetStream answers {answer}"))
}

fn unexpected(line: &[u8]) -> io::Error {
    broken(format!("NATS answers {:?}", String::from_utf8_lossy(line)))
}
