#!/usr/bin/env bash
# seqeval 1.2.2: two entities of one token each, side by side, tagged U-LOC U-LOC (BILOU): how many
# entities are they, and does a model that joins them score less?
#
# Guess: two; and joining them into B-LOC L-LOC is wrong, so that F1 is 0.
# Seen:  one. Without mode="strict" the letters U and L are not known (a warning says of each that it
#        is no tag), neighbours of one type are joined, and the wrong answer has F1 1.0. With S and E
#        (IOBES), which say the same, there are two, and F1 is 0. A metric that was measured in one
#        scheme does not compare with one measured in the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet seqeval==1.2.2
"$folder/env/bin/python" -W ignore - <<'PYTHON'
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU

apart, joined = ["U-LOC", "U-LOC"], ["B-LOC", "L-LOC"]
print(get_entities(apart), f1_score([apart], [joined]))
assert get_entities(apart) == [("LOC", 0, 1)]
assert f1_score([apart], [joined]) == 1.0
assert f1_score([apart], [joined], mode="strict", scheme=BILOU, zero_division=0) == 0.0
apart, joined = ["S-LOC", "S-LOC"], ["B-LOC", "E-LOC"]
print(get_entities(apart), f1_score([apart], [joined]))
assert get_entities(apart) == [("LOC", 0, 0), ("LOC", 1, 1)]
assert f1_score([apart], [joined]) == 0.0
PYTHON
