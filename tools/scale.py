#!/usr/bin/env python3
"""What many partitions, many connections and many readers cost.

    tools/scale.py --binary target/release/sapwood [--partitions 10000] [--connections 10000] [--dir DIR]

Wants Python and Linux, and opens as many files as it may (ulimit -n; 200,000 are enough). Prints one line for each
figure: the times to make a topic with so many partitions, to produce to all of them, to start again after a clean stop and after kill -9; the
processor time of an idle broker; its memory (RssAnon, what is not pages of files); the memory of a connection that
waits at the end of a topic, and the processor time to wake it; what ten readers of a tail cost against one.
"""

import argparse
import atexit
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

BATCH_BYTES = 16_384
DESCRIPTORS = 200_000
PR_SET_THP_DISABLE = 41


class Broker:
    def __init__(self, binary, data, durability):
        self.binary, self.data = binary, data
        command = [binary, "serve", "-o", "json", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        command += ["--data-dir", data, "--set", f"topics.durability={durability}"]
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        atexit.register(self.process.kill)  # also when something went wrong
        ready = json.loads(self.process.stdout.readline())
        self.address, self.http = ready["listen"], ready["http"]
        self.started_in = time.monotonic() - began

    def run(self, *words, prepare=None):
        command = [self.binary, "-b", self.address, "--timeout", "5m", *words]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=prepare)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def bench(self, *words, prepare=None):
        return json.loads(self.run("bench", *words, "-o", "json", prepare=prepare))

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """RssAnon in MB."""
        with open(f"/proc/{self.process.pid}/status") as file:
            line = next(line for line in file if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024 / 1e6

    def metric(self, name):
        """The sum of it over all labels."""
        with urllib.request.urlopen(f"http://{self.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def end(self, how):
        began = time.monotonic()
        self.process.send_signal(how)
        self.process.wait()
        return time.monotonic() - began


def say(what, value, unit):
    print(f"{what:<62} {value:>10.2f} {unit}", flush=True)


def idle(broker, seconds=20):
    before = broker.cpu_seconds()
    time.sleep(seconds)
    return (broker.cpu_seconds() - before) / seconds * 100


def partitions(options, folder):
    data = os.path.join(folder, "partitions")
    broker = Broker(options.binary, data, options.durability)
    say("start, empty directory", broker.started_in * 1000, "ms")
    say("memory, just started", broker.memory(), "MB")
    one = broker.bench("produce", "-t", "one", "-n", "1000000", "--batch-bytes", str(BATCH_BYTES), "--no-check")
    count = options.partitions
    began = time.monotonic()
    broker.run("topic", "create", "many", "-p", str(count))
    say(f"make {count} partitions", time.monotonic() - began, "s")
    say("memory", broker.memory(), "MB")
    words = ["-t", "many", "--batch-bytes", str(BATCH_BYTES), "--warm-up", "0ms"]
    first = broker.bench("produce", *words, "-n", str(count * 15))
    say("first batch to each of them, records of 1 KiB", first["seconds"], "s")
    again = broker.bench("produce", *words, "-n", "1000000", "--no-check")
    for name, report in (("1 partition", one), (f"{count} partitions", again)):
        say(f"produce, batches of 16 KiB, {name}", report["megabytes_per_second"], "MB/s")
        say("  processor time of the broker", report["server_cpu_seconds_per_million_records"], "s/M")
    say("memory", broker.memory(), "MB")
    say("processor, idle", idle(broker), "%")
    say("clean stop", broker.end(signal.SIGTERM), "s")
    broker = Broker(options.binary, data, options.durability)
    say("start after a clean stop", broker.started_in, "s")
    say("memory", broker.memory(), "MB")
    broker.bench("produce", *words, "-n", "500000", "--no-check")
    broker.end(signal.SIGKILL)
    broker = Broker(options.binary, data, options.durability)
    say("start after kill -9", broker.started_in, "s")
    read = broker.bench("consume", "-t", "many", "--no-check")
    say("records that are there", read["records"], "")
    broker.end(signal.SIGTERM)
    shutil.rmtree(data)


def connections(options, folder):
    broker = Broker(options.binary, os.path.join(folder, "connections"), "os")
    broker.run("topic", "create", "tail", "-p", "1")
    broker.bench("produce", "-t", "tail", "-n", "10000", "--warm-up", "0ms")
    before = broker.memory()
    count = options.connections
    rate, seconds = 1, 8
    words = ["-t", "tail", "--rate", str(rate), "-d", f"{seconds}s", "--warm-up", "0ms"]
    report = broker.bench("e2e", *words, "--fan-out", "--consumers", str(count), "--fetch-wait", "20s",
                          prepare=no_huge_pages)
    wake_ups = report["records"]
    say(f"{count} connections that wait: memory each", (report["server_anonymous_bytes_max"] / 1e6 - before) * 1000 / count, "kB")
    say("  wake-ups", wake_ups, "")
    say("  processor time for one", report["server_cpu_seconds"] / wake_ups * 1e6, "us")
    say("  until the last one has the record, p50", report["latency_us"]["p50"] / 1000, "ms")
    say("  p99", report["latency_us"]["p99"] / 1000, "ms")
    say("  lost or duplicated", report["lost"] + report["duplicated"], "")
    words = ["-t", "tail", "--rate", "10000", "-d", "5s", "--linger", "5ms"]
    cost = {}
    for readers in (1, 10):
        report = broker.bench("e2e", *words, "--fan-out", "--consumers", str(readers))
        cost[readers] = report["server_cpu_seconds"]
        say(f"{readers} readers of a tail at 10,000/s: processor time", cost[readers] / 5 * 100, "%")
    say("  ten against one", cost[10] / cost[1], "")
    broker.end(signal.SIGTERM)


def no_huge_pages():
    """For a generator with thousands of threads: each would take 2 MiB for its stack and more for its heap."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def raise_limit():
    """As many descriptors as the machine gives."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        say("descriptors, which nobody here may raise", hard, "")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--partitions", type=int, default=10_000)
    arguments.add_argument("--connections", type=int, default=10_000)
    arguments.add_argument("--durability", default="fsync", choices=["fsync", "os"])
    arguments.add_argument("--dir", help="where the data directories are made")
    options = arguments.parse_args()
    raise_limit()
    folder = tempfile.mkdtemp(dir=options.dir)
    try:
        partitions(options, folder)
        connections(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
