#!/usr/bin/env bash
# sentence-transformers 6.2.0: vectors quantised to int8 by its own quantize_embeddings, searched with
# its own semantic_search(..., score_function=dot_score): is a text its own best hit?
#
# Guess: yes. cos_sim of int8 raises an error that says so; dot_score, which raises none, counts in a
#        wider type, as the scores of vectors of 384 numbers need it.
# Seen:  no. Scores are int8 as well and wrap at 128, without a word: a vector's product with itself,
#        about 500,000, is any number from -128 to 127, and others are found before it. With the same
#        vectors made int32 first, each finds itself. (uint8 wraps at 256.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from sentence_transformers.util import dot_score, quantize_embeddings, semantic_search

vectors = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
small = quantize_embeddings(vectors, precision="int8", ranges=ranges)
own = {}
for name, each in (("int8", small), ("int32", small.astype(np.int32))):
    hits = semantic_search(each, each, score_function=dot_score, top_k=1)
    own[name] = sum(found[0]["corpus_id"] == number for number, found in enumerate(hits))
    print(f"{name}: {own[name]} of {len(vectors)} find themselves; {dot_score(each, each).dtype}")
assert own["int32"] == len(vectors), own
assert own["int8"] < 20, own
PYTHON
