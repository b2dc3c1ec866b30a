"""What is done to each system, and by which program: `sapwood bench` speaks Kafka's protocol with Kafka and
Sapwood, peer-load speaks with the others. Both take the same flags and print the same fields as JSON."""

import json
import subprocess
import time
from dataclasses import dataclass

SPARE_SECONDS = 120
WARM_PARTITIONS_MAX = 16
MIB = 1 << 20
# Bytes that the producers of peer-load may have unanswered together: a few batches of `sapwood bench`.
IN_FLIGHT_BYTES = 4 * MIB


@dataclass(frozen=True)
class Shape:
    record_bytes: int
    partitions: int

    def __str__(self):
        size = f"{self.record_bytes // 1024} KiB" if self.record_bytes % 1024 == 0 else f"{self.record_bytes} B"
        return f"{size} x {self.partitions}"


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    produced_bytes: int
    records_max: int
    seconds_max: int
    e2e_rate: int
    e2e_seconds: int
    warm_seconds: int
    idle_seconds: int
    producers: int
    peer_producers: int
    batch_bytes: int
    linger: str
    e2e_linger: str

    def records(self, shape):
        return min(self.produced_bytes // shape.record_bytes, self.records_max)

    def __str__(self):
        return (
            f"{self.producers} producer(s), for Redis and NATS {self.peer_producers}; 1 consumer; produce: up to {self.produced_bytes // MIB} MiB or "
            f"{self.records_max} records or {self.seconds_max} s, acks=all, batches of {self.batch_bytes // 1024} KiB, "
            f"linger {self.linger}; e2e: {self.e2e_rate}/s for {self.e2e_seconds} s, linger {self.e2e_linger}; "
            f"before each a warm-up of {self.warm_seconds} s; Redis and NATS: no batches, "
            f"{IN_FLIGHT_BYTES // MIB} MiB in flight in all")


class Generators:
    def __init__(self, bench, peer_load):
        self.bench, self.peer_load = bench, peer_load

    def has(self, system):
        """Whether there is a program that can load this system."""
        program = [self.bench, "bench", "produce"] if system.protocol == "kafka" else [self.peer_load]
        try:
            return subprocess.run([*program, "--help"], capture_output=True).returncode == 0
        except OSError:
            return False

    def run(self, system, work, topic, shape, amounts, warm=False):
        """Runs one load and returns what it printed, and what the system used meanwhile."""
        command = self.command(system, work, topic, shape, amounts, warm)
        system.memory.reset()
        cpu, began = system.cpu_seconds(), time.monotonic()
        try:
            ran = subprocess.run(command, capture_output=True, text=True,
                                 timeout=amounts.seconds_max + amounts.e2e_seconds + SPARE_SECONDS)
            said, code = ran.stdout, ran.returncode
            complaint = (ran.stderr.strip().splitlines() or [""])[-1]
        except subprocess.TimeoutExpired:
            said, code, complaint = "", 1, "it does not end"
        seen = last_object(said)
        # A run that lost something ends with another code than 0, and says what.
        if seen is None or "records_per_second" not in seen:
            return {"failed": f"{work}: {complaint or 'it prints no JSON'}", "code": code}
        records = seen["records_per_second"] * seen.get("seconds", 0) or seen.get("records", 0)
        used = (system.cpu_seconds() - cpu) / records * 1e6 if records else None
        seen["cpu"] = seen.get("server_cpu_seconds_per_million_records") or used
        seen["anonymous"], seen["resident"] = system.memory.anonymous, system.memory.resident
        seen["wall_seconds"] = time.monotonic() - began
        return seen

    def command(self, system, work, topic, shape, amounts, warm):
        # As many again would be more partitions than some systems take with their defaults.
        partitions = min(shape.partitions, WARM_PARTITIONS_MAX) if warm else shape.partitions
        producers = amounts.producers if system.protocol == "kafka" else amounts.peer_producers
        flags = ["-b", system.address(), "--topic", topic, "--broker-pid", system.process.pid, "-o", "json"]
        is_kafka = system.protocol == "kafka"
        if work != "consume" or not is_kafka:
            flags += ["--partitions", partitions, "--record-bytes", shape.record_bytes]
        if work == "e2e":
            seconds = amounts.warm_seconds if warm else amounts.e2e_seconds
            flags += ["--rate", amounts.e2e_rate, "--records", amounts.e2e_rate * seconds]
            flags += ["--duration", f"{seconds + 10}s", "--producers", producers]
        elif work == "produce":
            seconds = amounts.warm_seconds if warm else amounts.seconds_max
            flags += ["--rate", "max", "--records", amounts.records(shape), "--duration", f"{seconds}s"]
            flags += ["--producers", producers]
        if not is_kafka:
            program = [self.peer_load, work, "--protocol", system.protocol]
            flags += ["--in-flight", max(IN_FLIGHT_BYTES // shape.record_bytes // producers, 1)]
        else:
            program = [self.bench, "bench", work, "--protocol", "kafka"]
            if work != "consume":
                linger = amounts.e2e_linger if work == "e2e" else amounts.linger
                # The warm-up has been, on a topic of its own.
                flags += ["--warm-up", "0ms", "--acks", "all", "--linger", linger]
                flags += ["--batch-bytes", amounts.batch_bytes]
        return [str(word) for word in program + flags]


def last_object(text):
    """The last JSON object that is a line, or the whole text if that is one."""
    for part in [text, *reversed(text.splitlines())]:
        try:
            found = json.loads(part)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None
