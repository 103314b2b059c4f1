"""TagTokens against transformers' own pipeline, on the same checkpoint and texts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from bertd import heads
from bertd_server.reading import Fit, texts_of
from bertd_server.tasks import tagging
from bertd_server.tasks.tagging import Aggregation, Entity
from sentences import SENTENCES, long_text
from served import Served, serving
from transformers import pipeline

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
TEXTS = (*SENTENCES, "spelt out: [UNK] and <unk> and [MASK]<mask> there", "unk<unk>unk [UNK]s")


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta"])
def tagger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """WordPiece, byte-level BPE and Unigram: each finds words in a way of its own."""
    named = dict(enumerate(LABELS))
    folder = tmp_path_factory.mktemp("tagger")
    with serving(folder, request.param, "token-classification", id2label=named) as served:
        yield served


@pytest.fixture(scope="module")
def theirs(tagger: Served) -> Any:
    make: Any = pipeline
    return make(
        "token-classification",
        model=tagger.eager,
        tokenizer=tagger.tokenizer,
        device="cpu",
    )


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
@pytest.mark.parametrize("outside", [False, True])
def test_entities_are_those_of_transformers(
    tagger: Served, theirs: Any, aggregation: Aggregation, *, outside: bool
) -> None:
    """Label, word, start and end exactly; scores to 1e-4."""
    ours = tagger.ask(
        tagging.tag(
            tagger.model, texts_of(TEXTS), aggregation=aggregation, include_outside=outside
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it tells that BPE knows no words
        expected = theirs(
            list(TEXTS), aggregation_strategy=aggregation, ignore_labels=[] if outside else ["O"]
        )
    compared = 0
    for text, mine, reference in zip(TEXTS, ours, expected, strict=True):
        assert [plain(one) for one in mine] == [
            (one.get("entity_group", one.get("entity")), one["word"], one["start"], one["end"])
            for one in reference
        ], text
        scores = [one.score for one in mine]
        np.testing.assert_allclose(scores, [one["score"] for one in reference], rtol=0, atol=1e-4)
        compared += len(mine)
    assert compared > len(TEXTS)


def plain(entity: Entity) -> tuple[str, str, int, int]:
    return entity.label, entity.word, entity.start, entity.end
