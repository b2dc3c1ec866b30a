"""What every Kafka client is asked to do, for the clients that are driven from Python.

A program makes a `Client` of one library and gives it to `main`, which runs the checks against a
broker and prints lines of JSON: {"client": ...}, then {"check": ..., "ok": true | false | "n/a",
"detail": ..., "seconds": ...} for each.
The checks are the same, by name and by meaning, in all languages; tests/clients/README.md lists them.
"""

import argparse
import json
import sys
import time
import traceback
from typing import NamedTuple

RECORDS = 10_000
PARTITIONS = 3
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
UNKNOWN = "UNKNOWN_TOPIC_OR_PARTITION"

# The protocol's names for the codes that matter here; libraries have names of their own.
ERROR_NAMES = {
    1: "OFFSET_OUT_OF_RANGE",
    3: "UNKNOWN_TOPIC_OR_PARTITION",
    7: "REQUEST_TIMED_OUT",
    10: "MESSAGE_TOO_LARGE",
    17: "INVALID_TOPIC_EXCEPTION",
    35: "UNSUPPORTED_VERSION",
    36: "TOPIC_ALREADY_EXISTS",
    37: "INVALID_PARTITIONS",
    40: "INVALID_CONFIG",
    42: "INVALID_REQUEST",
}


class Record(NamedTuple):
    """A record as it is written, or without its offset as it is read. A time is in milliseconds."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list
    timestamp: int


class NotAvailable(Exception):
    """The client cannot do this; the text says why."""


class KafkaError(Exception):
    """The broker, or the client in its name, refused with this error code's name."""

    def __init__(self, name: str, text: str = ""):
        super().__init__(f"{name}: {text}")
        self.name = name


class Client:
    """What a library can do. A method that is not there answers that the library cannot."""

    def __init__(self, broker: str):
        self.broker = broker

    # Whether each record can be given its own headers and its time.
    OWN_HEADERS = True
    OWN_TIMESTAMPS = True
    IDEMPOTENCE = True
    # Whether it sends a record that has neither key nor value, and a header that has no value.
    NULL_RECORDS = True
    NULL_HEADERS = True

    def name(self) -> str:
        """The library and its version."""
        raise NotImplementedError

    def describe_cluster(self) -> tuple:
        """The requests that were sent, the address of each node by its id, and the controller's id."""
        raise NotAvailable("it describes no cluster")

    def create(self, topic: str, partitions: int) -> None:
        """Creates a topic."""
        raise NotAvailable("it creates no topics")

    def prepare(self, topic: str, partitions: int) -> None:
        """Creates a topic for a check that is about something else."""
        self.create(topic, partitions)

    def use_name(self, topic: str) -> None:
        """Makes a topic of this name, in one way or another."""
        self.create(topic, 1)

    def delete(self, topic: str) -> None:
        """Deletes a topic."""
        raise NotAvailable("it deletes no topics")

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when there is no such topic. Creates none."""
        raise NotAvailable("it reads no metadata")

    def produce(self, topic, records, codec="none", idempotent=False, acks="all") -> list:
        """Writes records and waits for them. Their offsets, None for each with acks=0."""
        raise NotAvailable("it produces nothing")

    def read(self, topic: str, partition: int, start, count: int) -> list:
        """(offset, record) of the next `count` records from an offset or "earliest"."""
        raise NotAvailable("it has no consumer without a group")

    def offset_for(self, topic: str, partition: int, timestamp: int) -> int | None:
        """The first record at or after a time; None when there is none."""
        raise NotAvailable("it looks up no times")

    def watermarks(self, topic: str, partition: int) -> tuple:
        """The first offset and the one after the last."""
        raise NotAvailable("it asks for no watermarks")

    def configs(self, topic: str) -> dict:
        """Each key with (value, whether it is the default)."""
        raise NotAvailable("it reads no configurations")

    def alter(self, topic: str, key: str, value: str | None) -> None:
        """Sets a key, or with None takes it back to its default."""
        raise NotAvailable("it alters no configurations")

    def add_partitions(self, topic: str, total: int) -> None:
        """Raises a topic's number of partitions."""
        raise NotAvailable("it adds no partitions")

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Deletes the records below an offset; answers with the new first offset."""
        raise NotAvailable("it deletes no records")

    def read_out_of_range(self, topic: str, partition: int, offset: int) -> None:
        """Reads at an offset that is not there, without a fallback. Raises the broker's error."""
        raise NotAvailable("it has no consumer without a group")

    def ask_unknown(self, topic: str) -> dict:
        """The error of each request that names a topic that is not there."""
        raise NotAvailable("it reports no errors of single topics")

    def begin_transaction(self) -> None:
        """Gets a transactional producer ready."""
        raise NotAvailable("it has no transactions")

    def close(self) -> None:
        """Lets go of connections."""


