"""TagTokens against transformers' own pipeline, on the same checkpoint and texts."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from bertd.bundle import heads
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks import tagging
from bertd_server.tasks.concluding import Conclusions
from bertd_server.tasks.tagging import Aggregation, Entity
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.sentences import SENTENCES
from helpers.served import ENTITIES, OF_TASK, Served, long_enough, serving
from helpers.stepwise import counted
from transformers import pipeline
from transformers.pipelines.token_classification import (
    AggregationStrategy,
    TokenClassificationPipeline,
)

LABELS = list(ENTITIES.values())
TEXTS = (*SENTENCES, "spelt out: [UNK] and <unk> and [MASK]<mask> there", "unk<unk>unk [UNK]s")


@pytest.fixture(
    scope="module",
    params=["bert", "roberta", pytest.param("camembert", marks=pytest.mark.slow)],
)
def tagger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """WordPiece, byte-level BPE and Unigram: each finds words in a way of its own."""
    with serving(
        tmp_path_factory, request.param, "token-classification", **OF_TASK["token-classification"]
    ) as served:
        yield served


BLANKS = " \t\n\u00a0\u2009\u200b"


class WordsOfTheTokenizer(TokenClassificationPipeline):
    """The pipeline, told what makes a word; itself it infers that from lengths and blanks."""

    def gather_pre_entities(self, sentence: str, *given: Any, **options: Any) -> list[Any]:
        self.sentence = sentence
        found: list[Any] = super().gather_pre_entities(sentence, *given, **options)
        tokenizer: Any = self.tokenizer
        words = list(tokenizer(sentence).word_ids())
        if self.model.config.model_type == "roberta":  # it splits at marks on letters
            marks = "".join(
                c for c in sentence if unicodedata.category(c)[0] == "M" or c == "\u200d"
            )
            for run in re.finditer(rf"[^\W\d_]+([{marks}]+[^\W\d_]*)+", sentence) if marks else ():
                inside = [one["index"] for one in found if run.start() <= one["start"] < run.end()]
                for index in inside:
                    words[index] = words[inside[0]]
        aggregates = given[4] is not AggregationStrategy.NONE
        end = 0
        for one in found:
            if one["word"] == "▁" and aggregates:  # it stands for no character
                one["end"] = end
            end = one["end"]
        for before, one in pairwise(found):
            blank = sentence[one["start"] : one["end"]][:1].isspace()
            filled = bool(sentence[before["start"] : before["end"]].strip(BLANKS))
            same = words[one["index"]] == words[before["index"]]
            one["is_subword"] = same and not (blank and filled)
        return found

    def aggregate_words(self, *given: Any) -> list[Any]:
        return [
            word
            for word in super().aggregate_words(*given)
            if self.sentence[word["start"] : word["end"]].strip(BLANKS)
        ]


@pytest.fixture(scope="module")
def theirs(tagger: Served) -> tuple[Any, list[Any]]:
    """The pipeline, and what it has of each text before it aggregates."""
    make: Any = pipeline
    ready = make(
        "token-classification",
        model=tagger.eager,
        tokenizer=tagger.tokenizer,
        device="cpu",
        pipeline_class=WordsOfTheTokenizer,
    )
    return ready, [
        [ready.forward(one) for one in ready.preprocess(text, is_split_into_words=False)]
        for text in TEXTS
    ]


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_entities_are_those_of_transformers(
    tagger: Served, theirs: tuple[Any, list[Any]], aggregation: Aggregation
) -> None:
    """Label, word, start and end exactly; scores to 1e-4. With what is outside, and without."""
    ready, outputs = theirs
    strategy = AggregationStrategy(aggregation)
    compared = 0
    for outside in (False, True):
        ours = tagger.ask(
            tagging.tag(
                tagger.model, texts_of(TEXTS), aggregation=aggregation, include_outside=outside
            )
        )
        for text, mine, output in zip(TEXTS, ours, outputs, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it tells that BPE knows no words
                reference = ready.postprocess(output, strategy, [] if outside else ["O"])
            if aggregation != "none":
                trimmed = (without_blanks(one, text) for one in reference)
                reference = [one for one in trimmed if one["start"] < one["end"]]
            assert [plain(one) for one in mine] == [
                (one.get("entity_group", one.get("entity")), one["word"], one["start"], one["end"])
                for one in reference
            ], text
            np.testing.assert_allclose(
                [one.score for one in mine], [one["score"] for one in reference], rtol=0, atol=1e-4
            )
            compared += len(mine)
    assert compared > 2 * len(TEXTS)


def without_blanks(entity: dict[str, Any], text: str) -> dict[str, Any]:
    """None at its ends."""
    start, end = entity["start"], entity["end"]
    while start < end and text[start] in BLANKS:
        start += 1
    while start < end and text[end - 1] in BLANKS:
        end -= 1
    return {**entity, "start": start, "end": end}


def plain(entity: Entity) -> tuple[str, str, int, int]:
    return entity.label, entity.word, entity.start, entity.end


@pytest.mark.parametrize("stride", [0, 40])
def test_a_long_text_has_each_token_from_the_window_with_more_context(
    tagger: Served, stride: int
) -> None:
    """3,000 tokens, in windows that PyTorch reads one by one."""
    text, encoding = long_enough(tagger, 3_000)
    ids, specials = encoding["input_ids"], encoding["special_tokens_mask"]
    inner = [place for place, special in enumerate(specials) if not special]
    room = tagger.model.manifest.max_tokens - 2
    best: dict[int, tuple[int, np.ndarray]] = {}  # place -> tokens to its nearer side, logits
    begin, windows = 0, 0
    while True:
        places = [0, *inner[begin : begin + room], len(ids) - 1]
        logits = tagger.forward([ids[place] for place in places], [0] * len(places))["logits"]
        for row, place in enumerate(places):
            context = min(row, len(places) - 1 - row)
            if place not in best or context > best[place][0]:
                best[place] = (context, logits[row])
        windows += 1
        if begin + room >= len(inner):
            break
        begin += room - stride
    (reply,) = tagger.runner.run(
        tagging.tag(
            tagger.model,
            texts_of([text]),
            Fit("window", stride=stride),
            aggregation="none",
            include_outside=True,
        )
    )
    assert (reply.tokens, reply.read, reply.windows) == (len(ids), len(ids), windows)
    assert isinstance(reply.outcome, list)
    assert [(one.start, one.end) for one in reply.outcome] == [
        tuple(encoding["offset_mapping"][place]) for place in inner
    ]
    for one, place in zip(reply.outcome, inner, strict=True):
        scores = heads.softmax(best[place][1])
        assert one.score == pytest.approx(scores.max(), abs=1e-4)
        assert scores[LABELS.index(one.label)] == pytest.approx(scores.max(), abs=1e-4)


@pytest.mark.parametrize("aggregation", ["none", "simple", "max"])
def test_many_tokens_are_divided_into_small_parts(
    tagger: Served, monkeypatch: pytest.MonkeyPatch, aggregation: Aggregation
) -> None:
    """Whatever is found in them, so that no part holds others up for long."""
    parts: list[int] = []
    real = Conclusions._steps

    def steps(*given: Any) -> Steps[None]:
        made = real(*given)
        value, count = counted(made)
        parts.append(count)
        yield
        return value

    monkeypatch.setattr(Conclusions, "_steps", steps)
    text, encoding = long_enough(tagger, 3_000)
    for outside in (False, True):
        asked = tagging.tag(
            tagger.model,
            texts_of([text]),
            Fit("window"),
            aggregation=aggregation,
            include_outside=outside,
        )
        tagger.ask(asked)
        assert sum(parts) > len(encoding["input_ids"]) / 64
        parts.clear()
