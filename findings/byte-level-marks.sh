#!/usr/bin/env bash
# tokenizers 0.23.3: how many words is a Hindi word to the byte-level pre-tokenizer of RoBERTa,
# ModernBERT and their kin?
#
# Guess: one, as a word has no blank; and an accented letter is one piece in either normal form.
# Seen:  a vowel sign is a mark, no letter, and each mark is cut off as a word of its own: one Hindi
#        word of six code points becomes six words, none of which has two code points. Of a decomposed
#        "café" the accent is a second word; Hangul stays whole in both forms, since its parts are
#        letters. So `word_ids`, and with them what token-classification pipelines call a word under
#        "first", "average" and "max", are no words in Devanagari, however the model was trained.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet tokenizers==0.23.3
"$folder/env/bin/python" - <<'PYTHON'
import unicodedata

from tokenizers.pre_tokenizers import ByteLevel

cut = ByteLevel(add_prefix_space=False)
found = {}
for word in ("हिन्दी", "café", "한국"):
    for form in ("NFC", "NFD"):
        pieces = cut.pre_tokenize_str(unicodedata.normalize(form, word))
        found[word, form] = [end - start for _, (start, end) in pieces]
        print(word, form, found[word, form])
assert found["हिन्दी", "NFC"] == [1] * 6, found
assert found["café", "NFC"] == [4], found
assert found["café", "NFD"] == [4, 1], found
assert found["한국", "NFC"] == [2], found
assert found["한국", "NFD"] == [6], found
PYTHON
