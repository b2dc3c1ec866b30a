#!/usr/bin/env bash
# What producing and consuming through Kafka's protocol cost: kcat (librdkafka) against a broker and,
# in turns, against a listener that only answers.
#
#   tools/kafka-cost.sh [DIRECTORY]      a folder on the disk to measure; default: a temporary one
#
# Prints, for each run, the rate and the processor time of the server for a million records, and the same
# for a listener that only answers and for one that also writes the bytes into a file. Where the host
# hands out memory on first touch and takes it back when it is free, keeping bytes costs more than
# everything that is done with them: compare a run with the listeners beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${RUNS:-5}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/kafka-cost.XXXXXX")
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}
trap finish EXIT

command -v kcat >/dev/null || { echo "kcat is needed: apt-get install kcat" >&2; exit 1; }
cargo build --release --quiet -p sapwood-cli -p sapwood-kafka --bin sapwood --example null_listener
bin=${CARGO_TARGET_DIR:-target}/release

"$bin/sapwood" dev --data-dir "$folder/data" --listen 127.0.0.1:29092 --http-listen 127.0.0.1:29644 \
    --set topics.durability=os >/dev/null &
broker=$!
"$bin/examples/null_listener" 127.0.0.1:29192 >/dev/null &
null=$!
mkdir "$folder/kept"
"$bin/examples/null_listener" 127.0.0.1:29292 "$folder/kept" >/dev/null &
keep=$!
pids=("$broker" "$null" "$keep")
until curl -sf http://127.0.0.1:29644/readyz >/dev/null; do sleep 0.1; done

# Processor seconds of a process, user and kernel.
cpu() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.6f", sum / 1e9 }'; }

# Runs a command and says what it cost a server: NAME PID RECORDS COMMAND...
cost() {
    local name=$1 pid=$2 records=$3 before began ended
    shift 3
    before=$(cpu "$pid")
    began=$(date +%s.%N)
    "$@"
    ended=$(date +%s.%N)
    echo "$name $records $before $(cpu "$pid") $began $ended" | awk '{
        printf "%-22s %10.0f records/s  %6.3f CPU s for a million\n",
            $1, $2 / ($6 - $5), ($4 - $3) / $2 * 1e6 }'
}

produce() { # PORT TOPIC FILE
    kcat -P -q -b "127.0.0.1:$1" -t "$2" -l -X acks=all -X linger.ms=5 \
        -X queue.buffering.max.messages=200000 "$3"
}

consume() { # TOPIC RECORDS
    kcat -C -q -b 127.0.0.1:29092 -t "$1" -p 0 -o beginning -c "$2" | wc -c >/dev/null
}

measure() { # BYTES RECORDS
    local bytes=$1 records=$2 file=$folder/records-$1
    awk -v bytes="$bytes" -v records="$records" 'BEGIN {
        filler = sprintf("%*s", bytes, ""); gsub(/ /, "x", filler)
        for (i = 0; i < records; i++) printf "%s\n", substr(sprintf("%08d", i) filler, 1, bytes - 1) }' \
        >"$file"
    for _ in $(seq "$runs"); do
        cost "null-$bytes" "$null" "$records" produce 29192 t "$file"
        cost "keep-$bytes" "$keep" "$records" produce 29292 t "$file"
        rm -f "$folder"/kept/*
        cost "produce-$bytes" "$broker" "$records" produce 29092 "t$bytes" "$file"
        cost "consume-$bytes" "$broker" "$records" consume "t$bytes" "$records"
        "$bin/sapwood" topic delete "t$bytes" --yes -q -b 127.0.0.1:29092
    done
    rm -f "$file"
}

measure 1024 "$((${MIB:-480} * 1024))"
measure 100 "$((${MIB:-480} * 10000))"

