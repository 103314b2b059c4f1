#!/usr/bin/env bash
# numkong 7.8.6 (SimSIMD's next major version, under another name): vectors as bits, packed into uint8
# by numpy.packbits (sentence-transformers' "ubinary"). What is numkong.hamming of two of them?
#
# Guess: the number of bits that differ, as simsimd.hamming(a, b, "bin8") tells; or an error that asks
#        for the type, as simsimd 6.5.16 has it without "bin8".
# Seen:  the number of bytes that differ, without a word: 48 of 48 for most pairs, so that all texts
#        are as far from one another. With dtype "uint1" it counts bits; cdist, which searches call,
#        does the same by default.
# Right: name the type, "uint1", in each call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numkong==7.8.6 simsimd==6.5.16 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numkong
import numpy as np
import simsimd

vectors = np.random.default_rng(0).normal(size=(20, 384)).astype(np.float32)
packed = np.packbits(vectors > 0, axis=1)
a, b = packed[:2]
bits, bytes_ = int(np.unpackbits(a ^ b).sum()), int((a != b).sum())
print(f"differ: {bits} bits, {bytes_} bytes")
print("simsimd, bin8:", float(simsimd.hamming(a, b, "bin8")))
try:
    simsimd.hamming(a, b)
except (TypeError, ValueError, LookupError) as error:
    print("simsimd without a type:", str(error)[:60])
else:
    raise AssertionError("simsimd takes it without a type now")
plain, named = float(numkong.hamming(a, b)), float(numkong.hamming(a, b, "uint1"))
print("numkong:", plain, "uint1:", named)
assert float(simsimd.hamming(a, b, "bin8")) == bits == named
assert plain == bytes_ != bits
table = np.asarray(numkong.cdist(packed, packed, metric="hamming"))
print("numkong.cdist of 20:", sorted(set(table.ravel().tolist())))
assert table.max() <= 48
PYTHON
