#!/usr/bin/env bash
# What producing and consuming through Kafka's protocol cost: kcat (librdkafka) against a broker and,
# in turns, against a listener that only answers.
#
#   tools/kafka-cost.sh [DIRECTORY]      a folder on the disk to measure; default: a temporary one
#
# Prints, for each run, the rate and the processor time of the server for a million records. Where the
# host hands out memory on first touch and takes it back when it is free, keeping bytes costs more than
# everything that is done with them: compare with what `dd` takes to copy the same bytes to a file, which
# is printed too, and take the best of the runs.
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
pids=("$broker" "$null")
until curl -sf http://127.0.0.1:29644/readyz >/dev/null; do sleep 0.1; done

# Processor seconds of a process, user and kernel.
cpu() { awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) / ticks }' "/proc/$1/stat"; }

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
        cost "produce-$bytes" "$broker" "$records" produce 29092 "t$bytes" "$file"
        cost "consume-$bytes" "$broker" "$records" consume "t$bytes" "$records"
        "$bin/sapwood" topic delete "t$bytes" --yes -q -b 127.0.0.1:29092
    done
    # Into memory that was used a moment ago, and into more of it, with both copies kept.
    local TIMEFORMAT copy
    for copy in used fresh; do
        TIMEFORMAT="dd-$bytes ($copy memory): %S CPU s in the kernel for $records records"
        time dd if="$file" of="$folder/copy-$copy" bs=1M status=none
    done
    rm -f "$file" "$folder"/copy-*
}

measure 1024 500000
measure 100 5000000
