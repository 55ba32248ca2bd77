#!/bin/sh
# Plants bugs in a copy of the tree, one at a time, and sees that the simulator finds each.
#
#   tests/sim/planted.sh [name ...]
#
# The first lines of a patch say what it breaks, within how many seeds it must be found, and by which
# checks (a pattern for grep -E):
#   # breaks: ...
#   # seeds: 50
#   # checks: reads|answers
# It goes on to the next one as soon as one is found; with COUNT=1 it says how many of the seeds find it.
# PROFILE (default: sim) and CARGO_TARGET_DIR (default: a directory beside the copy) may be set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
copy=${PLANTED_COPY:-${TMPDIR:-/tmp}/stock-planted}
profile=${PROFILE:-sim}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$copy-target}"
case "$profile" in
    dev) built=debug ;;
    *) built=$profile ;;
esac

# With new times: what was built last, with a bug in it, may be younger than the files.
rm -rf "$copy"
mkdir -p "$copy"
(cd "$tree" && tar -cf - --exclude='./target*' --exclude=./.git .) | (cd "$copy" && tar -xmf -)
cd "$copy"

names="$*"
if [ -z "$names" ]; then
    names=$(cd "$here/planted" && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
fi
# A failure by another check does not count: it may be another bug.
simulate() {
    "$CARGO_TARGET_DIR/$built/simulate" --seeds "$1" --keep-going --no-shrink 2>&1 > /dev/null
}

missed=0
for name in $names; do
    patch="$here/planted/$name.patch"
    seeds=$(sed -n 's/^# seeds: //p' "$patch")
    checks=$(sed -n 's/^# checks: //p' "$patch")
    patch -s -p1 < "$patch"
    cargo build --quiet --profile "$profile" -p tests --bin simulate
    bug="^seed [0-9]+ breaks .($checks)."
    if [ -n "${COUNT:-}" ]; then
        simulate "$seeds" | grep -E "$bug" | sort -n -k2 > "$copy.out" || true
        found="$(wc -l < "$copy.out") of $seeds seeds"
    else
        # What it says after that is said to nobody, which ends it.
        simulate "$seeds" | grep -E -m 1 "$bug" > "$copy.out" || true
        found="within $seeds seeds"
    fi
    if [ -s "$copy.out" ]; then
        echo "found   $name: $found; $(head -1 "$copy.out" | cut -c1-120)"
    else
        echo "MISSED  $name: not within $seeds seeds"
        missed=$((missed + 1))
    fi
    patch -s -R -p1 < "$patch"
done
exit "$missed"
