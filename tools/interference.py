#!/usr/bin/env python3
"""What retention and compaction cost producers: latency and rate with and without them, in one run.

    tools/interference.py --binary target/release/sapwood [--seconds 20] [--rounds 3] [--durability fsync]

Wants Python and Linux. `sapwood bench` sends 10,000 records of 1 KiB a second to one topic, open-loop, and each
round measures it three times:

- quiet: alone;
- fed: while another topic takes 20 MB a second, which is kept;
- both: while that topic is cut to its last 32 MiB all the time, and compaction works at its throttle.

Prints p50, p99 and p99.9 from when a record was due to its acknowledgement, in milliseconds, the records a
second, and the ratios of the third to the first two.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request

RATE, RECORD_BYTES = 10_000, 1024
FED_BYTES_A_SECOND, FED_RECORD_BYTES = 20_000_000, 10_000
FILL_RECORDS, FILL_KEYS = 700_000, 200_000
MIB = 1 << 20
COUNTERS = ["sapwood_compaction_read_bytes_total", "sapwood_compaction_written_bytes_total", "sapwood_retention_bytes_total"]


class Broker:
    def __init__(self, binary, folder, durability):
        self.binary = binary
        command = [binary, "serve", "-o", "json", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        command += ["--data-dir", os.path.join(folder, "data"), "--set", f"topics.durability={durability}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        ready = json.loads(self.process.stdout.readline())
        self.address, self.http = ready["listen"], f"http://{ready['http']}"

    def run(self, *words):
        command = [self.binary, "-b", self.address, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self, *words):
        command = [self.binary, "-b", self.address, *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def counters(self):
        with urllib.request.urlopen(f"{self.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        totals = dict.fromkeys(COUNTERS, 0.0)
        for line in lines:
            name = line.split("{")[0].split(" ")[0]
            if name in totals:
                totals[name] += float(line.rsplit(" ", 1)[1])
        return totals


def measure(broker, seconds):
    """p50, p99 and p99.9 in milliseconds, and how many records a second were acknowledged."""
    words = ["bench", "produce", "-t", "measured", "--rate", str(RATE), "--record-bytes", str(RECORD_BYTES)]
    words += ["-d", f"{seconds}s", "--warm-up", "2s", "--no-check", "-o", "json"]
    report = json.loads(broker.run(*words))
    latency = report["latency_us"]
    return [latency[name] / 1000 for name in ("p50", "p99", "p999")] + [report["records_per_second"]]


def feed(broker, topic, seconds):
    rate = FED_BYTES_A_SECOND // FED_RECORD_BYTES
    words = ["bench", "produce", "-t", topic, "--rate", str(rate), "--record-bytes", str(FED_RECORD_BYTES)]
    return broker.start(*words, "-d", f"{seconds + 6}s", "--no-check", "--linger", "20ms")


def one_round(broker, seconds):
    broker.run("topic", "create", "kept", "-p", "1")
    cut = ["--set", f"retention.bytes={32 * MIB}", "--set", f"segment.bytes={16 * MIB}"]
    broker.run("topic", "create", "cut", "-p", "1", *cut)
    compact = ["cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01", f"segment.bytes={64 * MIB}"]
    # Filled while it is not due, so that compaction begins with the measurement.
    broker.run("topic", "create", "compacted", "-p", "1", "--set", f"segment.bytes={64 * MIB}")
    fill = ["bench", "produce", "-t", "compacted", "-n", str(FILL_RECORDS), "--keys", str(FILL_KEYS)]
    broker.run(*fill, "--no-check", "--warm-up", "0ms")
    time.sleep(5)

    quiet = measure(broker, seconds)
    feeding = feed(broker, "kept", seconds)
    time.sleep(1)
    fed = measure(broker, seconds)
    feeding.wait()
    before = broker.counters()
    feeding = feed(broker, "cut", seconds)
    broker.run("topic", "alter", "compacted", *[word for pair in compact for word in ("--set", pair)])
    time.sleep(1)
    both = measure(broker, seconds)
    after = broker.counters()
    feeding.wait()
    for name in ("kept", "cut", "compacted"):
        broker.run("topic", "delete", name, "--yes")
    time.sleep(3)
    return quiet, fed, both, {name: (after[name] - before[name]) / MIB for name in COUNTERS}


def text(figures):
    p50, p99, p999, rate = figures
    return f"p50 {p50:.2f} p99 {p99:.2f} p99.9 {p999:.2f} ms {rate:.0f}/s"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--seconds", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--durability", default="fsync", choices=["fsync", "os"])
    arguments.add_argument("--dir", help="where the data directory is made")
    options = arguments.parse_args()
    folder = tempfile.mkdtemp(dir=options.dir)
    broker = Broker(options.binary, folder, options.durability)
    to_quiet, to_fed, rates = [], [], []
    try:
        broker.run("topic", "create", "measured", "-p", "1")
        for number in range(options.rounds):
            quiet, fed, both, done = one_round(broker, options.seconds)
            to_quiet.append(both[1] / quiet[1])
            to_fed.append(both[1] / fed[1])
            rates.append(both[3] / quiet[3])
            print(f"round {number + 1}: quiet {text(quiet)}; fed {text(fed)}; both {text(both)}", flush=True)
            print("  meanwhile " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in done.items()), flush=True)
    finally:
        broker.process.terminate()
        broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    middle = statistics.median
    print(f"p99 with both: {middle(to_quiet):.2f} of quiet, {middle(to_fed):.2f} of fed; rate {middle(rates):.3f}")


if __name__ == "__main__":
    main()
