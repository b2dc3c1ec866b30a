#!/usr/bin/env bash
# Puts each of the deliberate bugs in tools/mutations into a copy of the tree and demands that the tests
# on the simulated machine find it. A crash test that cannot fail is a defect.
#
#   tools/check-crash-tests.sh [BUG...]       names of files in tools/mutations without .patch; all by default
#   tools/check-crash-tests.sh --some N SEED  N of them, drawn by a number
#
# Prints a table: the bug, the suite that found it, how long that took without building, what it said.
# SAPWOOD_SIM_SEEDS sets how many seeds each test may use to find a bug (default 10).
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy" "$copy".*' EXIT
trap 'exit 130' INT TERM
export SAPWOOD_SIM_SEEDS="${SAPWOOD_SIM_SEEDS:-10}"
# All bugs share one build of the dependencies, apart from the tree's own.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/mutations"
# In the order in which they are tried; the first that fails has found the bug. A bug of the broker is
# not in the program of the others.
suites=(crash interleaved broker)

bugs=()
if [ "${1:-}" = --some ]; then
    echo "drawn with seed $3"
    mapfile -t bugs < <(cd "$root/tools/mutations" && for patch in *.patch; do
        printf '%s %s\n' "$(printf '%s %s' "$3" "$patch" | cksum | cut -d ' ' -f 1)" "${patch%.patch}"
    done | sort -n | head -n "$2" | cut -d ' ' -f 2)
elif [ $# -gt 0 ]; then
    bugs=("$@")
else
    for patch in "$root"/tools/mutations/*.patch; do
        bugs+=("$(basename "$patch" .patch)")
    done
fi

# What is in the working tree, committed or not, without build products.
(cd "$root" && git ls-files -z --cached --others --exclude-standard |
    xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
    tar -c --null --files-from -) | tar -x -C "$copy"
cd "$copy"

# find_it BUG: prints the bug's line of the table.
find_it() {
    local bug=$1 suite started tests tenths said
    for suite in "${suites[@]}"; do
        if [ "$suite" != broker ] && ! grep -q '^+++ b/crates/log/' "$root/tools/mutations/$bug.patch"; then
            continue
        fi
        if ! cargo test --quiet --package sapwood-sim --test "$suite" --no-run 2>"$copy.build"; then
            cat "$copy.build" >&2
            echo "$bug: the tree with the bug does not compile" >&2
            return 1
        fi
        started=${EPOCHREALTIME/./}
        setsid timeout 600 cargo test --quiet --package sapwood-sim --test "$suite" -- --nocapture \
            >"$copy.output" 2>&1 &
        tests=$!
        # The first test that fails is enough.
        while kill -0 "$tests" 2>/dev/null && ! grep -q "panicked at" "$copy.output"; do
            sleep 0.05
        done
        tenths=$(((${EPOCHREALTIME/./} - started) / 100000))
        if grep -q "panicked at" "$copy.output" || ! wait "$tests"; then
            sleep 0.2 # for the rest of the message
            kill -KILL -- "-$tests" 2>/dev/null || true
            wait "$tests" 2>/dev/null || true
            said=$(grep -h -A 1 "panicked at" "$copy.output" | sed -n 2p | cut -c 1-200)
            echo "$bug: found"
            echo "    by $suite in $((tenths / 10)).$((tenths % 10)) s: $said"
            return 0
        fi
    done
    echo "$bug: NOT FOUND" >&2
    return 1
}

failed=0
for bug in "${bugs[@]}"; do
    patch=$root/tools/mutations/$bug.patch
    if ! patch --quiet --strip 1 --fuzz 0 <"$patch"; then
        echo "$bug: the patch does not apply any more; make it anew" >&2
        failed=1
        continue
    fi
    find_it "$bug" || failed=1
    # With new times, so that what was changed back is built again.
    patch --quiet --strip 1 --reverse --fuzz 0 <"$patch"
done
rm -f "$copy.build" "$copy.output"
echo "${#bugs[@]} deliberate bugs tried"
exit "$failed"
