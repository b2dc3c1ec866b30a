//! What a run is to do.

use std::{fmt, str::FromStr, time::Duration};

use sapwood_record::Codec;
use serde::{Deserialize, Serialize};

use crate::{Error, shape::STAMP_BYTES};

/// The most producers or consumers: each is two threads at most.
const WORKERS_MAX: u32 = 10_000;
/// Shorter than the time after which an answer is given up.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);
const RECORD_BYTES_MAX: u64 = 64 << 20;
const BATCH_BYTES_MAX: u32 = 1 << 30;

/// Everything that a run is made of, and what its report repeats.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where the broker is.
    pub brokers: Vec<String>,
    /// What is spoken.
    pub protocol: Protocol,
    /// The topic.
    pub topic: Topic,
    /// What is sent or expected.
    pub load: Load,
    /// How many producers, each with a connection of its own to each broker: 1 to 10,000.
    pub producers: u32,
    /// How many consumers, each with a connection of its own; the partitions are dealt out.
    pub consumers: u32,
    /// Whether each consumer reads all partitions instead.
    pub fan_out: bool,
    /// When the broker acknowledges: 0, 1 or -1 for all.
    pub acks: i16,
    /// At how many bytes before compression a batch is full.
    pub batch_bytes: u32,
    /// How long a batch that is not full waits for more records.
    #[serde(with = "seconds")]
    pub linger: Duration,
    /// How batches are compressed: none, gzip, snappy, lz4, zstd.
    pub compression: String,
    /// How many requests of a connection may be unanswered: 1 to 1,000. Of gRPC's client this is not a setting.
    pub in_flight: u32,
    /// How many bytes a fetch asks for, of one partition at most.
    pub fetch_bytes: u32,
    /// How long the broker waits for records before it answers a fetch with none. A run that follows the end of a
    /// topic may take so long to end. Of gRPC, where records are pushed, this is not a setting.
    #[serde(with = "seconds")]
    pub fetch_wait: Duration,
    /// Whether records are numbered, checksummed and checked.
    pub check: bool,
    /// The broker's process, to know its CPU time and memory. Of a broker on this machine it is found by its port.
    pub broker_pid: Option<u32>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The Kafka protocol, by a generator of its own.
    Kafka,
    /// gRPC, by `sapwood-client`.
    Grpc,
}

/// The topic of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it gets if it is created.
    pub partitions: u32,
    /// Its configuration if it is created.
    pub config: Vec<(String, String)>,
    /// Whether one of this name is deleted first.
    pub fresh: bool,
    /// Whether it is deleted in the end.
    pub remove: bool,
}

/// What is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Records a second of all producers together.
    pub rate: Rate,
    /// How many bytes the value of a record has.
    pub record_bytes: Sizes,
    /// Which keys.
    pub keys: Keys,
    /// What values are made of.
    pub payload: Payload,
    /// How many records; `None` goes by the duration alone.
    pub records: Option<u64>,
    /// For how long, warm-up not included; `None` goes by the number of records alone.
    #[serde(with = "optional_seconds")]
    pub duration: Option<Duration>,
    /// What goes before the measurement and is not counted.
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    /// Of everything that is drawn by chance.
    pub seed: u64,
}

/// How many records a second are due.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rate {
    /// So many, at even distances, whatever the broker does.
    PerSecond(f64),
    /// The next when there is room for it.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.replace('_', "").parse::<f64>() {
            Ok(rate) if rate.is_finite() && (0.001..=1e9).contains(&rate) => {
                Ok(Self::PerSecond(rate))
            }
            _ => Err(format!(
                "{text:?} is not a rate; examples: 10000 (records a second), max"
            )),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
            Self::Max => f.write_str("max"),
        }
    }
}

/// A distribution of whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizes {
    /// Always the same.
    Fixed(u64),
    /// Each between the two, both included, as often as any other.
    Uniform(u64, u64),
    /// Each factor of ten between the two as often as any other: many small ones, few large ones.
    Log(u64, u64),
}

impl Sizes {
    pub(crate) fn max(self) -> u64 {
        match self {
            Self::Fixed(size) | Self::Uniform(_, size) | Self::Log(_, size) => size,
        }
    }

