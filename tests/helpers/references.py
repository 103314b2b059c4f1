"""The same questions from raw text to bertd and to the library that a user would compare with.

::

    folder ──SentenceTransformer, CrossEncoder, SparseEncoder, pipeline──> answers ──┐
       └─export─> bundle ──bertd_server.inside───────────────────────────> answers ──┴─> judged
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from bertd.bundle import Manifest, read_manifest
from bertd_export.bundle import export_model
from bertd_export.errors import ExportError
from bertd_server.inside import SyncModel, open_model_sync
from helpers.folder_changes import Kind
from helpers.folders import Plan
from helpers.sentences import long_text
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

TEXTS = (
    "the cat sat on a mat",
    "The CAT saw a Dog, and the rain!",
    "서울은 대한민국의 수도이다.",
    "cafe\u0301 is cafe with a mark, café is not",
    "  leading and\ttrailing  ",
    "x",
    long_text(60),
)
PAIRS = (
    ("the cat sat", "on a mat and saw the dog"),
    ("The Dog", "안녕 the SEA"),
    ("rain", long_text(60)),
)
TOLERANCE = 1e-4
_ON_CPU: dict[str, Any] = {"device": "cpu"}
_FP32: dict[str, Any] = {"dtype": torch.float32}
# The libraries fail on folders that say false, of some families.
_DICTS: dict[str, Any] = {"config_kwargs": {"return_dict": True}}
# An answer of the reference may depend on padding where a tokenizer gives no attention mask.
_ALONE: dict[str, Any] = {"batch_size": 1, "show_progress_bar": False}


@dataclass(frozen=True)
class Answer:
    """What was said about one input: labels or tokens, and numbers."""

    words: tuple[Any, ...]
    numbers: np.ndarray

    def differs(self, other: Answer) -> str | None:
        """How it is from another; None if it is the same within rounding."""
        if self.words != other.words:
            return f"{self.words} is not {other.words}"
        if self.numbers.shape != other.numbers.shape:
            return f"shape {self.numbers.shape} is not {other.numbers.shape}"
        if not np.isfinite(self.numbers).all():
            return "not finite"
        scale = max(1.0, float(np.abs(other.numbers).max(initial=0)))
        difference = float(np.abs(self.numbers - other.numbers).max(initial=0))
        return None if difference <= TOLERANCE * scale else f"differs by {difference:.2e}"


Verdict = Literal["right", "refused", "fault"]


def judged(plan: Plan, scratch: Path) -> tuple[Verdict, str]:
    """What became of a folder, and why.

    Args:
        plan: of the folder.
        scratch: an empty folder.
    """
    source, bundle = scratch / "source", scratch / "bundle"
    plan.write(source)
    try:
        manifest = export_model(str(source), bundle).manifest
    except ExportError as refused:
        named = any(name in str(refused) for name in plan.names)
        return ("refused" if named else "fault"), f"refused: {refused}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no refusal
        return "fault", f"the export ends with {error!r}"
    try:
        theirs = reference(plan.kind, source, manifest)
        ours = answered(plan.kind, bundle, scratch)
    except Exception as error:  # noqa: BLE001 - of the reference: then nothing should be exported
        return "fault", f"exported, and then {error!r}"
    found = difference(ours, theirs)
    return ("right", "") if found is None else ("fault", found)


def difference(ours: Sequence[Answer], theirs: Sequence[Answer]) -> str | None:
    """Where answers first differ, and how; None where they are the same."""
    if len(ours) != len(theirs):
        return f"{len(ours)} answers, not {len(theirs)}"
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if how := one.differs(other):
            return f"answer {place} {how}"
    return None


def _vectors(rows: Any) -> list[Answer]:
    return [Answer((), np.asarray(row, np.float32)) for row in rows]


def _scored(pairs: Iterator[tuple[Any, float]]) -> Answer:
    ordered = sorted(pairs)
    return Answer(tuple(word for word, _ in ordered), np.array([score for _, score in ordered]))


def reference(kind: Kind, folder: Path, manifest: Manifest) -> list[Answer]:
    """What the reference library answers to all of the inputs.

    Args:
        kind: of the folder.
        folder: the checkpoint.
        manifest: of its bundle; only the task, and the entailment label.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call,unused-ignore]
        found: list[Answer] = _REFERENCES[_asked(kind, manifest)](folder)
    return found


def _asked(kind: Kind, manifest: Manifest) -> str:
    """How the folder's own kind is asked, for the task that it was exported for."""
    if kind == "cross-encoder" and manifest.task == "text-classification":
        return "cross-encoder, several labels"
    return "cross-encoder" if manifest.task == "text-ranking" else kind


