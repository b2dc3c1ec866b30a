#!/usr/bin/env python3
"""Sapwood and its peers side by side: the same loads, in turns, on this machine, in one table.

    cargo build --release --bin sapwood --bin peer-load
    tools/peers/run.py --binary target/release/sapwood [--rounds 3] [--json FILE]
    tools/peers/run.py --binary target/release/sapwood --quick      a minute, to try the script

Starts Sapwood with durability fsync and os, Apache Kafka (one KRaft node), Redis Streams and NATS JetStream,
one at a time and each anew on an empty folder, and gives each the same loads before the next round begins (A
B C A B C). A load is produce (as fast as it goes), consume (what was produced, from the start) or e2e (an
open loop at a steady rate; latency counts from when a record was due), each after a warm-up on another topic.
e2e has a start of its own, so that what was produced before does not count as its memory.

Prints machine, versions and settings, then medians of the rounds: CPU seconds of the server's process and its
children for a million records, the most memory seen (anonymous, and with mapped files), and how much the disk
use grew for a byte of payload (Redis rewrites its file now and then, and may have less on the disk than
before). What the peers consist of is kept in the folder --cache; a peer that cannot be had is left out, and
that is said. Wants Linux, Python 3.9, a JDK with Maven for Kafka, and Debian's apt-get for the others.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import get
import table
from load import MIB, Amounts, Generators, Shape
from process import Failed
from systems import all_of

WORKS = ("produce", "consume", "e2e")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--binary", required=True, help="the sapwood that is measured")
    add("--bench", help="the sapwood whose `bench` makes the load (the same)")
    add("--peer-load", help="the program that loads Redis and NATS (beside --binary)")
    add("--cache", default=get.default_cache(), help="where the peers are kept (%(default)s)")
    add("--dir", help="where the data goes: a folder on the disk that is meant (the temporary folder)")
    add("--kafka-version", help="another than the one that the tests' pom pins")
    add("--systems", help="only those whose names begin with one of these: sapwood,kafka (all)")
    add("--works", default=",".join(WORKS), help="%(default)s")
    add("--record-bytes", default="1024,100", help="%(default)s")
    add("--partitions", default="1,16,1000", help="%(default)s")
    add("--rounds", type=int, default=3, help="%(default)s")
    add("--mib", type=int, default=1024, help="produced at most in one load (%(default)s)")
    add("--records", type=int, default=4_000_000, help="produced at most in one load (%(default)s)")
    add("--seconds", type=int, default=30, help="that producing takes at most (%(default)s)")
    add("--e2e-rate", type=int, default=10_000, help="records a second (%(default)s)")
    add("--e2e-seconds", type=int, default=15, help="%(default)s")
    add("--warm-seconds", type=int, default=3, help="of the same load before each, not counted (%(default)s)")
    add("--producers", type=int, default=1, help="%(default)s")
    add("--peer-producers", type=int, help="for Redis and NATS: connections (as --producers)")
    add("--batch-bytes", type=int, default=MIB, help="for Kafka's protocol (%(default)s)")
    add("--linger", default="5ms", help="for Kafka's protocol, produce (%(default)s)")
    add("--e2e-linger", default="0ms", help="for Kafka's protocol, e2e (%(default)s)")
    add("--quick", action="store_true", help="one round of little")
    add("--json", help="a file for all that was seen")
    options = parser.parse_args()
    if options.quick:
        options.record_bytes, options.partitions, options.rounds = "1024", "16", 1
        options.mib, options.records, options.seconds = 32, 200_000, 2
        options.e2e_seconds, options.warm_seconds = 2, 1
    return options


def main():
    options = arguments()
    beside = os.path.join(os.path.dirname(os.path.abspath(options.binary)), "peer-load")
    generators = Generators(os.path.abspath(options.bench or options.binary), options.peer_load or beside)
    amounts = Amounts(
        options.mib * MIB, options.records, options.seconds, options.e2e_rate, options.e2e_seconds,
        options.warm_seconds, 1 if options.quick else 3, options.producers,
        options.peer_producers or options.producers, options.batch_bytes, options.linger,
        options.e2e_linger)
    os.makedirs(options.cache, exist_ok=True)
    systems, missing = all_of(options.binary, os.path.abspath(options.cache), options.kafka_version)
    if options.systems:
        wanted = tuple(options.systems.split(","))
        systems = [system for system in systems if system.name.startswith(wanted)]
    loaded = [system for system in systems if generators.has(system)]
    missing += [f"{system.name}: only started and stopped, there is no program to load it"
                for system in systems if system not in loaded]
    base = os.path.abspath(options.dir or tempfile.gettempdir())
    head = describe(systems, missing, amounts, base)
    shapes = [Shape(int(size), int(count)) for size in options.record_bytes.split(",")
              for count in options.partitions.split(",")]
    works = [work for work in WORKS if work in options.works.split(",")]
    turns = [turn for turn in ([work for work in works if work != "e2e"], ["e2e"]) if set(turn) & set(works)]
    run = Run(generators, amounts, works, base)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for shape in shapes:
            for number in range(options.rounds):
                # What nothing can load is started all the same, but not for each shape.
                for system in systems if shape == shapes[0] else loaded:
                    for turn in turns if system in loaded else [[]]:
                        run.turn(system, shape, number + 1, turn)
    except KeyboardInterrupt:
        print("interrupted: what follows is of what was done", flush=True)
    finally:
        rows, start_rows = table.loads(run.results, WORKS), table.starts(run.starts)
        print("\n== start and idle, medians")
        table.show(start_rows)
        print("\n== loads, medians of the rounds; best is the best round's MB/s")
        table.show(rows)
        if options.json:
            with open(options.json, "w") as file:
                json.dump({**head, "rounds": run.results, "starts": run.starts, "medians": rows,
                           "start_medians": start_rows}, file, indent=1)
    sys.exit(1 if any("failed" in result for result in run.results + run.starts) else 0)


def describe(systems, missing, amounts, base):
    head = {
        "machine": machine(base), "amounts": str(amounts), "missing": missing,
        "systems": {system.name: [system.version(), system.settings()] for system in systems},
    }
    print("== machine")
    print("\n".join(f"{name}: {value}" for name, value in head["machine"].items()))
    print("== systems")
    for name, (version, settings) in head["systems"].items():
        print(f"{name}: {version}; {settings}")
    print("\n".join(f"left out: {why}" for why in missing) or "nothing is left out")
    print(f"== loads\n{amounts}\n", flush=True)
    return head


def machine(base):
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "?")
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) // 1024
    system = os.uname()
    printed = lambda *command: subprocess.run(command, capture_output=True, text=True, cwd=get.ROOT).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "CPU": f"{os.cpu_count()} x {model}", "memory": f"{memory} MiB",
        "kernel": f"{system.sysname} {system.release}",
        "file system": printed("df", "--output=fstype", base).split("\n")[-1],
        "tree": printed("git", "log", "-1", "--format=%h %s"),
    }


class Run:
    def __init__(self, generators, amounts, works, base):
        self.generators, self.amounts, self.works, self.base = generators, amounts, works, base
        self.results, self.starts = [], []

    def turn(self, system, shape, number, works):
        """One system, started anew: idle, then each load."""
        folder = tempfile.mkdtemp(prefix="sapwood-peers-", dir=self.base)
        start = {"system": system.name, "round": number}
        self.starts.append(start)
        try:
            system.start(folder)
            self.idle(system, start)
            for work in works:
                self.load(system, work, shape, number)
            began = time.monotonic()
            system.stop()
            start["stop_ms"] = (time.monotonic() - began) * 1000
        except Failed as why:
            start["failed"] = str(why)
            print(why, flush=True)
        finally:
            system.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def idle(self, system, start):
        time.sleep(self.amounts.idle_seconds)  # what it does at first is not idling
        system.memory.reset()
        cpu, began = system.cpu_seconds(), time.monotonic()
        time.sleep(self.amounts.idle_seconds)
        start["cpu_percent"] = (system.cpu_seconds() - cpu) / (time.monotonic() - began) * 100
        start["ready_ms"] = system.ready_seconds * 1000
        start["anonymous"], start["resident"] = system.memory.anonymous, system.memory.resident

    def load(self, system, work, shape, number):
        topic = "e2e" if work == "e2e" else "produced"
        if work == "consume" and "produce" not in self.works:
            self.generators.run(system, "produce", topic, shape, self.amounts)
            self.generators.run(system, "produce", f"warm-{topic}", shape, self.amounts, warm=True)
        if self.amounts.warm_seconds:
            self.generators.run(system, work, f"warm-{topic}", shape, self.amounts, warm=True)
        disk = system.disk_bytes()
        seen = self.generators.run(system, work, topic, shape, self.amounts)
        if work == "produce" and seen.get("records_per_second"):
            payload = seen["records"] * shape.record_bytes if "records" in seen else None
            seen["disk_of_payload"] = (system.disk_bytes() - disk) / payload if payload else None
        self.results.append({"work": work, "shape": str(shape), "system": system.name, "round": number, **seen})
        if "failed" in seen:
            said = f"FAILED {seen['failed']}"
        else:
            shares = [(share, table.latency(seen, share)) for share in ("p50", "p99", "p999")]
            parts = [f"{share} {value:.2f} ms" for share, value in shares if value is not None]
            said = ", ".join([f"{seen['megabytes_per_second']:.1f} MB/s", *parts])
        print(f"round {number}, {work} {shape}, {system.name}: {said}", flush=True)


if __name__ == "__main__":
    main()
