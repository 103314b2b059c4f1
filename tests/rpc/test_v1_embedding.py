"""Embed and EmbedTokens against AutoModel, and the windows of long texts against their rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_server.tasks import embedding
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.running import RunningServer
from helpers.sentences import SENTENCES
from helpers.served import Served, long_enough, serving

WORDS = ("house", "river", "cat", "music", "seven", "winter", "road", "paper", "green")
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(
    scope="module", params=["bert", pytest.param("xlm-roberta", marks=pytest.mark.slow)]
)
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with serving(tmp_path_factory, request.param, "feature-extraction") as served:
        yield served


def test_vectors_are_those_of_the_model(encoder: Served) -> None:
    """50 texts: each token's vector, and the mean of them."""
    tokens = encoder.ask(embedding.embed_tokens(encoder.model, texts_of(SENTENCES)))
    vectors = encoder.ask(embedding.embed(encoder.model, texts_of(SENTENCES)))
    for text, each, vector in zip(SENTENCES, tokens, vectors, strict=True):
        encoding = encoder.tokenizer(text, return_offsets_mapping=True)
        ids = encoding["input_ids"]
        expected = encoder.forward(ids, [0] * len(ids))["last_hidden_state"]
        np.testing.assert_allclose(each.vectors, expected, **TOLERANCE)
        np.testing.assert_allclose(vector, expected.mean(axis=0), **TOLERANCE)
        assert [one.id for one in each.tokens] == ids
        assert [one.token for one in each.tokens] == encoder.tokenizer.convert_ids_to_tokens(ids)
        assert [(one.start, one.end) for one in each.tokens] == encoding["offset_mapping"]


@pytest.mark.parametrize("stride", [0, 60])
def test_windows_of_a_long_text_are_merged(encoder: Served, stride: int) -> None:
    """3,000 tokens: the weighted mean of windows, and each token with more context."""
    text, encoding = long_enough(encoder, 3_000)
    ids = encoding["input_ids"]
    room = encoder.model.manifest.max_tokens - 2
    mean, weight = np.zeros(32), 0
    best: dict[int, tuple[int, np.ndarray]] = {}
    begin = windows = 0
    while True:
        places = [0, *range(1 + begin, min(1 + begin + room, len(ids) - 1)), len(ids) - 1]
        hidden = encoder.forward([ids[place] for place in places], [0] * len(places))
        rows = hidden["last_hidden_state"]
        news = sum(place not in best for place in places)
        mean, weight = mean + news * rows.mean(axis=0), weight + news
        for row, place in enumerate(places):
            context = min(row, len(places) - 1 - row)
            if place not in best or context > best[place][0]:
                best[place] = (context, rows[row])
        windows += 1
        if places[-2] == len(ids) - 2:
            break
        begin += room - stride
    fit = Fit("window", stride=stride)
    (reply,) = encoder.runner.run(embedding.embed(encoder.model, texts_of([text]), fit))
    assert (reply.windows, reply.read, weight) == (windows, len(ids), len(ids))
    assert isinstance(reply.outcome, np.ndarray)
    np.testing.assert_allclose(reply.outcome, mean / weight, **TOLERANCE)
    (each,) = encoder.ask(embedding.embed_tokens(encoder.model, texts_of([text]), fit))
    assert [one.id for one in each.tokens] == ids
    expected = np.stack([best[place][1] for place in range(len(ids))])
    np.testing.assert_allclose(each.vectors, expected, **TOLERANCE)


def test_windows_of_a_model_that_normalises_make_a_vector_of_length_one(
    server: RunningServer,
) -> None:
    """The real model. Each word is one token, so that each window is a text of its own, too."""
    words = [WORDS[(number * number + number // 5) % len(WORDS)] for number in range(600)]
    stride, room = 54, 254
    parts = [words[begin : begin + room] for begin in range(0, 600 - stride, room - stride)]
    request = pb.EmbedRequest(
        texts=[" ".join(words)], long_text=pb.LONG_TEXT_POLICY_WINDOW, stride=stride
    )
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        (result,) = stub.Embed(request).results
        alone = stub.Embed(pb.EmbedRequest(texts=map(" ".join, parts))).results
    assert [one.tokens.read for one in alone] == [len(part) + 2 for part in parts]
    assert (result.tokens.windows, result.tokens.read) == (len(parts), 602)
    vectors = np.stack([np.frombuffer(one.embedding, "<f4") for one in alone])
    news = [256, *(len(part) - stride for part in parts[1:])]
    mean = np.average(vectors, axis=0, weights=news)
    vector = np.frombuffer(result.embedding, "<f4")
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=0, atol=1e-6)
