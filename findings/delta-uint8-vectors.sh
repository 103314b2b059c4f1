#!/usr/bin/env bash
# deltalake 1.6.6, pyarrow 26.0.1: vectors quantised to uint8 ("uint8" or "ubinary" of
# sentence-transformers), as a column of fixed-size lists of 8, are written to a Delta table. What is
# read again?
#
# Guess: the same numbers, in the next wider type that Delta has (it has no unsigned ones), as
#        pyiceberg 0.12.0 does it with int32; or an error, as for float16.
# Seen:  int8, in which each value above 127 is null. Nothing is said, the row counts as written, and
#        its file holds no more of it. The width is lost too: a vector of 2 is appended to those of 8.
# Right: store int8 ("int8", "binary"), or cast to int16 before writing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet deltalake==1.6.6 pyarrow==26.0.1 numpy==2.4.6 \
  "pyiceberg[sql-sqlite]==0.12.0"
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

folder = sys.argv[1]
numbers = np.array([[0, 1, 126, 127, 128, 129, 200, 255]] * 3, np.uint8)


def table(vectors):
    flat = pa.array(vectors.ravel())
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


def written(name, *tables):
    for one in tables:
        write_deltalake(f"{folder}/{name}", one, mode="append")
    return DeltaTable(f"{folder}/{name}").to_pyarrow_table()["embedding"]


read = written("uint8", table(numbers))
print("delta:", read.type, read[0].as_py())
assert read.type.value_type == pa.int8()
assert read[0].as_py() == [0, 1, 126, 127, None, None, None, None]
assert read.null_count == 0, "no row says that it lacks anything"
wide = written("int16", table(numbers.astype(np.int16)))
assert wide[0].as_py() == numbers[0].tolist()
lengths = [len(row) for row in written("width", table(np.ones((1, 8), np.float32)),
                                       table(np.ones((1, 2), np.float32))).to_pylist()]
print("lengths in one column:", lengths)
assert sorted(lengths) == [2, 8]

catalog = SqlCatalog("c", uri=f"sqlite:///{folder}/c.db", warehouse=f"file://{folder}/iceberg")
catalog.create_namespace("n")
plain = table(numbers).cast(pa.schema({"embedding": pa.list_(pa.uint8())}))
made = catalog.create_table("n.t", schema=plain.schema)
made.append(plain)
back = made.scan().to_arrow()["embedding"]
print("iceberg:", back.type, back[0].as_py())
assert back[0].as_py() == numbers[0].tolist()
PYTHON
