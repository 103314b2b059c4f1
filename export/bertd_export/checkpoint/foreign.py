"""Folders that look like a plain transformers or sentence-transformers model and are none.

Each is refused by the name of what wrote it: opened as a plain model it would lose a head, a
projection or its pooling, and answer all the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertd_export.checkpoint.source import read_object
from bertd_export.errors import ExportError

# A file that only this library writes, and what a plain model of the folder would lack.
_FILES = {
    "config_setfit.json": ("SetFit", "the classifier in model_head.pkl"),
    "model_head.pkl": ("SetFit", "the classifier in model_head.pkl, which is a pickle"),
    "gliner_config.json": ("GLiNER", "the layers that score spans"),
    "artifact.metadata": ("ColBERT", "the projection of its tokens, its markers and lengths"),
    "adapter_fusion_config.json": ("AdapterHub's adapters", "the adapters that are fused"),
    "open_clip_config.json": ("OpenCLIP", "the tower for images"),
}
_ARCHITECTURES = {
    "HF_ColBERT": ("ColBERT", "the projection of its tokens, its markers and lengths"),
    "SpanMarkerModel": ("SpanMarker", "the layers that score spans"),
    "StaticModel": ("model2vec", "everything: it is a table of vectors, and has no encoder"),
}
_MODEL_TYPES = {
    "span-marker": _ARCHITECTURES["SpanMarkerModel"],
    "model2vec": _ARCHITECTURES["StaticModel"],
    "gliner": _FILES["gliner_config.json"],
}
# What config_sentence_transformers.json may say; a SparseEncoder's modules are judged one by one.
_LATE_INTERACTION = ("ColBERT", "MultiVectorEncoder")
_PLAIN = (None, "SentenceTransformer", "CrossEncoder", "SparseEncoder")


def _refusal(path: Path, writer: str, lost: str) -> ExportError:
    return ExportError(
        f"{path} is of {writer}, which bertd does not serve: exported as a plain model, it would "
        f"lose {lost}"
    )


def check_foreign(folder: Path) -> None:
    """Refuse a folder that another library wrote for itself.

    Raises:
        ExportError: it names the file or the key that says so, and what would be lost.
    """
    for name, (writer, lost) in _FILES.items():
        if (folder / name).is_file():
            raise _refusal(folder / name, writer, lost)
    if (folder / "config.json").is_file():
        _check_config(folder / "config.json")
    listed = (folder / "modules.json").is_file()
    if (folder / "config_sentence_transformers.json").is_file():
        path = folder / "config_sentence_transformers.json"
        _check_settings(path, read_object(path), listed=listed)
    if not listed and (folder / "1_Pooling" / "config.json").is_file():
        raise ExportError(
            f"{folder} has 1_Pooling but no modules.json, without which sentence-transformers "
            f"would not read its pooling: fetch modules.json from where the model comes from"
        )


def _check_config(path: Path) -> None:
    config = read_object(path)
    found = _MODEL_TYPES.get(str(config.get("model_type")))
    named = config.get("architectures")
    for name in named if isinstance(named, list) else []:
        found = found or _ARCHITECTURES.get(str(name))
    if found is None and "span_mode" in config and "model_name" in config:
        found = _FILES["gliner_config.json"]
    if found is None and "model_type" not in config and "apply_pca" in config:
        found = _ARCHITECTURES["StaticModel"]
    if found is not None:
        raise _refusal(path, *found)


def _check_settings(path: Path, settings: Mapping[str, Any], *, listed: bool) -> None:
    kind = settings.get("model_type")
    if kind in _LATE_INTERACTION:
        raise _refusal(
            path,
            f"{kind}, by its model_type",
            "the projection of its tokens, its markers and the comparison token by token",
        )
    if kind == "SparseEncoder" and not listed:
        raise ExportError(
            f"{path} says SparseEncoder, but there is no modules.json that says how its vectors "
            f"are made: save the model with sentence-transformers again"
        )
    if kind not in _PLAIN:
        raise _refusal(path, f"{kind}, by its model_type", "what that adds")
    if kind == "CrossEncoder" and (path.parent / "1_Pooling" / "config.json").is_file():
        raise ExportError(
            f"{path} says CrossEncoder, yet the folder has 1_Pooling of a SentenceTransformer: "
            f"leave one of them"
        )


def check_names(path: Path, modules: list[dict[str, Any]]) -> None:
    """Refuse modules of which sentence-transformers would not read all.

    Args:
        path: of ``modules.json``.
        modules: what it lists.

    Raises:
        ExportError: two modules have one name.
    """
    names = [module.get("name") for module in modules]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ExportError(
            f"{path} has several modules of the name {', '.join(twice)}, of which "
            f"sentence-transformers keeps the last: give each a name of its own"
        )
