#!/bin/sh
# Counts the instructions of each step of a reserve, and compares them with tests/instructions.txt.
#
#   tests/instructions.sh           fails where a step takes over 5 % more than is written down
#   tests/instructions.sh --record  writes down what it finds
#
# Counts, unlike times, are the same on a busy machine (valgrind's callgrind counts them). What is not part of
# the step falls out: each is run so many times and three times as many, and the difference counts.
set -eu
cd "$(dirname "$0")/.."
recorded=tests/instructions.txt
program=${CARGO_TARGET_DIR:-target}/sim/instructions
times=400
more_percent=5

cargo build --quiet --locked --profile sim -p tests --bin instructions

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

failed=0
found=""
for step in check encode apply turn answer; do
    once=$(count "$step" "$times")
    thrice=$(count "$step" $((3 * times)))
    now=$(((thrice - once) / (2 * times)))
    before=$(sed -n "s/^$step //p" "$recorded" 2>/dev/null || true)
    found="$found$step $now
"
    if [ -n "$before" ] && [ $((now * 100)) -gt $((before * (100 + more_percent))) ]; then
        echo "$step: $now instructions, over $more_percent % more than the $before before"
        failed=1
    else
        echo "$step: $now instructions, ${before:-none} before"
    fi
done
if [ "${1:-}" = --record ]; then
    printf '%s' "$found" > "$recorded"
    exit 0
fi
exit "$failed"
