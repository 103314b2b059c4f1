#!/usr/bin/env bash
# transformers 5.23.0: how does AutoTokenizer read an ALBERT folder with WordPiece's vocab.txt alone?
#
# Guess: as WordPiece, or with an error that names the missing spiece.model.
# Seen:  it makes an AlbertTokenizer that knows only special tokens, without a word: each text is a
#        row of <unk>, whatever vocab.txt says. BertTokenizer reads the same folder. Korean ALBERTs
#        and RXNMapper's are such folders.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0
mkdir "$folder/model"
echo '{"model_type": "albert", "vocab_size": 9}' > "$folder/model/config.json"
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' hello world wor '##ld' > "$folder/model/vocab.txt"
"$folder/env/bin/python" - "$folder/model" <<'PYTHON'
import sys

from transformers import AutoTokenizer, BertTokenizer

auto = AutoTokenizer.from_pretrained(sys.argv[1])
bert = BertTokenizer.from_pretrained(sys.argv[1])
text = "hello world"
ids = auto(text, add_special_tokens=False)["input_ids"]
print(type(auto).__name__, auto.tokenize(text), ids, "<unk> is", auto.unk_token_id)
print(type(bert).__name__, bert.tokenize(text), bert(text, add_special_tokens=False)["input_ids"])
assert type(auto).__name__ == "AlbertTokenizer"
assert set(ids) == {auto.unk_token_id}
assert bert(text, add_special_tokens=False)["input_ids"] == [5, 6]
PYTHON
