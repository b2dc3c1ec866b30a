#!/usr/bin/env python3
"""What retention and compaction cost producers: latency and rate with and without them, in one run.

    tools/interference.py --binary target/release/sapwood [--seconds 30] [--rounds 3]

Wants the packages of tests/python/requirements.txt, and Linux. A topic takes 10,000 records of 100 bytes a
second, and each round measures it twice: alone, and while retention deletes segments of another topic that is
produced to at 20 MB a second, and compaction works at its throttle. Prints p50 and p99 of the time from the
send to the acknowledgement, and the records a second, of both, and their ratios.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from soak import Broker, MIB

RATE, RECORD_BYTES = 10_000, 100
FILL_MIB, FILL_KEYS = 768, 200_000
RETAINED_BYTES_A_SECOND = 20_000_000


def measure(servers, seconds):
    """Sends at a steady rate; the latencies in milliseconds, and how many a second were acknowledged."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "acks": "all"})
    taken = []
    body = os.urandom(RECORD_BYTES)
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        due = int((time.monotonic() - began) * RATE)
        while sent < due:
            at = time.monotonic()
            producer.produce("measured", body, on_delivery=lambda *_, at=at: taken.append(time.monotonic() - at))
            sent += 1
        producer.poll(0.001)
    producer.flush()
    took = time.monotonic() - began
    ordered = sorted(taken)
    part = lambda share: ordered[int(len(ordered) * share)] * 1000
    return part(0.5), part(0.99), len(ordered) / took


def fill(servers):
    """A compacted topic with much to do."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50, "queue.buffering.max.kbytes": 262144})
    value = os.urandom(1000)
    for number in range(FILL_MIB * 1024):
        while True:
            try:
                producer.produce("compacted", value, str(number * 7919 % FILL_KEYS))
                break
            except BufferError:
                producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()


def churn(servers, stop):
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50})
    value = os.urandom(10_000)
    began, sent = time.monotonic(), 0
    while not stop.is_set():
        due = (time.monotonic() - began) * RETAINED_BYTES_A_SECOND
        while sent < due:
            try:
                producer.produce("retained", value)
            except BufferError:
                producer.poll(0.01)
                continue
            sent += len(value)
        producer.poll(0.005)
    producer.flush()


def total(broker, name):
    return sum(value for key, value in broker.metrics().items() if key.split("{")[0] == name)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--seconds", type=float, default=30)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    folder = tempfile.mkdtemp()
    broker = Broker(options.binary, folder)
    try:
        run(broker, options)
    finally:
        broker.process.terminate()
        broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def run(broker, options):
    admin = AdminClient({"bootstrap.servers": broker.servers})
    compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.bytes": str(64 * MIB)}
    retained = {"retention.bytes": str(32 * MIB), "segment.bytes": str(16 * MIB)}
    topics = [NewTopic("measured", 1, 1), NewTopic("retained", 1, 1, config=retained)]
    for future in admin.create_topics(topics).values():
        future.result()
    for number in range(options.rounds):
        measure(broker.servers, 3)  # warm
        quiet = measure(broker.servers, options.seconds)
        for future in admin.create_topics([NewTopic("compacted", 1, 1, config=compacted)]).values():
            future.result()
        fill(broker.servers)
        before = {name: total(broker, name) for name in COUNTERS}
        stop = threading.Event()
        churner = threading.Thread(target=churn, args=(broker.servers, stop))
        churner.start()
        for _ in range(200):  # until compaction has begun
            if total(broker, COUNTERS[0]) > before[COUNTERS[0]]:
                break
            time.sleep(0.1)
        busy = measure(broker.servers, options.seconds)
        stop.set()
        churner.join()
        done = ", ".join(f"{name} {total(broker, name) - before[name]:.0f}" for name in COUNTERS)
        print(f"round {number + 1}: quiet p50 {quiet[0]:.2f} p99 {quiet[1]:.2f} ms, {quiet[2]:.0f}/s; "
              f"with them p50 {busy[0]:.2f} p99 {busy[1]:.2f} ms, {busy[2]:.0f}/s; "
              f"p99 {busy[1] / quiet[1]:.2f}, rate {busy[2] / quiet[2]:.2f}; {done}", flush=True)
        for future in admin.delete_topics(["compacted"]).values():
            future.result()
        time.sleep(2)


COUNTERS = ["sapwood_compaction_read_bytes_total", "sapwood_compaction_written_bytes_total", "sapwood_retention_bytes_total"]
if __name__ == "__main__":
    main()
