"""What a sentence-transformers folder adds to a model: its modules, prompts and limits.

::

    modules.json, by the class that saved it (model_type in config_sentence_transformers.json):
      SentenceTransformer  Transformer ─> Pooling ─> Dense, Dropout, LayerNorm, Normalize, …
      SparseEncoder        Transformer of fill-mask ─> SpladePooling
      CrossEncoder         Transformer
    config_sentence_transformers.json, sentence_bert_config.json ──> prompts, limit, lower case
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bertd.bundle import Pooling, SparseRules, Task

from bertd_export.checkpoint.foreign import check_foreign, check_names
from bertd_export.checkpoint.kinds import SENTENCE, check_kinds
from bertd_export.checkpoint.modules import (
    AFTER_POOLING,
    read_after,
    read_pooling,
    read_splade,
)
from bertd_export.checkpoint.sentence_settings import (
    module_notes,
    sentence_notes,
    transformer_settings,
)
from bertd_export.checkpoint.source import inside, read_json, read_object
from bertd_export.errors import ExportError

_SETTINGS = "config_sentence_transformers.json"
_OWN = "sentence_transformers."
_DENSE, _SPARSE, _CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"
# What the transformer of each class computes, in the words of sentence_bert_config.json.
_COMPUTES = {
    _DENSE: "feature-extraction",
    _SPARSE: "fill-mask",
    _CROSS: "sequence-classification",
}
_LAYOUTS = {
    _DENSE: f"Transformer, Pooling, then any of {', '.join(AFTER_POOLING)}",
    _SPARSE: "Transformer or MLMTransformer, SpladePooling",
    _CROSS: "Transformer",
}
_PYLATE = "pylate."
_LATE = "the projection of every token, and the markers of queries and documents,"
# Modules that a bundle cannot do, and what of the model would be lost without them.
_REFUSED = {
    "Asym": "queries and documents go through different modules, and a bundle has one way",
    "BoW": "it counts words, and there is no transformer",
    "CLIPModel": "it reads images too",
    "CNN": "it joins neighbouring tokens, and reads padding too, of which a bundle has none",
    "LSTM": "its state goes from token to token",
    "LogitScore": "it reads the logits of a language model",
    "MultiVectorMask": f"{_LATE} would be lost",
    "Router": "queries and documents go through different modules, and a bundle has one way: "
    "save the modules of one route as a folder of its own",
    "SparseAutoEncoder": "the sparse code that it makes of a vector would be lost",
    "SparseStaticEmbedding": "it looks up a weight of each token, and there is no transformer",
    "StaticEmbedding": "it looks up a vector of each token, and there is no transformer",
    "TokenPooling": "it joins the vectors of tokens",
    "WeightedLayerPooling": "it reads the output of every layer",
    "WordEmbeddings": "it looks up a vector of each word, and there is no transformer",
    "WordWeights": "the weight of each word would be lost",
}


@dataclass
class SentenceConfig:
    """What the sentence-transformers files say; the defaults hold for a plain model.

    Attributes:
        transformer: folder of the transformers model.
        pooling: modes of its Pooling module; None without one.
        sparse: of its SpladePooling module; None without one.
        include_prompt: whether pooling counts the tokens of a prompt.
        settings: of config_sentence_transformers.json, what its class reads.
        after: modules behind pooling.
        truncate_dim: values of a vector that stay, behind all modules; None for all.
        notes: what whoever exports should know, such as keys that nobody reads.
    """

    transformer: Path
    pooling: tuple[Pooling, ...] | None = None
    sparse: SparseRules | None = None
    include_prompt: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    after: list[torch.nn.Module] = field(default_factory=list)
    max_seq_length: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task | None:
        """The only task that the modules can do; None where they leave it open."""
        if self.sparse is not None:
            return "fill-mask"
        return None if self.pooling is None else "feature-extraction"


def read_sentence_config(folder: Path, *, allow_pickle: bool) -> SentenceConfig:
    """Read what the folder says; of a plain model, little.

    Args:
        folder: the checkpoint.
        allow_pickle: read pickled weights of a module where there are no safetensors.

    Raises:
        ExportError: a file is wrong, or asks for something that a bundle cannot do.
    """
    check_foreign(folder)
    notes = sentence_notes(folder)
    settings: dict[str, Any] = {}
    if (folder / _SETTINGS).is_file():
        settings = read_object(folder / _SETTINGS)
    if not (folder / "modules.json").is_file():  # its classes then read nothing of the settings
        kept = {key: settings[key] for key in ("model_type",) if key in settings}
        return SentenceConfig(folder, settings=kept, notes=notes)
    check_kinds(folder / _SETTINGS, settings, SENTENCE)
    saved_by = settings.get("model_type") or _DENSE
    modules, unread = _modules(folder, saved_by)
    kinds = [kind for kind, _ in modules]
    paths = [path for _, path in modules]
    sentence = SentenceConfig(paths[0], settings=settings, notes=notes + unread)
    default = "fill-mask" if kinds[0] == "MLMTransformer" else "feature-extraction"
    _describe(sentence, saved_by, default)
    if saved_by == _SPARSE:
        sentence.sparse = read_splade(paths[1], settings.get("max_active_dims"))
    elif saved_by == _DENSE:
        pooling = read_pooling(paths[1])
        sentence.pooling, sentence.include_prompt = pooling.modes, pooling.include_prompt
        sentence.truncate_dim = settings.get("truncate_dim")
        for kind, path in modules[2:]:
            module = read_after(kind, path, allow_pickle=allow_pickle)
            if module is not None:
                sentence.after.append(module)
    return sentence


def _modules(folder: Path, saved_by: str) -> tuple[list[tuple[str, Path]], tuple[str, ...]]:
    """Kind and folder of each module, which together are what their class can be; and notes."""
    path = folder / "modules.json"
    listed = read_json(path)
    if not isinstance(listed, list) or not all(
        isinstance(module, dict)
        and all(isinstance(module.get(key), str) for key in ("type", "path"))
        for module in listed
    ):
        raise ExportError(f"{path} must list modules, each with a string for type and for path")
    found = []
    for module in listed:
        kind = module["type"]
        name = kind.rpartition(".")[2]
        if not kind.startswith(_OWN):
            reason = "it is not of sentence-transformers, and a checkpoint's code is never run"
            if kind.startswith(_PYLATE):
                reason = f"{_LATE} would be lost"
            raise ExportError(f"{path}: the module {kind} is not supported: {reason}")
        if name in _REFUSED:
            raise ExportError(f"{path}: the module {name} is not supported: {_REFUSED[name]}")
        found.append((name, inside(folder, module["path"])))
    kinds = [name for name, _ in found]
    fits = {
        _DENSE: kinds[:2] == ["Transformer", "Pooling"]
        and all(kind in AFTER_POOLING for kind in kinds[2:]),
        _SPARSE: kinds[1:] == ["SpladePooling"] and kinds[0] in ("Transformer", "MLMTransformer"),
        _CROSS: kinds == ["Transformer"],
    }
    if not fits[saved_by]:
        raise ExportError(
            f"{path} lists {', '.join(kinds)}; supported, since model_type in {_SETTINGS} is "
            f"{saved_by}: {_LAYOUTS[saved_by]}"
        )
    check_names(path, listed)
    return found, module_notes(path, listed)


def _describe(sentence: SentenceConfig, saved_by: str, default_task: str) -> None:
    """Add the limit and the prompts that sentence-transformers' settings name."""
    path, settings = transformer_settings(sentence.transformer)
    computes = settings.get("transformer_task") or default_task
    if computes != _COMPUTES[saved_by]:
        raise ExportError(
            f"{path}: transformer_task is {computes!r}, and what follows the transformer in "
            f"modules.json is supported on {_COMPUTES[saved_by]!r} alone"
        )
    sentence.max_seq_length = settings.get("max_seq_length")
    sentence.lower = bool(settings.get("do_lower_case"))
    sentence.prompts = sentence.settings.get("prompts") or {}
    default = sentence.settings.get("default_prompt_name")
    if default is not None and default not in sentence.prompts:
        raise ExportError(
            f"{_SETTINGS}: default_prompt_name {default!r} is not among the prompts "
            f"({', '.join(sentence.prompts) or 'there are none'}): name one of them, or null"
        )
    sentence.default_prompt_name = default
