"""CTranslate2's encoder: fp32 and int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertd_bench.contestants.padded import pooled, tokenizer_of
from bertd_bench.contestants.peer import AnswerTexts, Peer, Setting, TextArrays


def _build(compute_type: str) -> Callable[[Setting], AnswerTexts]:
    def build(setting: Setting) -> AnswerTexts:
        import ctranslate2

        folder = setting.folder("ctranslate2") / compute_type
        if not folder.exists():
            converter: Any = ctranslate2.converters.TransformersConverter(setting.checkpoint)
            converter.convert(str(folder), quantization=compute_type)
        encoder = ctranslate2.Encoder(
            str(folder),
            device="cpu",
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=setting.threads,
        )
        tokenizer = tokenizer_of(setting)
        tokenizer.no_padding()

        def answer(texts: Sequence[str]) -> TextArrays:
            ids = [each.ids for each in tokenizer.encode_batch_fast(list(texts))]
            hidden = np.asarray(encoder.forward_batch(ids).last_hidden_state)
            lengths = np.array([len(each) for each in ids])
            mask = np.arange(hidden.shape[1]) < lengths[:, None]
            return pooled(hidden, mask.astype(np.int64))

        return answer

    return build


_NEEDS = ("ctranslate2", "tokenizers", "torch", "transformers")

PEERS = (
    Peer("CTranslate2", "fp32", _NEEDS, _build("float32")),
    Peer("CTranslate2 int8", "int8", _NEEDS, _build("int8")),
)
