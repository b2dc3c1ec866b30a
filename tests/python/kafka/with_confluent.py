"""The checks with confluent-kafka, which is librdkafka."""

import confluent_kafka as ck
from confluent_kafka import admin as ck_admin

from checks import Client, KafkaError, Record, main
from groups import HEARTBEAT_MS, METADATA_MS, POLL_MS, SESSION_MS, Again, Member

SECONDS = 30
# librdkafka's own names for errors, where they differ from the protocol's.
NAMES = {
    "UNKNOWN_TOPIC_OR_PART": "UNKNOWN_TOPIC_OR_PARTITION",
    "MSG_SIZE_TOO_LARGE": "MESSAGE_TOO_LARGE",
    "TOPIC_EXCEPTION": "INVALID_TOPIC_EXCEPTION",
    "_TIMED_OUT": "TIMED_OUT",
}
# What librdkafka says when it connects anew, and goes on by itself.
PASSING = (ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TRANSPORT)


def named(error: ck.KafkaError) -> KafkaError:
    """The error by the protocol's name."""
    return KafkaError(NAMES.get(error.name(), error.name()), error.str())


def result(future):
    """The result of an administrative call."""
    try:
        return future.result(SECONDS)
    except ck.KafkaException as failure:
        raise named(failure.args[0]) from failure


class Confluent(Client):
    def __init__(self, broker: str):
        super().__init__(broker)
        self.settings = {"bootstrap.servers": broker, "allow.auto.create.topics": False}
        self.admin = ck_admin.AdminClient({"bootstrap.servers": broker})
        self.consumer = ck.Consumer({
            **self.settings,
            "group.id": "nobody joins it",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        })

    def name(self):
        return f"confluent-kafka {ck.version()}"

    def describe_cluster(self):
        # librdkafka asks for all topics in a form of its own.
        for client in (self.admin, self.consumer):
            controller = client.list_topics(timeout=SECONDS).controller_id
            if controller < 0:
                raise AssertionError(f"the controller in the metadata is {controller}")
        cluster = result(self.admin.describe_cluster())
        return "DescribeCluster, Metadata", {node.id: f"{node.host}:{node.port}" for node in cluster.nodes}, cluster.controller.id

    def create(self, topic, partitions):
        created = self.admin.create_topics([ck_admin.NewTopic(topic, partitions, 1)])
        result(created[topic])

    def delete(self, topic):
        result(self.admin.delete_topics([topic])[topic])

    def partitions(self, topic):
        description = self.admin.describe_topics(ck.TopicCollection([topic]))[topic]
        try:
            return len(result(description).partitions)
        except KafkaError as error:
            if error.name == "UNKNOWN_TOPIC_OR_PARTITION":
                return 0
            raise

    def produce(self, topic, records, codec="none", idempotent=False, acks="all"):
        producer = ck.Producer({
            "bootstrap.servers": self.broker,
            "compression.type": codec,
            "enable.idempotence": idempotent,
            "acks": acks,
            "linger.ms": 1,
            "message.max.bytes": 10_000_000,
            "message.timeout.ms": SECONDS * 1000,
        })
        answers = [None] * len(records)

        def produced(index):
            def answer(error, message):
                answers[index] = error if error else message.offset()

            return answer

        for index, record in enumerate(records):
            producer.produce(
                topic,
                key=record.key,
                value=record.value,
                partition=record.partition,
                headers=record.headers,
                timestamp=record.timestamp,
                on_delivery=produced(index),
            )
            producer.poll(0)
        if producer.flush(SECONDS + 5) != 0:
            raise AssertionError("not everything was acknowledged or refused in time")
        for answer in answers:
            if isinstance(answer, ck.KafkaError):
                raise named(answer)
        return answers

    def read(self, topic, partition, start, count):
        offset = ck.OFFSET_BEGINNING if start == "earliest" else start
        self.consumer.assign([ck.TopicPartition(topic, partition, offset)])
        records = []
        try:
            while len(records) < count:
                messages = self.consumer.consume(min(count - len(records), 1000), SECONDS)
                if not messages:
                    raise AssertionError(f"only {len(records)} of {count} records came within {SECONDS} s")
                for message in messages:
                    if message.error() and message.error().code() in PASSING:
                        continue
                    if message.error():
                        raise named(message.error())
                    kind, timestamp = message.timestamp()
                    if kind != ck.TIMESTAMP_CREATE_TIME:
                        raise AssertionError(f"the time of offset {message.offset()} is of kind {kind}")
                    record = Record(
                        message.partition(), message.key(), message.value(), message.headers() or [], timestamp
                    )
                    records.append((message.offset(), record))
        finally:
            self.consumer.unassign()
        return records

    def read_out_of_range(self, topic, partition, offset):
        try:
            self.read(topic, partition, offset, 1)
        except KafkaError as error:
            # librdkafka gives its own code, and the broker's as text.
            if error.name == "_AUTO_OFFSET_RESET" and "Offset out of range" in str(error):
                raise KafkaError("OFFSET_OUT_OF_RANGE", str(error)) from error
            raise

    def offset_for(self, topic, partition, timestamp):
        asked = [ck.TopicPartition(topic, partition, timestamp)]
        (found,) = self.consumer.offsets_for_times(asked, timeout=SECONDS)
        if found.error:
            raise named(found.error)
        return None if found.offset == ck.OFFSET_END else found.offset

    def watermarks(self, topic, partition):
        asked = ck.TopicPartition(topic, partition)
        by_consumer = self.consumer.get_watermark_offsets(asked, timeout=SECONDS)
        by_admin = tuple(
            result(self.admin.list_offsets({asked: spec})[asked]).offset
            for spec in (ck_admin.OffsetSpec.earliest(), ck_admin.OffsetSpec.latest())
        )
        if by_admin != by_consumer:
            raise AssertionError(f"the consumer says {by_consumer}, the admin client {by_admin}")
        return by_consumer

    def configs(self, topic):
        resource = ck_admin.ConfigResource(ck_admin.ConfigResource.Type.TOPIC, topic)
        entries = result(self.admin.describe_configs([resource])[resource])
        return {key: (entry.value, entry.is_default) for key, entry in entries.items()}

    def alter(self, topic, key, value):
        operation = ck_admin.AlterConfigOpType.DELETE if value is None else ck_admin.AlterConfigOpType.SET
        entry = ck_admin.ConfigEntry(key, value, incremental_operation=operation)
        kind = ck_admin.ConfigResource.Type.TOPIC
        resource = ck_admin.ConfigResource(kind, topic, incremental_configs=[entry])
        result(self.admin.incremental_alter_configs([resource])[resource])

    def add_partitions(self, topic, total):
        result(self.admin.create_partitions([ck_admin.NewPartitions(topic, total)])[topic])

    def delete_records(self, topic, partition, before):
        asked = ck.TopicPartition(topic, partition, before)
        return result(self.admin.delete_records([asked])[asked]).low_watermark

    def ask_unknown(self, topic):
        def error_of(call):
            try:
                call()
            except KafkaError as error:
                return error.name
            return "no error"

        metadata = self.consumer.list_topics(topic, SECONDS).topics[topic]
        return {
            "Metadata": named(metadata.error).name,
            "DescribeTopicPartitions": error_of(
                lambda: result(self.admin.describe_topics(ck.TopicCollection([topic]))[topic])
            ),
            "DeleteTopics": error_of(lambda: self.delete(topic)),
            "DescribeConfigs": error_of(lambda: self.configs(topic)),
            "CreatePartitions": error_of(lambda: self.add_partitions(topic, 5)),
        }

    def begin_transaction(self):
        producer = ck.Producer({"bootstrap.servers": self.broker, "transactional.id": "a transaction"})
        try:
            producer.init_transactions(SECONDS)
        except ck.KafkaException as failure:
            raise named(failure.args[0]) from failure

    def close(self):
        self.consumer.close()


