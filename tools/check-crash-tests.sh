#!/bin/sh
# Puts each of the deliberate bugs in tools/mutations into a copy of the tree and demands that the crash
# tests find it. A crash test that cannot fail is a defect.
#
#   tools/check-crash-tests.sh [BUG...]      names of files in tools/mutations without .patch
#
# SAPWOOD_SIM_SEEDS sets how many seeds each test may use to find a bug (default 10).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT INT TERM
export SAPWOOD_SIM_SEEDS="${SAPWOOD_SIM_SEEDS:-10}"
# All bugs share one build of the dependencies, apart from the tree's own.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/mutations"

if [ $# -eq 0 ]; then
    set -- "$root"/tools/mutations/*.patch
fi

failed=0
for bug; do
    bug=$(basename "$bug" .patch)
    rm -rf "$copy/tree"
    mkdir "$copy/tree"
    # What is in the working tree, committed or not, without build products.
    (cd "$root" && git ls-files -z --cached --others --exclude-standard |
        xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
        tar -c --null --files-from -) | tar -x -C "$copy/tree"
    cd "$copy/tree"
    if ! patch --quiet --strip 1 --fuzz 0 <"$root/tools/mutations/$bug.patch"; then
        echo "$bug: the patch does not apply any more; make it anew" >&2
        failed=1
        continue
    fi
    if ! cargo test --quiet --package sapwood-sim --test crash --no-run 2>"$copy/build"; then
        cat "$copy/build" >&2
        echo "$bug: the tree with the bug does not compile" >&2
        failed=1
        continue
    fi
    if cargo test --quiet --package sapwood-sim --test crash >"$copy/output" 2>&1; then
        echo "$bug: NOT FOUND" >&2
        failed=1
    else
        echo "$bug: found"
        grep -h -A 1 "panicked at" "$copy/output" | grep -v "panicked at\|^--" | cut -c 1-300 | sed 's/^/    /'
    fi
done
exit "$failed"
