"""Makes the sealed segments of a stopped data directory large, without the disk that it would take.

Each sealed segment is written anew with the same offsets: a batch of one record of zeros for each, as long as it takes.
The zeros are holes of the file. Indexes and sums are made to match (docs/format.md), so that the log is as sound as one
that was filled by a producer: `sapwood storage verify` finds no fault in it.
"""

import functools
import os
import struct
import time
import zlib

INDEX_EVERY = 4096
HEAD_BYTES = 61


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def crc32c(data):
    table, crc = crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


@functools.cache
def batch_start(total, milliseconds):
    """What a batch of so many bytes has before its zeros, with its base offset and leader epoch left out."""
    for overhead in range(6, 24):
        value = total - HEAD_BYTES - overhead
        body = b"\0" + varint(0) + varint(0) + varint(-1) + varint(value)
        record = varint(len(body) + value + 1) + body
        if len(record) + 1 == overhead:
            break
    else:
        raise ValueError(f"no batch is {total} bytes long")
    checked = struct.pack(">hiqqqhii", 0, 0, milliseconds, milliseconds, -1, -1, -1, 1) + record
    crc = crc32c(checked + bytes(total - HEAD_BYTES - len(record)))
    return struct.pack(">bI", 2, crc) + checked


def forge_segment(folder, base, end, segment_bytes, milliseconds):
    name = os.path.join(folder, f"{base:020}")
    count = end - base
    total = segment_bytes // count
    start = batch_start(total, milliseconds)
    with open(name + ".log", "rb") as file:
        epoch = file.read(16)[12:]
    with open(name + ".sums", "rb") as file:
        sums = bytearray(file.read(40))
    identity = bytes(sums[36:40])
    index, file = bytearray(), os.open(name + ".log.forged", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        os.truncate(file, total * count)
        for number in range(count):
            position = number * total
            head = struct.pack(">qi", base + number, total - 12) + epoch + start
            os.pwrite(file, head, position)
            if position and total > INDEX_EVERY:
                index += struct.pack(">ii", number, position)
            entry = struct.pack(">IIqI", position + total, zlib.crc32(head[:21]), milliseconds, 0)
            sums += entry + struct.pack(">I", zlib.crc32(entry, zlib.crc32(struct.pack(">I", position), zlib.crc32(identity))))
    finally:
        os.close(file)
    times = struct.pack(">qi", milliseconds, 0)
    for kind, content in ((".index", index), (".timeindex", times), (".sums", sums)):
        with open(name + kind, "wb") as written:
            written.write(content)
    os.rename(name + ".log.forged", name + ".log")
    return total * count


def forge(topics, topic, segment_bytes):
    """Of all partitions of the topic; batches must be 64 KiB long or longer. Says how many bytes there are then."""
    milliseconds, forged = int(time.time() * 1000), 0
    for name in os.listdir(topics):
        if name.rpartition("-")[0] != topic:
            continue
        folder = os.path.join(topics, name)
        bases = sorted(int(file[:-4]) for file in os.listdir(folder) if file.endswith(".log"))
        for base, end in zip(bases, bases[1:]):
            forged += forge_segment(folder, base, end, segment_bytes, milliseconds)
    return forged
