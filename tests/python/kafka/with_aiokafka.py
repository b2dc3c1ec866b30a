"""The checks with aiokafka."""

import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from checks import ERROR_NAMES, Client, KafkaError, NotAvailable, Record, main
from groups import HEARTBEAT_MS, METADATA_MS, POLL_MS, SESSION_MS, Again, Member

SECONDS = 30
DEFAULT_CONFIG = 5


def refuse(code: int, text=None) -> None:
    """Raises the error with this code, unless it is 0."""
    if code:
        raise KafkaError(ERROR_NAMES.get(code, str(code)), str(text))


class Aiokafka(Client):
    NULL_RECORDS = False

    def __init__(self, broker: str):
        super().__init__(broker)
        self.runner = asyncio.Runner()
        self.admin = self.run(self.start_admin())

    async def start_admin(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await admin.start()
        return admin

    def with_consumer(self, work):
        """What `work` does with a consumer of its own: errors of one would show up in later calls."""

        async def on_its_own():
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.broker, group_id=None, enable_auto_commit=False, auto_offset_reset="none"
            )
            await consumer.start()
            try:
                return await work(consumer)
            finally:
                await consumer.stop()

        return self.run(on_its_own())

    def run(self, coroutine):
        """The result of a coroutine, its errors by the protocol's names."""

        async def limited():
            return await asyncio.wait_for(coroutine, SECONDS)

        try:
            return self.runner.run(limited())
        except errors.KafkaError as failure:
            name = ERROR_NAMES.get(getattr(failure, "errno", None), type(failure).__name__)
            raise KafkaError(name, str(failure)) from failure

    def name(self):
        return f"aiokafka {aiokafka.__version__}"

    def describe_cluster(self):
        cluster = self.run(self.admin.describe_cluster())
        nodes = {node["node_id"]: f"{node['host']}:{node['port']}" for node in cluster["brokers"]}
        return "Metadata", nodes, cluster["controller_id"]

    def create(self, topic, partitions):
        (created,) = self.run(self.admin.create_topics([NewTopic(topic, partitions, 1)])).to_object()["topic_errors"]
        refuse(created["error_code"], created.get("error_message"))

    def delete(self, topic):
        (deleted,) = self.run(self.admin.delete_topics([topic])).to_object()["topic_error_codes"]
        refuse(deleted["error_code"])

    def partitions(self, topic):
        # All topics: naming one would create it.
        topics = self.run(self.admin.describe_topics())
        return sum(len(described["partitions"]) for described in topics if described["topic"] == topic)

    def produce(self, topic, records, codec="none", idempotent=False, acks="all"):
        async def produce():
            producer = AIOKafkaProducer(
                bootstrap_servers=self.broker,
                compression_type=None if codec == "none" else codec,
                enable_idempotence=idempotent,
                acks=acks if acks == "all" else int(acks),
                linger_ms=1,
                max_request_size=10_000_000,
            )
            await producer.start()
            try:
                sent = [
                    await producer.send(
                        topic,
                        key=record.key,
                        value=record.value,
                        partition=record.partition,
                        headers=record.headers,
                        timestamp_ms=record.timestamp,
                    )
                    for record in records
                ]
                metadata = await asyncio.gather(*sent)
                return [None if one is None else one.offset for one in metadata]
            finally:
                await producer.stop()

        return self.run(produce())

    def read(self, topic, partition, start, count):
        wanted = TopicPartition(topic, partition)

        async def read(consumer):
            consumer.assign([wanted])
            if start == "earliest":
                await consumer.seek_to_beginning(wanted)
            else:
                consumer.seek(wanted, start)
            messages = []
            while len(messages) < count:
                polled = await consumer.getmany(timeout_ms=SECONDS * 1000, max_records=count - len(messages))
                messages += polled.get(wanted, [])
            return messages

        records = []
        for message in self.with_consumer(read):
            if message.timestamp_type != 0:
                raise AssertionError(f"the time of offset {message.offset} is of kind {message.timestamp_type}")
            record = Record(message.partition, message.key, message.value, list(message.headers), message.timestamp)
            records.append((message.offset, record))
        return records

    def read_out_of_range(self, topic, partition, offset):
        try:
            self.read(topic, partition, offset, 1)
        except KafkaError as error:
            # The library's own error, raised for the broker's code 1.
            if error.name == "OffsetOutOfRangeError":
                raise KafkaError("OFFSET_OUT_OF_RANGE", str(error)) from error
            raise

    def offset_for(self, topic, partition, timestamp):
        asked = TopicPartition(topic, partition)
        found = self.with_consumer(lambda consumer: consumer.offsets_for_times({asked: timestamp}))[asked]
        return found.offset if found else None

    def watermarks(self, topic, partition):
        asked = TopicPartition(topic, partition)
        earliest = self.with_consumer(lambda consumer: consumer.beginning_offsets([asked]))
        latest = self.with_consumer(lambda consumer: consumer.end_offsets([asked]))
        return earliest[asked], latest[asked]

    def configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        (response,) = self.run(self.admin.describe_configs([resource]))
        (described,) = response.to_object()["resources"]
        refuse(described["error_code"], described["error_message"])
        return {
            entry["config_names"]: (entry["config_value"], entry["config_source"] == DEFAULT_CONFIG)
            for entry in described["config_entries"]
        }

    def alter(self, topic, key, value):
        # AlterConfigs replaces them all: what is not named goes back to its default.
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {} if value is None else {key: value})
        (response,) = self.run(self.admin.alter_configs([resource]))
        (altered,) = response.to_object()["resources"]
        refuse(altered["error_code"], altered["error_message"])

    def add_partitions(self, topic, total):
        self.run(self.admin.create_partitions({topic: NewPartitions(total)}))

    def delete_records(self, topic, partition, before):
        asked = TopicPartition(topic, partition)
        return self.run(self.admin.delete_records({asked: RecordsToDelete(before)}))[asked]

    def ask_unknown(self, topic):
        def error_of(call):
            try:
                call()
            except KafkaError as error:
                return error.name
            return "no error"

        return {
            "DeleteTopics": error_of(lambda: self.delete(topic)),
            "DescribeConfigs": error_of(lambda: self.configs(topic)),
            "CreatePartitions": error_of(lambda: self.add_partitions(topic, 5)),
        }

    def begin_transaction(self):
        async def begin():
            producer = AIOKafkaProducer(bootstrap_servers=self.broker, transactional_id="a transaction")
            try:
                await producer.start()
            finally:
                await producer.stop()

        self.run(begin())

    def close(self):
        self.run(self.admin.close())
        self.runner.close()


