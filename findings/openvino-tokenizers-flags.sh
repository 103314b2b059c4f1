#!/usr/bin/env bash
# openvino-tokenizers 2026.4.1.0 (what OpenVINO's servers and GenAI read texts with), transformers
# 5.23.0: BERT's tokenizer has three switches in tokenizer.json, lowercase, strip_accents and
# handle_chinese_chars. Does a converted tokenizer give the same ids for each setting?
#
# Guess: yes; they are a few lines of the normaliser, and lowercase arrives.
# Seen:  not where lowercase comes with strip_accents: false, as uncased models for Korean, German or
#        French have it: accents go, and Hangul falls apart into letters that the vocabulary lacks, so
#        that each Korean word is [UNK]. handle_chinese_chars: false is passed over as well: each
#        ideograph stands alone, where the model has words of several. And nothing is cut at
#        model_max_length: a text of 600 tokens has 602, whatever the model can take. No step says
#        anything.
# Right: compare ids of texts in one's own languages before serving.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet openvino-tokenizers==2026.4.1.0 openvino==2026.4.1 \
  transformers==5.23.0 tokenizers==0.23.3
"$folder/env/bin/python" - 2>/dev/null <<'PYTHON'
import openvino
from openvino_tokenizers import convert_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] 한국어 문장 café cafe schön schon 東京都 東 京 都 a".split()
TEXTS = ("한국어 문장", "café schön", "東京都", "A a", "a " * 600)


def ids(**switches):
    """Of all texts, by both."""
    made = Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer(**switches)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "cls", "sep", "pad", "mask")}
    own = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **names)
    converted = convert_tokenizer(own, with_detokenizer=False)
    run = openvino.Core().compile_model(converted, "CPU")
    for text in TEXTS:
        wanted = own.convert_ids_to_tokens(own(text, truncation=True)["input_ids"])
        yield text, wanted, own.convert_ids_to_tokens(run([text])["input_ids"][0].tolist())


wrong = {}
for switches in (
    {"lowercase": True, "strip_accents": None},
    {"lowercase": False, "strip_accents": False},
    {"lowercase": True, "strip_accents": False},
    {"lowercase": False, "strip_accents": False, "handle_chinese_chars": False},
):
    differ = [each for each in ids(**switches) if each[1] != each[2]]
    wrong[len(wrong)] = [text for text, *_ in differ]
    print(switches)
    for text, wanted, found in differ:
        print("  ", text[:12], len(wanted), wanted[:5], "openvino", len(found), found[:5])
assert wrong[0] == wrong[1] == [TEXTS[4]], "its length alone"
assert wrong[2] == [TEXTS[0], TEXTS[1], TEXTS[4]], wrong
assert wrong[3] == [TEXTS[2], TEXTS[4]], wrong
PYTHON
