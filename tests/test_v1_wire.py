"""Every RPC of bertd.v1 over real gRPC, in Korean and English, one server for each task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc, models_pb2, models_pb2_grpc
from conftest import RunningServer
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from served import ENTITIES, INFERENCE, OF_TASK, export_tiny, quick
from tokenizers import Tokenizer

TEXTS = ["The cat sat 🙂 on a mat.", "서울은 비가 온다 🙂"]
LONG = "the cat " * 400
INVALID, FAILED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


class Servers:
    """A server for each task, started when it is first asked."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._running: dict[Task, tuple[RunningServer, grpc.Channel]] = {}

    def channel(self, task: Task) -> grpc.Channel:
        if task not in self._running:
            _, bundle = export_tiny(self._factory, "bert", task, **OF_TASK[task])
            running = RunningServer(bundle, quick(max_texts_per_call=32))
            self._running[task] = running, grpc.insecure_channel(running.address)
        return self._running[task][1]

    def stub(self, task: Task) -> Any:
        return inference_pb2_grpc.InferenceServiceStub(self.channel(task))

    def tokenizer(self, task: Task) -> Tokenizer:
        self.channel(task)
        return self._running[task][0].server.model.tokenizer

    def stop(self) -> None:
        for running, channel in self._running.values():
            channel.close()
            running.stop()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory)
    yield made
    made.stop()


def same_stretch(text: str, offsets: pb.Offsets) -> str:
    """The stretch of a text, in code points; in bytes it is the same."""
    found = text[offsets.start : offsets.end]
    assert text.encode()[offsets.start_byte : offsets.end_byte].decode() == found
    return found


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
    fit = {"long_text": pb.LONG_TEXT_POLICY_TRUNCATE}
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
        assert "".join(stretches) == text.replace(" ", "")


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
        assert "".join(one.text for one in entities) == text.replace(" ", "")
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
        assert "".join(same_stretch(text, one.offsets) for one in part) == text.replace(" ", "")
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


def test_list_and_get_model(servers: Servers) -> None:
    for task, label in (("fill-mask", None), ("token-classification", "B-PER")):
        known: Task = "fill-mask" if label is None else "token-classification"
        stub: Any = models_pb2_grpc.ModelServiceStub(servers.channel(known))
        (model,) = stub.ListModels(models_pb2.ListModelsRequest()).models
        assert stub.GetModel(models_pb2.GetModelRequest(name=task)).model == model
        assert model.task == task
        assert model.mask_token == ("[MASK]" if label is None else "")
        assert label is None or label in model.labels


