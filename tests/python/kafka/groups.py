"""The member of a group, for the clients that are driven from Python.

    with_NAME.py group HOST:PORT GROUP TOPIC PROTOCOL [--instance ID] [--regex] [--commit-every N]

A program makes a `Member` of one library and gives it to `main`, which joins, reads and commits until
its standard input says "close" or ends, and prints what happens as lines of JSON. The events are the
same in all languages; tests/clients/README.md lists them.
"""

import argparse
import json
import sys
import threading
import traceback
from typing import NamedTuple

from checks import NotAvailable

SESSION_MS = 6_000
HEARTBEAT_MS = 500
METADATA_MS = 500
# How long one poll waits for records: how long a member takes to hear that it has to close.
POLL_MS = 100


class Options(NamedTuple):
    """What the program was told."""

    broker: str
    group: str
    topic: str
    # "eager", "cooperative" or "consumer", which is KIP-848.
    protocol: str
    # The name of a static member.
    instance: str | None
    # Whether `topic` is a pattern.
    regex: bool


class Again(Exception):
    """A commit that did not succeed, because the group or the broker is busy with something else."""


class Member:
    """What a library does as the member of a group. Raises `NotAvailable` for what it cannot do."""

    def __init__(self, options: Options):
        self.options = options
        # Some libraries tell of partitions on a thread of their own.
        self.lock = threading.RLock()
        self.held = set()
        # What was read and not yet committed, by (topic, partition).
        self.read = {}
        self.uncommitted = 0

    def poll(self) -> list:
        """(topic, partition, offset) of the records that have come, in order; waits for `POLL_MS`."""
        raise NotImplementedError

    def commit(self, offsets: dict) -> None:
        """Commits offsets by (topic, partition), and waits. Raises `Again` when it has to be tried again."""
        raise NotImplementedError

    def close(self) -> None:
        """Leaves the group."""
        raise NotImplementedError

    def assigned(self, partitions) -> None:
        """The library got these partitions, beside those that it holds."""
        partitions = list(partitions)
        with self.lock:
            self.held |= set(partitions)
            # It reads on from what is committed.
            self.forget(partitions)
            self.tell_held()

    def revoked(self, partitions) -> None:
        """The library gives these partitions up, and may still commit."""
        self.try_commit()
        self.lost(partitions)

    def lost(self, partitions) -> None:
        """The library does not have these partitions any more."""
        with self.lock:
            self.held -= set(partitions)
            self.forget(partitions)
            self.tell_held()

    def forget(self, partitions) -> None:
        for partition in partitions:
            self.read.pop(partition, None)

    def tell_held(self) -> None:
        tell("assigned", partitions=sorted(self.held))

    def got(self, records: list) -> None:
        """Says what was read, in runs."""
        runs = {}
        for topic, partition, offset in records:
            run = runs.get((topic, partition))
            if run is not None and run[1] == offset:
                run[1] = offset + 1
            else:
                if run is not None:
                    self.tell_run(topic, partition, run)
                runs[topic, partition] = [offset, offset + 1]
        for (topic, partition), run in runs.items():
            self.tell_run(topic, partition, run)
        self.uncommitted += len(records)

    def tell_run(self, topic, partition, run) -> None:
        with self.lock:
            tell("records", topic=topic, partition=partition, **{"from": run[0]}, to=run[1])
            # A commit for a partition that is somebody else's by now would take that one back.
            if (topic, partition) in self.held:
                self.read[topic, partition] = run[1]

    def try_commit(self) -> bool:
        """Commits what was read. What cannot be committed now is left for the next time."""
        with self.lock:
            offsets = dict(self.read)
        if not offsets:
            return True
        try:
            self.commit(offsets)
        except Again:
            return False
        self.committed(offsets)
        return True

    def committed(self, offsets: dict) -> None:
        """These offsets were committed."""
        with self.lock:
            for (topic, partition), offset in offsets.items():
                tell("committed", topic=topic, partition=partition, offset=offset)
                if self.read.get((topic, partition)) == offset:
                    del self.read[topic, partition]
            self.uncommitted = 0


def tell(event: str, **fields) -> None:
    """Prints one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


def main(arguments: list, make) -> None:
    """Is a member of a group, made by `make`, until standard input says otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("broker", help="HOST:PORT")
    parser.add_argument("group")
    parser.add_argument("topic")
    parser.add_argument("protocol", choices=("eager", "cooperative", "consumer"))
    parser.add_argument("--instance", help="the name of a static member")
    parser.add_argument("--regex", action="store_true", help="TOPIC is a pattern")
    parser.add_argument("--commit-every", type=int, default=1, help="records")
    parsed = vars(parser.parse_args(arguments))
    commit_every = parsed.pop("commit_every")
    try:
        member = make(Options(**parsed))
    except NotAvailable as reason:
        tell("n/a", detail=str(reason))
        return
    try:
        be(member, commit_every, told_to_close())
    except Exception as failure:
        traceback.print_exc(file=sys.stderr)
        tell("error", detail=f"{type(failure).__name__}: {failure}")
        sys.exit(1)
    tell("closed")


def told_to_close() -> threading.Event:
    """Is set after the line "close", or the end, of standard input."""
    closing = threading.Event()

    def listen():
        for line in sys.stdin:
            if line.strip() == "close":
                break
        closing.set()

    threading.Thread(target=listen, daemon=True).start()
    return closing


def be(member: Member, commit_every: int, closing: threading.Event) -> None:
    """Reads and commits until it is told to close."""
    while not closing.is_set():
        member.got(member.poll())
        if member.uncommitted >= commit_every:
            member.try_commit()
    while not member.try_commit():
        # The group may be in between two generations, which go on when the library is polled.
        member.got(member.poll())
    member.close()
