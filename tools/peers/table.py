"""Medians of the rounds, in columns."""

import statistics

MIB = 1 << 20


def median(rows, key):
    values = [value for value in (row.get(key) for row in rows) if value is not None]
    return statistics.median(values) if values else None


def latency(row, share):
    found = (row.get("latency_us") or {}).get(share)
    return None if found is None else found / 1000


def loads(results, works):
    """One row for each load and system: what its rounds have in the middle, and the best rate. Systems stand
    together that had the same load."""
    found = {}
    shapes = list(dict.fromkeys(result["shape"] for result in results))
    for result in sorted(results, key=lambda row: (works.index(row["work"]), shapes.index(row["shape"]))):
        found.setdefault((result["work"], result["shape"], result["system"]), []).append(result)
    rows = []
    for (work, shape, system), rounds in found.items():
        good = [row for row in rounds if "failed" not in row]
        for row in good:
            row.update({share: latency(row, share) for share in ("p50", "p99", "p999")})
        rows.append({
            "load": f"{work} {shape}", "system": system, "rounds": len(good),
            "MB/s": median(good, "megabytes_per_second"),
            "best": max((row["megabytes_per_second"] for row in good), default=None),
            "records/s": median(good, "records_per_second"),
            "CPU s/M": median(good, "cpu"),
            "anon MiB": mib(median(good, "anonymous")), "RSS MiB": mib(median(good, "resident")),
            "p50 ms": median(good, "p50"), "p99 ms": median(good, "p99"), "p99.9 ms": median(good, "p999"),
            "disk/payload": median(good, "disk_of_payload"),
            "lost": total(good, "lost"), "dup": total(good, "duplicated"),
            "errors": total(good, "errors") + len(rounds) - len(good),
        })
    return rows


def total(rows, key):
    return sum(row.get(key) or 0 for row in rows)


def starts(results):
    found = {}
    for result in results:
        found.setdefault(result["system"], []).append(result)
    return [{
        "system": system, "starts": len(rounds), "ready ms": median(rounds, "ready_ms"),
        "idle anon MiB": mib(median(rounds, "anonymous")), "idle RSS MiB": mib(median(rounds, "resident")),
        "idle CPU %": median(rounds, "cpu_percent"), "stop ms": median(rounds, "stop_ms"),
    } for system, rounds in found.items()]


def mib(value):
    return None if value is None else value / MIB


def written(value):
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 \
        else f"{value:.3f}"


def show(rows):
    """Prints rows that have the same keys; a line is left out where the first column changes."""
    if not rows:
        return
    lines = [list(rows[0])] + [[written(value) for value in row.values()] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    is_text = [isinstance(value, str) for value in rows[0].values()]
    before = None
    for number, line in enumerate(lines):
        if number > 1 and line[0] != before and "load" in rows[0]:
            print()
        before = line[0]
        cells = [cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(line, widths, is_text)]
        print("  ".join(cells).rstrip())
