"""The checks with kcat, as far as a command can do them: it produces, consumes and asks.

It has no administrative commands, and gives all records of a run the same headers and its own time.
Topics are made and looked at with confluent-kafka; that is preparation, and counts for no check.
"""

import json
import queue
import re
import signal
import subprocess
import threading

from checks import Client, KafkaError, NotAvailable, Record, equal, main
from groups import HEARTBEAT_MS, METADATA_MS, POLL_MS, SESSION_MS, Member
from with_confluent import Confluent

SECONDS = 30


class Kcat(Client):
    OWN_HEADERS = False
    OWN_TIMESTAMPS = False

    def __init__(self, broker: str):
        super().__init__(broker)
        self.helper = Confluent(broker)

    def run(self, *arguments: str) -> str:
        """What kcat prints, or its error."""
        return self.run_both(*arguments)[0]

    def run_both(self, *arguments: str, stdin: bytes = b"") -> tuple[str, str]:
        """What kcat prints and what it says of it, or its error."""
        command = ["kcat", "-b", self.broker, *arguments]
        ran = subprocess.run(command, input=stdin, capture_output=True, timeout=3 * SECONDS)
        stderr = ran.stderr.decode()
        if ran.returncode != 0:
            for text, name in (
                ("Message size too large", "MESSAGE_TOO_LARGE"),
                ("Offset out of range", "OFFSET_OUT_OF_RANGE"),
                ("Invalid topic", "INVALID_TOPIC_EXCEPTION"),
                ("Unknown topic or partition", "UNKNOWN_TOPIC_OR_PARTITION"),
                ("timed out", "TIMED_OUT"),
            ):
                if text in stderr:
                    raise KafkaError(name, stderr)
            raise KafkaError("kcat", stderr)
        return ran.stdout.decode(), stderr

    def name(self):
        printed = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
        return "kcat " + re.search(r"Version (\S+)", printed)[1]

    def describe_cluster(self):
        described = json.loads(self.run("-L", "-J"))
        return "Metadata", {node["id"]: node["name"] for node in described["brokers"]}, described["controllerid"]

    def prepare(self, topic, partitions):
        self.helper.create(topic, partitions)

    def partitions(self, topic):
        return len(self.describe(topic)["partitions"])

    def describe(self, topic):
        # When it is not said, asking creates the topic.
        (described,) = json.loads(self.run("-L", "-J", "-t", topic, "-X", "allow.auto.create.topics=false"))["topics"]
        return described

    def produce(self, topic, records, codec="none", idempotent=False, acks="all"):
        settings = {
            "compression.codec": codec,
            "enable.idempotence": str(idempotent).lower(),
            "acks": acks,
            "linger.ms": "1",
            "message.max.bytes": "10000000",
            "message.timeout.ms": str(SECONDS * 1000),
        }
        if any(record.key is None or record.value is None for record in records):
            raise NotAvailable("in one run it writes no null next to something empty")
        options = [option for key, value in settings.items() for option in ("-X", f"{key}={value}")]
        offsets = {}
        for partition in sorted({record.partition for record in records}):
            here = [record for record in records if record.partition == partition]
            headers = [option for name, value in here[0].headers for option in ("-H", f"{name}={value.decode()}")]
            lines = b"".join(record.key + b"\t" + record.value + b"\n" for record in here)
            command = ["-P", "-vvv", "-t", topic, "-p", str(partition), "-K", "\t", *headers, *options]
            # It says of each record where it was acknowledged, and keeps their order.
            said = self.run_both(*command, stdin=lines)[1]
            acknowledged = re.findall(rf"Message delivered to partition {partition} \(offset (-?\d+)\)", said)
            equal(len(acknowledged), len(here), f"the number of records acknowledged by partition {partition}")
            offsets[partition] = iter(map(int, acknowledged))
        return [next(offsets[record.partition]) for record in records]

    def read(self, topic, partition, start, count):
        start = "beginning" if start == "earliest" else str(start)
        options = ("-t", topic, "-p", str(partition), "-o", start, "-c", str(count))
        records = []
        for line in self.run("-C", "-e", "-J", "-X", "auto.offset.reset=error", *options).splitlines():
            message = json.loads(line)
            headers = message.get("headers", [])
            headers = list(zip(headers[::2], (value.encode() for value in headers[1::2])))
            key, value = (None if text is None else text.encode() for text in (message["key"], message["payload"]))
            if message["tstype"] != "create":
                raise AssertionError(f"the time of offset {message['offset']} is of kind {message['tstype']}")
            records.append((message["offset"], Record(message["partition"], key, value, headers, message["ts"])))
        return records

    def read_out_of_range(self, topic, partition, offset):
        self.read(topic, partition, offset, 1)

    def offset_for(self, topic, partition, timestamp):
        # It prints "TOPIC [PARTITION] offset OFFSET"; -1 is the end, when nothing is as late.
        offset = int(self.run("-Q", "-t", f"{topic}:{partition}:{timestamp}").split()[-1])
        return None if offset == -1 else offset

    def watermarks(self, topic, partition):
        def ask(position):
            return int(self.run("-Q", "-t", f"{topic}:{partition}:{position}").split()[-1])

        return ask(-2), ask(-1)

    def ask_unknown(self, topic):
        error = self.describe(topic)["error"]
        return {"Metadata": "UNKNOWN_TOPIC_OR_PARTITION" if "Unknown topic" in error else error}

    def use_name(self, topic):
        self.produce(topic, [Record(0, b"key", b"value", [], 0)])

    def begin_transaction(self):
        self.run_both("-P", "-t", "a-transaction", "-X", "transactional.id=a transaction", stdin=b"value\n")

    def close(self):
        self.helper.close()


