#!/usr/bin/env bash
# Kafka's own command-line tools against a broker of its own: each must exit with 0, print what is
# expected, and print no error. Needs Java 17, and Maven where the tools are not installed yet.
#
#   tests/clients/kafka_tools.sh [BINARY] [TOOLS]
#
# BINARY is target/debug/sapwood by default. TOOLS is the folder of the tools' jars, by default
# target/clients/kafka-tools, where install.sh puts them too. They are of Kafka 4.2 or newer: older ones
# have other flags. Fails when a tool does.
set -u

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${1:-$root/target/debug/sapwood}
tools=${2:-$root/target/clients/kafka-tools}

if [ ! -d "$tools" ]; then
    mvn -q -B -f "$here/kafka-tools/pom.xml" dependency:copy-dependencies \
        "-DoutputDirectory=$tools" || exit 1
fi

work=$(mktemp -d)
data=$work/data
broker_pid=
cleanup() {
    for pid in ${consumers:-} $broker_pid; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    rm -rf "$work"
}
trap cleanup EXIT

"$binary" dev --data-dir "$data" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
    >"$work/broker.out" 2>"$work/broker.err" &
broker_pid=$!
address=
for _ in $(seq 100); do
    address=$(grep -osm1 '127\.0\.0\.1:[0-9]*' "$work/broker.out" | head -1)
    [ -n "$address" ] && break
    sleep 0.1
done
if [ -z "$address" ]; then
    cat "$work/broker.out" "$work/broker.err"
    exit 1
fi

failures=0
tool=org.apache.kafka.tools

