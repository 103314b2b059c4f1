"""Every RPC of bertd.v1 over real gRPC, in Korean and English, one server for each task."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import models_pb2, models_pb2_grpc
from helpers.served import ENTITIES, INFERENCE
from helpers.servers import Servers

TEXTS = ["The cat sat 🙂 on a mat.", "서울은 비가 온다 🙂"]
LONG = "the cat " * 400


def same_stretch(text: str, offsets: pb.Offsets) -> str:
    """The stretch of a text, in code points; in bytes it is the same."""
    found = text[offsets.start : offsets.end]
    assert text.encode()[offsets.start_byte : offsets.end_byte].decode() == found
    return found


def joined(text: str, parts: Iterable[Any]) -> str:
    """The stretches of tokens or entities; a syllable of which several are parts once."""
    places = [(one.offsets.start, one.offsets.end) for one in parts if one.offsets.end]
    return "".join(text[start:end] for (start, end), _ in groupby(places))


def check_result(result: Any) -> None:
    """What every success says of how it came about."""
    assert result.tokens.total == result.tokens.read > 2
    assert (result.tokens.truncated, result.tokens.windows) == (0, 1)
    assert result.timings.total_ns > 0
    assert result.batch.tokens > 0


def test_embed(servers: Servers) -> None:
    stub = servers.stub("feature-extraction")
    response = stub.Embed(pb.EmbedRequest(texts=TEXTS))
    assert (response.model, response.dimensions) == ("feature-extraction", 32)
    (streamed,) = stub.EmbedStream(iter([pb.EmbedRequest(texts=TEXTS)]))
    for one, other in zip(response.results, streamed.results, strict=True):
        check_result(one)
        assert np.frombuffer(one.embedding, "<f4").shape == (32,)
        assert one.embedding == other.embedding
    fit: dict[str, Any] = {"long_text": pb.LONG_TEXT_POLICY_TRUNCATE}
    sides = [pb.TRUNCATION_SIDE_LEFT, pb.TRUNCATION_SIDE_RIGHT]
    cut = [
        stub.Embed(pb.EmbedRequest(texts=[f"mat {LONG}"], truncation_side=side, **fit)).results[0]
        for side in sides
    ]
    assert cut[0].embedding != cut[1].embedding
    assert all(one.tokens.truncated == one.tokens.total - 258 == 545 for one in cut)


def test_embed_tokens(servers: Servers) -> None:
    response = servers.stub("feature-extraction").EmbedTokens(pb.EmbedTokensRequest(texts=TEXTS))
    for text, result in zip(TEXTS, response.results, strict=True):
        check_result(result)
        tokens = result.vectors.tokens
        assert len(result.vectors.vectors) == 4 * response.dimensions * len(tokens)
        assert [one.token for one in tokens if one.special] == ["[CLS]", "[SEP]"]
        stretches = [same_stretch(text, one.offsets) for one in tokens]
        assert "🙂" in stretches
        assert joined(text, tokens) == text.replace(" ", "")


def test_classify(servers: Servers) -> None:
    inputs = [pb.TextInput(text=TEXTS[0], text_pair=TEXTS[1]), pb.TextInput(text=TEXTS[1])]
    stub = servers.stub("text-classification")
    for result in stub.Classify(pb.ClassifyRequest(inputs=inputs)).results:
        check_result(result)
        scores = [one.score for one in result.labels.labels]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert {one.label for one in result.labels.labels} == {f"LABEL_{n}" for n in range(4)}
    few = pb.ClassifyRequest(inputs=inputs, top_k=2, score_function=pb.SCORE_FUNCTION_NONE)
    assert [len(one.labels.labels) for one in stub.Classify(few).results] == [2, 2]


def test_zero_shot_classify(servers: Servers) -> None:
    request = pb.ZeroShotClassifyRequest(
        texts=TEXTS, labels=["날씨", "pets"], hypothesis_template="이 글은 {} 이야기다."
    )
    stub = servers.stub("zero-shot-classification")
    for result in stub.ZeroShotClassify(request).results:
        check_result(result)
        assert {one.label for one in result.labels.labels} == {"날씨", "pets"}
        assert sum(one.score for one in result.labels.labels) == pytest.approx(1, abs=1e-5)
    plain = stub.Classify(pb.ClassifyRequest(inputs=[pb.TextInput(text="비", text_pair="rain")]))
    assert {one.label for one in plain.results[0].labels.labels} == set(INFERENCE.values())


def test_rerank(servers: Servers) -> None:
    """Best first; what has an error comes last, and also beyond top_n."""
    documents = [*TEXTS, "a dog", "", TEXTS[0]]
    stub = servers.stub("text-ranking")
    request = pb.RerankRequest(query="고양이 cat", documents=documents)
    results = stub.Rerank(request).results
    assert sorted(one.index for one in results) == list(range(5))
    assert [one.WhichOneof("outcome") for one in results] == ["score"] * 4 + ["error"]
    scores = [one.score for one in results[:4]]
    assert scores == sorted(scores, reverse=True)
    equal = [one.index for one in results if one.index in {0, 4}]
    assert equal == [0, 4]
    request.top_n = 2
    (streamed,) = stub.RerankStream(iter([request]))
    assert [one.index for one in streamed.results] == [*(one.index for one in results[:2]), 3]


def test_tag_tokens(servers: Servers) -> None:
    stub = servers.stub("token-classification")
    request = pb.TagTokensRequest(
        texts=TEXTS, aggregation=pb.AGGREGATION_NONE, include_outside=True
    )
    for text, result in zip(TEXTS, stub.TagTokens(request).results, strict=True):
        check_result(result)
        entities = result.entities.entities
        assert all(same_stretch(text, one.offsets) == one.text for one in entities)
        assert joined(text, entities) == text.replace(" ", "")
        assert {one.label for one in entities} <= set(ENTITIES.values())


def test_answer(servers: Servers) -> None:
    inputs = [
        pb.QuestionInput(question="Where?", context=TEXTS[0]),
        pb.QuestionInput(question="어디에?", context=TEXTS[1]),
    ]
    request = pb.AnswerRequest(inputs=inputs, top_k=20, allow_no_answer=True)
    results = servers.stub("question-answering").Answer(request).results
    for given, result in zip(inputs, results, strict=True):
        check_result(result)
        spans = result.spans.spans
        assert len(spans) == 20
        assert all(same_stretch(given.context, one.offsets) == one.text for one in spans)
        assert all(one.text or one.no_answer for one in spans)


def test_fill_mask(servers: Servers) -> None:
    texts = ["The [MASK] sat 🙂 on a [MASK].", "서울은 [MASK]이다 🙂"]
    request = pb.FillMaskRequest(texts=[*texts, "no mask"], top_k=3)
    *results, refused = servers.stub("fill-mask").FillMask(request).results
    assert "write [MASK] where" in refused.error.message
    for text, result in zip(texts, results, strict=True):
        check_result(result)
        assert len(result.masks.masks) == text.count("[MASK]")
        for mask in result.masks.masks:
            assert same_stretch(text, mask.offsets) == "[MASK]"
            for one in mask.candidates:
                before, after = text[: mask.offsets.start], text[mask.offsets.end :]
                assert one.sequence == before + one.text + after


def test_tokenize_detokenize_and_count(servers: Servers) -> None:
    """Empty texts have tokens too, or none; a pair's offsets are of its own texts."""
    stub = servers.stub("fill-mask")
    inputs = [
        pb.TextInput(text=TEXTS[0], text_pair=TEXTS[1]),
        pb.TextInput(text=""),
        pb.TextInput(text="é " * 1_500),
    ]
    results = stub.Tokenize(pb.TokenizeRequest(inputs=inputs)).results
    counts = stub.CountTokens(pb.CountTokensRequest(inputs=inputs))
    assert [len(one.tokens) for one in results] == list(counts.counts)
    assert counts.max_tokens == 258
    assert [one.token for one in results[1].tokens] == ["[CLS]", "[SEP]"]
    second = [one.token for one in results[0].tokens].index("[SEP]")
    for text, part in zip(
        TEXTS, (results[0].tokens[:second], results[0].tokens[second:]), strict=True
    ):
        assert all(same_stretch(text, one.offsets) for one in part if not one.special)
        assert joined(text, part) == text.replace(" ", "")
    bare = stub.Tokenize(pb.TokenizeRequest(inputs=inputs[:2], without_special_tokens=True)).results
    assert not any(one.special for one in bare[0].tokens)
    assert not bare[1].tokens
    ids = [pb.TokenIds(ids=[token.id for token in one.tokens]) for one in results]
    tokenizer = servers.tokenizer("fill-mask")
    for special in (False, True):
        request = pb.DetokenizeRequest(sequences=ids, with_special_tokens=special)
        assert list(stub.Detokenize(request).texts) == tokenizer.decode_batch(
            [list(one.ids) for one in ids], skip_special_tokens=not special
        )


