"""PyTorch as its users write it: transformers' tokenizer and model, a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bertd_bench.contestants.peer import (
    EMBED,
    TAG,
    TASKS,
    AnswerTexts,
    Peer,
    PeerUnavailable,
    Setting,
    TextArrays,
)


def network_of(setting: Setting, attention: str, dtype: str) -> Any:
    """The stock model in evaluation mode."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    loader = {EMBED: transformers.AutoModel, TAG: transformers.AutoModelForTokenClassification}.get(
        setting.task, transformers.AutoModelForSequenceClassification
    )
    torch.set_num_threads(setting.threads)
    return loader.from_pretrained(
        setting.checkpoint, attn_implementation=attention, dtype=getattr(torch, dtype)
    ).eval()


def answering(setting: Setting, network: Any) -> AnswerTexts:
    """Texts to arrays through a network that is called as a transformers model is."""
    import torch
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(setting.checkpoint)

    def answer(texts: Sequence[str]) -> TextArrays:
        with torch.inference_mode():
            inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
            mask = inputs["attention_mask"]
            output = network(**inputs)
            if setting.task != EMBED:
                logits = output.logits.float().numpy()
                if setting.task == TAG:
                    return [row[:real] for row, real in zip(logits, mask.sum(1), strict=True)]
                rows: TextArrays = logits
                return rows
            hidden = output.last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            means = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
            vectors: TextArrays = torch.nn.functional.normalize(means, dim=1).float().numpy()
            return vectors

    return answer


def _eager(attention: str) -> Callable[[Setting], AnswerTexts]:
    return lambda setting: answering(setting, network_of(setting, attention, "float32"))


def _compiled(setting: Setting) -> AnswerTexts:
    """Compiled once for all shapes, as a mix of lengths needs."""
    import torch

    network = network_of(setting, "sdpa", "float32")
    return answering(setting, torch.compile(network, dynamic=True))


def _bf16(setting: Setting) -> AnswerTexts:
    said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if "avx512_bf16" not in said and "amx_bf16" not in said:
        raise PeerUnavailable("this CPU has neither avx512_bf16 nor amx_bf16")
    return answering(setting, network_of(setting, "sdpa", "bfloat16"))


REFERENCE = "PyTorch eager"
_NEEDS = ("torch", "transformers")

PEERS = (
    Peer(REFERENCE, "fp32", _NEEDS, _eager("sdpa"), TASKS),
    Peer("PyTorch eager attention", "fp32", _NEEDS, _eager("eager"), TASKS),
    Peer("torch.compile", "fp32", _NEEDS, _compiled, TASKS),
    Peer("PyTorch bf16", "bf16", _NEEDS, _bf16, TASKS),
)
