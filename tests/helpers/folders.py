"""Checkpoint folders made at random: a tiny model of some kind, and what somebody wrote into it.

::

    kind, family, labels, modules ──write──> a folder as its library saves it
    changes (settings, files, tensors) ────> the same, as strangers leave folders
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bertd.bundle import Task
from helpers.folder_changes import (
    CHANGES,
    CONFIG,
    LIMITS,
    MODEL,
    POOLING,
    SENTENCE,
    TOKENIZER,
    WIDTH,
    Change,
    Kind,
    put,
)
from helpers.tiny import save_tiny
from hypothesis import strategies as st
from safetensors.torch import save_file

POSITIONS = 66  # of them RoBERTa's kin reserve two
TASKS: dict[Kind, Task] = {
    "encoder": "feature-extraction",
    "sentence": "feature-extraction",
    "sparse": "fill-mask",
    "classifier": "text-classification",
    "cross-encoder": "text-ranking",
    "tagger": "token-classification",
    "reader": "question-answering",
    "filler": "fill-mask",
}
FAMILIES = (
    "bert",
    "roberta",
    "albert",
    "distilbert",
    "electra",
    "xlm-roberta",
    "mpnet",
    "deberta-v2",
    "modernbert",
    "nomic_bert",
)
_UNKNOWN = {("reader", "nomic_bert")}  # transformers has no class for it
# Letters as an uncased tokenizer leaves them, in five scripts.
ALPHABET = "".join(
    sorted(
        letter
        for letter in set(
            unicodedata.normalize("NFD", "서울은 대한민국의 수도이다 поезд 東京 面条 🙂")
        )
        if not unicodedata.combining(letter)
    )
)
ENTITIES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")


@dataclass(frozen=True)
class Plan:
    """A folder: its model, the modules behind it, and what is changed then."""

    kind: Kind
    family: str
    labels: int
    modules: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """By which a refusal may call its reason."""
        given = [name for change in self.changes for name in change.names]
        own = ("SpladePooling",) if self.kind == "sparse" else ()
        return (*given, *self.modules, *own, *(("labels",) if self.labels else ()))

    def write(self, folder: Path) -> None:
        """Save the model, its tokenizer and its modules, and make the changes in their order."""
        options: dict[str, Any] = {"num_hidden_layers": 1, "initializer_range": 0.4}
        if self.family == "distilbert":
            options["n_layers"] = 1
        if self.family == "albert":
            options["inner_group_num"] = 1
        if self.kind == "tagger":
            options["id2label"] = dict(enumerate(ENTITIES))
        elif self.kind in ("classifier", "cross-encoder"):
            options["id2label"] = {number: f"L{number}" for number in range(self.labels)}
        save_tiny(folder, self.family, TASKS[self.kind], alphabet=ALPHABET, **options)
        put(folder / TOKENIZER, model_max_length=POSITIONS - 2)
        if self.kind in _SAVED:
            _SAVED[self.kind](folder, self.modules)
        for change in self.changes:
            change.write(folder)


def _list_modules(folder: Path, package: str, kinds: Sequence[str]) -> None:
    """Write modules.json; the first module is the model in the folder itself."""
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": "" if place == 0 else f"{place}_{kind}",
            "type": f"sentence_transformers.{package if place else 'base'}.modules.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")


def _save_sentence(folder: Path, modules: Sequence[str]) -> None:
    _list_modules(folder, "sentence_transformer", ["Transformer", "Pooling", *modules])
    put(folder / LIMITS, max_seq_length=40, do_lower_case=False)
    put(folder / POOLING, embedding_dimension=WIDTH, pooling_mode="mean", include_prompt=True)
    put(
        folder / SENTENCE,
        model_type="SentenceTransformer",
        prompts={},
        default_prompt_name=None,
        similarity_fn_name="cosine",
    )
    width = WIDTH
    for place, kind in enumerate(modules, 2):
        width = _save_module(folder / f"{place}_{kind}", kind, width)


def _save_module(folder: Path, kind: str, width: int) -> int:
    """Write a module's folder; gives how many values it makes of so many."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(width)
    if kind == "Dense":
        out = width - 8
        put(
            folder / CONFIG,
            in_features=width,
            out_features=out,
            bias=True,
            activation_function="torch.nn.modules.activation.Tanh",
        )
        weights = {
            "linear.weight": torch.randn(out, width, generator=generator) * 0.3,
            "linear.bias": torch.randn(out, generator=generator) * 0.3,
        }
        save_file(weights, folder / MODEL)
        return out
    if kind == "LayerNorm":
        put(folder / CONFIG, dimension=width)
        weights = {
            "norm.weight": torch.randn(width, generator=generator),
            "norm.bias": torch.randn(width, generator=generator),
        }
        save_file(weights, folder / MODEL)
    elif kind == "Dropout":
        put(folder / CONFIG, dropout=0.2)
    return width


def _save_sparse(folder: Path, _modules: Sequence[str]) -> None:
    _list_modules(folder, "sparse_encoder", ["Transformer", "SpladePooling"])
    put(folder / LIMITS, max_seq_length=40, transformer_task="fill-mask")
    put(
        folder / "1_SpladePooling" / CONFIG,
        pooling_strategy="max",
        activation_function="relu",
        embedding_dimension=None,
    )
    put(folder / SENTENCE, model_type="SparseEncoder", prompts={}, default_prompt_name=None)


def _save_cross_encoder(folder: Path, _modules: Sequence[str]) -> None:
    _list_modules(folder, "cross_encoder", ["Transformer"])
    put(
        folder / LIMITS,
        transformer_task="sequence-classification",
        modality_config={"text": {"method": "forward", "method_output_name": "logits"}},
        module_output_name="scores",
    )
    put(folder / SENTENCE, model_type="CrossEncoder", prompts={}, default_prompt_name=None)


_SAVED: dict[Kind, Callable[[Path, Sequence[str]], None]] = {
    "sentence": _save_sentence,
    "sparse": _save_sparse,
    "cross-encoder": _save_cross_encoder,
}


MODULES = ("Dense", "Normalize", "LayerNorm", "Dropout")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Folders of every kind, with up to three changes."""
    kind: Kind = draw(st.sampled_from(tuple(TASKS)))
    modules: list[str] = []
    if kind == "sentence":
        modules = draw(st.lists(st.sampled_from(MODULES), max_size=3))
    labels = draw(st.integers(1, 4)) if kind in ("classifier", "cross-encoder") else 0
    possible = [
        change
        for change in CHANGES[kind]
        if not change.slot.startswith("2_Dense") or modules[:1] == ["Dense"]
    ]
    changes = draw(
        st.lists(st.sampled_from(possible), max_size=3, unique_by=lambda change: change.slot)
    )
    families = [family for family in FAMILIES if (kind, family) not in _UNKNOWN]
    return Plan(kind, draw(st.sampled_from(families)), labels, tuple(modules), tuple(changes))
