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

# What it printed stands in $said: a step that fails, or that nothing was counted of, ends this.
count() {
    if ! said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1); then
        printf '%s\n%s: the step failed\n' "$said" "$1" >&2
        exit 2
    fi
    counted=$(printf '%s\n' "$said" | sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
    if [ -z "$counted" ]; then
        printf '%s\n%s: nothing was counted\n' "$said" "$1" >&2
        exit 2
    fi
    echo "$counted"
}

if [ "${1:-}" != --record ] && [ ! -s "$recorded" ]; then
    echo "there is no $recorded to compare with" >&2
    exit 2
fi

failed=0
found=""
for step in whole check encode apply turn answer; do
    once=$(count "$step" "$times")
    thrice=$(count "$step" $((3 * times)))
    now=$(((thrice - once) / (2 * times)))
    before=$(sed -n "s/^$step //p" "$recorded" 2>/dev/null || true)
    found="$found$step $now
"
    if [ -z "$before" ] && [ "${1:-}" != --record ]; then
        echo "$step: $now instructions, and nothing is written down"
        failed=1
    elif [ -n "$before" ] && [ $((now * 100)) -gt $((before * (100 + more_percent))) ]; then
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
