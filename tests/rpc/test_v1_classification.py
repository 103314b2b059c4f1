"""Classify, ZeroShotClassify, FillMask and Rerank against the references that people know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd_server.errors import InvalidInput
from bertd_server.inside import open_model_sync
from bertd_server.tasks import classification, filling, ranking, sparse
from bertd_server.tasks.ask import CallContext
from bertd_server.tasks.classification import LabelScore
from bertd_server.tokenization.reader import Fit, Input, texts_of
from helpers.sentences import SENTENCES
from helpers.served import INFERENCE, Served, long_enough, serving
from sentence_transformers import CrossEncoder
from transformers import pipeline

PAIRS = list(pairwise((*SENTENCES, SENTENCES[0])))
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "single": ("bert", {"num_labels": 4}),
    "several": (
        "roberta",
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ),
    "lone": ("bert", {"num_labels": 1}),
    "regression": ("xlm-roberta", {"num_labels": 1, "problem_type": "regression"}),
}


def transformers_pipeline(task: str, served: Served) -> Any:
    make: Any = pipeline
    return make(task, model=served.eager, tokenizer=served.tokenizer, device="cpu")


@pytest.fixture(
    scope="module",
    params=["single", "several", "lone", pytest.param("regression", marks=pytest.mark.slow)],
)
def classifier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    family, changes = KINDS[request.param]
    with serving(tmp_path_factory, family, "text-classification", **changes) as served:
        yield served


def test_labels_of_texts_and_pairs_are_those_of_transformers(classifier: Served) -> None:
    """50 texts and 50 pairs; all labels in the order of their scores, and the best one alone."""
    given: list[Any] = [*SENTENCES, *({"text": a, "text_pair": b} for a, b in PAIRS)]
    expected = transformers_pipeline("text-classification", classifier)(given, top_k=None)
    inputs = [*texts_of(SENTENCES), *(Input(a, b) for a, b in PAIRS)]
    ours = classifier.ask(classification.classify(classifier.model, inputs))
    best = classifier.ask(classification.classify(classifier.model, inputs, top_k=1))
    for mine, first, reference in zip(ours, best, expected, strict=True):
        same(mine, [one["label"] for one in reference], [one["score"] for one in reference])
        assert mine[:1] == first


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_the_caller_chooses_the_score_function(
    classifier: Served, function: classification.ScoreFunction
) -> None:
    ready = transformers_pipeline("text-classification", classifier)
    expected = ready(list(SENTENCES[:8]), top_k=None, function_to_apply=function)
    inputs = texts_of(SENTENCES[:8])
    asked = classification.classify(classifier.model, inputs, score_function=function)
    for mine, reference in zip(classifier.ask(asked), expected, strict=True):
        same(mine, [one["label"] for one in reference], [one["score"] for one in reference])


def same(mine: Sequence[LabelScore], labels: Sequence[str], scores: Sequence[float]) -> None:
    """The same scores of the same labels; of those that all but tie, in any order."""
    np.testing.assert_allclose([one.score for one in mine], scores, **TOLERANCE)
    theirs = dict(zip(labels, scores, strict=True))
    assert {one.label for one in mine} == theirs.keys()
    for one in mine:
        assert one.score == pytest.approx(theirs[one.label], abs=1e-4)


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An inference model of three labels."""
    with serving(
        tmp_path_factory, "bert", "zero-shot-classification", id2label=INFERENCE
    ) as served:
        yield served


@pytest.mark.parametrize("labels", [["travel", "요리", "politique", "🎉"], ["travel"]])
@pytest.mark.parametrize("several", [False, True])
def test_labels_of_ones_own_are_scored_as_transformers_does(
    nli: Served, labels: list[str], *, several: bool
) -> None:
    template = "이 글은 {}에 관한 것이다."
    ready = transformers_pipeline("zero-shot-classification", nli)
    expected = ready(
        list(SENTENCES),
        candidate_labels=labels,
        hypothesis_template=template,
        multi_label=several,
    )
    asked = classification.classify_zero_shot(
        nli.model,
        texts_of(SENTENCES),
        labels,
        hypothesis_template=template,
        multi_label=several,
    )
    for mine, reference in zip(nli.ask(asked), expected, strict=True):
        same(mine, reference["labels"], reference["scores"])


def test_of_a_text_and_its_hypothesis_the_text_is_cut(nli: Served) -> None:
    """Even where the hypothesis is the longer one, as transformers' `only_first` does."""
    text = "a cat " * 60
    label = "dog " * 90
    ready = transformers_pipeline("zero-shot-classification", nli)
    nli.tokenizer.model_max_length = nli.model.manifest.max_tokens
    expected = ready(text, candidate_labels=[label, "mat"], multi_label=True)
    asked = classification.classify_zero_shot(
        nli.model, texts_of([text]), [label, "mat"], Fit("truncate"), multi_label=True
    )
    (mine,) = nli.ask(asked)
    same(mine, expected["labels"], expected["scores"])
    (refused,) = nli.runner.run(
        classification.classify_zero_shot(nli.model, texts_of([text * 3]), ["mat"])
    )
    assert isinstance(refused.outcome, InvalidInput)
    assert refused.outcome.field == "texts[0]"


