#!/usr/bin/env bash
# sentence-transformers 6.2.0: a plain BERT folder (no modules.json) whose tokenizer_config.json has a
# `chat_template`, as template repositories and converted checkpoints leave it: does
# SentenceTransformer(folder).encode("a b") embed "a b"?
#
# Guess: yes. A template is for apply_chat_template; `encode` gets a string.
# Seen:  no. The folder is given a "message" input, the string is made a message of a chat, and what
#        the template makes of that is embedded: with the template "{{ messages }}" another vector than
#        without it, and than that of the model's own mean. No line says so. A folder that
#        sentence-transformers has saved names its inputs, and is not affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
"$folder/env/bin/python" - "$folder" 2> /dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = Path(sys.argv[1])
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "role", "user", "content"]
(folder / "vocab.txt").write_text("\n".join(words))
torch.manual_seed(0)
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=1, **sizes)).save_pretrained(
    folder / "model"
)
BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "model")
without = SentenceTransformer(str(folder / "model")).encode("a b")
settings = folder / "model" / "tokenizer_config.json"
changed = {**json.loads(settings.read_text()), "chat_template": "{{ messages }}"}
settings.write_text(json.dumps(changed))
beside = SentenceTransformer(str(folder / "model"))
apart = float(np.abs(beside.encode("a b") - without).max())
print("largest difference:", apart)
assert apart > 1e-3, apart
beside.save(str(folder / "saved"))
PYTHON
