"""A client that is generated from proto/ with grpcio-tools, as anybody would write one.

It knows nothing of record batches: it sends and receives plain records, and the broker builds and
opens the batches.

    interop.py --broker HOST:PORT write TOPIC COUNT    half of COUNT to each of two partitions
    interop.py --broker HOST:PORT read TOPIC COUNT     offset, key and value of partition 0
    interop.py --broker HOST:PORT errors TOPIC         provokes errors and prints what it was told
    interop.py --broker HOST:PORT group GROUP TOPIC COUNT
                            as a member of the group: partition, offset and value of COUNT records
"""

import argparse
import pathlib
import queue
import sys
import threading
import uuid


def generate(proto: pathlib.Path, into: pathlib.Path) -> None:
    """Generates the modules and makes them importable."""
    from grpc_tools import protoc

    into.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path) for path in proto.glob("sapwood/v1/*.proto"))
    arguments = ["protoc", f"-I{proto}", f"--python_out={into}", f"--grpc_python_out={into}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the code could not be generated from proto/")
    sys.path.insert(0, str(into))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="127.0.0.1:9092")
    parser.add_argument("--proto", type=pathlib.Path, default=pathlib.Path("proto"))
    parser.add_argument("--generated", type=pathlib.Path, default=pathlib.Path("target/python/generated"))
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("write", "read"):
        command = commands.add_parser(name)
        command.add_argument("topic")
        command.add_argument("count", type=int)
    commands.add_parser("errors").add_argument("topic")
    command = commands.add_parser("group")
    command.add_argument("group")
    command.add_argument("topic")
    command.add_argument("count", type=int)
    arguments = parser.parse_args()
    generate(arguments.proto, arguments.generated)

    import grpc

    with grpc.insecure_channel(arguments.broker) as channel:
        if arguments.command == "write":
            write(channel, arguments.topic, arguments.count)
        elif arguments.command == "read":
            read(channel, arguments.topic, arguments.count)
        elif arguments.command == "group":
            Member(channel, arguments.group, arguments.topic).read(arguments.count)
        else:
            errors(channel, arguments.topic)


def write(channel, topic: str, count: int) -> None:
    """Sends records in batches of 10 over a stream and waits for every acknowledgement."""
    from sapwood.v1 import produce_pb2, produce_pb2_grpc, record_pb2

    def record(n: int):
        return record_pb2.Record(
            key=f"key-{n}".encode(),
            value=f"größe {n}".encode(),
            headers=[record_pb2.Header(name="source", value=b"python")],
        )

    def requests():
        for partition in (0, 1):
            numbers = range(partition, count, 2)
            for batch in range(0, len(numbers), 10):
                records = [record(n) for n in numbers[batch : batch + 10]]
                yield produce_pb2.ProduceRequest(
                    correlation_id=numbers[batch],
                    topic=topic,
                    partition=partition,
                    acks=produce_pb2.ACKS_ALL,
                    records=produce_pb2.Records(records=records),
                )

    sent = [request.correlation_id for request in requests()]
    answered = []
    for answer in produce_pb2_grpc.ProduceServiceStub(channel).Produce(requests()):
        if answer.WhichOneof("result") != "produced":
            sys.exit(f"request {answer.correlation_id} failed: {answer.error}")
        answered.append(answer.correlation_id)
    if answered != sent:
        sys.exit(f"answers came for {answered}, requests were {sent}")
    print(f"{count} records written")


def read(channel, topic: str, count: int) -> None:
    """Reads plain records over a stream, granting credit as they come."""
    from sapwood.v1 import fetch_pb2, fetch_pb2_grpc, record_pb2

    requests = queue.SimpleQueue()
    requests.put(
        fetch_pb2.FetchRequest(
            options=fetch_pb2.FetchOptions(
                payload=fetch_pb2.PAYLOAD_RECORDS, response_bytes_max=4096
            ),
            subscribe=[
                fetch_pb2.Subscription(
                    topic=topic,
                    partition=0,
                    **{"from": record_pb2.Position(start=True)},
                    until=record_pb2.Position(offset=count),
                )
            ],
            credit_bytes=1,
        )
    )
    for answer in fetch_pb2_grpc.FetchServiceStub(channel).Fetch(iter(requests.get, None)):
        event = answer.WhichOneof("event")
        if event == "failed":
            sys.exit(f"partition {answer.partition} failed: {answer.failed}")
        if event == "finished":
            break
        if event == "fetched":
            for record in answer.fetched.records.records:
                print(record.offset, record.key.decode(), record.value.decode(), sep="\t")
            requests.put(fetch_pb2.FetchRequest(credit_bytes=answer.ByteSize()))
    requests.put(None)