WINDOW = {"long_text": pb.LONG_TEXT_POLICY_WINDOW}
CASES: list[tuple[Task, str, Any, grpc.StatusCode, str, str]] = [
    ("fill-mask", "Embed", pb.EmbedRequest(texts=["a"]), FAILED, "", "WRONG_TASK"),
    ("fill-mask", "FillMask", pb.FillMaskRequest(), INVALID, "texts", "EMPTY"),
    (
        "fill-mask", "FillMask", pb.FillMaskRequest(texts=["[MASK]"], top_k=1_001), INVALID,
        "top_k", "OUT_OF_RANGE",
    ),
    (
        "fill-mask", "FillMask", pb.FillMaskRequest(texts=["[MASK]"], **WINDOW), INVALID,
        "long_text", "UNKNOWN_VALUE",
    ),
    (
        "fill-mask", "Detokenize", pb.DetokenizeRequest(sequences=[pb.TokenIds(ids=[1, 10**6])]),
        INVALID, "sequences[0].ids[1]", "OUT_OF_RANGE",
    ),
    (
        "fill-mask", "CountTokens",
        pb.CountTokensRequest(inputs=[pb.TextInput(text="a" * 100_001)]), INVALID,
        "inputs[0].text", "TOO_LONG",
    ),
    (
        "fill-mask", "Tokenize", pb.TokenizeRequest(inputs=[pb.TextInput(text="a" * 99_999)] * 11),
        INVALID, "inputs", "TOO_MANY",
    ),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"] * 33), INVALID,
        "texts", "TOO_MANY",
    ),
    ("feature-extraction", "Embed", pb.EmbedRequest(texts=[LONG]), INVALID, "texts[0]", "TOO_LONG"),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=[LONG], stride=256, **WINDOW), INVALID,
        "stride", "OUT_OF_RANGE",
    ),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"], priority=7), INVALID,
        "priority", "UNKNOWN_VALUE",
    ),
    (
        "feature-extraction", "EmbedTokens", pb.EmbedTokensRequest(texts=["a"], prompt_name="q"),
        INVALID, "prompt_name", "UNKNOWN_VALUE",
    ),
    (
        "text-classification", "Classify",
        pb.ClassifyRequest(inputs=[pb.TextInput(text="a", text_pair="")]), INVALID,
        "inputs[0].text_pair", "EMPTY",
    ),
    (
        "text-classification", "Classify",
        pb.ClassifyRequest(inputs=[pb.TextInput(text="a")], score_function=9), INVALID,
        "score_function", "UNKNOWN_VALUE",
    ),
    (
        "zero-shot-classification", "ZeroShotClassify",
        pb.ZeroShotClassifyRequest(texts=["a"], labels=["b", "b"]), INVALID,
        "labels[1]", "INVALID_INPUT",
    ),
    (
        "zero-shot-classification", "ZeroShotClassify",
        pb.ZeroShotClassifyRequest(texts=["a"], labels=["b"], hypothesis_template="{} {}"), INVALID,
        "hypothesis_template", "INVALID_INPUT",
    ),
    (
        "text-ranking", "Rerank", pb.RerankRequest(query=" ", documents=["a"]), INVALID,
        "query", "EMPTY",
    ),
    (
        "text-ranking", "Rerank",
        pb.RerankRequest(query="a", documents=["b"], score_function=pb.SCORE_FUNCTION_SOFTMAX),
        INVALID, "score_function", "UNKNOWN_VALUE",
    ),
    (
        "token-classification", "TagTokens", pb.TagTokensRequest(texts=["a"], aggregation=17),
        INVALID, "aggregation", "UNKNOWN_VALUE",
    ),
    (
        "question-answering", "Answer",
        pb.AnswerRequest(inputs=[pb.QuestionInput(question="a", context="b")], top_k=21), INVALID,
        "top_k", "OUT_OF_RANGE",
    ),
    (
        "question-answering", "Answer",
        pb.AnswerRequest(
            inputs=[pb.QuestionInput(question="a", context="b")], max_answer_tokens=2**32 - 1
        ),
        INVALID, "max_answer_tokens", "OUT_OF_RANGE",
    ),
    (
        "question-answering", "Answer",
        pb.AnswerRequest(inputs=[pb.QuestionInput(question=LONG, context="b")], **WINDOW), INVALID,
        "inputs[0].question", "TOO_LONG",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "call", "request_", "code", "field", "reason"),
    CASES,
    ids=[f"{case[1]}-{case[4]}-{case[5]}" for case in CASES],
)
def test_what_is_wrong_is_said_by_field_and_reason(  # noqa: PLR0913, PLR0917 - a case
    servers: Servers,
    task: Task,
    call: str,
    request_: Any,
    code: grpc.StatusCode,
    field: str,
    reason: str,
) -> None:
    """The code; ErrorInfo's reason; BadRequest's field."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(servers.stub(task), call)(request_)
    found, info, violations = details(caught.value)
    assert (found, info.reason, info.domain) == (code, reason, "bertd")
    assert [one.field for one in violations] == ([field] if field else [])
    assert ("limit" in info.metadata) == (reason in {"TOO_LONG", "TOO_MANY", "OUT_OF_RANGE"})


def details(error: Any) -> tuple[grpc.StatusCode, Any, list[Any]]:
    status = rpc_status.from_call(error)
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    for detail in status.details[1:]:
        detail.Unpack(bad)
    return error.code(), info, list(bad.field_violations)


def test_an_error_fits_into_trailers_whatever_it_quotes(servers: Servers) -> None:
    """gRPC drops trailers beyond 8 KiB, and the client would see another error."""
    stub = servers.stub("feature-extraction")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=[""] * 32))
    code, _, violations = details(caught.value)
    assert code is INVALID
    assert 8 <= len(violations) <= 32
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=["a"], model="모델" * 50_000))
    code, info, _ = details(caught.value)
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")


@pytest.mark.parametrize(
    "call",
    sorted(
        method.name
        for method in pb.DESCRIPTOR.services_by_name["InferenceService"].methods
        if not method.client_streaming
    ),
)
def test_every_rpc_maps_errors_alike(servers: Servers, call: str) -> None:
    """An unknown model; bytes that are no message."""
    method = pb.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name[call]
    kind = getattr(pb, method.input_type.name)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(servers.stub("feature-extraction"), call)(kind(model="nobody"))
    code, info, _ = details(caught.value)
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    raw: Any = servers.channel("feature-extraction").unary_unary(
        f"/bertd.v1.InferenceService/{call}"
    )
    for body, reason in ((b"\x0a\x03\xed\xa0\x80", "NOT_UNICODE"), (b"\xff", "UNDECODABLE")):
        with pytest.raises(grpc.RpcError) as caught:
            raw(body)
        code, info, _ = details(caught.value)
        assert (code, info.reason) == (INVALID, reason)
