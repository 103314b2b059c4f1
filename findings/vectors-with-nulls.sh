#!/usr/bin/env bash
# pyarrow 26.0.1, polars 2.1.0, duckdb 2.0.1: vectors in a column of fixed-size lists, [5, 2], one of
# which is null, since its text had no vector. In memory and behind Parquet: what matrix does each way
# of reading give, and does row 3 of it still belong to id 3?
#
# Guess: a fixed-size list has a slot for each row, null or not, so that .flatten() and .values have
#        10 numbers, those of the slot as they were written; a slice has its own; DuckDB has FLOAT[2].
# Seen:  .flatten() leaves the slot out: 8 numbers, and from there on each vector stands at the id
#        before its own, without an error where the rest of a program only counts in twos. .values has
#        10, but of a slice it has them all, from row 0; and Parquet makes NaN of what the slot held.
#        DuckDB's column is FLOAT[], for which array_cosine_similarity wants a cast. polars' to_numpy()
#        alone gives [5, 2], NaN in the null row.
# Right: drop the null rows with their ids, then .flatten(); it starts where a slice starts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6 polars==2.1.0 duckdb==2.0.1
"$folder/env/bin/python" - "$folder/vectors.parquet" <<'PYTHON'
import sys

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
numbers = pa.array(np.arange(10, dtype=np.float32))
null = pa.array([False, True, False, False, False])
made = pa.FixedSizeListArray.from_arrays(numbers, type=pa.list_(pa.float32(), 2), mask=null)
table = pa.table({"id": range(5), "embedding": made})
pq.write_table(table, path)
read = pq.read_table(path)["embedding"].combine_chunks()

for name, column in (("made", made), ("read", read)):
    flat = np.asarray(column.flatten()).reshape(-1, 2)
    print(name, "flatten:", flat.tolist(), "values:", np.asarray(column.values).tolist())
    assert flat.shape == (4, 2), flat.shape
    assert flat[3].tolist() == [8, 9], "row 3 is the vector of id 4"
    assert len(column.slice(3).values) == 10, "of a slice: all"
    assert column.slice(3).flatten().to_pylist() == [6, 7, 8, 9]
assert np.asarray(made.values).tolist()[2:4] == [2, 3]
assert np.isnan(np.asarray(read.values)[2:4]).all()

kinds = dict(row[:2] for row in duckdb.sql(f"describe select * from '{path}'").fetchall())
print("duckdb:", kinds)
assert kinds["embedding"] == "FLOAT[]", kinds
query = "select array_cosine_similarity({}, [1, 2]::FLOAT[2]) from '{}'"
try:
    duckdb.sql(query.format("embedding", path)).fetchall()
except duckdb.BinderException as error:
    print("duckdb without a cast:", str(error).splitlines()[0][:100])
else:
    raise AssertionError("no cast is needed any more")
assert len(duckdb.sql(query.format("embedding::FLOAT[2]", path)).fetchall()) == 5

matrix = polars.read_parquet(path)["embedding"].to_numpy()
print("polars:", matrix.tolist())
assert matrix.shape == (5, 2)
assert np.isnan(matrix[1]).all()
assert matrix[3].tolist() == [6, 7]

rows = table.filter(table["embedding"].is_valid())
kept = np.asarray(rows["embedding"].combine_chunks().flatten()).reshape(-1, 2)
assert kept[rows["id"].to_pylist().index(3)].tolist() == [6, 7]
PYTHON