class KcatMember(Member):
    """kcat as a member: it commits by itself, and does not say what."""

    def __init__(self, options):
        super().__init__(options)
        if options.protocol != "eager":
            raise NotAvailable("it is for the eager protocol")
        settings = {
            "partition.assignment.strategy": "range",
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "topic.metadata.refresh.interval.ms": METADATA_MS,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 100,
        }
        if options.instance:
            settings["group.instance.id"] = options.instance
        command = ["kcat", "-b", options.broker, "-u", "-f", "%t %p %o\\n"]
        command += [option for key, value in settings.items() for option in ("-X", f"{key}={value}")]
        self.kcat = subprocess.Popen(
            [*command, "-G", options.group, options.topic],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.records = queue.Queue()
        threads = [threading.Thread(target=listen, daemon=True) for listen in (self.listen_records, self.listen_group)]
        for thread in threads:
            thread.start()
        self.threads = threads

    def listen_records(self):
        for line in self.kcat.stdout:
            topic, partition, offset = line.split()
            self.records.put((topic, int(partition), int(offset)))

    def listen_group(self):
        for line in self.kcat.stderr:
            # "% Group NAME rebalanced (memberid ID): assigned: TOPIC [PARTITION], TOPIC [PARTITION]"
            if found := re.search(r" rebalanced \(memberid .*\): (assigned|revoked): (.*)", line):
                partitions = [(topic, int(number)) for topic, number in re.findall(r"(\S+) \[(\d+)\]", found[2])]
                (self.assigned if found[1] == "assigned" else self.lost)(partitions)

    def poll(self):
        if self.kcat.poll() is not None:
            raise AssertionError(f"kcat ended with code {self.kcat.returncode}")
        records = []
        try:
            records.append(self.records.get(timeout=POLL_MS / 1000))
            while True:
                records.append(self.records.get_nowait())
        except queue.Empty:
            return records

    def try_commit(self):
        return True

    def close(self):
        self.kcat.send_signal(signal.SIGTERM)
        self.kcat.wait(SECONDS)
        for thread in self.threads:
            thread.join()
        self.got([self.records.get_nowait() for _ in range(self.records.qsize())])


if __name__ == "__main__":
    main(Kcat, KcatMember)
