#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3: a folder has a tokenizer.json of WordPiece, and a
# tokenizer_config.json that names RobertaTokenizer. What does AutoTokenizer read?
#
# Guess: tokenizer.json as it stands, since it is whole: model, pre-tokenizer, decoder; or an error,
#        since its model is no BPE.
# Seen:  neither. The class takes the words of the file and makes a byte-level BPE of them without
#        merges: of "the cat 서울 ran" single letters stay, no word, no [UNK], nothing of the Korean;
#        offsets count from the blank before. PreTrainedTokenizerFast on the same folder reads words.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - <<'PYTHON'
import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEXT = "the cat 서울 ran"
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "ran", "서울", *"abcehnrt"]
file = Tokenizer(models.WordPiece({word: id_ for id_, word in enumerate(words)}, unk_token="[UNK]"))
file.normalizer = normalizers.BertNormalizer(strip_accents=False)
file.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
folder = Path("model")
folder.mkdir()
file.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
seen = {}
for name in ("RobertaTokenizer", "PreTrainedTokenizerFast"):
    settings = {"tokenizer_class": name, "unk_token": "[UNK]", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = AutoTokenizer.from_pretrained(folder)
    seen[name] = loaded(TEXT, add_special_tokens=False).tokens()
    print(name, type(loaded).__name__, type(loaded.backend_tokenizer.model).__name__, seen[name])
assert seen["PreTrainedTokenizerFast"] == ["the", "cat", "서울", "ran"], seen
assert seen["RobertaTokenizer"] == [*"thecatran"], seen
assert PreTrainedTokenizerFast(tokenizer_object=file).tokenize(TEXT) == ["the", "cat", "서울", "ran"]
PYTHON
