#!/usr/bin/env bash
# Prints the figures of speed and footprint, each next to the limit of this machine measured in the same
# run. benches/README.md says how to read them. Takes about ten minutes; the machine should do nothing else.
#
#   tools/figures.sh [DIRECTORY]     DIRECTORY: on the disk to measure; the temporary folder by default
set -euo pipefail
cd "$(dirname "$0")/.."

export TMPDIR=${1:-${TMPDIR:-/tmp}}
target=${CARGO_TARGET_DIR:-$PWD/target}

echo "== machine"
lscpu | grep -E '^(Model name|CPU\(s\)):' || true
uname -sr
df --output=fstype,source "$TMPDIR" | tail -n 1
git log -1 --format='%h %s' 2>/dev/null || true

cargo build --release --quiet --locked --bin sapwood
cargo build --release --quiet --locked --examples \
  -p sapwood-log -p sapwood-record -p sapwood-grpc -p sapwood-benches

echo "== append_limits"
"$target/release/examples/append_limits" "$TMPDIR"
echo "== append_segments"
"$target/release/examples/append_segments" "$TMPDIR" 15 128
echo "== validate_cost"
"$target/release/examples/validate_cost"
echo "== produce_limit"
"$target/release/examples/produce_limit" 7 128 "$TMPDIR"
echo "== a broker of its own, over gRPC"
"$target/release/examples/figures" "$target/release/sapwood" 2>/dev/null
