"""The checks with kafka-python."""

import re
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, KafkaAdminClient

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

from checks import ERROR_NAMES, Client, KafkaError, NotAvailable, Record, main
from groups import HEARTBEAT_MS, METADATA_MS, POLL_MS, SESSION_MS, Again, Member

SECONDS = 30


def named(failure: errors.KafkaError) -> KafkaError:
    """The error by the protocol's name."""
    return KafkaError(ERROR_NAMES.get(getattr(failure, "errno", None), type(failure).__name__), str(failure))


def ask(call):
    """The result of a call to the library, its errors by the protocol's names."""
    try:
        return call()
    except errors.KafkaError as failure:
        raise named(failure) from failure


class KafkaPython(Client):
    NULL_RECORDS = False
    NULL_HEADERS = False

    def __init__(self, broker: str):
        super().__init__(broker)
        self.admin = KafkaAdminClient(bootstrap_servers=broker)
        self.consumer = KafkaConsumer(
            bootstrap_servers=broker,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
        )

    def name(self):
        return f"kafka-python {kafka.__version__}"

    def describe_cluster(self):
        cluster = ask(self.admin.describe_cluster)
        nodes = {node["broker_id"]: f"{node['host']}:{node['port']}" for node in cluster["brokers"]}
        (directories,) = ask(self.admin.describe_log_dirs)
        if len(directories["log_dirs"]) != 1:
            raise AssertionError(f"the data directories are {directories}")
        return "DescribeCluster, DescribeLogDirs", nodes, cluster["controller_id"]

    def create(self, topic, partitions):
        options = {"num_partitions": partitions, "replication_factor": 1}
        ask(lambda: self.admin.create_topics({topic: options}))

    def delete(self, topic):
        ask(lambda: self.admin.delete_topics([topic]))

    def partitions(self, topic):
        (described,) = ask(lambda: self.admin.describe_topics([topic]))
        return len(described["partitions"])

    def produce(self, topic, records, codec="none", idempotent=False, acks="all"):
        producer = KafkaProducer(
            bootstrap_servers=self.broker,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            acks=acks if acks == "all" else int(acks),
            linger_ms=1,
            max_request_size=10_000_000,
        )
        try:
            sent = [
                producer.send(
                    topic,
                    key=record.key,
                    value=record.value,
                    partition=record.partition,
                    headers=record.headers,
                    timestamp_ms=record.timestamp,
                )
                for record in records
            ]
            producer.flush(SECONDS)
            return [ask(lambda: future.get(SECONDS)).offset for future in sent]
        finally:
            producer.close()

    def read(self, topic, partition, start, count):
        wanted = TopicPartition(topic, partition)
        self.consumer.assign([wanted])
        if start == "earliest":
            self.consumer.seek_to_beginning(wanted)
        else:
            self.consumer.seek(wanted, start)
        records = []
        while len(records) < count:
            polled = ask(lambda: self.consumer.poll(SECONDS * 1000, max_records=count - len(records)))
            if not polled:
                raise AssertionError(f"only {len(records)} of {count} records came within {SECONDS} s")
            for message in polled[wanted]:
                if message.timestamp_type != 0:
                    raise AssertionError(f"the time of offset {message.offset} is of kind {message.timestamp_type}")
                record = Record(
                    message.partition, message.key, message.value, list(message.headers), message.timestamp
                )
                records.append((message.offset, record))
        return records

    def read_out_of_range(self, topic, partition, offset):
        self.read(topic, partition, offset, 1)

    def offset_for(self, topic, partition, timestamp):
        asked = TopicPartition(topic, partition)
        found = ask(lambda: self.consumer.offsets_for_times({asked: timestamp}))[asked]
        return found.offset if found else None

    def watermarks(self, topic, partition):
        asked = TopicPartition(topic, partition)
        earliest = ask(lambda: self.consumer.beginning_offsets([asked]))[asked]
        return earliest, ask(lambda: self.consumer.end_offsets([asked]))[asked]

    def configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        described = ask(lambda: self.admin.describe_configs([resource], config_filter="all"))
        entries = described["topic"][topic]
        return {key: (entry["value"], entry["config_source"] == "DEFAULT_CONFIG") for key, entry in entries.items()}

    def alter(self, topic, key, value):
        operation = AlterConfigOp.DELETE if value is None else AlterConfigOp.SET
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {key: (operation, value)})
        altered = ask(lambda: self.admin.alter_configs([resource], raise_on_unknown=False))["topic"][topic]
        if altered != "OK":
            code = re.search(r"\[Error (\d+)\]", altered)
            raise KafkaError(ERROR_NAMES.get(int(code[1]), altered) if code else altered, altered)

    def add_partitions(self, topic, total):
        ask(lambda: self.admin.create_partitions({topic: total}))

    def delete_records(self, topic, partition, before):
        asked = TopicPartition(topic, partition)
        return ask(lambda: self.admin.delete_records({asked: before}))[asked]["low_watermark"]

    def ask_unknown(self, topic):
        def error_of(call):
            try:
                ask(call)
            except KafkaError as error:
                return error.name
            return "no error"

        (metadata,) = self.admin.describe_topics([topic])
        (described,) = self.admin.describe_topic_partitions([topic])["topics"]
        return {
            "Metadata": ERROR_NAMES.get(metadata["error_code"]),
            "DescribeTopicPartitions": ERROR_NAMES.get(described["error_code"]),
            "DeleteTopics": error_of(lambda: self.delete(topic)),
            "CreatePartitions": error_of(lambda: self.add_partitions(topic, 5)),
        }

    def begin_transaction(self):
        producer = KafkaProducer(bootstrap_servers=self.broker, transactional_id="a transaction", max_block_ms=SECONDS * 1000)
        try:
            ask(producer.init_transactions)
        finally:
            producer.close(timeout=0)

    def close(self):
        self.consumer.close()
        self.admin.close()


