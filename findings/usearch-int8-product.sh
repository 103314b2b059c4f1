#!/usr/bin/env bash
# usearch 2.26.6: vectors of unequal length (a model that does not normalise) in an index with
# metric="ip" and dtype="i8", given as float32: does it find by inner product, as dtype="f32" does?
#
# Guess: nearly: each value is scaled by one factor for all and rounded, so that small differences go
#        and the order of what is far apart stays; or floats beyond -1 to 1 are refused.
# Seen:  no. Each vector is brought to length 127 by itself and its values cut to whole numbers, so
#        that what is found is what cosine finds: of the ten best by inner product less than half,
#        where bf16 has nearly all. Distances have another scale too: 1 - product in f32, minus the
#        product of whole numbers in i8, so that no threshold carries over. Vectors that come as int8
#        are stored as they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet usearch==2.26.6 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from usearch.index import Index

draw = np.random.default_rng(0)
vectors = draw.normal(size=(1000, 384)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
vectors *= draw.uniform(0.2, 5, size=(1000, 1)).astype(np.float32)
asked = vectors[:100]
best = np.argsort(-(asked @ vectors.T), axis=1)[:, :10]
cosines = asked @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
nearest = np.argsort(-cosines, axis=1)[:, :10]


def shared(keys, wanted):
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(keys, wanted)])


found = {}
for kind in ("f32", "bf16", "i8"):
    index = Index(ndim=384, metric="ip", dtype=kind)
    index.add(np.arange(1000), vectors)
    hits = index.search(asked, 10, exact=True)
    found[kind] = shared(hits.keys, best), shared(hits.keys, nearest)
    print(f"{kind}: of the ten best by product {found[kind][0]:.2f}, by cosine {found[kind][1]:.2f};",
          "first distance", hits.distances[0, 0])
assert found["f32"][0] == 1 and found["bf16"][0] > 0.95, found
assert found["i8"][0] < 0.6 and found["i8"][1] > 0.8, found
stored = [np.linalg.norm(index.get(key).astype(np.float32)) for key in range(20)]
print(f"i8: lengths as stored {min(stored):.1f} to {max(stored):.1f}")
ready = draw.integers(-128, 128, size=(10, 384)).astype(np.int8)
index = Index(ndim=384, metric="ip", dtype="i8")
index.add(np.arange(10), ready)
assert np.array_equal(index.get(3), ready[3])
assert 115 < min(stored) and max(stored) < 127, stored
PYTHON
