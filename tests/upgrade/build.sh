#!/bin/sh
# Makes a copy of this tree into the build after it, and builds a program of that.
#
#   tests/upgrade/build.sh COPY PACKAGE PROGRAM [option of cargo ...]
#
# COPY is a directory for the copy, which is emptied. What the build after this one has more is in
# version-2.patch. The program is where cargo puts it: see CARGO_TARGET_DIR, or --target-dir.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
copy=$1 package=$2 program=$3
shift 3

rm -rf "$copy"
mkdir -p "$copy"
# With new times: what was built of an earlier copy may be younger than the files.
(cd "$tree" && tar -cf - --exclude='./target*' --exclude=./.git .) | (cd "$copy" && tar -xmf -)
cd "$copy"
patch -s -p1 < "$here/version-2.patch"
# What it needs is what this one needs; only its own packages are of another version.
"${CARGO:-cargo}" build --quiet --offline -p "$package" --bin "$program" "$@"
