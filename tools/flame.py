#!/usr/bin/env python3
"""A flame graph of a process as an SVG: which functions its processor time is spent in.

    perf record -F 999 -g -p PID -o perf.data -- sleep 5
    tools/flame.py perf.data --title "produce" > produce.svg
    tools/flame.py --produce --binary SAPWOOD > produce.svg       starts a broker and the load, too
    tools/flame.py --consume --binary SAPWOOD > consume.svg

Wants Linux's perf and a binary with symbols (CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=1). The
width of a frame is its share of the samples, its children stand on it; names are shown by the browser's tooltip. With
--produce and --consume the load is `sapwood bench` at full speed: records of 1 KiB, durability os, one partition.
The form of the picture is Brendan Gregg's.
"""

import argparse
import collections
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

WIDTH, ROW, TOP, NARROWEST = 1200, 16, 40, 0.4


def stacks(data):
    """Samples by stack, the outermost function first."""
    counts = collections.Counter()
    script = subprocess.run(["perf", "script", "-i", data, "-F", "comm,ip,sym"], capture_output=True, text=True, check=True)
    for sample in script.stdout.split("\n\n"):
        lines = [line for line in sample.splitlines() if line.strip()]
        if len(lines) < 2:
            continue
        names = [re.sub(r"^\s*[0-9a-f]+ ", "", line).strip() for line in lines[1:]]
        names = [re.sub(r"::h[0-9a-f]{16}$", "", name) for name in names]
        counts[tuple([lines[0].strip().split()[0]] + names[::-1])] += 1
    return counts


def frames(counts):
    """(depth, left, samples, name) of each frame."""
    tree = lambda: {"samples": 0, "children": collections.defaultdict(tree)}
    root = tree()
    for stack, samples in counts.items():
        node = root
        node["samples"] += samples
        for name in stack:
            node = node["children"][name]
            node["samples"] += samples
    found = []
    waiting = [(root, 0, 0.0, "all")]
    while waiting:
        node, depth, left, name = waiting.pop()
        found.append((depth, left, node["samples"], name))
        for child_name, child in sorted(node["children"].items()):
            waiting.append((child, depth + 1, left, child_name))
            left += child["samples"]
    return found


def colour(name):
    if "sapwood" in name:
        return "#8fbc5a"
    # Kernel functions have no paths.
    return "#e8a33d" if "::" in name else "#d9756b"


def svg(counts, title):
    found = frames(counts)
    total = max(1, sum(counts.values()))
    scale = WIDTH / total
    found = [frame for frame in found if frame[2] * scale >= NARROWEST]
    height = TOP + ROW * (max(frame[0] for frame in found) + 2)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    yield '<style>text{font:11px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.3}</style>'
    yield f'<text x="8" y="20" style="font-size:15px">{html.escape(title)}: {total} samples</text>'
    for depth, left, samples, name in found:
        x, width = left * scale, samples * scale
        y = height - ROW * (depth + 2)
        share = f"{name} ({100 * samples / total:.1f} %)"
        yield f'<g><title>{html.escape(share)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{colour(name)}"/>'
        letters = int(width / 6.8)
        if letters >= 3:
            yield f'<text x="{x + 2:.1f}" y="{y + 11}">{html.escape(name[:letters])}</text>'
        yield "</g>"
    yield "</svg>"


def record(binary, work, seconds, data):
    """Runs a broker under the load of `work`, and perf on it."""
    folder = tempfile.mkdtemp()
    command = [binary, "serve", "-o", "json", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    command += ["--data-dir", os.path.join(folder, "data"), "--set", "topics.durability=os"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        address = json.loads(broker.stdout.readline())["listen"]
        bench = [binary, "-b", address, "bench"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        loads = [[*bench, "produce", "-t", "flame", "--rate", "max", "-d", f"{seconds + 2}s", "--no-check"]]
        if work == "consume":
            subprocess.run([*loads[0][:-3], "-n", "2000000", "--no-check"], check=True, **quiet)
            loads = [[*bench, "consume", "-t", "flame", "--no-check"]] * 20
        perf = ["perf", "record", "-q", "-F", "1999", "-g", "-p", str(broker.pid), "-o", data, "--", "sleep", str(seconds)]
        time.sleep(1)
        sampled = subprocess.Popen(perf, **quiet)
        for load in loads:
            if sampled.poll() is None:
                subprocess.run(load, check=True, **quiet)
        sampled.wait()
    finally:
        broker.terminate()
        broker.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", nargs="?", help="what perf has recorded")
    arguments.add_argument("--title")
    arguments.add_argument("--produce", action="store_true")
    arguments.add_argument("--consume", action="store_true")
    arguments.add_argument("--binary")
    arguments.add_argument("--seconds", type=int, default=4)
    options = arguments.parse_args()
    work = "produce" if options.produce else "consume" if options.consume else None
    if (work is None) == (options.data is None) or (work and not options.binary):
        arguments.error("name either a file that perf recorded, or --produce or --consume with --binary")
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or os.path.join(folder, "perf.data")
        if work:
            record(options.binary, work, options.seconds, data)
        for line in svg(stacks(data), options.title or work or options.data):
            print(line)


if __name__ == "__main__":
    sys.exit(main())
