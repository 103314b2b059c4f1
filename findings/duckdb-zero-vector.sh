#!/usr/bin/env bash
# duckdb 2.0.1: one row of a table has a vector of zeros, as programs write for a text that had none.
# Where does it come among the most similar, ordered by array_cosine_similarity(…) DESC?
#
# Guess: last, as 0 or NULL; or an error that names the row.
# Seen:  first, whatever is asked: its similarity is NaN, and NaN is more than all numbers to DuckDB,
#        so that LIMIT 1 gives this row to every question. Ordered by array_cosine_distance it is last,
#        by array_inner_product among the others, as 0. A condition does not help: NaN > 0.9 is true.
# Right: ORDER BY the distance; or leave such rows out, isnan(…) tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet duckdb==2.0.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import duckdb
import numpy as np

draw = np.random.default_rng(0)
vectors = draw.normal(size=(100, 8)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
vectors[42] = 0
database = duckdb.connect()
database.execute("create table texts(id integer, vector float[8])")
for number, vector in enumerate(vectors):
    database.execute("insert into texts values (?, ?)", [number, vector.tolist()])


def first(order, condition="true"):
    """How often row 42 comes first, and how often the asked row itself, in 20 questions."""
    found = []
    for number in range(20):
        query = f"select id from texts where {condition} order by {order} limit 1"
        asked = {"asked": vectors[number].tolist()}
        found.append(database.execute(query, asked).fetchone()[0])
    return found.count(42), sum(row == number for number, row in enumerate(found))


similarity = "array_cosine_similarity(vector, $asked::float[8])"
distance = "array_cosine_distance(vector, $asked::float[8])"
for order, condition, expected in (
    (f"{similarity} desc", "true", (20, 0)),
    (f"{similarity} desc", f"{similarity} > 0.9", (20, 0)),
    (f"{distance}", "true", (0, 20)),
    (f"{similarity} desc", f"not isnan({similarity})", (0, 20)),
):
    seen = first(order, condition)
    print(f"order by {order} where {condition}: the zeros first {seen[0]}, the asked one {seen[1]}")
    assert seen == expected, seen
PYTHON
