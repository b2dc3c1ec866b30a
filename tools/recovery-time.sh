#!/usr/bin/env bash
# How long a broker takes from its start until it is ready, after kill -9 and after a clean stop, next to
# reading the same bytes once. The machine should do nothing else. Dropping the page cache needs root;
# without it the cold rows are left out.
#
#   tools/recovery-time.sh [-s MEGABYTES] [-p PARTITIONS] [-r ROUNDS] [-d DIRECTORY] [-b BINARY]
#
# MEGABYTES (10240) of records of 1 KiB go into a topic with durability=fsync and PARTITIONS (100), in
# batches of up to 256 KiB. DIRECTORY, where the data lies meanwhile, is the temporary folder by default;
# BINARY is the release build by default, and is built first.
set -euo pipefail
export LC_ALL=C

megabytes=10240 partitions=100 rounds=3 directory=${TMPDIR:-/tmp} binary=
while getopts s:p:r:d:b: option; do
  case $option in
    s) megabytes=$OPTARG ;;
    p) partitions=$OPTARG ;;
    r) rounds=$OPTARG ;;
    d) directory=$OPTARG ;;
    b) binary=$(realpath "$OPTARG") ;;
    *) exit 2 ;;
  esac
done
for number in "$megabytes" "$partitions" "$rounds"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "not a number above 0: $number"; exit 2; }
done
cd "$(dirname "$0")/.."
if [ -z "$binary" ]; then
  cargo build --release --quiet --locked --bin sapwood
  binary=${CARGO_TARGET_DIR:-$PWD/target}/release/sapwood
fi

scratch=$(mktemp -d "$directory/sapwood-recovery-XXXXXX")
data=$scratch/data broker=
# Below the ports that the kernel hands out: nobody takes them while the broker is down.
port=$((20000 + $$ % 10000)) http=$((30000 + $$ % 2000))
export SAPWOOD_BROKERS=127.0.0.1:$port

end() {
  [ -z "$broker" ] || kill -9 "$broker" 2>/dev/null || true
  jobs -p | xargs -r kill 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT
trap 'exit 130' INT TERM

boots=0
next_boot() {
  boots=$((boots + 1))
  printf '00000000-0000-4000-8000-%012d\n' "$boots" >"$scratch/boot_id"
}

microseconds() { echo "${EPOCHREALTIME/./}"; }

is_ready() {
  (exec 3<>"/dev/tcp/127.0.0.1/$http" && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && read -r line <&3 && [[ $line == *' 200'* ]]) 2>/dev/null
}

# start: starts the broker and waits for /readyz; `took` is the milliseconds from the start to the answer.
start() {
  local begun
  begun=$(microseconds)
  "$binary" serve --listen "127.0.0.1:$port" --http-listen "127.0.0.1:$http" --data-dir "$data" \
    --set "storage.boot_id_file=$scratch/boot_id" >"$scratch/out" 2>>"$scratch/log" &
  broker=$!
  until is_ready; do
    kill -0 "$broker" 2>/dev/null || { tail -n 20 "$scratch/log"; echo "the broker ended"; exit 1; }
    sleep 0.002
  done
  took=$((($(microseconds) - begun) / 1000))
}

stop() { kill -TERM "$broker" && wait "$broker" && broker=; }

# crash: kill -9 in the middle of writing.
crash() {
  records $((megabytes / 4 + 64)) | "$binary" topic produce fill -z none -q >/dev/null 2>&1 &
  local producer=$!
  sleep 2
  kill -9 "$broker"
  wait "$broker" 2>/dev/null || true
  broker=
  kill "$producer" 2>/dev/null || true
  wait "$producer" 2>/dev/null || true
}

# records MEGABYTES: lines of 1,023 bytes that do not compress well.
records() { { base64 -w 1023 /dev/urandom || true; } 2>/dev/null | head -n $(($1 * 1024)) || true; }

can_drop=
[ -w /proc/sys/vm/drop_caches ] && can_drop=1
forget() { sync && echo 3 >/proc/sys/vm/drop_caches; }

# read_all: milliseconds to read every segment file once, and the bytes.
read_all() {
  local begun
  begun=$(microseconds)
  find "$data/topics" -name '*.log' -exec cat {} + >/dev/null
  took=$((($(microseconds) - begun) / 1000))
}

segment_bytes() { find "$data/topics" -name '*.log' -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }'; }

# row WHAT MILLISECONDS...: a line of the table.
row() {
  local what=$1 median
  shift
  median=$(printf '%s\n' "$@" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
  printf '| %s | %s | %s |\n' "$what" "$median" "$(echo "$@" | sed 's/ /, /g')" >>"$scratch/table"
}

echo "== machine"
lscpu | grep -E '^(Model name|CPU\(s\)):' || true
uname -sr
df --output=fstype,source "$scratch" | tail -n 1
"$binary" --version
git log -1 --format='%h %s' 2>/dev/null || true

echo "== filling $megabytes MB into $partitions partitions"
next_boot
start
"$binary" topic create fill --partitions "$partitions" --set durability=fsync -q >/dev/null
begun=$(microseconds)
records "$megabytes" | "$binary" topic produce fill -z none -q >/dev/null
echo "filled in $((($(microseconds) - begun) / 1000)) ms"

echo "== measuring"
after_kill=() after_stop=() after_stop_cold=() after_cut=() warm=() cold=()
for _ in $(seq "$rounds"); do
  crash
  start
  after_kill+=("$took")
  stop
  start
  after_stop+=("$took")
  stop
  read_all
  read_all
  warm+=("$took")
  [ -n "$can_drop" ] || continue
  forget
  read_all
  cold+=("$took")
  forget
  start
  after_stop_cold+=("$took")
  # As after a reset of the machine: nothing in memory, and what is there is not trusted.
  crash
  forget
  next_boot
  start
  after_cut+=("$took")
done
stop
"$binary" storage verify --data-dir "$data" --boot-id-file "$scratch/boot_id" | tail -n 1

: >"$scratch/table"
row "kill -9 while it was written to, until ready" "${after_kill[@]}"
row "clean stop, until ready" "${after_stop[@]}"
row "reading every segment once, in memory already" "${warm[@]}"
if [ -n "$can_drop" ]; then
  row "clean stop, page cache dropped, until ready" "${after_stop_cold[@]}"
  row "kill -9, page cache dropped, another boot id, until ready" "${after_cut[@]}"
  row "reading every segment once, page cache dropped" "${cold[@]}"
fi
echo
printf '| %s MB in %s partitions | median ms | each |\n|---|---|---|\n' "$(($(segment_bytes) >> 20))" "$partitions"
cat "$scratch/table"
