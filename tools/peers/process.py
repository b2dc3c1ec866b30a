"""The process of a system: started, waited for, watched and stopped. Wants Linux."""

import os
import signal
import socket
import struct
import subprocess
import threading
import time

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
SAMPLE_SECONDS = 0.1
LOG_LINES_SHOWN = 20
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A system does not do what it is started for; the message says what it printed."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class System:
    """One server on loopback. Subclasses say how it is started and when it is ready.

    start(folder) -> (port, pid); then ready_seconds says how long it took until it could be used.
    """

    name = ""
    protocol = ""

    def __init__(self):
        self.process = self.port = self.folder = self.memory = None
        self.ready_seconds = 0.0

    # What a subclass says.

    def version(self):
        raise NotImplementedError

    def settings(self):
        """What was set, and what its defaults are where they matter, in words."""
        raise NotImplementedError

    def prepare(self, folder):
        """What has to be done before the process is started; not part of the time to ready."""

    def command(self, folder):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def is_ready(self):
        raise NotImplementedError

    # What all have.

    def start(self, folder):
        assert self.process is None, f"{self.name} runs"
        self.folder = os.path.join(folder, "data")
        self.log = os.path.join(folder, "log")
        os.makedirs(self.folder)
        self.port = free_port()
        self.prepare(folder)
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(folder), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
                env=self.environment())
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - began > READY_SECONDS_MAX:
                said = self.last_lines()
                self.stop()
                raise Failed(f"{self.name} does not become ready:\n{said}")
            time.sleep(0.002)
        self.ready_seconds = time.monotonic() - began
        self.memory = Memory(self.process.pid)
        return self.port, self.process.pid

    def stop(self):
        """Ends the process as its operator would, and at last by force."""
        if self.process is None:
            return
        if self.memory is not None:
            self.memory.stop()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = self.memory = None

    def address(self):
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self):
        """Of all threads, and of children, running or gone."""
        return cpu_seconds(self.process.pid)

    def disk_bytes(self):
        """What its files take on the disk, holes not counted."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    def last_lines(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-LOG_LINES_SHOWN:])


class Memory:
    """The most memory that a process was seen to have: anonymous, and with what it maps of files."""

    def __init__(self, pid):
        self.pid = pid
        self.ended = threading.Event()
        self.reset()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def reset(self):
        self.anonymous = self.resident = 0
        self.sample()

    def sample(self):
        try:
            with open(f"/proc/{self.pid}/status") as file:
                fields = dict(line.split(":", 1) for line in file)
        except OSError:
            return
        kib = lambda name: int(fields[name].split()[0]) * 1024 if name in fields else 0
        self.anonymous = max(self.anonymous, kib("RssAnon"))
        self.resident = max(self.resident, kib("VmRSS"))

    def watch(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self.sample()

    def stop(self):
        self.ended.set()
        self.thread.join()


def cpu_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name, in brackets, may hold spaces. utime, stime, cutime and cstime are fields 14 to 17.
            ticks = sum(int(field) for field in file.read().rsplit(") ", 1)[1].split()[11:15])
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return 0.0
    return ticks / TICKS_A_SECOND + sum(cpu_seconds(int(child)) for child in children)


def exchange(port, request, count):
    """Sends bytes to the port, and answers up to so many of what comes back; None if nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(5)
            connection.sendall(request)
            found = b""
            while len(found) < count:
                part = connection.recv(count - len(found))
                if not part:
                    break
                found += part
            return found
    except OSError:
        return None


def names_a_broker(port):
    """Whether the port answers Kafka's Metadata (version 1, no topics) with a broker in it."""
    header = struct.pack(">hhih", 3, 1, 7, -1)
    body = header + struct.pack(">i", 0)
    answer = exchange(port, struct.pack(">i", len(body)) + body, 12)
    if answer is None or len(answer) < 12:
        return False
    _, correlation, brokers = struct.unpack(">iii", answer)
    return correlation == 7 and brokers >= 1
