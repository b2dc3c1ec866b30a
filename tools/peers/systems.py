"""Sapwood and its peers, each with its settings. `all_of` lists what can be started here."""

import json
import os
import re
import subprocess

import get
from process import Failed, System, exchange, free_port, names_a_broker


class Sapwood(System):
    protocol = "kafka"

    def __init__(self, binary, durability):
        super().__init__()
        self.name = f"sapwood {durability}"
        self.binary, self.durability = os.path.abspath(binary), durability

    def version(self):
        return first_line([self.binary, "--version"])

    def settings(self):
        meaning = {"fsync": "acknowledged when it is on the disk", "os": "acknowledged from the page cache"}
        return f"serve, topics.durability={self.durability} ({meaning[self.durability]}); else defaults"

    def command(self, folder):
        return [
            self.binary, "serve", "--listen", self.address(), "--http-listen", "127.0.0.1:0",
            "--data-dir", self.folder, "--set", f"topics.durability={self.durability}"]

    def is_ready(self):
        return names_a_broker(self.port)


# What Kafka's own kafka-server-start.sh and kafka-run-class.sh give the JVM.
KAFKA_HEAP = ["-Xmx1G", "-Xms1G"]
KAFKA_JVM = [
    "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]
KAFKA_CLUSTER = "c2Fwd29vZC1wZWVycy0xMQ"
KAFKA_SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
"""


class Kafka(System):
    protocol = "kafka"

    def __init__(self, jars, sync):
        super().__init__()
        self.name = "kafka sync" if sync else "kafka"
        self.jars, self.sync = jars, sync

    def version(self):
        jar = next(name for name in os.listdir(self.jars) if re.match(r"kafka_2\.13-[0-9.]+\.jar$", name))
        java = first_line(["java", "-version"])
        return f"Apache Kafka {jar[len('kafka_2.13-'):-len('.jar')]}, {java}"

    def settings(self):
        sync = "log.flush.interval.messages=1 (a sync per append)" if self.sync else "no sync (its default)"
        return f"one KRaft node, {' '.join(KAFKA_HEAP)} and the JVM flags of its start script, {sync}; else defaults"

    def prepare(self, folder):
        self.file = os.path.join(folder, "server.properties")
        text = KAFKA_SETTINGS.format(port=self.port, controller=free_port(), data=self.folder)
        if self.sync:
            text += "log.flush.interval.messages=1\n"
        with open(self.file, "w") as file:
            file.write(text)
        made = subprocess.run(
            self.java([]) + ["kafka.tools.StorageTool", "format", "-t", KAFKA_CLUSTER, "-c", self.file],
            capture_output=True, text=True)
        if made.returncode != 0:
            raise Failed(f"{self.name}: the storage is not formatted:\n{made.stdout}{made.stderr}")

    def java(self, flags):
        return ["java", *flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.jars}/*"]

    def command(self, folder):
        return self.java(KAFKA_HEAP + KAFKA_JVM) + ["kafka.Kafka", self.file]

    def is_ready(self):
        return names_a_broker(self.port)


class Redis(System):
    protocol = "redis"

    def __init__(self, debian, sync):
        super().__init__()
        self.name = f"redis {sync}"
        self.debian, self.sync = debian, sync

    def version(self):
        return "Redis " + re.search(r"v=(\S+)", first_line([self.program(), "--version"], self.environment()))[1]

    def program(self):
        return self.debian.program("redis-server")

    def environment(self):
        return self.debian.environment()

    def settings(self):
        return f"appendonly yes, appendfsync {self.sync}, save ''; else defaults; a stream per partition"

    def command(self, folder):
        return [
            self.program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
            "--appendonly", "yes", "--appendfsync", self.sync, "--save", "", "--daemonize", "no"]

    def is_ready(self):
        return exchange(self.port, b"PING\r\n", 7) == b"+PONG\r\n"


class Nats(System):
    protocol = "nats"

    def __init__(self, debian, sync):
        super().__init__()
        self.name = f"nats {sync}"
        self.debian, self.sync = debian, sync

    def version(self):
        return "NATS " + first_line([self.program(), "--version"], self.environment()).split()[-1]

    def program(self):
        return self.debian.program("nats-server")

    def environment(self):
        return self.debian.environment()

    def settings(self):
        sync = "sync_interval: always" if self.sync == "always" else "no sync_interval (its default: two minutes)"
        return f"JetStream, file storage, {sync}; else defaults; a stream per partition"

    def prepare(self, folder):
        self.file = os.path.join(folder, "nats.conf")
        sync = "sync_interval: always" if self.sync == "always" else ""
        with open(self.file, "w") as file:
            file.write(f"listen: 127.0.0.1:{self.port}\n")
            file.write(f"jetstream {{ store_dir: {json.dumps(self.folder)}\n {sync} }}\n")

    def command(self, folder):
        return [self.program(), "-c", self.file]

    def is_ready(self):
        # It listens for clients when everything else is there, JetStream too.
        return (exchange(self.port, b"", 5) or b"").startswith(b"INFO ")

    def offers_always(self):
        """Since 2.10 it can sync before it answers."""
        numbers = re.findall(r"\d+", self.version())
        return (int(numbers[0]), int(numbers[1])) >= (2, 10)


def first_line(command, environment=None):
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    return (ran.stdout + ran.stderr).splitlines()[0].strip()


def all_of(binary, cache, kafka_version):
    """Every system that can be had, and what is missing and why."""
    found = [Sapwood(binary, durability) for durability in ("fsync", "os")]
    missing = []
    try:
        jars = get.kafka(cache, kafka_version)
        found += [Kafka(jars, sync) for sync in (False, True)]
    except get.Missing as why:
        missing.append(f"kafka: {why}")
    for package, variants in (
        ("redis-server", [(Redis, "everysec"), (Redis, "always")]),
        ("nats-server", [(Nats, "default"), (Nats, "always")]),
    ):
        try:
            debian = get.debian(cache, package)
        except get.Missing as why:
            missing.append(f"{package}: {why}")
            continue
        for kind, sync in variants:
            system = kind(debian, sync)
            if kind is Nats and sync == "always" and not system.offers_always():
                missing.append(f"{system.name}: {system.version()} does not offer it, 2.10 does")
                continue
            found.append(system)
    return found, missing
