#!/usr/bin/env python3
"""Latency of a steady load while others read old data, and while others write as fast as it goes.

    tools/mixed.py --binary target/release/sapwood [--gigabytes 10] [--seconds 10] [--rounds 2] [--durability os]

Wants Python and Linux, and the right to drop the page cache (root) for old data that is cold. `sapwood bench e2e` sends
10,000 records of 1 KiB a second to one topic, open-loop, and a consumer waits for each; each round measures that alone,
while another client reads another topic from its start, and while a third topic is written at full speed. Prints p50,
p99 and p99.9 from when a record was due to its arrival, in milliseconds, and what the others did meanwhile.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time

from interference import RATE, RECORD_BYTES, Broker, text


def measure(broker, seconds):
    words = ["bench", "e2e", "-t", "measured", "-p", "1", "--rate", str(RATE), "--record-bytes", str(RECORD_BYTES)]
    words += ["-d", f"{seconds}s", "--warm-up", "2s", "--linger", "0ms", "-o", "json"]
    report = json.loads(broker.run(*words))
    assert not report["lost"] and not report["duplicated"], report
    latency = report["latency_us"]
    return [latency[name] / 1000 for name in ("p50", "p99", "p999")] + [report["records_per_second"]]


def drop_caches():
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
        return "cold"
    except OSError:
        return "perhaps still in memory"


class Others:
    """Runs a load again and again until it is told to stop."""

    def __init__(self, broker, *words):
        self.megabytes, self.stopped = 0.0, False
        self.thread = threading.Thread(target=self.run, args=(broker, words))
        self.began = time.monotonic()
        self.thread.start()

    def run(self, broker, words):
        while not self.stopped:
            report = json.loads(broker.run("bench", *words, "--no-check", "-o", "json"))
            self.megabytes += report["bytes"] / 1e6

    def stop(self):
        self.stopped = True
        self.thread.join()
        seconds = time.monotonic() - self.began
        return f"{self.megabytes / 1000:.1f} GB in {seconds:.1f} s"


def one_round(broker, options):
    quiet = measure(broker, options.seconds)
    print(f"quiet: {text(quiet)}", flush=True)
    how = drop_caches()
    others = Others(broker, "consume", "-t", "old")
    reading = measure(broker, options.seconds)
    print(f"others read: {text(reading)}; {others.stop()}, {how} at first", flush=True)
    others = Others(broker, "produce", "-t", "full", "-p", "1", "--rate", "max", "-d", "3s", "--warm-up", "0ms", "--fresh")
    writing = measure(broker, options.seconds)
    print(f"others write: {text(writing)}; {others.stop()}", flush=True)
    return reading[1] / quiet[1], writing[1] / quiet[1]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--gigabytes", type=float, default=10)
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--durability", default="os", choices=["fsync", "os"])
    arguments.add_argument("--dir", help="where the data directory is made")
    options = arguments.parse_args()
    folder = tempfile.mkdtemp(dir=options.dir)
    broker = Broker(options.binary, folder, options.durability)
    try:
        records = int(options.gigabytes * 1e9 / RECORD_BYTES)
        broker.run("bench", "produce", "-t", "old", "-p", "1", "--rate", "max", "-n", str(records), "--no-check")
        ratios = [one_round(broker, options) for _ in range(options.rounds)]
    finally:
        broker.process.terminate()
        broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    reading, writing = (statistics.median(ratio) for ratio in zip(*ratios))
    print(f"p99 while others read {reading:.2f} of quiet, while others write {writing:.2f}")


if __name__ == "__main__":
    main()
