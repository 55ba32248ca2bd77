#!/bin/sh
# Simulates clusters of this build and of the one after it.
#
#   tests/upgrade/simulate.sh [SEEDS [FIRST]]
#
# CARGO_TARGET_DIR (default: a directory beside the copy) may be set.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
copy=${TMPDIR:-/tmp}/stock-next
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$copy-target}"
"$here/build.sh" "$copy" tests simulate --profile sim
"$CARGO_TARGET_DIR/sim/simulate" --seeds "${1:-300}" --first "${2:-0}" --keep-going
