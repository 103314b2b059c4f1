#!/usr/bin/env bash
# sentence-transformers 6.2.0: what are embeddings cut to 0 or -1 dimensions (truncate_dim, which a
# model folder may set as well)?
#
# Guess: an error, or whole embeddings, as 0 and -1 mean "no limit" in many places.
# Seen:  a slice, as Python cuts a list. 0 gives vectors without a value, -1 all values but the last
#        one; and the model says that its embeddings have 0 and -1 dimensions. Beyond the width there
#        is no error either: 100 of 8 are 8.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
"$folder/env/bin/python" - "$folder" 2> /dev/null <<'PYTHON'
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = Path(sys.argv[1])
(folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
BertModel(BertConfig(vocab_size=6, num_hidden_layers=1, **sizes)).save_pretrained(folder / "model")
BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "model")
found = {}
for wanted in (0, -1, 100):
    model = SentenceTransformer(str(folder / "model"), truncate_dim=wanted)
    found[wanted] = len(model.encode("a")), model.get_sentence_embedding_dimension()
print(found)
assert found == {0: (0, 0), -1: (7, -1), 100: (8, 8)}, found
PYTHON
