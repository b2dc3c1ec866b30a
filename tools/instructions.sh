#!/usr/bin/env bash
# Counts the instructions of the hot paths of benches/workloads with valgrind and holds them against
# benches/instructions.toml: fails when one takes over 10 % more. benches/README.md says what a count is
# worth. Takes half a minute when everything is built.
#
#   tools/instructions.sh              compares
#   tools/instructions.sh --update     writes the file
#
# `callgrind_annotate target/instructions/NAME.callgrind` shows which functions they went to.
set -euo pipefail
cd "$(dirname "$0")/.."

baseline=benches/instructions.toml
target=${CARGO_TARGET_DIR:-$PWD/target}
export program=$target/release/examples/instructions
export logs=$target/instructions
valgrind=$(command -v valgrind) || { echo "valgrind is missing; it is a package of that name"; exit 1; }
export valgrind

# Nothing of the environment, whose length moves the stack. Without ERMS the C library copies and clears
# memory in loops; with it by `rep movsb`, which valgrind counts as an instruction a byte.
emulate() {
  env -i TMPDIR="${TMPDIR:-/tmp}" GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS "$valgrind" "$@"
}

# count NAME: prints the name and the count.
count() {
  local files=$logs/${1//[^A-Za-z0-9]/-}
  if ! emulate --tool=callgrind --callgrind-out-file="$files.callgrind" \
    --toggle-collect='instructions*::counted*' "$program" "$1" >"$files.log" 2>&1; then
    cat "$files.log" >&2
    return 1
  fi
  awk -v name="$1" '
    / Collected : / { count = $4 }
    END {
      if (count + 0 == 0) { print name ": nothing was counted" >"/dev/stderr"; exit 1 }
      printf "%s\t%d\n", name, count
    }' "$files.log"
}
export -f emulate count

# said KEY: what the baseline says of where it comes from.
said() {
  sed -nE "s/^$1 = \"(.*)\"\$/\1/p" "$baseline"
}

# The symbols that callgrind needs, of this one program, so that nothing else is built anew.
cargo rustc --release --quiet --locked -p sapwood-benches --example instructions -- -C strip=none
rm -rf "$logs"
mkdir -p "$logs"

cpu=$(emulate --quiet --tool=none "$program" --cpu)
rustc=$(rustc --version)
others="$("$valgrind" --version), $(cc --version | sed -n 1p), $(ldd --version 2>&1 | sed -n 1p)"
echo "counted on: $cpu; $rustc; $others"
"$program" >"$logs/names"
cut -f 1 "$logs/names" | xargs -d '\n' -n 1 -P "$(nproc)" bash -c 'count "$1"' count >"$logs/counts"

if [ "${1:-}" = --update ]; then
  {
    echo "# How many instructions one run of each of the hot paths takes; see README.md."
    echo "# Written by tools/instructions.sh --update."
    echo "cpu = \"$cpu\""
    echo "rustc = \"$rustc\""
    echo "others = \"${others//\"/}\""
    echo
    echo "[instructions]"
    awk -F '\t' 'NR == FNR { count[$1] = $2; next } { printf "\"%s\" = %d\n", $1, count[$1] }' \
      "$logs/counts" "$logs/names"
  } >"$baseline"
  echo "wrote $baseline"
  exit
fi

echo "$baseline:  $(said cpu); $(said rustc); $(said others)"
if [ "$(said cpu)" != "$cpu" ]; then
  echo "SKIPPED the comparison of instructions: they were counted on another kind of processor"
  exit
fi
sed -nE 's/^"(.*)" = ([0-9]+)$/\1\t\2/p' "$baseline" >"$logs/baseline"
awk -F '\t' '
  FILENAME ~ /baseline$/ { before[$1] = $2; next }
  FILENAME ~ /counts$/ { now[$1] = $2; next }
  FNR == 1 { printf "%-50s %12s %12s %9s %15s\n", "", "baseline", "now", "change", "each" }
  {
    known[$1] = 1
    total++
    if (!($1 in before)) { failures++; printf "%-50s is not in the baseline: --update\n", $1; next }
    change = 100 * (now[$1] / before[$1] - 1)
    if (change > worst) worst = change
    note = ""
    if (change > 10) { failures++; note = "  FAILED: over 10 % more" }
    if (change < -10) note = "  over 10 % less: --update the baseline"
    printf "%-50s %12d %12d %+8.2f%% %11.2f per %-5s%s\n", $1, before[$1], now[$1], change, now[$1] / $2, $3, note
  }
  END {
    for (name in before) if (!(name in known)) { failures++; printf "%-50s is only in the baseline: --update\n", name }
    if (failures) { print "FAILED: " failures; exit 1 }
    printf "found %d counts below the limit; the highest rise is %.2f %%\n", total, worst
  }' "$logs/baseline" "$logs/counts" "$logs/names"