# None runs for longer than a minute, and none shall wait for ever.
java=(timeout 300 java -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$tools/*")

java_tool() {
    "${java[@]}" "$@"
}

report() { # NAME STATUS EXPECTED: judges what is in $work/output; "nothing" expects no output
    local complaint=
    if [ "$2" -ne 0 ]; then
        complaint="exit code $2"
    elif [ "$3" = nothing ]; then
        [ -s "$work/output" ] && complaint="it printed something"
    elif [ -n "$3" ] && ! grep -Eq -- "$3" "$work/output"; then
        complaint="no match for: $3"
    elif grep -Eq 'ERROR|Exception|Error |failed|is not valid|Mismatches' "$work/output"; then
        complaint="it printed an error"
    fi
    if [ -z "$complaint" ]; then
        printf 'ok      %s\n' "$1"
    else
        printf 'FAILED  %s: %s\n' "$1" "$complaint"
        sed 's/^/        | /' "$work/output" | head -40
        failures=$((failures + 1))
    fi
}

check() { # NAME EXPECTED CLASS ARGUMENTS...
    local name=$1 expected=$2
    shift 2
    java_tool "$@" >"$work/output" 2>&1 </dev/null
    report "$name" $? "$expected"
}

refused() { # NAME EXPECTED CLASS ARGUMENTS...: the tool must say why it did not do it
    local name=$1 expected=$2
    shift 2
    if java_tool "$@" >"$work/output" 2>&1 </dev/null; then
        echo "it was done" >>"$work/output"
        report "$name" 1 "$expected"
    elif grep -Eq -- "$expected" "$work/output"; then
        printf 'ok      %s\n' "$name"
    else
        report "$name" 0 "$expected"
    fi
}

refused_by_text() { # NAME EXPECTED CLASS ARGUMENTS...: the tool must say so; some exit with 0 all the same
    local name=$1 expected=$2
    shift 2
    java_tool "$@" >"$work/output" 2>&1 </dev/null
    if grep -Eq -- "$expected" "$work/output"; then
        printf 'ok      %s\n' "$name"
    else
        echo "no match for: $expected" >>"$work/output"
        report "$name" 1 ''
    fi
}

topics=("$tool.TopicCommand" --bootstrap-server "$address")
configs=(kafka.admin.ConfigCommand --bootstrap-server "$address")
offsets=("$tool.GetOffsetShell" --bootstrap-server "$address")

version=$(cd "$tools" && ls kafka-tools-4*.jar)
echo "${version%.jar} against $("$binary" --version) at $address"

check "topics: create" 'Created topic orders' "${topics[@]}" \
    --create --topic orders --partitions 3 --replication-factor 1 --config retention.ms=86400000
check "topics: create with assigned replicas" 'Created topic assigned' "${topics[@]}" \
    --create --topic assigned --replica-assignment 1,1
check "topics: create only if not there" nothing "${topics[@]}" --create --if-not-exists --topic orders
refused "topics: create a second time" 'already exists' "${topics[@]}" --create --topic orders
refused "topics: create under an invalid name" 'a b' "${topics[@]}" --create --topic 'a b'
check "topics: list" 'orders' "${topics[@]}" --list
check "topics: add partitions" nothing "${topics[@]}" --alter --topic orders --partitions 4
check "topics: describe" 'PartitionCount: 4.*retention.ms=86400000' "${topics[@]}" \
    --describe --topic orders
check "topics: none is under-replicated" nothing "${topics[@]}" \
    --describe --under-replicated-partitions
check "topics: none is unavailable" nothing "${topics[@]}" --describe --unavailable-partitions
check "topics: those with configurations of their own" 'Topic: orders' "${topics[@]}" \
    --describe --topics-with-overrides

check "configs: set and append" 'Completed updating' "${configs[@]}" \
    --alter --entity-type topics --entity-name orders \
    --add-config 'cleanup.policy=[compact,delete],segment.bytes=1048576'
check "configs: describe a topic's own" 'cleanup.policy=compact,delete' "${configs[@]}" \
    --describe --entity-type topics --entity-name orders
check "configs: describe all of a topic" 'DEFAULT_CONFIG:log.segment.bytes=1073741824' \
    "${configs[@]}" --describe --all --entity-type topics --entity-name assigned
check "configs: delete" 'Completed updating' "${configs[@]}" \
    --alter --entity-type topics --entity-name orders --delete-config cleanup.policy
refused "configs: a key that nobody knows" 'is not known' "${configs[@]}" \
    --alter --entity-type topics --entity-name orders --add-config nope=1
check "configs: describe the broker" 'num.partitions=1' "${configs[@]}" \
    --describe --all --entity-type brokers --entity-name 1
refused "configs: the broker's are not changed" 'configuration file' "${configs[@]}" \
    --alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=5

# Many segments whose records have the broker's time, and batches that the broker compresses anew.
check "topics: create with small segments and log-append time" 'Created topic' "${topics[@]}" \
    --create --topic perf-lz4 \
    --config segment.bytes=1048576 --config message.timestamp.type=LogAppendTime
check "topics: create with a compression of its own" 'Created topic' "${topics[@]}" \
    --create --topic perf-gzip --config compression.type=zstd --config compression.zstd.level=9
for codec in none gzip snappy lz4 zstd; do
    check "producer-perf-test: $codec" '20000 records sent' "$tool.ProducerPerformance" \
        --topic "perf-$codec" --num-records 20000 --record-size 200 --throughput -1 \
        --command-property "bootstrap.servers=$address" acks=all "compression.type=$codec"
done
check "verifiable-producer" '"sent":500' "$tool.VerifiableProducer" --bootstrap-server "$address" \
    --topic verified --max-messages 500

printf 'k%s\n' 1:one 2:two 3:three >"$work/lines"
java_tool "$tool.ConsoleProducer" --bootstrap-server "$address" --topic lines \
    --reader-property parse.key=true --reader-property key.separator=: \
    <"$work/lines" >"$work/output" 2>&1
report "console-producer" $? nothing
check "console-consumer, by partition and offset" 'k3:three' "$tool.consumer.ConsoleConsumer" \
    --bootstrap-server "$address" --topic lines --partition 0 --offset 1 --max-messages 2 \
    --formatter-property print.key=true --formatter-property key.separator=:

check "get-offsets: all topics" '^perf-lz4:0:20000' "${offsets[@]}"
for time in latest earliest max-timestamp earliest-local 0; do
    check "get-offsets: $time" '^perf-zstd:0:[0-9]+$' "${offsets[@]}" \
        --topic perf-zstd --time "$time"
done
check "log-dirs" '"partition":"perf-none-0","size":4[0-9]{6}' "$tool.LogDirsCommand" \
    --bootstrap-server "$address" --describe --topic-list perf-none
echo '{"version":1,"partitions":[{"topic":"perf-gzip","partition":0,"offset":5000}]}' \
    >"$work/delete.json"
check "delete-records" 'low_watermark: 5000' "$tool.DeleteRecordsCommand" \
    --bootstrap-server "$address" --offset-json-file "$work/delete.json"
check "get-offsets: after delete-records" '^perf-gzip:0:5000$' "${offsets[@]}" \
    --topic perf-gzip --time earliest

echo '{"version":1,"partitions":[{"topic":"perf-none","partition":0,"replicas":[1]}]}' \
    >"$work/place.json"
reassign=("$tool.reassign.ReassignPartitionsCommand" --bootstrap-server "$address")
check "reassign-partitions: to where they are" 'Successfully started' "${reassign[@]}" \
    --reassignment-json-file "$work/place.json" --execute
check "reassign-partitions: verify" 'is completed' "${reassign[@]}" \
    --reassignment-json-file "$work/place.json" --verify
check "reassign-partitions: list" 'No partition reassignments' "${reassign[@]}" --list
check "leader-election" 'already elected' "$tool.LeaderElectionCommand" \
    --bootstrap-server "$address" --election-type preferred --topic orders --partition 0
check "leader-election: all partitions" nothing "$tool.LeaderElectionCommand" \
    --bootstrap-server "$address" --election-type preferred --all-topic-partitions
check "metadata-quorum: status" 'LeaderId: +1' "$tool.MetadataQuorumCommand" \
    --bootstrap-server "$address" describe --status
check "metadata-quorum: replication" 'Leader' "$tool.MetadataQuorumCommand" \
    --bootstrap-server "$address" describe --replication
check "cluster: id" 'Cluster ID: [A-Za-z0-9_-]{22}' "$tool.ClusterTool" cluster-id \
    --bootstrap-server "$address"
check "cluster: endpoints" 'unfenced' "$tool.ClusterTool" list-endpoints \
    --bootstrap-server "$address"
check "transactions: describe-producers" 'LastSequence' "$tool.TransactionsCommand" \
    --bootstrap-server "$address" describe-producers --topic perf-none --partition 0
check "features" '' "$tool.FeatureCommand" --bootstrap-server "$address" describe
check "broker-api-versions" 'Produce\(0\): 0 to 13' "$tool.BrokerApiVersionsCommand" \
    --bootstrap-server "$address"
. "$here/kafka_tools_groups.sh"
. "$here/kafka_tools_compaction.sh"
check "topics: delete" nothing "${topics[@]}" --delete --topic assigned
refused "topics: delete what is not there" 'does not exist' "${topics[@]}" --delete --topic nobody

check "dump-log: a sealed segment under the running broker" 'LogAppendTime.*isvalid: true' \
    "$tool.DumpLogSegments" --deep-iteration --files "$data/topics/perf-lz4-0/00000000000000000000.log"

# Segments are cut to their length when they are sealed, and the active ones when the broker stops.
kill -INT "$broker_pid"
wait "$broker_pid"
broker_pid=
logs=$(find "$data" -name '*.log' -path '*-[0-9]*/*' -size +0 | paste -sd,)
indexes=$(find "$data" -name '*.index' -size +0 -o -name '*.timeindex' -size +0 | paste -sd,)
check "dump-log: deep iteration" 'producerId' "$tool.DumpLogSegments" \
    --deep-iteration --files "$logs"
records=$(grep -c '^| offset' "$work/output")
segments=$(find "$data" -name '*.log' -path '*/perf-lz4-0/*' | wc -l)
[ "$segments" -ge 3 ] || { echo "only $segments segments" >"$work/output"; report "dump-log" 1 ''; }
[ "$records" -ge 100000 ] || { echo "only $records records" >"$work/output"; report "dump-log" 1 ''; }
check "dump-log: index sanity" 'passed sanity check' "$tool.DumpLogSegments" \
    --index-sanity-check --files "$indexes"
check "dump-log: indexes against the logs" 'offset' "$tool.DumpLogSegments" --files "$indexes"
check "dump-log: payloads" 'payload: three' "$tool.DumpLogSegments" --print-data-log \
    --files "$data/topics/lines-0/00000000000000000000.log"

[ -s "$work/broker.err" ] && sed 's/^/broker: /' "$work/broker.err"
echo "$failures failed"
[ "$failures" -eq 0 ]