class KafkaPythonMember(Member, kafka.ConsumerRebalanceListener):
    def __init__(self, options):
        super().__init__(options)
        if options.protocol == "consumer":
            raise NotAvailable("it knows the classic protocol only")
        self.consumer = KafkaConsumer(
            bootstrap_servers=options.broker,
            group_id=options.group,
            group_instance_id=options.instance,
            partition_assignment_strategy=[
                RangePartitionAssignor if options.protocol == "eager" else CooperativeStickyAssignor
            ],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            metadata_max_age_ms=METADATA_MS,
            reconnect_backoff_max_ms=500,
            bootstrap_timeout_ms=SECONDS * 1000,
        )
        self.held_at = time.monotonic()
        self.subscribe()

    def subscribe(self):
        if self.options.regex:
            self.consumer.subscribe(pattern=self.options.topic, listener=self)
        else:
            self.consumer.subscribe([self.options.topic], listener=self)

    def on_partitions_assigned(self, assigned):
        self.assigned(tuple(partition) for partition in assigned)

    def on_partitions_revoked(self, revoked):
        # Called on the thread of the library, where nothing may wait: what is not committed by now is
        # read again by the next owner.
        self.lost([tuple(partition) for partition in revoked])

    def poll(self):
        # A poll that ends in the moment in which the library has joined leaves it outside for good: it
        # heartbeats no more and does not join again by itself. So it gets long polls to join in, and is
        # told to join again when it has had nothing for long.
        wait = 3 * POLL_MS if self.held else 30 * POLL_MS
        if self.held:
            self.held_at = time.monotonic()
        elif time.monotonic() > self.held_at + SESSION_MS / 1000:
            self.consumer.unsubscribe()
            self.subscribe()
            self.held_at = time.monotonic()
        polled = ask(lambda: self.consumer.poll(wait, max_records=500))
        return [
            (message.topic, message.partition, message.offset)
            for messages in polled.values()
            for message in messages
        ]

    def commit(self, offsets):
        committed = {
            TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()
        }
        try:
            self.consumer.commit(committed, timeout_ms=SECONDS * 1000)
        except errors.FencedInstanceIdError as failure:
            raise named(failure) from failure
        except errors.KafkaError as failure:
            raise Again(str(failure)) from failure

    def close(self):
        self.consumer.close()


if __name__ == "__main__":
    main(KafkaPython, KafkaPythonMember)
