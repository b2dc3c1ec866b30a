"""A client that is generated from proto/ with grpcio-tools, as anybody would write one.

It knows nothing of record batches: it sends and receives plain records, and the broker builds and
opens the batches.

    interop.py --broker HOST:PORT write TOPIC COUNT    half of COUNT to each of two partitions
    interop.py --broker HOST:PORT read TOPIC COUNT     offset, key and value of partition 0
    interop.py --broker HOST:PORT errors TOPIC         provokes errors and prints what it was told
"""

import argparse
import pathlib
import sys


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
    arguments = parser.parse_args()
    generate(arguments.proto, arguments.generated)

    import grpc

    with grpc.insecure_channel(arguments.broker) as channel:
        if arguments.command == "write":
            write(channel, arguments.topic, arguments.count)
        elif arguments.command == "read":
            read(channel, arguments.topic, arguments.count)
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
    import queue

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