@pytest.fixture(scope="module", params=["bert", "roberta"])
def filler(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with serving(tmp_path_factory, request.param, "fill-mask") as served:
        yield served


def test_masks_are_filled_as_transformers_does(filler: Served) -> None:
    """One to three masks in each of 50 texts: ids, texts and scores of the best 7."""
    mask = filler.model.mask_token
    texts = []
    for number, text in enumerate(SENTENCES):
        words = text.split(" ")
        for place in range(number % 3 + 1):
            words.insert(place * 2, mask)
        texts.append(" ".join(words))
    ready = transformers_pipeline("fill-mask", filler)
    ours = filler.ask(filling.fill_masks(filler.model, texts_of(texts), top_k=7))
    for number, (text, mine, theirs) in enumerate(
        zip(texts, ours, ready(texts, top_k=7), strict=True)
    ):
        expected = [theirs] if number % 3 == 0 else theirs
        assert len(mine) == len(expected) == number % 3 + 1
        for one, best in zip(mine, expected, strict=True):
            assert text[one.start : one.end] == mask
            np.testing.assert_allclose(
                [candidate.score for candidate in one.candidates],
                [candidate["score"] for candidate in best],
                **TOLERANCE,
            )
            assert [(c.id, c.text) for c in one.candidates] == [
                (c["token"], c["token_str"]) for c in best
            ]


def test_masks_are_filled_from_targets_as_transformers_does(filler: Served) -> None:
    """Entries of the vocabulary, a special one too, and what reads as one; more than are asked."""
    mask = filler.model.mask_token
    reads = "CAT" if mask == "[MASK]" else "\u0120"
    targets = ["the", "a", "b", mask, "a", reads]
    texts = [f"{mask} sat", f"a {mask} b {mask}"]
    ready = transformers_pipeline("fill-mask", filler)
    ours = filler.ask(filling.fill_masks(filler.model, texts_of(texts), targets=targets, top_k=4))
    theirs = ready(texts, targets=targets, top_k=4)
    for mine, expected in zip(ours, [[theirs[0]], theirs[1]], strict=True):
        for one, best in zip(mine, expected, strict=True):
            assert [c.id for c in one.candidates] == [c["token"] for c in best]
            np.testing.assert_allclose(
                [c.score for c in one.candidates], [c["score"] for c in best], **TOLERANCE
            )
    (few,) = filler.ask(filling.fill_masks(filler.model, texts_of(texts[:1]), targets=["a", "b"]))
    assert len(few[0].candidates) == 2


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cats and dogs", "reads as "),
        ("\u2603", "reads as "),
        ("", "reads as nothing"),
        ("a" * 201, "201 characters"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_a_target_that_is_not_one_token_is_refused(filler: Served, target: str, words: str) -> None:
    """Where transformers' pipeline takes its first token, and warns."""
    texts = texts_of([filler.model.mask_token])
    with pytest.raises(InvalidInput, match=words) as refused:
        filler.ask(filling.fill_masks(filler.model, texts, targets=["a", target]))
    assert refused.value.field == "targets[1]"


def test_masks_that_would_fill_the_memory_are_refused(
    filler: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of a call, and the texts that come with its candidates, are bounded."""
    mask = filler.model.mask_token
    texts = texts_of([f"the {mask} sat"] * 3)
    vocabulary = filler.model.manifest.vocab_size

    def fill(answer_bytes: float = math.inf) -> list[Any]:
        caller = CallContext(answer_bytes=answer_bytes)
        replies = filler.runner.run(filling.fill_masks(filler.model, texts, caller=caller, top_k=2))
        return [one.outcome for one in replies]

    first = fill()[0]
    monkeypatch.setattr(filling, "MOST_LOGITS", 2 * vocabulary)
    with pytest.raises(InvalidInput, match=r"up to texts\[2\] have 3 masks") as refused:
        fill()
    assert (refused.value.field, refused.value.reason, refused.value.limit) == (
        "texts",
        "too_many",
        2,
    )
    texts[1:] = texts_of([f"{mask} {mask} {mask} sat"])
    assert fill()[0] == first
    assert "has 3 masks, and a request may have 2" in str(fill()[1])
    texts[1:] = texts_of([f"the {mask} sat", "no mask"])
    with pytest.raises(InvalidInput, match="bytes of answer"):
        fill(answer_bytes=2 * (24 + len(texts[0].text)))


def test_sparse_vectors_are_refused_once_they_are_too_large_for_the_answer(
    filler: Served,
) -> None:
    """Their weights are known only then: those that come too late have errors of their own."""
    texts = texts_of(["the cat", "sat", "on the mat"])

    def weigh(answer_bytes: float) -> list[Any]:
        caller = CallContext(answer_bytes=answer_bytes)
        weighed = sparse.embed_sparse(filler.model, texts, caller=caller)
        return [one.outcome for one in filler.runner.run(weighed)]

    sizes = [len(one.indices) for one in weigh(math.inf)]
    first, second, third = weigh(60 + 7 * sizes[0])
    assert isinstance(first, sparse.SparseVector)
    assert {second.reason, third.reason} <= {"too_many", "too_long"}
    assert "bytes of answer" in str(second)


def test_masks_that_are_too_many_are_refused_before_any_text_is_read(
    filler: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer's mask is known by its letters; where a text is cut, those that stay count."""
    model, mask = filler.model, filler.model.mask_token
    monkeypatch.setattr(type(model), "read", None)
    monkeypatch.setattr(filling, "MOST_LOGITS", 100 * model.manifest.vocab_size)
    texts = texts_of([f"{mask} " * 20] * 40)
    with pytest.raises(InvalidInput, match=r"have at least \d+ masks, and a request may have 100"):
        filler.runner.run(filling.fill_masks(model, texts, Fit("truncate")))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory, "bert", "text-ranking", num_labels=1) as served:
        yield served


def cross_encoder(source: Path) -> Any:
    return CrossEncoder(str(source), device="cpu")


def test_scores_of_documents_are_those_of_sentence_transformers(ranker: Served) -> None:
    """50 pairs of query and document."""
    expected = cross_encoder(ranker.source).predict(PAIRS)
    ours = ranker.ask(ranking.score_pairs(ranker.model, [Input(a, b) for a, b in PAIRS]))
    np.testing.assert_allclose(ours, expected, **TOLERANCE)


def test_a_prompt_goes_before_the_query_alone(ranker: Served) -> None:
    """By name, by default, and none for the empty name; as CrossEncoder.predict has it."""
    reference, model = cross_encoder(ranker.source), ranker.model
    prompts = {"query": "the sea: ", "other": "a dog saw "}
    given = [Input(a, b) for a, b in PAIRS[:8]]
    plain = model.manifest
    model.manifest = plain.model_copy(update={"prompts": prompts, "default_prompt_name": "query"})
    try:
        for name, prompt in ((None, prompts["query"]), ("other", prompts["other"]), ("", "")):
            ours = ranker.ask(ranking.score_pairs(model, given, prompt_name=name))
            theirs = reference.predict(PAIRS[:8], prompt=prompt)
            np.testing.assert_allclose(ours, theirs, **TOLERANCE)
    finally:
        model.manifest = plain


def test_of_a_long_query_and_document_the_longer_one_is_cut(ranker: Served) -> None:
    """As CrossEncoder does, also where the query alone has more tokens than the model reads."""
    short, long = PAIRS[0][0], long_enough(ranker, 3_000)[0]
    half = long_enough(ranker, ranker.model.manifest.max_tokens // 2 + 9)[0]
    expected = cross_encoder(ranker.source).predict([(short, long), (half, long), (long, short)])
    with open_model_sync(ranker.bundle, lanes=1, warmup_seconds=0, calibration_seconds=0) as model:
        ours = [
            model.rerank_each(query, [document], long_text="truncate")[0].outcome
            for query, document in ((short, long), (half, long), (long, short))
        ]
    np.testing.assert_allclose(np.array(ours, np.float32), expected, **TOLERANCE)


def test_a_long_document_scores_as_its_best_window(ranker: Served) -> None:
    """3,000 tokens, each window with the whole query, read by PyTorch one by one."""
    query, stride = "Where does the ferry leave?", 30
    document, _ = long_enough(ranker, 3_000)
    first = ranker.tokenizer(query)["input_ids"]
    second = ranker.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
    room = ranker.model.manifest.max_tokens - len(first) - 1
    scores = []
    for begin in range(0, len(second), room - stride):
        part = [*second[begin : begin + room], first[-1]]
        types = [0] * len(first) + [1] * len(part)
        logit = ranker.forward([*first, *part], types)["logits"][0]
        scores.append(1 / (1 + np.exp(-logit)))
        if begin + room >= len(second):
            break
    fit = Fit("window", stride=stride, second_only=True)
    pair = Input(query, document)
    (reply,) = ranker.runner.run(ranking.score_pairs(ranker.model, [pair], fit))
    assert reply.windows == len(scores)
    assert reply.outcome == pytest.approx(max(scores), abs=1e-4)