class Member:
    """A member of a group: reads what it is assigned, from where the group was, and commits."""

    def __init__(self, channel, group: str, topic: str) -> None:
        from sapwood.v1 import fetch_pb2_grpc, group_pb2_grpc

        self.groups = group_pb2_grpc.GroupServiceStub(channel)
        self.fetches = fetch_pb2_grpc.FetchServiceStub(channel)
        self.group = group
        self.topic = topic
        self.id = uuid.uuid4().hex
        self.epoch = 0
        self.heard = 0
        self.heartbeat_s = 1.0
        self.owned: set[int] = set()
        # What is to be said to the broker; None ends it.
        self.join_requests = queue.SimpleQueue()
        self.fetch_requests = queue.SimpleQueue()
        # What the broker says, on either stream.
        self.inbox = queue.SimpleQueue()

    def read(self, count: int) -> None:
        from sapwood.v1 import fetch_pb2, group_pb2

        self.listen(self.groups.Join(self.joining()))
        options = fetch_pb2.FetchOptions(payload=fetch_pb2.PAYLOAD_RECORDS)
        self.fetch_requests.put(fetch_pb2.FetchRequest(options=options, credit_bytes=1 << 16))
        self.listen(self.fetches.Fetch(iter(self.fetch_requests.get, None)))
        left = count
        while left > 0:
            said = self.inbox.get(timeout=30)
            if isinstance(said, Exception):
                sys.exit(f"a stream broke: {said}")
            if isinstance(said, group_pb2.JoinResponse):
                self.on_answer(said)
            elif said.WhichOneof("event") == "failed":
                sys.exit(f"partition {said.partition} failed: {said.failed}")
            elif said.WhichOneof("event") == "fetched" and said.partition in self.owned:
                records = said.fetched.records.records
                for record in records:
                    print(said.partition, record.offset, record.value.decode(), sep="\t")
                self.commit(said.partition, records[-1].offset + 1)
                self.fetch_requests.put(fetch_pb2.FetchRequest(credit_bytes=said.ByteSize()))
                left -= len(records)
        # The answer to this is the last one, with epoch 0.
        leave = group_pb2.Leave()
        self.join_requests.put(group_pb2.JoinRequest(heard=self.heard, leave=leave))
        self.fetch_requests.put(None)
        while self.epoch != 0:
            said = self.inbox.get(timeout=30)
            if isinstance(said, group_pb2.JoinResponse):
                self.epoch = said.member_epoch
        self.join_requests.put(None)

    def listen(self, stream) -> None:
        def run() -> None:
            try:
                for said in stream:
                    self.inbox.put(said)
            except Exception as error:  # pylint: disable=broad-except
                self.inbox.put(error)

        threading.Thread(target=run, daemon=True).start()

    def joining(self):
        """What the member says: who it is, then what it is told to say, and heartbeats between."""
        from sapwood.v1 import group_pb2

        yield group_pb2.JoinRequest(
            options=group_pb2.JoinOptions(
                group=self.group,
                member_id=self.id,
                client_id="interop.py",
                subscription=group_pb2.MemberSubscription(topics=[self.topic]),
            )
        )
        while True:
            try:
                request = self.join_requests.get(timeout=self.heartbeat_s)
            except queue.Empty:
                request = group_pb2.JoinRequest(heard=self.heard)
            if request is None:
                return
            yield request

    def on_answer(self, answer) -> None:
        from sapwood.v1 import group_pb2

        is_new = answer.member_epoch != self.epoch
        self.heard, self.epoch = answer.number, answer.member_epoch
        self.heartbeat_s = answer.heartbeat_interval_ms / 1000
        if answer.HasField("assignment"):
            topics = answer.assignment.topics
            self.take({number for topic in topics for number in topic.partitions})
            owned = group_pb2.TopicPartitions(topic=self.topic, partitions=sorted(self.owned))
            self.join_requests.put(
                group_pb2.JoinRequest(
                    heard=self.heard, owned=group_pb2.OwnedPartitions(topics=[owned])
                )
            )
        elif is_new:
            self.join_requests.put(group_pb2.JoinRequest(heard=self.heard))

    def take(self, partitions: set[int]) -> None:
        """Gives up what is not assigned any more, and reads what is new from where the group was."""
        from sapwood.v1 import fetch_pb2, group_pb2, record_pb2

        # Everything that was read is committed already.
        request = fetch_pb2.FetchRequest()
        for number in self.owned - partitions:
            request.remove.add(topic=self.topic, partition=number)
        new = sorted(partitions - self.owned)
        if new:
            named = group_pb2.TopicPartitions(topic=self.topic, partitions=new)
            asked = group_pb2.FetchCommittedRequest(
                group=self.group, member=self.member(), topics=[named]
            )
            for found in self.groups.FetchCommitted(asked).offsets:
                begin = found.HasField("offset")
                place = {"offset": found.offset} if begin else {"start": True}
                position = record_pb2.Position(**place)
                request.subscribe.append(
                    fetch_pb2.Subscription(
                        topic=self.topic, partition=found.partition, **{"from": position}
                    )
                )
        self.owned = partitions
        self.fetch_requests.put(request)

    def commit(self, partition: int, offset: int) -> None:
        from sapwood.v1 import group_pb2

        done = group_pb2.PartitionOffset(topic=self.topic, partition=partition, offset=offset)
        request = group_pb2.CommitRequest(group=self.group, member=self.member(), offsets=[done])
        for result in self.groups.Commit(request).results:
            if result.HasField("error"):
                sys.exit(f"offset {offset} was not committed: {result.error}")

    def member(self):
        from sapwood.v1 import group_pb2

        return group_pb2.GroupMember(member_id=self.id, member_epoch=self.epoch)