    pub(crate) fn min(self) -> u64 {
        match self {
            Self::Fixed(size) | Self::Uniform(size, _) | Self::Log(size, _) => size,
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a size in bytes; examples: 1024, 100..2000, log:100..100000")
        };
        let number = |text: &str| text.replace('_', "").parse::<u64>().map_err(|_| wrong());
        let (is_log, range) = match text.strip_prefix("log:") {
            Some(range) => (true, range),
            None => (false, text),
        };
        let sizes = match range.split_once("..") {
            Some((low, high)) => match (number(low)?, number(high)?) {
                (low, high) if low > high => return Err(wrong()),
                (low, high) if is_log => Self::Log(low, high),
                (low, high) => Self::Uniform(low, high),
            },
            None if is_log => return Err(wrong()),
            None => Self::Fixed(number(range)?),
        };
        match sizes.max() > RECORD_BYTES_MAX {
            true => Err(format!("{text:?} is more than {RECORD_BYTES_MAX} bytes")),
            false => Ok(sizes),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(low, high) => write!(f, "{low}..{high}"),
            Self::Log(low, high) => write!(f, "log:{low}..{high}"),
        }
    }
}

/// Which keys records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// None: one partition for a batch after another.
    None,
    /// One of so many, each as often as any other; equal keys go to one partition.
    Uniform(u64),
    /// One of so many, the k-th in proportion to 1/k (Zipf's law with exponent 1, by inverting its continuous form).
    Zipf(u64),
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} says no keys; examples: none, 100000, zipf:100000");
        let (is_zipf, number) = match text.strip_prefix("zipf:") {
            Some(number) => (true, number),
            None if text == "none" => return Ok(Self::None),
            None => (false, text),
        };
        match number.replace('_', "").parse::<u64>() {
            Ok(count) if count > 0 && is_zipf => Ok(Self::Zipf(count)),
            Ok(count) if count > 0 => Ok(Self::Uniform(count)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Uniform(count) => write!(f, "{count}"),
            Self::Zipf(count) => write!(f, "zipf:{count}"),
        }
    }
}

/// What values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Bytes drawn by chance, which no codec makes smaller.
    Random,
    /// Lines of JSON, which compress to about a third.
    Json,
}

impl Plan {
    /// Says what is out of bounds.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Setting(message));
        for (name, count) in [("producers", self.producers), ("consumers", self.consumers)] {
            if !(1..=WORKERS_MAX).contains(&count) {
                return wrong(format!("{name} is {count}; it must be 1 to {WORKERS_MAX}"));
            }
        }
        if !(1..=1000).contains(&self.in_flight) {
            return wrong(format!(
                "in-flight is {}; it must be 1 to 1000",
                self.in_flight
            ));
        }
        for (name, bytes) in [
            ("batch-bytes", self.batch_bytes),
            ("fetch-bytes", self.fetch_bytes),
        ] {
            if !(1..=BATCH_BYTES_MAX).contains(&bytes) {
                return wrong(format!(
                    "{name} is {bytes}; it must be 1 to {BATCH_BYTES_MAX}"
                ));
            }
        }
        if self.topic.partitions == 0 {
            return wrong("partitions is 0; a topic has at least 1".into());
        }
        if self.load.record_bytes.min() < STAMP_BYTES as u64 && self.check {
            return wrong(format!(
                "record-bytes is {}; a record that is checked has at least {STAMP_BYTES}, fewer need --no-check",
                self.load.record_bytes
            ));
        }
        if self.fetch_wait > FETCH_WAIT_MAX {
            let (given, limit) = (self.fetch_wait.as_secs(), FETCH_WAIT_MAX.as_secs());
            return wrong(format!("fetch-wait is {given} s; the limit is {limit} s"));
        }
        self.codec().map(drop)
    }

    /// The codec of batches.
    pub(crate) fn codec(&self) -> Result<Codec, Error> {
        match self.compression.as_str() {
            "none" => Ok(Codec::None),
            "gzip" => Ok(Codec::Gzip),
            "snappy" => Ok(Codec::Snappy),
            "lz4" => Ok(Codec::Lz4),
            "zstd" => Ok(Codec::Zstd),
            other => Err(Error::Setting(format!(
                "compression is {other:?}; known are none, gzip, snappy, lz4, zstd"
            ))),
        }
    }
}

/// Durations as seconds, with a fraction.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        let time = seconds.map(Duration::try_from_secs_f64).transpose();
        time.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_understood_and_printed_the_same() {
        for text in ["1024", "100..2000", "log:100..100000"] {
            let sizes: Sizes = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(sizes.to_string(), text);
        }
        for text in ["none", "100000", "zipf:7"] {
            let keys: Keys = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(keys.to_string(), text);
        }
        assert_eq!("10_000".parse(), Ok(Rate::PerSecond(10_000.0)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for wrong in ["", "x", "9..1", "log:7", "-1", "99999999999"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
        for wrong in ["0", "", "zipf:0", "zipf:", "-1"] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong}");
        }
        for wrong in ["0", "", "-1", "inf", "NaN", "1e10"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