def _sentence(folder: Path) -> list[Answer]:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes a second

    model = SentenceTransformer(
        str(folder), **_ON_CPU, **_DICTS, model_kwargs=_FP32, local_files_only=True
    )
    answers = _vectors(model.encode(list(TEXTS), **_ALONE))
    for name in sorted(name for name, prompt in model.prompts.items() if prompt):
        answers += _vectors(model.encode([TEXTS[1]], prompt_name=name, **_ALONE))
    return answers


def _sparse(folder: Path) -> list[Answer]:
    from sentence_transformers import SparseEncoder  # noqa: PLC0415 - takes a second

    model = SparseEncoder(
        str(folder), **_ON_CPU, **_DICTS, model_kwargs=_FP32, local_files_only=True
    )
    return _vectors(model.encode(list(TEXTS), convert_to_sparse_tensor=False, **_ALONE))


def _cross_encoder(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415 - takes a second

    model = CrossEncoder(
        str(folder),
        **_ON_CPU,
        **_DICTS,
        model_kwargs=_FP32,
        local_files_only=True,
    )
    return model.predict(list(PAIRS), **_ALONE)


def _pipe(task: str, folder: Path, **options: Any) -> Any:
    make: Any = pipeline
    return make(task, model=str(folder), **_ON_CPU, **_FP32, **options)


def _classifier(folder: Path) -> list[Answer]:
    pipe = _pipe("text-classification", folder, model_kwargs={"return_dict": True})  # or it fails
    cut = {"truncation": True, "max_length": _limit(pipe)}
    inputs = [{"text": text} for text in TEXTS]
    inputs += [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    return [
        _scored((one["label"], one["score"]) for one in pipe(given, top_k=None, **cut))
        for given in inputs
    ]


def _limit(pipe: Any) -> int:
    """Tokens up to which both the tokenizer and the positions go."""
    reserved = (
        2
        if pipe.model.config.pad_token_id == 1 and "roberta" in pipe.model.config.model_type
        else 0
    )
    return int(
        min(pipe.tokenizer.model_max_length, pipe.model.config.max_position_embeddings - reserved)
    )


def _tagger(folder: Path) -> list[Answer]:
    answers = []
    for how in ("none", "simple"):
        pipe = _pipe("token-classification", folder, aggregation_strategy=how)
        for text in _to_tag(how):
            if len(pipe.tokenizer(text).input_ids) > _limit(pipe):
                continue  # bertd refuses it: the pipeline cuts no text
            found = pipe(text)
            # bertd's entities have no blanks at their ends, and are more than blanks or word marks.
            if how == "simple":
                found = [{**one, **_trimmed(text, one)} for one in found]
                found = [one for one in found if one["start"] < one["end"] and one["word"]]
            words = [
                (one.get("entity", one.get("entity_group")), one["start"], *_end(how, one["end"]))
                for one in found
            ]
            answers.append(Answer(tuple(words), np.array([one["score"] for one in found])))
    return answers


def _to_tag(how: str) -> list[str]:
    """The texts that are not too long.

    Not those with a mark of its own on a letter where tokens are joined: some tokenizers give it to
    no token, and the pipeline's entity has it or not by the blank behind it.
    """
    whole = TEXTS[:-1]
    return [text for text in whole if how == "none" or unicodedata.is_normalized("NFC", text)]


def _end(how: str, end: int) -> tuple[int, ...]:
    """Where a token ends; of several it is left out, as the pipeline counts a mark after them."""
    return (end,) if how == "none" else ()


def _trimmed(text: str, entity: Mapping[str, Any]) -> dict[str, int]:
    """The stretch of an entity without the blanks at its ends."""
    stretch = text[entity["start"] : entity["end"]]
    start = entity["end"] - len(stretch.lstrip())
    return {"start": start, "end": start + len(stretch.strip())}


def _reader(folder: Path) -> list[Answer]:
    """transformers 5 has no pipeline for it: its tokenizer, its model, and the best span."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder, **_FP32).eval()
    answers = []
    for question, context in PAIRS[:-1]:
        encoding = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoding.pop("offset_mapping")[0]
        with torch.inference_mode():
            output = model(**encoding, return_dict=True)
        start, end = output.start_logits[0], output.end_logits[0]
        places = [n for n, which in enumerate(encoding.sequence_ids(0)) if which == 1]
        scores: dict[tuple[int, int], float] = {}  # of equal stretches the best
        for a, b in ((a, b) for a in places for b in places if a <= b < a + 15):
            stretch = int(offsets[a][0]), int(offsets[b][1])
            scores[stretch] = max(scores.get(stretch, -np.inf), float(start[a] + end[b]))
        best = max(scores, key=scores.__getitem__)
        share = torch.tensor(list(scores.values())).softmax(0).max()
        answers.append(Answer(best, np.array([float(share)])))
    return answers


def _masked(mask: str) -> list[str]:
    return [f"the {mask} sat", f"The CAT {mask} a Dog 서울은", f"{mask}"]


def _filler(folder: Path) -> list[Answer]:
    pipe = _pipe("fill-mask", folder, model_kwargs={"return_dict": True})  # or it fails
    answers = []
    for text in _masked(pipe.tokenizer.mask_token):
        if len(pipe.tokenizer(text).input_ids) > _limit(pipe):
            continue  # bertd refuses it: the pipeline cuts no text
        found = pipe(text, top_k=5)
        answers.append(_scored((int(one["token"]), one["score"]) for one in found))
    return answers


_REFERENCES: Mapping[str, Any] = {
    "encoder": _sentence,
    "sentence": _sentence,
    "sparse": _sparse,
    "classifier": _classifier,
    "cross-encoder": lambda folder: _vectors(np.reshape(_cross_encoder(folder), (-1, 1))),
    "cross-encoder, several labels": lambda folder: _vectors(_cross_encoder(folder)),
    "tagger": _tagger,
    "reader": _reader,
    "filler": _filler,
}


def answered(kind: Kind, bundle: Path, cache: Path) -> list[Answer]:
    """What bertd answers to the same inputs, in process."""
    manifest = read_manifest(bundle)
    quick: dict[str, Any] = {
        "warmup_seconds": 0,
        "calibration_seconds": 0.02,
        "cache_folder": cache,
    }
    with open_model_sync(bundle, threads=1, lanes=1, **quick) as model:
        found: list[Answer] = _ASKED[_asked(kind, manifest)](model, manifest)
    return found


def _embedded(model: SyncModel, manifest: Manifest) -> list[Answer]:
    answers = _vectors(model.embed(list(TEXTS), long_text="truncate"))
    for name in sorted(manifest.prompts):
        answers += _vectors(model.embed([TEXTS[1]], prompt_name=name, long_text="truncate"))
    return answers


def _embedded_sparse(model: SyncModel, manifest: Manifest) -> list[Answer]:
    dense = np.zeros((len(TEXTS), manifest.vocab_size), np.float32)
    for row, one in zip(dense, model.embed_sparse(list(TEXTS), long_text="truncate"), strict=True):
        row[one.indices] = one.values
    return _vectors(dense)


def _classified(model: SyncModel, _manifest: Manifest) -> list[Answer]:
    return [
        _scored((each.label, each.score) for each in one)
        for one in model.classify([*TEXTS, *PAIRS], long_text="truncate")
    ]


def _classified_pairs(model: SyncModel, manifest: Manifest) -> list[Answer]:
    """In the order of the labels, as CrossEncoder gives them."""
    rows = []
    for one in model.classify(list(PAIRS), long_text="truncate"):
        score = {each.label: each.score for each in one}
        rows.append([score[label] for label in manifest.labels])
    return _vectors(rows)


def _ranked(model: SyncModel, _manifest: Manifest) -> list[Answer]:
    rows = []
    for query, document in PAIRS:
        (reply,) = model.rerank_each(query, [document], long_text="truncate")
        rows.append([reply.outcome])
    return _vectors(rows)


def _short(model: SyncModel, manifest: Manifest, texts: Sequence[str]) -> list[str]:
    """Those that the model reads whole."""
    counts = zip(texts, model.count_tokens(list(texts)), strict=True)
    return [text for text, count in counts if count <= manifest.max_tokens]


def _tagged(model: SyncModel, manifest: Manifest) -> list[Answer]:
    return [
        Answer(
            tuple((each.label, each.start, *_end(how, each.end)) for each in one),
            np.array([each.score for each in one]),
        )
        for how in ("none", "simple")
        for one in model.tag(_short(model, manifest, _to_tag(how)), aggregation=how)
    ]


def _found(model: SyncModel, _manifest: Manifest) -> list[Answer]:
    return [
        Answer((one[0].start, one[0].end), np.array([one[0].score]))
        for one in model.answer(list(PAIRS[:-1]))
    ]


def _filled(model: SyncModel, manifest: Manifest) -> list[Answer]:
    assert manifest.mask_token_id is not None
    mask = model.detokenize([[manifest.mask_token_id]], special_tokens=True)[0]
    return [
        _scored((each.id, each.score) for each in masks[0].candidates)
        for masks in model.fill_mask(_short(model, manifest, _masked(mask)), top_k=5)
    ]


_ASKED: Mapping[str, Any] = {
    "encoder": _embedded,
    "sentence": _embedded,
    "sparse": _embedded_sparse,
    "classifier": _classified,
    "cross-encoder": _ranked,
    "cross-encoder, several labels": _classified_pairs,
    "tagger": _tagged,
    "reader": _found,
    "filler": _filled,
}
