#!/usr/bin/env python3
"""Retention and compaction for half an hour on the real binary, with a plot.

    tools/soak.py --binary target/release/sapwood [--minutes 30] [--out soak]

Wants the packages of tests/python/requirements.txt, and Linux. It starts a broker on loopback and

- produces at a steady rate to a topic with a small retention.bytes, and to a compacted topic of hot and cold
  keys;
- follows both with a group;
- lets a second group read so slowly that retention overtakes it.

Every five seconds it notes disk use, memory, descriptors and mappings of the broker, and what the metrics say. At
the end it reads the compacted topic from the start and holds it against what was produced, and prints what holds
and what does not. samples.csv and soak.svg are left in the folder. Exit code 1 if something does not hold.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

MIB = 1 << 20
EVENTS, EVENT_PARTITIONS, EVENT_BYTES, EVENTS_A_SECOND = "events", 4, 1024, 2000
RETENTION_BYTES, SEGMENT_BYTES = 48 * MIB, 8 * MIB
ACCOUNTS, ACCOUNT_PARTITIONS, ACCOUNT_BYTES, ACCOUNTS_A_SECOND = "accounts", 2, 512, 1000
HOT_KEYS, COLD_KEYS = 1000, 50_000
SAMPLE_SECONDS = 5


class Broker:
    def __init__(self, binary, folder):
        self.port, self.http = 29192, 29644
        self.data = os.path.join(folder, "data")
        log = open(os.path.join(folder, "broker.log"), "w")
        command = [binary, "dev", "--listen", f"127.0.0.1:{self.port}", "--data-dir", self.data]
        command += ["--http-listen", f"127.0.0.1:{self.http}"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz") as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the broker does not start; see broker.log")

    @property
    def servers(self):
        return f"127.0.0.1:{self.port}"

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if not line.startswith("#") and " " in line:
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def proc(self, name):
        with open(f"/proc/{self.process.pid}/{name}") as file:
            return file.read()

    def memory(self):
        fields = dict(line.split(":", 1) for line in self.proc("status").splitlines())
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")}

    def sample(self):
        maps = self.proc("maps").splitlines()
        used = {EVENTS: 0, ACCOUNTS: 0, "all": 0}
        for folder, _, files in os.walk(self.data):
            for name in files:
                try:
                    size = os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
                used["all"] += size
                topic = os.path.basename(folder).rsplit("-", 1)[0]
                if topic in used:
                    used[topic] += size
        return {
            **self.memory(),
            "descriptors": len(os.listdir(f"/proc/{self.process.pid}/fd")),
            "mappings": len(maps),
            "disk_all": used["all"],
            "disk_events": used[EVENTS],
            "disk_accounts": used[ACCOUNTS],
        }


def steadily(rate, until, each):
    """Calls `each` so often a second, in bursts of a hundredth of one."""
    began, done = time.monotonic(), 0
    while time.monotonic() < until and not stopped.is_set():
        due = int((time.monotonic() - began) * rate)
        while done < due:
            each(done)
            done += 1
        time.sleep(0.01)


def produce_events(servers, until, state):
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "acks": "all"})
    body = os.urandom(EVENT_BYTES)

    def each(n):
        producer.produce(EVENTS, body, partition=n % EVENT_PARTITIONS)
        producer.poll(0)
        state["events"] = n + 1

    steadily(EVENTS_A_SECOND, until, each)
    producer.flush()


def produce_accounts(servers, until, state):
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "acks": "all"})
    chance = random.Random(state["seed"])
    filling = "x" * (ACCOUNT_BYTES - 30)

    def each(n):
        hot = chance.random() < 0.9
        key = f"hot-{chance.randrange(HOT_KEYS)}" if hot else f"cold-{chance.randrange(COLD_KEYS)}"
        value = None if chance.random() < 0.01 else f"{n:012d}{filling}"
        partition = hash_of(key) % ACCOUNT_PARTITIONS
        producer.produce(ACCOUNTS, value, key, partition=partition)
        producer.poll(0)
        state["latest"][key] = value
        state["accounts"] = n + 1

    steadily(ACCOUNTS_A_SECOND, until, each)
    producer.flush()


def hash_of(key):
    return sum(key.encode())


def consumer(servers, group, **more):
    return Consumer(
        {"bootstrap.servers": servers, "group.id": group, "auto.offset.reset": "earliest", **more}
    )


def follow(servers, until, state):
    follower = consumer(servers, "follower")
    follower.subscribe([EVENTS, ACCOUNTS])
    while time.monotonic() < until and not stopped.is_set():
        for message in follower.consume(1000, 0.5):
            if message.error():
                state["follower_errors"].append(str(message.error()))
            else:
                state["followed"] += 1
    follower.close()


def lag(servers, until, state):
    """Commits a record now and then. Once it is overtaken it asks for what is gone."""
    laggard = consumer(servers, "laggard", **{"auto.offset.reset": "error", "enable.auto.commit": False})
    laggard.assign([TopicPartition(EVENTS, 0, 0)])
    message = laggard.poll(30)
    laggard.commit(message, asynchronous=False)
    laggard.unassign()
    while time.monotonic() < until and not stopped.is_set() and not state["lost_seen"]:
        time.sleep(1)
    position = laggard.committed([TopicPartition(EVENTS, 0)])[0]
    laggard.assign([position])
    for _ in range(60):
        message = laggard.poll(1)
        if message is not None and message.error():
            state["laggard_error"] = str(message.error())
            break
    laggard.close()


def labelled(metrics, name, **labels):
    for key, value in metrics.items():
        if key.startswith(name + "{") and all(f'{k}="{v}"' in key for k, v in labels.items()):
            yield value


def watch(broker, began, until, state, out):
    with open(os.path.join(out, "samples.csv"), "w", newline="") as file:
        rows = None
        while time.monotonic() < until and not stopped.is_set():
            metrics = broker.metrics()
            lost = max(labelled(metrics, "sapwood_group_lost_records", group="laggard"), default=0)
            headroom = list(labelled(metrics, "sapwood_group_retention_headroom_seconds", group="laggard"))
            if lost > 0 and not state["lost_seen"]:
                state["lost_seen"] = time.monotonic() - began
            sample = {
                "seconds": round(time.monotonic() - began, 1),
                **broker.sample(),
                "events": state["events"],
                "accounts": state["accounts"],
                "followed": state["followed"],
                "laggard_lost": lost,
                "laggard_headroom_s": headroom[0] if headroom else "",
            }
            if rows is None:
                rows = csv.DictWriter(file, fieldnames=list(sample))
                rows.writeheader()
            rows.writerow(sample)
            file.flush()
            state["samples"].append(sample)
            time.sleep(SAMPLE_SECONDS)


def read_back(servers):
    """The last value of each key in the compacted topic, how many records there are, and whether their offsets
    rise."""
    reader = consumer(servers, "reader", **{"enable.partition.eof": True, "enable.auto.commit": False})
    reader.assign([TopicPartition(ACCOUNTS, number, 0) for number in range(ACCOUNT_PARTITIONS)])
    latest, last, records, rises, ended = {}, {}, 0, True, set()
    while len(ended) < ACCOUNT_PARTITIONS:
        for message in reader.consume(5000, 1):
            if message.error():
                ended.add(message.partition())
                continue
            value = message.value()
            latest[message.key().decode()] = None if value is None else value.decode()
            rises &= message.offset() > last.get(message.partition(), -1)
            last[message.partition()] = message.offset()
            records += 1
    reader.close()
    return latest, records, rises


def plot(samples, path):
    """Four small charts, one below the other."""
    charts = [
        ("disk, MiB", [("events", "disk_events", MIB), ("accounts", "disk_accounts", MIB), ("all", "disk_all", MIB)]),
        ("memory of the broker, MiB", [("anonymous", "RssAnon", MIB)]),
        ("descriptors and mappings", [("descriptors", "descriptors", 1), ("mappings", "mappings", 1)]),
        ("records lost to the lagging group, thousands", [("lost", "laggard_lost", 1000)]),
    ]
    width, height, left, gap = 900, 170, 60, 46
    colours = ["#1f77b4", "#d62728", "#2ca02c"]
    end = max(samples[-1]["seconds"], 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + left + 130}" '
        f'height="{len(charts) * (height + gap) + 20}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(charts):
        top = number * (height + gap) + 26
        most = max(max(sample[key] / unit for sample in samples) for _, key, unit in lines) or 1
        parts.append(f'<text x="{left}" y="{top - 8}">{title}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for part in (0, 0.5, 1):
            y = top + height * (1 - part)
            parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most * part:.0f}</text>')
        for at, (name, key, unit) in enumerate(lines):
            points = " ".join(
                f"{left + sample['seconds'] / end * width:.1f},{top + height * (1 - sample[key] / unit / most):.1f}"
                for sample in samples
            )
            parts.append(f'<polyline fill="none" stroke="{colours[at]}" points="{points}"/>')
            parts.append(f'<text x="{left + width + 8}" y="{top + 14 + 16 * at}" fill="{colours[at]}">{name}</text>')
        for part in (0, 0.25, 0.5, 0.75, 1):
            x = left + part * width
            parts.append(f'<text x="{x}" y="{top + height + 14}" text-anchor="middle">{end * part / 60:.0f} min</text>')
    parts.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(parts))


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def flat(samples, key, slack):
    """Whether the last third is where the middle one is."""
    third = len(samples) // 3
    middle = median(sample[key] for sample in samples[third : 2 * third])
    last = median(sample[key] for sample in samples[2 * third :])
    return last <= middle * 1.1 + slack, f"{middle} in the middle third, {last} in the last"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--out", default="soak")
    options = arguments.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    os.makedirs(options.out)
    broker = Broker(options.binary, options.out)
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        sys.exit(0 if soak(broker, options) else 1)
    finally:
        stopped.set()
        broker.process.terminate()
        broker.process.wait()


def soak(broker, options):
    admin = AdminClient({"bootstrap.servers": broker.servers})
    small = {"segment.bytes": str(SEGMENT_BYTES)}
    made = admin.create_topics([
        NewTopic(EVENTS, EVENT_PARTITIONS, 1, config={**small, "retention.bytes": str(RETENTION_BYTES)}),
        NewTopic(ACCOUNTS, ACCOUNT_PARTITIONS, 1, config={**small, "cleanup.policy": "compact"}),
    ])
    for future in made.values():
        future.result()
    state = {
        "seed": int(time.time()), "events": 0, "accounts": 0, "followed": 0, "latest": {},
        "follower_errors": [], "laggard_error": None, "lost_seen": None, "samples": [],
    }
    print(f"seed {state['seed']}, {options.minutes} minutes", flush=True)
    began = time.monotonic()
    until = began + options.minutes * 60
    jobs = [produce_events, produce_accounts, follow, lag]
    threads = [threading.Thread(target=job, args=(broker.servers, until, state)) for job in jobs]
    threads.append(threading.Thread(target=watch, args=(broker, began, until, state, options.out)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latest, records, rises = read_back(broker.servers)
    samples = state["samples"]
    plot(samples, os.path.join(options.out, "soak.svg"))
    expected = {key: value for key, value in state["latest"].items() if value is not None}
    found = {key: value for key, value in latest.items() if value is not None}
    # Per partition: the limit, the segment that would make it less, and the one that is written, with what
    # is allocated ahead of it.
    events_max = EVENT_PARTITIONS * (RETENTION_BYTES + 3 * SEGMENT_BYTES)
    # As much dirty as clean, and the segment that is written; while it is compacted, another copy.
    keys_bytes = (HOT_KEYS + COLD_KEYS) * (ACCOUNT_BYTES + 70)
    accounts_max = 3 * keys_bytes + ACCOUNT_PARTITIONS * 4 * SEGMENT_BYTES
    peak = {key: max(sample[key] for sample in samples) for key in ("disk_events", "disk_accounts")}
    checks = [
        ("disk of events stays within its bound", peak["disk_events"] <= events_max,
         f"{peak['disk_events'] / MIB:.0f} of {events_max / MIB:.0f} MiB; {state['events'] * EVENT_BYTES / MIB:.0f} MiB came in"),
        ("disk of accounts stays within its bound", peak["disk_accounts"] <= accounts_max,
         f"{peak['disk_accounts'] / MIB:.0f} of {accounts_max / MIB:.0f} MiB; {state['accounts'] * ACCOUNT_BYTES / MIB:.0f} MiB came in"),
        ("memory is flat", *flat(samples, "RssAnon", 4 * MIB)),
        ("no descriptors leak", *flat(samples, "descriptors", 4)),
        ("no mappings leak", *flat(samples, "mappings", 8)),
        ("the follower saw no error and kept up",
         not state["follower_errors"] and state["followed"] >= 0.98 * (state["events"] + state["accounts"]),
         f"{state['followed']} of {state['events'] + state['accounts']}; {state['follower_errors'][:3]}"),
        ("the metric counted what the lagging group lost before it asked", bool(state["lost_seen"]),
         f"after {state['lost_seen'] or 0:.0f} s"),
        ("the lagging group is out of range", "range" in str(state["laggard_error"]).lower()
         or "no offset" in str(state["laggard_error"]).lower(), str(state["laggard_error"])),
        ("the compacted topic has the final state of every key", found == expected,
         f"{len(found)} keys of {len(expected)} in {records} records of {state['accounts']}"),
        ("its offsets rise", rises, ""),
    ]
    for name, holds, detail in checks:
        print(f"{'ok  ' if holds else 'FAIL'} {name}: {detail}")
    with open(os.path.join(options.out, "summary.json"), "w") as file:
        json.dump([{"check": name, "holds": holds, "detail": detail} for name, holds, detail in checks], file, indent=1)
    return all(holds for _, holds, _ in checks)


stopped = threading.Event()
if __name__ == "__main__":
    main()
