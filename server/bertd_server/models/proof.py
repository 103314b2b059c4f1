"""A bundle proves itself before it is served: what it claims is what its graph gives.

::

    texts of its task ──Reader──> sequences ──Engine──> outputs ──shape, finite──> head ──> scores

A manifest, a graph and a tokenizer may each be intact and still not belong together; one request
of the model's task shows it before a caller meets it. What needs no run is in
:mod:`bertd.bundle.fit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bertd import bundle
from bertd.bundle import Manifest, heads
from bertd.bundle.arrays import Float32Array
from onnxruntime.capi import onnxruntime_pybind11_state as state

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import InvalidInput
from bertd_server.scheduling.lanes import BatchEngine
from bertd_server.tokenization.reader import Fit, Input, Reader

_FIT = Fit("truncate", blank=True)
_TEXT, _PAIR = "Is this a probe?", "The server asks itself, before 1 request."
_SAID = 300  # characters of ONNX Runtime's own words
_REMEDY = "export the model again"
_FAILS = (state.Fail, state.InvalidArgument, state.NotImplemented, state.RuntimeException)


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Make one error of whatever ONNX Runtime says while a bundle's graph runs.

    Raises:
        bundle.BundleError: in the place of ONNX Runtime's own.
    """
    try:
        yield
    except _FAILS as error:
        said = str(error).strip().partition("\n")[0][:_SAID]
        raise bundle.BundleError(
            f"the graph in {folder} fails as it runs ({said}): {_REMEDY}, or give the server "
            "more memory if that is what it lacks"
        ) from error


def probe(engine: BatchEngine, reader: Reader, folder: Path, manifest: Manifest) -> None:
    """Ask a model what its task is for, once.

    Args:
        engine: of the bundle.
        reader: of the bundle.
        folder: the bundle, for the error.
        manifest: its manifest.

    Raises:
        bundle.BundleError: it names the output that is not as the manifest says.
    """
    for sequence in _sequences(reader, manifest):
        with running(folder):
            (outputs,) = engine.answer([sequence], list(manifest.outputs))
        found = _problem(manifest, sequence, outputs)
        if found is not None:
            raise bundle.BundleError(f"{folder} does not fit together: {found}: {_REMEDY}")


def _sequences(reader: Reader, manifest: Manifest) -> Iterator[TokenSequence]:
    """A text as the tokenizer reads it, a pair of them, and the tokenizer's last token."""
    for one in (Input(_TEXT), Input(_TEXT, _PAIR)):
        (reading,) = reader([one], _FIT)
        if isinstance(reading, InvalidInput):
            continue  # a tokenizer that has no token for these letters, or no room for a pair
        yield _masked(reading.windows[0].sequence, manifest)
    last = np.array([reader.largest_id], np.int64)
    yield _masked(TokenSequence(np.repeat(last, 2), np.zeros(2, np.int64)), manifest)


def _masked(sequence: TokenSequence, manifest: Manifest) -> TokenSequence:
    """With a mask in its middle, where the task fills them."""
    if manifest.mask_token_id is None:
        return sequence
    ids = sequence.input_ids.copy()
    ids[len(ids) // 2] = manifest.mask_token_id
    return TokenSequence(ids, sequence.token_type_ids)


def _problem(
    manifest: Manifest, sequence: TokenSequence, outputs: dict[str, Float32Array]
) -> str | None:
    """What of a sequence's outputs is not as the manifest says; None if all is."""
    masks = int((sequence.input_ids == manifest.mask_token_id).sum())
    rows = {"sequences": 1, "tokens": len(sequence), "masks": masks}
    for name, axis in manifest.outputs.items():
        array = outputs[name]
        width, field = width_of(manifest, name)
        expected = (rows[axis],) if width is None else (rows[axis], width)
        if array.shape != expected:
            return (
                f"{name} of a text of {len(sequence)} tokens has the shape {list(array.shape)}, "
                f"and {list(expected)} by {field}"
            )
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return f"{name} of a text of {len(sequence)} tokens is not of finite float32 numbers"
    if not np.isfinite(_scores(manifest, outputs)).all():
        return f"the scores of {manifest.task} are not finite"
    return None


def width_of(manifest: Manifest, output: str) -> tuple[int | None, str]:
    """Values of a row of an output, None where a row is a number; and what says so."""
    if output == bundle.SENTENCE_EMBEDDING:
        return manifest.dimensions, f"dimensions ({manifest.dimensions})"
    if output in (bundle.TOKEN_EMBEDDINGS, bundle.POOLER_OUTPUT):
        return manifest.hidden_size, f"hidden_size ({manifest.hidden_size})"
    if output in (bundle.START_LOGITS, bundle.END_LOGITS):
        return None, f"the task ({manifest.task})"
    if manifest.task == "fill-mask":
        return manifest.vocab_size, f"vocab_size ({manifest.vocab_size})"
    if manifest.task == "text-ranking":
        return 1, f"the task ({manifest.task})"
    return len(manifest.labels), f"labels ({len(manifest.labels)} names)"


def _scores(manifest: Manifest, outputs: dict[str, Float32Array]) -> Float32Array:
    """What the task makes of the outputs of one sequence, whose shapes are right."""
    first = outputs[next(iter(manifest.outputs))]
    match manifest.task:
        case "text-classification" | "zero-shot-classification":
            problem = manifest.problem_type or "single_label_classification"
            return heads.class_scores(first, problem)
        case "text-ranking":
            return heads.ranking_scores(first, manifest.activation or "identity")
        case "token-classification":
            return heads.token_labels(first)[1]
        case "fill-mask":
            return heads.top_tokens(first, 1)[1]
        case "question-answering":
            context = np.ones(len(first), np.bool_)
            spans = heads.best_spans(first, outputs[bundle.END_LOGITS], context, max_tokens=2)
            return np.array([span.probability for span in spans], np.float32)
    return first
