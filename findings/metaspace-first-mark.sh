#!/usr/bin/env bash
# tokenizers 0.23.3: which characters does a lone "▁" of a SentencePiece-like tokenizer stand for?
#
# Guess: the blank before its word; at the beginning of a text, where there is none, no character.
# Seen:  within a text it has the blank's place. At the beginning, where the pre-tokenizer has put it
#        itself, it has the place of the first character, which the next token has too: two tokens
#        claim one character. An entity or an answer that begins with such a token looks as if it
#        began at the same place, one token earlier; marking tokens by their offsets marks it twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet tokenizers==0.23.3
"$folder/env/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers

pieces = [("<unk>", 0.0), ("▁", -1.0), ("문", -2.0)]
tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
found = tokenizer.encode("문 문")
print(list(zip(found.tokens, found.offsets, strict=True)))
assert found.tokens == ["▁", "문", "▁", "문"]
assert found.offsets == [(0, 1), (0, 1), (1, 2), (2, 3)]
PYTHON