def test_an_input_without_tokens_does_not_cost_its_neighbours_theirs(servers: Servers) -> None:
    """Each has its status: as a result, or by its index; a call without any answer fails."""
    stub = servers.stub("fill-mask")
    inputs = [pb.TextInput(text=text) for text in ("", "a" * 100_001, "The cat")]
    results = stub.Tokenize(pb.TokenizeRequest(inputs=inputs)).results
    assert [len(one.tokens) for one in results] == [2, 0, 4]
    assert [one.HasField("error") for one in results] == [False, True, False]
    counted = stub.CountTokens(pb.CountTokensRequest(inputs=inputs))
    assert list(counted.counts) == [2, 0, 4]
    ids = [[], [1, 10**6], [one.id for one in results[2].tokens], [1] * 100_001]
    sequences = [pb.TokenIds(ids=each) for each in ids]
    written = stub.Detokenize(pb.DetokenizeRequest(sequences=sequences))
    assert [bool(text) for text in written.texts] == [False, False, True, False]
    assert list(counted.errors) == [1]
    assert list(written.errors) == [1, 3]
    assert "sequences[3] has 100001 ids" in written.errors[3].message
    for status, words in (
        (results[1].error, "inputs[1].text has 100001 characters"),
        (counted.errors[1], "inputs[1].text has 100001 characters"),
        (written.errors[1], "sequences[1].ids[1] is 1000000"),
    ):
        assert status.code == 3  # INVALID_ARGUMENT
        assert status.message.startswith(words)
        assert len(status.details) == 2


def test_list_and_get_model(servers: Servers) -> None:
    for task, label in (("fill-mask", None), ("token-classification", "B-PER")):
        known: Task = "fill-mask" if label is None else "token-classification"
        stub: Any = models_pb2_grpc.ModelServiceStub(servers.channel(known))
        (model,) = stub.ListModels(models_pb2.ListModelsRequest()).models
        assert stub.GetModel(models_pb2.GetModelRequest(name=task)).model == model
        assert model.task == task
        assert model.mask_token == ("[MASK]" if label is None else "")
        assert label is None or label in model.labels


def test_of_a_long_document_the_query_stays(servers: Servers) -> None:
    """Truncation cuts the document alone, so that the query counts, however long it is."""
    query, document = "the cat " * 60, "rain on the mat " * 60
    stub = servers.stub("text-ranking")

    def score(document: str) -> float:
        asked = pb.RerankRequest(
            query=query, documents=[document], long_text=pb.LONG_TEXT_POLICY_TRUNCATE
        )
        found: float = stub.Rerank(asked).results[0].score
        return found

    assert score(document) == score(document + "the end")
    assert score(document) != score("the end " + document)
