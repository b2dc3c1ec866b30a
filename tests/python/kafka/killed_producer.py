"""An idempotent producer that goes on while its broker is killed and started again.

    killed_producer.py BROKER TOPIC PARTITIONS

Writes numbered records to partitions in turn until its standard input ends, waits until all of them are
acknowledged, and prints "PARTITION OFFSET NUMBER" for each in the order in which they were sent. Fails
when one of them is not acknowledged in the end.
"""

import sys
import threading

import confluent_kafka as ck

# A record that takes longer than this is lost.
LIMIT_MS = 300_000


def main():
    broker, topic, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()

    def failed(error):
        # Lost connections are what this is about; what is fatal ends the producer for good.
        if error.fatal():
            sys.exit(f"fatal: {error}")

    producer = ck.Producer({
        "bootstrap.servers": broker,
        "enable.idempotence": True,
        "linger.ms": 2,
        "batch.size": 16384,
        "message.timeout.ms": LIMIT_MS,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "queue.buffering.max.messages": 5000,
        "compression.type": "lz4",
        "error_cb": failed,
        # It says that the broker is away, again and again.
        "log_level": 2,
    })
    acknowledged = []

    def on_delivery(error, message):
        if error:
            sys.exit(f"not acknowledged: {error}")
        acknowledged[int(message.key())] = (message.partition(), message.offset())

    number = 0
    while not stop.is_set():
        acknowledged.append(None)
        key = str(number)
        value = f"{number} " + "padding " * (number % 40)
        while True:
            try:
                partition = number % partitions
                producer.produce(topic, value, key, partition=partition, on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
        number += 1
        if number % 20 == 0:
            # About 10,000 records a second.
            stop.wait(0.002)
    left = producer.flush(LIMIT_MS / 1000)
    if left:
        sys.exit(f"{left} records were not acknowledged")
    for number, (partition, offset) in enumerate(acknowledged):
        print(partition, offset, number)


if __name__ == "__main__":
    main()
