"""What a bundle answers to raw texts when it is served: reader, engine and head as they are.

The only place where the exporter uses the server, whose `inside` runs a bundle in this process; the
server knows nothing of the exporter.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from bertd.bundle import Task
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd_server.inside import InvalidInput, Reply, RequestError, SyncModel, open_model_sync

from bertd_export.errors import ExportError, shortened
from bertd_export.text_parity.cases import RawText
from bertd_export.text_parity.references import (
    CANDIDATES,
    HYPOTHESES,
    LONGEST_ANSWER,
    Answer,
    compares_alone,
)

T = TypeVar("T")


@contextmanager
def opened(folder: Path) -> Iterator[SyncModel]:
    """A bundle that answers in this process, neither warmed up nor measured."""
    with open_model_sync(
        folder, lanes=1, lane_niceness=0, warmup_seconds=0, calibration_seconds=0
    ) as model:
        yield model


def answer(model: SyncModel, texts: Sequence[RawText]) -> list[Answer | None]:
    """The answers to raw texts, in order; None to a text without a token, which is not served.

    Raises:
        ExportError: a text is refused for another reason.
    """
    answers: list[Answer | None] = [None] * len(texts)
    ask = _ASKED[model.manifest.task]
    for prompt_name in dict.fromkeys(one.prompt_name for one in texts):
        places = [n for n, one in enumerate(texts) if one.prompt_name == prompt_name]
        found = ask(model, [texts[place] for place in places], prompt_name)
        for place, outcome in zip(places, found, strict=True):
            if not isinstance(outcome, RequestError):
                answers[place] = outcome
            elif not isinstance(outcome, InvalidInput) or outcome.reason != "empty":
                text = shortened(texts[place].text)
                hint = _LIMITS if outcome.reason == "too_long" else ""
                raise ExportError(
                    f"the bundle gives {text} no answer: {outcome}{hint}"
                ) from outcome
    return answers


def token_ids(model: SyncModel, one: RawText) -> list[int]:
    """The ids that the bundle's tokenizer gives, its prompt left out and none cut."""
    (tokens,) = model.tokenize([_given(one)])
    return [token.id for token in tokens]


# Where the limit of a text comes from.
_LIMITS = (
    "; the checkpoint's limit is the least of max_seq_length in sentence_bert_config.json, "
    "model_max_length in tokenizer_config.json and max_position_embeddings in config.json: raise it"
)
_Outcomes = list[Answer | RequestError]


def _given(one: RawText) -> str | tuple[str, str]:
    return one.text if one.pair is None else (one.text, one.pair)


def _pair(one: RawText) -> tuple[str, str]:
    return one.text, one.pair or ""


def _outcomes(replies: Sequence[Reply[T]], answer: Callable[[T], Answer]) -> _Outcomes:
    """What each reply holds, as an answer."""
    return [
        reply.outcome if isinstance(reply.outcome, RequestError) else answer(reply.outcome)
        for reply in replies
    ]


def _value(score: float) -> Float32Array:
    return np.array([score], np.float32)


def _embeddings(model: SyncModel, texts: Sequence[RawText], prompt_name: str | None) -> _Outcomes:
    given = [one.text for one in texts]
    found = model.embed_each(given, prompt_name=prompt_name, long_text="truncate")
    return _outcomes(found, lambda vector: {"embedding": vector})


def _scores(model: SyncModel, texts: Sequence[RawText], prompt_name: str | None) -> _Outcomes:
    found: list[Reply[float]] = []
    for one in texts:
        found += model.rerank_each(
            one.text, [one.pair or ""], prompt_name=prompt_name, long_text="truncate"
        )
    return _outcomes(found, lambda score: {"score": _value(score)})


def _classes(model: SyncModel, texts: Sequence[RawText], _: str | None) -> _Outcomes:
    found = model.classify_each([_given(one) for one in texts], long_text="truncate")
    return _outcomes(found, lambda labels: {one.label: _value(one.score) for one in labels})


def _zero_shot(model: SyncModel, texts: Sequence[RawText], _: str | None) -> _Outcomes:
    given = [one.text for one in texts]
    found = model.classify_zero_shot_each(given, HYPOTHESES)
    together = _outcomes(found, lambda labels: {one.label: _value(one.score) for one in labels})
    named = model.manifest
    if not compares_alone(named.entailment_label, named.contradiction_label, len(named.labels)):
        return together
    found = model.classify_zero_shot_each(given, HYPOTHESES, multi_label=True)
    alone = _outcomes(
        found, lambda labels: {f"{one.label} alone": _value(one.score) for one in labels}
    )
    return [
        a if isinstance(a, RequestError) or isinstance(b, RequestError) else {**a, **b}
        for a, b in zip(together, alone, strict=True)
    ]


def _tags(model: SyncModel, texts: Sequence[RawText], _: str | None) -> _Outcomes:
    found = model.tag_each([one.text for one in texts], aggregation="none")
    return _outcomes(
        found,
        lambda tags: {f"{one.label} {one.start}-{one.end}": _value(one.score) for one in tags},
    )


def _sparse(model: SyncModel, texts: Sequence[RawText], prompt_name: str | None) -> _Outcomes:
    given = [one.text for one in texts]
    found = model.embed_sparse_each(given, prompt_name=prompt_name, long_text="truncate")

    size = model.manifest.vocab_size
    return _outcomes(found, lambda vector: {"weights": _dense(vector.indices, vector.values, size)})


def _dense(indices: Int64Array, values: Float32Array, size: int) -> Float32Array:
    weights = np.zeros(size, np.float32)
    weights[indices] = values
    return weights


def _masks(model: SyncModel, texts: Sequence[RawText], prompt_name: str | None) -> _Outcomes:
    if model.manifest.sparse is not None:
        return _sparse(model, texts, prompt_name)
    found = model.fill_mask_each([one.text for one in texts], top_k=CANDIDATES)
    return _outcomes(
        found, lambda masks: {str(one.id): _value(one.score) for one in masks[0].candidates}
    )


def _spans(model: SyncModel, texts: Sequence[RawText], _: str | None) -> _Outcomes:
    found = model.answer_each(
        [_pair(one) for one in texts], max_answer_tokens=LONGEST_ANSWER, long_text="truncate"
    )
    return _outcomes(
        found, lambda spans: {f"{one.start}-{one.end}": _value(one.score) for one in spans}
    )


_ASKED: dict[Task, Callable[[SyncModel, Sequence[RawText], str | None], _Outcomes]] = {
    "feature-extraction": _embeddings,
    "text-ranking": _scores,
    "text-classification": _classes,
    "zero-shot-classification": _zero_shot,
    "token-classification": _tags,
    "fill-mask": _masks,
    "question-answering": _spans,
}
