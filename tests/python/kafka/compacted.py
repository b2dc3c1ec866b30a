"""Reads a compacted topic from its start with each Python client, and prints what it ends with.

    compacted.py ADDRESS TOPIC END

END is the log's end offset. Prints one line of JSON for each client: its name, the state (keys and values, null for
those that were deleted), the number of records, and whether offsets rose.
"""

import asyncio
import json
import sys

import aiokafka
import confluent_kafka
import kafka


class State:
    def __init__(self, client):
        self.said = {"client": client, "state": {}, "records": 0, "rises": True}
        self.last = -1

    def add(self, offset, key, value):
        self.said["rises"] &= offset > self.last
        self.said["records"] += 1
        self.said["state"][key.decode()] = None if value is None else value.decode()
        self.last = offset

    def say(self):
        print(json.dumps(self.said), flush=True)


def with_kafka_python(address, topic, end):
    state = State("kafka-python")
    place = kafka.TopicPartition(topic, 0)
    consumer = kafka.KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    while consumer.position(place) < end:
        for batch in consumer.poll(1000).values():
            for record in batch:
                state.add(record.offset, record.key, record.value)
    consumer.close()
    state.say()


def with_confluent(address, topic, end):
    state = State("confluent-kafka")
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": address, "group.id": "compacted", "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    while True:
        message = consumer.poll(30)
        if message is None:
            raise SystemExit("confluent-kafka does not reach the end")
        if message.error():
            break  # the end
        state.add(message.offset(), message.key(), message.value())
    consumer.close()
    state.say()


async def with_aiokafka(address, topic, end):
    state = State("aiokafka")
    place = aiokafka.TopicPartition(topic, 0)
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([place])
    await consumer.seek_to_beginning(place)
    while await consumer.position(place) < end:
        for batch in (await consumer.getmany(timeout_ms=1000)).values():
            for record in batch:
                state.add(record.offset, record.key, record.value)
    await consumer.stop()
    state.say()


def main():
    address, topic, end = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with_kafka_python(address, topic, end)
    with_confluent(address, topic, end)
    asyncio.run(with_aiokafka(address, topic, end))


main()