def main(make, make_member) -> None:
    """Runs all checks with the client that `make` makes of the broker's address.

    When the first argument is "group", it is a member of a group instead, which `make_member` makes.
    """
    if sys.argv[1:2] == ["group"]:
        import groups

        groups.main(sys.argv[2:], make_member)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("broker", help="HOST:PORT")
    parser.add_argument("topics", help="how the names of topics begin")
    parser.add_argument("--only", help="the one check to run")
    arguments = parser.parse_args()
    client = make(arguments.broker)
    print(json.dumps({"client": client.name()}), flush=True)
    checks = Checks(client, arguments.topics)
    for name, check in checks.all():
        if arguments.only in (None, name):
            report(name, check)
    client.close()


def report(name: str, check) -> None:
    """Runs one check and prints its line; the traceback of a failure goes to standard error."""
    started = time.monotonic()
    try:
        ok, detail = True, check() or ""
    except NotAvailable as reason:
        ok, detail = "n/a", str(reason)
    except Exception as failure:
        traceback.print_exc(file=sys.stderr)
        ok, detail = False, f"{type(failure).__name__}: {failure}"
    seconds = round(time.monotonic() - started, 2)
    print(json.dumps({"check": name, "ok": ok, "detail": detail, "seconds": seconds}), flush=True)


def equal(actual, expected, what: str) -> None:
    """Fails unless both are equal."""
    if actual != expected:
        raise AssertionError(f"{what} is {actual!r}, expected {expected!r}")


def refused(call, *names: str) -> str:
    """Fails unless the call is refused with one of these errors."""
    try:
        call()
    except KafkaError as error:
        if error.name not in names:
            raise AssertionError(f"refused with {error}, expected {' or '.join(names)}") from error
        return error.name
    raise AssertionError(f"was not refused, expected {' or '.join(names)}")


def settles(question, expected, what: str, seconds: float = 10) -> None:
    """Waits until a question has this answer; changes reach a client's view a little later."""
    deadline = time.monotonic() + seconds
    while (answer := question()) != expected:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} stays {answer!r}, expected {expected!r}")
        time.sleep(0.05)


