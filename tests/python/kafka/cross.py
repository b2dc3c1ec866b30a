"""Writes and reads records with confluent-kafka for the tests that look at them through another door.

    cross.py BROKER write TOPIC CODEC    records from standard input, in order
    cross.py BROKER read TOPIC COUNT     COUNT records of partition 0 from the first on

A record is a line of JSON: {"key", "value", "headers": [[name, value], ...], "timestamp"}. Bytes are in
hexadecimal digits, null is null.
"""

import json
import sys

from checks import Record
from with_confluent import Confluent


def to_bytes(text):
    return None if text is None else bytes.fromhex(text)


def to_text(value):
    return None if value is None else value.hex()


def main():
    broker, command, topic, argument = sys.argv[1:]
    client = Confluent(broker)
    if command == "write":
        records = []
        for line in sys.stdin:
            said = json.loads(line)
            headers = [(name, to_bytes(value)) for name, value in said["headers"]]
            key, value = to_bytes(said["key"]), to_bytes(said["value"])
            records.append(Record(0, key, value, headers, said["timestamp"]))
        offsets = client.produce(topic, records, argument, idempotent=True)
        if offsets != list(range(len(records))):
            sys.exit(f"the offsets are {offsets}")
    else:
        for expected, (offset, record) in enumerate(client.read(topic, 0, "earliest", int(argument))):
            if offset != expected:
                sys.exit(f"offset {offset} where {expected} is expected")
            headers = [[name, to_text(value)] for name, value in record.headers]
            key, value = to_text(record.key), to_text(record.value)
            print(json.dumps({"key": key, "value": value, "headers": headers, "timestamp": record.timestamp}))
    client.close()


if __name__ == "__main__":
    main()
