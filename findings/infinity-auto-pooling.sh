#!/usr/bin/env bash
# Infinity 0.0.78 with `engine="optimum"`, a folder of sentence-transformers that says mean pooling,
# and `pooling_method="auto"`, its default: how does it pool?
#
# Guess: as the folder says (1_Pooling/config.json), as its torch engine does with the same folder.
# Seen:  torch gives means; optimum gives the first token's row, without a word. "auto" means CLS there,
#        whatever the folder says; `--pooling-method mean` makes both engines agree.
#
# Why it matters: changing the engine of a running service changes every vector; new ones do not match
# those in the index, and nothing fails. (With all-MiniLM-L6-v2 the cosine to the right one is 0.41.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --no-deps -r "$here/../benchmarks/peers/infinity.txt"
mkdir "$folder/model"
cat > "$folder/ask.py" <<'PYTHON'
import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from optimum.exporters.onnx import main_export
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXT = "a text of some words"
folder = Path(sys.argv[1])
torch.manual_seed(0)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT.split()]
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
inner.pre_tokenizer = pre_tokenizers.Whitespace()
inner.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
config = BertConfig(
    vocab_size=len(words),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    initializer_range=0.2,
)
model = BertModel(config).eval()
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
kinds = ("", "Transformer"), ("1_Pooling", "Pooling")
modules = [
    {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for n, (path, kind) in enumerate(kinds)
]
(folder / "modules.json").write_text(json.dumps(modules))
(folder / "1_Pooling").mkdir()
pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
(folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
main_export(
    str(folder),
    output=folder,
    task="feature-extraction",
    library_name="transformers",
    do_validation=False,
)
os.chdir(folder)  # optimum-onnx compares names of graphs without their folders


async def embed(engine, pooling):
    made = AsyncEmbeddingEngine.from_args(
        EngineArgs(
            model_name_or_path=".",
            engine=engine,
            pooling_method=pooling,
            device="cpu",
            bettertransformer=False,
            model_warmup=False,
        )
    )
    await made.astart()
    rows, _ = await made.embed(sentences=[TEXT])
    await made.astop()
    return rows[0] / np.linalg.norm(rows[0])


asked = tokenizer([TEXT], return_tensors="pt", return_token_type_ids=False)
with torch.inference_mode():
    hidden = model(**asked).last_hidden_state[0]
mean, cls = ((each / each.norm()).numpy() for each in (hidden.mean(0), hidden[0]))
for engine, pooling, right, wrong in (
    ("torch", "auto", mean, cls),
    ("optimum", "auto", cls, mean),
    ("optimum", "mean", mean, cls),
):
    row = asyncio.run(embed(engine, pooling))
    print(f"{engine}, {pooling}: cosine with the mean {row @ mean:.4f}, with CLS {row @ cls:.4f}")
    assert row @ right > 0.999 > 0.99 > row @ wrong
PYTHON
HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 "$folder/env/bin/python" "$folder/ask.py" "$folder/model"