class Checks:
    """The checks, in the order in which they run."""

    def __init__(self, client: Client, prefix: str):
        self.client = client
        self.prefix = prefix
        # An hour ago: no setting of the topic takes this for too old or too new.
        self.base = int(time.time()) * 1000 - 3_600_000
        self.written = None

    def all(self):
        """Names and checks."""
        yield "describe-cluster", self.describe_cluster
        yield "create-topic", self.create_topic
        for codec in CODECS:
            yield f"round-trip-{codec}", lambda codec=codec: self.round_trip(codec)
        yield "idempotence", self.idempotence
        yield "acks", self.acks
        yield "null-and-empty", self.null_and_empty
        yield "own-partitions", self.own_partitions
        yield "seek-by-timestamp", self.seek_by_timestamp
        yield "seek-by-offset", self.seek_by_offset
        yield "watermarks", self.watermarks
        yield "read-configs", self.read_configs
        yield "alter-configs", self.alter_configs
        yield "add-partitions", self.add_partitions
        yield "delete-records", self.delete_records
        yield "recreate-topic", self.recreate_topic
        yield "auto-creation", self.auto_creation
        yield "record-too-large", self.record_too_large
        yield "unknown-topic", self.unknown_topic
        yield "invalid-topic", self.invalid_topic
        yield "transactions-refused", self.transactions_refused

    def topic(self, name: str) -> str:
        """A name that only this run uses."""
        return f"{self.prefix}-{name}"

    def make(self, name: str, partitions: int = PARTITIONS) -> str:
        """A topic for one check."""
        topic = self.topic(name)
        self.client.prepare(topic, partitions)
        settles(lambda: self.client.partitions(topic), partitions, f"the size of {topic}")
        return topic

    def records(self, count: int) -> list:
        """Records that differ in everything; number n goes to partition n % 3."""
        return [self.record(n, n % PARTITIONS) for n in range(count)]

    def record(self, n: int, partition: int = 0) -> Record:
        """The record with this number."""
        headers = [("client", b"a b"), ("number", str(n).encode())] if self.client.OWN_HEADERS else [("client", b"a b")]
        value = f"value {n} " + "grün " * (n % 20)
        return Record(partition, f"key-{n}".encode(), value.encode(), headers, self.base + n * 100)

    def check_read(self, topic: str, records: list, first: int = 0) -> None:
        """Fails unless each partition holds exactly these records, in order, from this offset on."""
        for partition in sorted({record.partition for record in records}):
            expected = [record for record in records if record.partition == partition]
            read = self.client.read(topic, partition, first, len(expected))
            equal(len(read), len(expected), f"the number of records in partition {partition}")
            for number, ((offset, actual), wanted) in enumerate(zip(read, expected)):
                equal(offset, first + number, f"offset {number} of partition {partition}")
                if not self.client.OWN_TIMESTAMPS:
                    now = time.time() * 1000
                    if not now - 600_000 <= actual.timestamp <= now:
                        raise AssertionError(f"the time of offset {offset} is {actual.timestamp}, it is {now}")
                    actual = actual._replace(timestamp=wanted.timestamp)
                equal(actual, wanted, f"the record at offset {offset} of partition {partition}")

    def check_offsets(self, offsets: list, records: list, first=(0, 0, 0)) -> None:
        """Fails unless the acknowledged offsets of each partition count up from its first."""
        following = list(first)
        for offset, record in zip(offsets, records, strict=True):
            equal(offset, following[record.partition], "an acknowledged offset")
            following[record.partition] += 1

    def describe_cluster(self) -> str:
        requests, nodes, controller = self.client.describe_cluster()
        equal(list(nodes.values()), [self.client.broker], "the addresses of the nodes")
        equal(controller in (None, *nodes), True, f"whether the controller {controller} is one of {nodes}")
        return requests

    def create_topic(self) -> None:
        topic = self.topic("created")
        self.client.create(topic, PARTITIONS)
        settles(lambda: self.client.partitions(topic), PARTITIONS, "the number of partitions")
        refused(lambda: self.client.create(topic, PARTITIONS), "TOPIC_ALREADY_EXISTS")

    def round_trip(self, codec: str) -> str:
        topic = self.make(codec)
        records = self.records(RECORDS)
        started = time.monotonic()
        offsets = self.client.produce(topic, records, codec, idempotent=self.client.IDEMPOTENCE)
        written = time.monotonic()
        self.check_offsets(offsets, records)
        self.check_read(topic, records)
        self.written = topic
        return f"written in {written - started:.2f} s, read in {time.monotonic() - written:.2f} s"

    def idempotence(self) -> None:
        if not self.client.IDEMPOTENCE:
            raise NotAvailable("it has no idempotent producer")
        topic = self.make("idempotent")
        records = self.records(1000)
        for earlier in range(3):
            # Each producer gets an id of its own and begins its sequence anew.
            offsets = self.client.produce(topic, records, idempotent=True)
            first = [earlier * count for count in (334, 333, 333)]
            self.check_offsets(offsets, records, first)
        for partition, count in enumerate((334, 333, 333)):
            equal(self.client.watermarks(topic, partition), (0, 3 * count), "the watermarks after three producers")

    def acks(self) -> None:
        topic = self.make("acks")
        records = [self.record(n) for n in range(100)]
        self.client.produce(topic, records[:50], acks="0")
        settles(lambda: self.client.watermarks(topic, 0), (0, 50), "what acks=0 wrote")
        self.check_offsets(self.client.produce(topic, records[50:], acks="1"), records[50:], (50, 0, 0))
        # It is acknowledged before it is on the disk, and readable afterwards.
        settles(lambda: self.client.watermarks(topic, 0), (0, 100), "what acks=1 wrote")
        self.check_read(topic, records)

    def null_and_empty(self) -> None:
        topic = self.make("nulls", 1)
        time_ = self.base
        headers = [("null", None), ("empty", b""), ("", b"x"), ("grün", b"\xff"), ("null", b"2")]
        if not self.client.NULL_HEADERS:
            headers.pop(0)
        records = [
            Record(0, None, b"no key", [], time_),
            Record(0, b"", b"empty key", [], time_),
            Record(0, b"no value", None, [], time_),
            Record(0, b"empty value", b"", [], time_),
            Record(0, b"\x00\xff\xfe", b"\xc3\x28", [], time_),
            Record(0, b"headers", b"", headers, time_),
        ]
        if self.client.NULL_RECORDS:
            records.append(Record(0, None, None, [], time_))
        self.check_offsets(self.client.produce(topic, records), records)
        self.check_read(topic, records)

    def full(self) -> str:
        """A topic that a round trip has filled."""
        if self.written is None:
            topic = self.make("full")
            self.client.produce(topic, self.records(RECORDS))
            self.written = topic
        return self.written

    def own_partitions(self) -> None:
        for partition in range(PARTITIONS):
            ((offset, record),) = self.client.read(self.full(), partition, "earliest", 1)
            equal((offset, record.key), (0, f"key-{partition}".encode()), f"the first record of partition {partition}")

    def seek_by_timestamp(self) -> None:
        topic, client = self.full(), self.client
        if not client.OWN_TIMESTAMPS:
            equal(client.offset_for(topic, 1, self.base), 0, "the offset of an hour ago")
            equal(client.offset_for(topic, 1, int(time.time() * 1000) + 60_000), None, "the offset of a minute ahead")
            return
        # Record n has the time base + 100 n; partition 1 holds 1, 4, 7 ...
        equal(client.offset_for(topic, 1, 0), 0, "the offset of time 0")
        equal(client.offset_for(topic, 1, self.base + 100), 0, "the offset of the first time")
        equal(client.offset_for(topic, 1, self.base + 101), 1, "the offset just after it")
        equal(client.offset_for(topic, 1, self.base + 400 + 300 * 1234), 1235, "the offset of a time in the middle")
        equal(client.offset_for(topic, 1, self.base + 100 * RECORDS), None, "the offset of a time that has not come")
        ((offset, record),) = client.read(topic, 1, 1235, 1)
        equal((offset, record.timestamp), (1235, self.base + 400 + 300 * 1234), "the record there")

    def seek_by_offset(self) -> None:
        topic = self.full()
        for offset in (0, 1, 1000, 2345, 3332):
            ((actual, record),) = self.client.read(topic, 2, offset, 1)
            equal((actual, record.key), (offset, f"key-{3 * offset + 2}".encode()), f"what is at {offset}")
        refused(lambda: self.client.read_out_of_range(topic, 2, 99_999), "OFFSET_OUT_OF_RANGE")

    def watermarks(self) -> None:
        topic = self.full()
        for partition, count in enumerate((3334, 3333, 3333)):
            equal(self.client.watermarks(topic, partition), (0, count), f"the watermarks of partition {partition}")
        equal(self.client.watermarks(self.make("empty", 1), 0), (0, 0), "the watermarks of an empty partition")

    def read_configs(self) -> str:
        configs = self.client.configs(self.make("configs", 1))
        expected = {
            "cleanup.policy": "delete",
            "compression.type": "producer",
            "max.message.bytes": "1048588",
            "message.timestamp.type": "CreateTime",
            "retention.ms": "604800000",
            "segment.bytes": "1073741824",
        }
        for key, value in expected.items():
            equal(configs.get(key), (value, True), key)
        return f"{len(configs)} keys"

    def alter_configs(self) -> None:
        topic, client = self.make("altered", 1), self.client
        client.alter(topic, "retention.ms", "86400000")
        settles(lambda: client.configs(topic)["retention.ms"], ("86400000", False), "retention.ms")
        client.alter(topic, "cleanup.policy", "compact")
        settles(lambda: client.configs(topic)["cleanup.policy"], ("compact", False), "cleanup.policy")
        client.alter(topic, "retention.ms", None)
        settles(lambda: client.configs(topic)["retention.ms"], ("604800000", True), "retention.ms")
        refused(lambda: client.alter(topic, "retention.ms", "soon"), "INVALID_CONFIG")
        refused(lambda: client.alter(topic, "no.such.key", "1"), "INVALID_CONFIG")

    def add_partitions(self) -> None:
        topic, client = self.make("grown"), self.client
        client.add_partitions(topic, 5)
        settles(lambda: client.partitions(topic), 5, "the number of partitions")
        record = self.record(1, 4)
        equal(client.produce(topic, [record]), [0], "the offset in the new partition")
        self.check_read(topic, [record])
        refused(lambda: client.add_partitions(topic, 2), "INVALID_PARTITIONS")

    def delete_records(self) -> None:
        topic, client = self.make("trimmed", 1), self.client
        records = [self.record(n) for n in range(1000)]
        client.produce(topic, records)
        equal(client.delete_records(topic, 0, 400), 400, "the new log start")
        equal(client.watermarks(topic, 0), (400, 1000), "the watermarks")
        self.check_read(topic, records[400:], 400)
        ((offset, _),) = client.read(topic, 0, "earliest", 1)
        equal(offset, 400, "the first offset")
        refused(lambda: client.read_out_of_range(topic, 0, 399), "OFFSET_OUT_OF_RANGE")
        refused(lambda: client.delete_records(topic, 0, 1001), "OFFSET_OUT_OF_RANGE")

    def recreate_topic(self) -> None:
        topic, client = self.make("again"), self.client
        client.produce(topic, self.records(30))
        client.delete(topic)
        settles(lambda: client.partitions(topic), 0, "the number of partitions after the deletion")
        client.create(topic, 1)
        settles(lambda: client.partitions(topic), 1, "the number of partitions of the new one")
        equal(client.watermarks(topic, 0), (0, 0), "the watermarks of the new one")
        record = self.record(7)
        equal(client.produce(topic, [record]), [0], "the first offset of the new one")
        self.check_read(topic, [record])

    def auto_creation(self) -> None:
        topic = self.topic("unannounced")
        record = self.record(1)
        equal(self.client.produce(topic, [record]), [0], "the first offset")
        self.check_read(topic, [record])

    def record_too_large(self) -> None:
        topic = self.make("large", 1)
        large = self.record(1)._replace(value=b"x" * (2 << 20))
        refused(lambda: self.client.produce(topic, [large]), "MESSAGE_TOO_LARGE")
        equal(self.client.produce(topic, [self.record(2)]), [0], "the offset of the next record")
        self.check_read(topic, [self.record(2)])

    def unknown_topic(self) -> str:
        topic = self.topic("nowhere")
        answers = self.client.ask_unknown(topic)
        for request, name in answers.items():
            equal(name, UNKNOWN, f"the error of {request}")
        equal(self.client.partitions(topic), 0, "the number of partitions")
        return ", ".join(answers)

    def invalid_topic(self) -> None:
        for name in ("a b", "..", "a" * 250, "grün"):
            refused(lambda: self.client.use_name(name), "INVALID_TOPIC_EXCEPTION")

    def transactions_refused(self) -> str:
        started = time.monotonic()
        try:
            self.client.begin_transaction()
        except KafkaError as error:
            seconds = time.monotonic() - started
            if "TIMED_OUT" in error.name:
                raise AssertionError(f"not refused but {error} after {seconds:.1f} s") from error
            return f"{error}, after {seconds:.1f} s"
        raise AssertionError("a transaction began")
