#!/usr/bin/env bash
# onnxruntime-extensions 0.15.2, transformers 5.23.0: gen_processing_models puts a tokenizer into an
# ONNX graph, so that a server takes texts. Does that of an uncased BERT (all-MiniLM-L6-v2 and its kin,
# strip_accents: null) give the ids that the tokenizer gives?
#
# Guess: yes. Where a model is uncased and nothing is said of accents they are stripped, as since the
#        first BERT.
# Seen:  in English. Accents stay: "café" is not "cafe" but a piece and [UNK], and Hangul, which an
#        uncased vocabulary has as letters, is [UNK] word by word. Of 680 texts in seven languages 115
#        of 117 Korean ones had other ids, 41 of 45 Japanese, 39 of 41 French, 29 of 31 German, of
#        MiniLM's real tokenizer. Special tokens in a text are words there ("[", "mask", "]").
# Right: tokenise outside the graph, with the library that the model was trained with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime-extensions==0.15.2 onnxruntime==1.32.0 \
  onnx==1.23.2 transformers==5.23.0 tokenizers==0.23.3
"$folder/env/bin/python" - "$folder" 2>/dev/null <<'PYTHON'
import sys
import unicodedata

import onnxruntime
from onnxruntime_extensions import gen_processing_models, get_library_path
from transformers import BertTokenizerFast

letters = unicodedata.normalize("NFD", "한국어")
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "caf", "a", "cat", letters[0],
         *(f"##{letter}" for letter in letters[1:]), "[", "]", "mask"]
path = f"{sys.argv[1]}/vocab.txt"
with open(path, "w", encoding="utf-8") as file:
    file.write("\n".join(words) + "\n")
own = BertTokenizerFast(path, do_lower_case=True)
assert own.backend_tokenizer.normalizer.strip_accents is None
graph, _ = gen_processing_models(own, pre_kwargs={})
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
[given] = session.get_inputs()
for text, equal in (("A cat", True), ("café", False), ("한국어", False), ("a [MASK]", False)):
    wanted = own.convert_ids_to_tokens(own(text)["input_ids"])
    found = own.convert_ids_to_tokens(
        session.run(["input_ids"], {given.name: [text]})[0].ravel().tolist()
    )
    print(text, wanted, "in the graph", found)
    assert (wanted == found) is equal, text
    assert equal or "[UNK]" in found or "mask" in found
PYTHON
