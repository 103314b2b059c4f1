#!/usr/bin/env bash
# pyarrow 26.0.1: 1,024 vectors of 384 float32, 1.57 MB, written by pyarrow.parquet.write_table with
# its defaults: how large is the file?
#
# Guess: about 1.57 MB. Numbers of vectors hardly repeat; the writer begins with a dictionary, finds
#        that it does not help, and falls back to plain values, as documents say.
# Seen:  2.2 MB, 1.4 times the numbers, and four times the CPU. It falls back once the dictionary has
#        1 MiB: what was written until then stays, as 4 bytes in the dictionary and an index of 2 bytes
#        for each number. Row groups of 256 take 1.5 times the numbers, of 8,192 still 1.05.
# Right: use_dictionary for the other columns alone. What shrinks them is zstd after BYTE_STREAM_SPLIT:
#        0.85 times the numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6
"$folder/env/bin/python" - "$folder/vectors.parquet" <<'PYTHON'
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WAYS = {
    "default": {},
    "no dictionary": {"use_dictionary": ["id"]},
    "split": {
        "use_dictionary": ["id"],
        "column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"},
        "compression": "zstd",
    },
}
sizes = {}
for rows in (256, 1024, 8192):
    vectors = np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 384)
    table = pa.table({"id": range(rows), "embedding": column})
    for name, options in WAYS.items():
        pq.write_table(table, sys.argv[1], **options)
        sizes[rows, name] = os.path.getsize(sys.argv[1]) / vectors.nbytes
    print(rows, {name: round(sizes[rows, name], 2) for name in WAYS})
assert sizes[256, "default"] > 1.45
assert 1.35 < sizes[1024, "default"] < 1.45
assert 1.03 < sizes[8192, "default"] < 1.1
assert all(sizes[rows, "no dictionary"] < 1.03 for rows in (256, 1024, 8192))
assert all(sizes[rows, "split"] < 0.9 for rows in (256, 1024, 8192))
PYTHON
