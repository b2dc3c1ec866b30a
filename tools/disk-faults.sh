#!/usr/bin/env bash
# A full disk and a failing disk, played on the real binary step by step, with what it answers to
# `/readyz`, to a scrape of its metrics, and to producers and consumers of both protocols. Prints a
# transcript of commands and answers. Wants root, for a small ext4 in a file; a C compiler and curl; and
# kcat, if it is there, for Kafka's protocol.
#
#   tools/disk-faults.sh             builds the debug binary; SAPWOOD_BIN names another one
set -uo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${SAPWOOD_BIN:-} ]]; then
  cargo build --quiet --locked --bin sapwood || exit 1
  SAPWOOD_BIN=${CARGO_TARGET_DIR:-$PWD/target}/debug/sapwood
fi
work=$(mktemp -d)
disk=$work/disk
port=${SAPWOOD_PORT:-19092}
http=127.0.0.1:$((port + 1))
broker=
run_by=()

finish() {
  [[ -n $broker ]] && kill -9 "$broker" 2>/dev/null && wait "$broker" 2>/dev/null
  mountpoint -q "$disk" && umount "$disk"
  rm -rf "$work"
}
trap finish EXIT

title() { printf '\n=== %s\n' "$*"; }
say() { printf '\n# %s\n' "$*"; }
# Shows a command as a user would type it, and what it prints.
show() {
  local shown=$*
  shown=${shown//$work/\$WORK}
  printf '$ %s\n' "${shown//$SAPWOOD_BIN/sapwood}"
  eval "$*" 2>&1 | sed -e "s#$work#\$WORK#g"
}
sapwood() { "$SAPWOOD_BIN" "$@"; }
kcat() { command kcat "$@"; }
if ! command -v kcat >/dev/null; then
  kcat() { echo "(there is no kcat here)"; }
fi

start() {
  printf '$ sapwood dev ... &\n'
  "${run_by[@]}" "$SAPWOOD_BIN" dev --listen "127.0.0.1:$port" --http-listen "$http" \
    --data-dir "$data" --set storage.ballast_bytes=4194304 --set storage.journal_file_bytes=1048576 \
    --set storage.journal_files=2 >"$work/out" 2>>"$work/log" &
  broker=$!
  for _ in $(seq 300); do
    curl -fs "http://$http/livez" >/dev/null && grep -q ready "$work/out" 2>/dev/null && break
    [[ $(curl -s "http://$http/readyz") == *ready* ]] && break
    sleep 0.1
  done
}
killed() {
  printf '$ kill -9 %s\n' sapwood
  kill -9 "$broker"
  wait "$broker" 2>/dev/null
}
ready() { show "curl -s -w ' (%{http_code})\n' http://$http/readyz"; }
metrics() { show "curl -s http://$http/metrics | grep -E '^($1)'"; }
wait_ready() {
  for _ in $(seq 300); do
    [[ $(curl -s "http://$http/readyz") == '{"status":"ready"}' ]] && return
    sleep 0.1
  done
}
# So many records of 50 kB to a topic, through the command line; what is refused is tried for 2 s.
lines() {
  local filler
  filler=$(head -c 50000 /dev/zero | tr '\0' x)
  for i in $(seq "$1"); do echo "$i $filler"; done
}
produce() { show "lines $2 | sapwood -b 127.0.0.1:$port topic produce $1 -q --retry-timeout 2s"; }
count() { show "sapwood -b 127.0.0.1:$port topic consume $1 --exit-at-end -f '%o\n' | wc -l"; }
client=(sapwood -b "127.0.0.1:$port")
state='sapwood_disk_(state|free|ballast)|sapwood_appends_without_space'

title "1. A disk that fills up"
mkdir "$disk"
data=$disk/data
show "truncate -s 64M $work/image && mkfs.ext4 -q $work/image && mount -o loop $work/image $disk" || exit 1
show "fallocate -l 8M $disk/somebody-elses"
start
show "${client[*]} topic create orders --set segment.bytes=4194304"
show "${client[*]} topic create old --set segment.bytes=4194304"
produce old 150
produce orders 10
ready
metrics "$state"

say "Producers until nothing fits any more. The command line retries for two seconds, then gives up."
produce orders 2000
ready
metrics "$state"
say "The same through Kafka's protocol: librdkafka retries on the broker's code until its time is over."
show "lines 1 | kcat -P -b 127.0.0.1:$port -t orders -X message.timeout.ms=3000 -X debug=msg 2>&1 | grep -oE 'Broker: [A-Za-z ]*|Delivery failed.*' | sort | uniq -c"
say "Reading goes on, through both protocols."
count orders
show "kcat -C -b 127.0.0.1:$port -t orders -e -q -f '%o\n' | wc -l"
say "Offsets can be committed: the ballast gives its space up for that, and only for that."
show "for group in a b c d e f g h i j; do ${client[*]} group seek billing-\$group --topic orders --to 5 --yes -q || break; done"
show "${client[*]} group describe billing-j"
metrics "$state"
ready
produce orders 3
say "A topic can be deleted, and its space is used again without a restart."
show "${client[*]} topic delete old --yes"
wait_ready
ready
metrics "$state"
produce orders 20

say "Full again; now somebody else makes room."
produce orders 2000
ready
show "rm $disk/somebody-elses"
wait_ready
ready
produce orders 20
say "Full once more; records are deleted."
produce orders 2000
ready
show "${client[*]} topic trim orders --before 200 --yes"
wait_ready
ready
produce orders 20
count orders
metrics "$state"
killed
umount "$disk"

title "2. A sync of the journal that fails"
data=$work/data
mkdir "$data"
show "cc -O1 -o $work/faults tools/faults/faults.c" || exit 1
run_by=("$work/faults" "$data" "$work/rules" "$work/trace" --)
rules() { show "echo '$*' > $work/rules.new && mv $work/rules.new $work/rules"; }
start
show "${client[*]} topic create orders --set segment.bytes=1048576"
show "${client[*]} topic create other --set segment.bytes=1048576"
produce orders 60
produce other 5
wait_ready
ready
rules "sync journal/* EIO count=1"
produce orders 1
ready
metrics "sapwood_disk_state"
say "Reading goes on."
count orders
say "The disk is well again; nothing is tried again as if nothing had happened."
rules ""
before=$(wc -l <"$work/trace")
produce orders 1
show "tail -n +$((before + 1)) $work/trace | grep -cE '^(write|sync|syncfs) '"
ready
show "grep -o 'the data directory is read-only.*' $work/log | head -1"
killed
start
wait_ready
ready
count orders
produce orders 1
count orders

title "3. A segment that cannot be read"
rules "read topics/orders-0/00000000000000000000.log EIO"
count orders
show "${client[*]} topic describe orders"
metrics 'sapwood_topic_partitions_offline'
produce orders 1
say "The others are served."
ready
produce other 1
count other
killed
rules ""
start
wait_ready
ready
count orders
killed
broker=
show "sapwood storage verify --data-dir $data | tail -3"