# What a member of a group gets over by itself: the broker is away, starts, or does not have the topic yet.
BUSY = (
    *PASSING,
    ck.KafkaError._TIMED_OUT,
    ck.KafkaError._WAIT_COORD,
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
    ck.KafkaError.NOT_COORDINATOR,
    ck.KafkaError.REQUEST_TIMED_OUT,
)
# The group has gone on without this member, or is about to: it joins again by itself.
OUTRUN = (
    ck.KafkaError._ASSIGNMENT_LOST,
    ck.KafkaError._STATE,
    ck.KafkaError.ILLEGAL_GENERATION,
    ck.KafkaError.REBALANCE_IN_PROGRESS,
    ck.KafkaError.STALE_MEMBER_EPOCH,
    ck.KafkaError.FENCED_MEMBER_EPOCH,
    ck.KafkaError.UNKNOWN_MEMBER_ID,
)


class ConfluentMember(Member):
    def __init__(self, options):
        super().__init__(options)
        settings = {
            "bootstrap.servers": options.broker,
            "group.id": options.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": METADATA_MS,
            "reconnect.backoff.max.ms": 500,
            # It says that the broker is away, again and again.
            "log_level": 2,
        }
        if options.protocol == "consumer":
            settings["group.protocol"] = "consumer"
        else:
            assignor = "range" if options.protocol == "eager" else "cooperative-sticky"
            settings["partition.assignment.strategy"] = assignor
            settings["session.timeout.ms"] = SESSION_MS
            settings["heartbeat.interval.ms"] = HEARTBEAT_MS
        if options.instance:
            settings["group.instance.id"] = options.instance
        # What came in the poll that goes on.
        self.came = []
        self.consumer = ck.Consumer(settings)
        self.consumer.subscribe(
            [options.topic],
            on_assign=lambda _, partitions: self.assigned(self.named(partitions)),
            on_revoke=lambda _, partitions: self.revoked(self.named(partitions)),
            on_lost=lambda _, partitions: self.lost(self.named(partitions)),
        )

    @staticmethod
    def named(partitions):
        return [(partition.topic, partition.partition) for partition in partitions]

    def revoked(self, partitions):
        # Polling goes on after the partitions are gone; what came of them before is read.
        came, self.came = self.came, []
        self.got(came)
        super().revoked(partitions)

    def poll(self):
        wait = POLL_MS / 1000
        while len(self.came) < 500 and (message := self.consumer.poll(wait)):
            wait = 0
            error = message.error()
            if error and error.code() not in BUSY:
                raise named(error)
            if not error:
                self.came.append((message.topic(), message.partition(), message.offset()))
        came, self.came = self.came, []
        return came

    def commit(self, offsets):
        partitions = [ck.TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            answers = self.consumer.commit(offsets=partitions, asynchronous=False)
        except ck.KafkaException as failure:
            error = failure.args[0]
            if error.code() in BUSY or error.code() in OUTRUN:
                raise Again(error.str()) from failure
            raise named(error) from failure
        for answer in answers:
            if answer.error:
                raise Again(answer.error.str()) if answer.error.code() in BUSY + OUTRUN else named(answer.error)

    def close(self):
        self.consumer.close()


if __name__ == "__main__":
    main(Confluent, ConfluentMember)