class AiokafkaMember(Member, aiokafka.ConsumerRebalanceListener):
    def __init__(self, options):
        super().__init__(options)
        if options.protocol != "eager":
            raise NotAvailable("it knows the eager protocol only")
        self.runner = asyncio.Runner()
        self.consumer = self.runner.run(self.start())

    async def start(self):
        options = self.options
        consumer = AIOKafkaConsumer(
            bootstrap_servers=options.broker,
            group_id=options.group,
            group_instance_id=options.instance,
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            metadata_max_age_ms=METADATA_MS,
        )
        if options.regex:
            consumer.subscribe(pattern=options.topic, listener=self)
        else:
            consumer.subscribe([options.topic], listener=self)
        while True:
            try:
                await consumer.start()
                return consumer
            except errors.KafkaConnectionError:
                await asyncio.sleep(POLL_MS / 1000)

    async def on_partitions_assigned(self, assigned):
        self.assigned(tuple(partition) for partition in assigned)

    async def on_partitions_revoked(self, revoked):
        offsets = dict(self.read)
        try:
            await self.commit_now(offsets)
            self.committed(offsets)
        except Again:
            pass
        self.lost([tuple(partition) for partition in revoked])

    def poll(self):
        polled = self.runner.run(self.consumer.getmany(timeout_ms=POLL_MS, max_records=500))
        return [
            (message.topic, message.partition, message.offset)
            for messages in polled.values()
            for message in messages
        ]

    def commit(self, offsets):
        self.runner.run(self.commit_now(offsets))

    async def commit_now(self, offsets):
        if not offsets:
            return
        try:
            await self.consumer.commit({TopicPartition(*partition): offset for partition, offset in offsets.items()})
        except errors.KafkaError as failure:
            raise Again(str(failure)) from failure

    def close(self):
        self.runner.run(self.consumer.stop())
        self.runner.close()


if __name__ == "__main__":
    main(Aiokafka, AiokafkaMember)
