#!/usr/bin/env python3
"""A broker beside the limits of the machine, each measured in the same run.

    tools/targets.py --binary target/release/sapwood [--only ceiling,both,sustained,footprint,state] [--rounds 3]

Wants Python and Linux, the machine for itself, and 60 GB of disk for all of it.

ceiling    producing as fast as it goes, in turns with a listener that only acknowledges (`sapwood bench null`)
both       producing and consuming at once, to 1 and to 16 partitions
sustained  producing three times as much as the page cache may hold back from the disk, with a bare loop that writes
           and syncs as much at a time into a file that was written before, and what reached the disk
footprint  starts, memory and processor of an idle broker; the log of 100 GB is sparse (see forge.py)
state      what a record costs beside 1,000 readers that wait, and in a log of 1 TB, which is sparse, too
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

from forge import forge
from scale import Broker, idle, raise_limit, say

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PARTITIONS = 1000


def produce(broker, topic, *words):
    return broker.bench("produce", "-t", topic, "--no-check", *words)


def figures(reports):
    """The medians of rate and processor time for a million records."""
    rate = statistics.median(report["megabytes_per_second"] for report in reports)
    cpu = statistics.median(report["server_cpu_seconds_per_million_records"] for report in reports)
    return rate, cpu


class Null:
    def __init__(self, binary):
        command = [binary, "bench", "null", "--listen", "127.0.0.1:0", "-o", "json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.address = json.loads(self.process.stdout.readline())["listen"]
        self.binary = binary

    run, bench = Broker.run, Broker.bench


def ceiling(options, folder):
    null = Null(options.binary)
    for record_bytes, records in ((1024, 600_000), (100, 4_000_000)):
        words = ["--record-bytes", str(record_bytes), "-n", str(records)]
        runs = {"null": [], "os": [], "fsync": []}
        for _ in range(options.rounds):
            runs["null"].append(produce(null, "t", *words))
            for durability in ("os", "fsync"):
                broker = Broker(options.binary, os.path.join(folder, "data"), durability)
                runs[durability].append(produce(broker, "t", *words))
                broker.end(signal.SIGTERM)
                shutil.rmtree(broker.data)
        limit, _ = figures(runs["null"])
        for name, reports in runs.items():
            rate, cpu = figures(reports)
            say(f"produce, {record_bytes} B, {name}: {cpu:.2f} CPU s/M, {rate / limit:.2f} of null", rate, "MB/s")
        say("  fsync of os", figures(runs["fsync"])[0] / figures(runs["os"])[0], "")
    null.process.kill()


def both(options, folder):
    rates = {}
    for count in (1, 16):
        reports = []
        for _ in range(options.rounds):
            broker = Broker(options.binary, os.path.join(folder, "data"), "os")
            words = ["-t", "t", "-p", str(count), "--rate", "max", "-d", "3s", "--no-check"]
            reports.append(broker.bench("e2e", *words))
            broker.end(signal.SIGTERM)
            shutil.rmtree(broker.data)
        rates[count] = figures(reports)
        rate, cpu = rates[count]
        say(f"produce and consume at once, {count} partitions: {cpu:.2f} CPU s/M", rate, "MB/s each")
    say("  16 partitions of 1: rate", rates[16][0] / rates[1][0], "")
    say("  16 partitions of 1: processor time", rates[16][1] / rates[1][1], "")


def disk_written(folder):
    """Bytes that were ever written to the disk of the folder."""
    device = os.stat(folder).st_dev
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat") as file:
        return int(file.read().split()[6]) * 512


def journal_bytes(data):
    journal = os.path.join(data, "journal")
    return sum(os.stat(os.path.join(journal, name)).st_size for name in os.listdir(journal))


def dirty_limit():
    """What Linux holds back from the disk at most."""
    with open("/proc/sys/vm/dirty_ratio") as file:
        ratio = int(file.read())
    with open("/proc/meminfo") as file:
        available = next(line for line in file if line.startswith("MemAvailable"))
    return int(available.split()[1]) * KIB * ratio // 100


def raw_syncs(folder, group_bytes, seconds):
    """Groups written and synced one after the other into a file that was written before: MB/s, and ms p50, p99."""
    path, length = os.path.join(folder, "raw"), 256 * MIB
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    group_bytes = -(-group_bytes // 4096) * 4096
    group, times, position = os.urandom(group_bytes), [], 0
    for start in range(0, length, MIB):
        os.pwrite(file, bytes(MIB), start)
    os.fsync(file)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        os.pwrite(file, group, position)
        os.fdatasync(file)
        times.append(time.monotonic() - began)
        position += group_bytes
        position = 0 if position + group_bytes > length else position
    os.close(file)
    os.remove(path)
    times.sort()
    rate = group_bytes * len(times) / sum(times) / 1e6
    return rate, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


def sustained(options, folder):
    limit = dirty_limit()
    records = options.sustained_bytes or 3 * limit
    records //= KIB
    say("the page cache may hold back", limit / 1e9, "GB")
    rates = {}
    for durability in ("os", "fsync"):
        os.sync()
        broker = Broker(options.binary, os.path.join(folder, "data"), durability)
        before = disk_written(folder)
        report = produce(broker, "t", "-n", str(records), "--warm-up", "0ms")
        rates[durability] = report["megabytes_per_second"]
        os.sync()
        payload = records * KIB
        turns = f", {payload / journal_bytes(broker.data):.1f} turns of the journal" if durability == "fsync" else ""
        cpu = report["server_cpu_seconds_per_million_records"]
        say(f"{payload / 1e9:.1f} GB, {durability}{turns}: {cpu:.2f} CPU s/M", rates[durability], "MB/s")
        say("  bytes to the disk for a byte of payload", (disk_written(folder) - before) / payload, "")
        if durability == "fsync":
            group = int(broker.metric("sapwood_journal_written_bytes_total") / broker.metric("sapwood_journal_rounds_total"))
            say("  bytes of a round of the journal", group / KIB, "KiB")
        broker.end(signal.SIGTERM)
        shutil.rmtree(broker.data)
    say("  fsync of os", rates["fsync"] / rates["os"], "")
    raw, p50, p99 = raw_syncs(folder, group, 5)
    say(f"bare write and fdatasync of as much, p50 {p50:.2f} p99 {p99:.2f} ms", raw, "MB/s")
    say("  the broker of it", rates["fsync"] / raw, "")
    for group in (4 * KIB, 64 * KIB):
        raw, p50, p99 = raw_syncs(folder, group, 3)
        say(f"the same, {group // KIB} KiB, p50 {p50:.2f} p99 {p99:.2f} ms", raw, "MB/s")


def fetch_request(topic, wait_ms):
    """Fetch version 4 from the end of partition 0 on."""
    name = topic.encode()
    body = struct.pack(">iiiib", -1, wait_ms, 1, MIB, 0)
    body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiqi", 1, 0, 0, MIB)
    frame = struct.pack(">hhih", 1, 4, 1, 1) + b"t" + body
    return struct.pack(">i", len(frame)) + frame


def connect(broker, count, request=b""):
    host, port = broker.address.rsplit(":", 1)
    sockets = [socket.create_connection((host, int(port))) for _ in range(count)]
    for one in sockets:
        one.sendall(request)
    time.sleep(1)
    return sockets


def many_partitions(options, folder):
    """A broker with partitions that have a sealed segment or more."""
    broker = Broker(options.binary, os.path.join(folder, "data"), "fsync")
    broker.run("topic", "create", "t", "-p", str(PARTITIONS), "--set", f"segment.bytes={16 * KIB}")
    words = ["-n", str(PARTITIONS * 19), "--batch-bytes", "1", "--warm-up", "0ms"]
    produce(broker, "t", *words)
    return broker


def footprint(options, folder):
    data = os.path.join(folder, "data")
    broker = Broker(options.binary, data, "fsync")
    say("start, empty directory", broker.started_in * 1000, "ms")
    say("processor, idle", idle(broker), "%")
    before = broker.memory()
    say("memory, idle", before, "MB")
    sockets = connect(broker, 5000)
    say("5,000 connections that say nothing: memory more", broker.memory() - before, "MB")
    for one in sockets:
        one.close()
    produce(broker, "t", "-d", "5s")
    say("memory under load", broker.memory(), "MB")
    broker.run("topic", "create", "many", "-p", str(PARTITIONS))
    for _ in range(options.rounds):
        produce(broker, "many", "-n", "1500000", "--warm-up", "0ms")
        broker.end(signal.SIGKILL)
        broker = Broker(options.binary, data, "fsync")
        say(f"start after kill -9, {PARTITIONS} partitions, 1.5 GB just written", broker.started_in * 1000, "ms")
    broker.end(signal.SIGTERM)
    shutil.rmtree(data)
    broker = many_partitions(options, folder)
    broker.end(signal.SIGTERM)
    folders = os.path.join(data, "topics")
    sealed = sum(name.endswith(".log") for _, _, names in os.walk(folders) for name in names) - PARTITIONS
    forged = forge(folders, "t", 100 * 10**9 // sealed)
    for _ in range(options.rounds):
        broker = Broker(options.binary, data, "fsync")
        say(f"clean start, {PARTITIONS} partitions of {forged / 1e9:.0f} GB", broker.started_in * 1000, "ms")
        broker.end(signal.SIGTERM)
    shutil.rmtree(data)


def steady(broker, topic):
    """CPU seconds for a million records, as fast as it goes and gathered, and one by one."""
    fast = produce(broker, topic, "-n", "300000", "--batch-bytes", str(64 * KIB))
    single = produce(broker, topic, "--rate", "5000", "-d", "3s")
    return [report["server_cpu_seconds_per_million_records"] for report in (fast, single)]


def compare(what, one, many):
    for how, a, b in zip(("in batches of 64 KiB", "one by one"), one, many):
        say(f"{what}, {how}: {a:.2f} and {b:.2f} CPU s/M", b / a, "")


def medians(runs):
    return [statistics.median(values) for values in zip(*runs)]


def state(options, folder):
    data = os.path.join(folder, "data")
    broker = Broker(options.binary, data, "os")
    broker.run("topic", "create", "parked", "-p", "1")
    one, many = [], []
    for _ in range(options.rounds):
        for count, runs in ((1, one), (1000, many)):
            sockets = connect(broker, count, fetch_request("parked", 60_000))
            runs.append(steady(broker, "t"))
            for socket_ in sockets:
                socket_.close()
            time.sleep(1)
    compare("beside 1 and 1,000 readers that wait", medians(one), medians(many))
    broker.end(signal.SIGTERM)
    shutil.rmtree(data)
    one, many = [], []
    segments = 1000
    broker = Broker(options.binary, data, "os")
    broker.run("topic", "create", "large", "-p", "1", "--set", f"segment.bytes={MIB}")
    produce(broker, "large", "-n", str(segments * 950), "--batch-bytes", "1", "--warm-up", "0ms")
    broker.run("topic", "alter", "large", "--set", f"segment.bytes={GIB}")
    broker.run("topic", "create", "small", "-p", "1")
    broker.end(signal.SIGTERM)
    forged = forge(os.path.join(data, "topics"), "large", GIB)
    broker = Broker(options.binary, data, "os")
    say(f"clean start, 1 partition of {forged / 1e12:.2f} TB", broker.started_in * 1000, "ms")
    for _ in range(options.rounds):
        one.append(steady(broker, "small"))
        many.append(steady(broker, "large"))
    compare(f"in a log of 1 MB and of {forged / 1e12:.2f} TB", medians(one), medians(many))
    for position in ("0", str(segments * 400), "-1"):
        began = time.monotonic()
        broker.run("topic", "consume", "large", "--partitions", "0", "--from", position, "-n", "1", "-q")
        say(f"  a record read from {position}, with the start of the command", (time.monotonic() - began) * 1000, "ms")
    broker.end(signal.SIGTERM)
    shutil.rmtree(data)


def main():
    sections = {"ceiling": ceiling, "both": both, "sustained": sustained, "footprint": footprint, "state": state}
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--only", default=",".join(sections), help="%(default)s")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sustained-bytes", type=int, help="instead of three times the limit of the page cache")
    arguments.add_argument("--dir", help="where the data directories are made")
    options = arguments.parse_args()
    raise_limit()
    folder = tempfile.mkdtemp(dir=options.dir)
    try:
        for name in options.only.split(","):
            print(f"== {name}", flush=True)
            sections[name](options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
