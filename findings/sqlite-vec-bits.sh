#!/usr/bin/env bash
# sqlite-vec 0.1.9: bits of vectors were made outside the database, as sentence-transformers makes
# them (precision="ubinary", numpy.packbits); the query's are made in it, by vec_quantize_binary. Does
# a text find itself, at Hamming distance 0?
#
# Guess: yes; a bit is set for a value above 0 in both, and eight of them are a byte.
# Seen:  no. The first value is the lowest bit of its byte there, and the highest one for packbits, so
#        that of 384 bits about half differ between a vector and itself, as between any two. Nothing
#        is said: bytes are bytes. Both sides from one of them: all right. And vec_quantize_int8
#        ("unit") cuts digits off where others round, one step less in half of the values.
# Right: one maker for both sides; from packbits' bytes, numpy.packbits(…, bitorder="little").
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet sqlite-vec==0.1.9 apsw==3.54.1.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import apsw
import numpy as np
import sqlite_vec

database = apsw.Connection(":memory:")
database.enable_load_extension(True)
database.load_extension(sqlite_vec.loadable_path())
vectors = np.random.default_rng(0).normal(size=(100, 384)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)


def one(query, *values):
    [[found]] = database.execute(query, values)
    return found


def distances(order):
    """Of each vector to itself, and how many are their own nearest."""
    database.execute("drop table if exists texts")
    database.execute("create virtual table texts using vec0(bits bit[384])")
    for number, vector in enumerate(vectors):
        bits = np.packbits(vector > 0, bitorder=order).tobytes()
        database.execute("insert into texts(rowid, bits) values (?, vec_bit(?))", (number, bits))
    itself, first = [], 0
    for number, vector in enumerate(vectors):
        hits = dict(
            database.execute(
                "select rowid, distance from texts"
                " where bits match vec_quantize_binary(?) and k = 100",
                (vector.tobytes(),),
            )
        )
        itself.append(hits[number])
        first += min(hits, key=hits.get) == number
    return itself, first


itself, first = distances("big")
print(f"packbits' own order: {np.mean(itself):.0f} bits from itself; its own nearest: {first} of 100")
assert 150 < np.mean(itself) < 230 and first < 20
itself, first = distances("little")
print(f"lowest bit first: {np.mean(itself):.0f} bits from itself; its own nearest: {first} of 100")
assert max(itself) == 0 and first == 100

steps = np.frombuffer(one("select vec_quantize_int8(?, 'unit')", vectors[0].tobytes()), np.int8)
scaled = vectors[0] * 127
less = np.mean(np.abs(steps) < np.abs(np.round(scaled)))
print(f"int8: one step less than rounded in {less:.0%} of the values")
assert 0.3 < less < 0.7
PYTHON