def errors(channel, topic: str) -> None:
    """Provokes errors and prints the status, the stable code and one of the values of each."""
    import grpc
    from grpc_status import rpc_status
    from sapwood.v1 import (
        error_pb2,
        fetch_pb2,
        fetch_pb2_grpc,
        produce_pb2,
        produce_pb2_grpc,
        record_pb2,
        topic_pb2,
        topic_pb2_grpc,
    )

    def show(what: str, field: str, call) -> None:
        try:
            call()
        except grpc.RpcError as failure:
            detail = error_pb2.Error()
            status = rpc_status.from_call(failure)
            if status is None or not status.details[0].Unpack(detail):
                sys.exit(f"{what}: no typed detail in {failure}")
            if not (detail.message and detail.cause and detail.hint):
                sys.exit(f"{what}: message, cause or hint is missing in {detail}")
            print(f"{what}: {failure.code().name} {detail.code} {field}={detail.fields[field]}")
        else:
            sys.exit(f"{what}: no error")

    topics = topic_pb2_grpc.TopicServiceStub(channel)
    create = topic_pb2.CreateTopicRequest
    describe = topic_pb2.DescribeTopicRequest(name="nowhere")
    misspelt = create(name="new", configs={"retention.sm": "1"})
    beyond = fetch_pb2.ReadRequest(topic=topic, partition=0, offset=99)
    fetch = fetch_pb2_grpc.FetchServiceStub(channel)
    show("unknown topic", "topic", lambda: topics.DescribeTopic(describe))
    show("topic exists", "topic", lambda: topics.CreateTopic(create(name=topic)))
    show("unknown key", "suggestion", lambda: topics.CreateTopic(misspelt))
    show("offset out of range", "log_end_offset", lambda: fetch.Read(beyond))

    request = produce_pb2.ProduceRequest(
        correlation_id=1,
        topic=topic,
        partition=9,
        records=produce_pb2.Records(records=[record_pb2.Record(value=b"x")]),
    )
    produce = produce_pb2_grpc.ProduceServiceStub(channel)
    for answer in produce.Produce(iter([request])):
        error = answer.error
        print(f"in a stream: {error.code} partition={error.fields['partition']}")


if __name__ == "__main__":
    main()
