"""A real server of the real model, asked by a real client."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import AsyncClient, Client, Embedding
from bertd_client.errors import DeadlineExceeded, InvalidArgument, NotFound
from bertd_server.engine.engine import Engine
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from helpers.patience import PATIENCE
from helpers.running import RunningServer
from helpers.sentences import SENTENCES as ODD
from sentence_transformers import SentenceTransformer

SENTENCES = (
    "The parcel arrived two days late, but nothing in it was broken.",
    "배송이 이틀 늦었지만 상품은 멀쩡했습니다.",
    "안녕하세요, 오늘 기분이 어떠세요?",
    "Der Zug nach Bremen fährt heute von Gleis sieben ab.",
    "Le musée est fermé le mardi, sauf pendant les vacances.",
    "図書館は駅から歩いて五分です。",
    "这家餐厅的面条非常好吃。",
    "Поезд отправляется завтра рано утром.",
    "ok",
    "🙂 naïve café — e\u0301",
)


def texts(count: int) -> list[str]:
    """Different texts of several languages and of 1 to about 250 tokens."""
    rng = random.Random(7)
    return [
        " ".join(rng.choices(SENTENCES, k=1 + index % 5)) + f" {index}" for index in range(count)
    ]


@pytest.mark.slow  # an article's vectors are compared in tests/client, and each export's
def test_vectors_agree_with_sentence_transformers(client: Client, checkpoint: Path) -> None:
    """200 texts, 50 of them odd: cosine at least 0.99999, absolute difference at most 1e-5."""
    asked = [*texts(150), *ODD]
    ours = np.concatenate(
        [client.embed(asked[i : i + 50], long_text="truncate") for i in range(0, 200, 50)]
    )
    theirs = np.asarray(SentenceTransformer(str(checkpoint), device="cpu").encode(asked))
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1e-5
    assert (ours * theirs).sum(axis=1).min() >= 0.99999


def test_a_text_has_the_same_bits_alone_and_in_any_batch(client: Client) -> None:
    """Each text alone, then in random batches of up to 64."""
    asked = texts(100)
    alone = [client.embed([text], long_text="truncate")[0] for text in asked]
    rng = random.Random(3)
    for _ in range(8):
        chosen = rng.sample(range(len(asked)), rng.randint(2, 64))
        together = client.embed([asked[i] for i in chosen], long_text="truncate")
        for vector, index in zip(together, chosen, strict=True):
            assert vector.tobytes() == alone[index].tobytes()


async def test_concurrent_calls_share_a_batch_and_keep_their_answers(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that wait together are batched, and each gets its own vector."""
    asked = texts(40)
    gate, compute = threading.Event(), Engine.answer

    def gated(*given: Any, **options: Any) -> Any:
        if threading.current_thread().name == "bertd-lane":  # the first may run on the event loop
            assert gate.wait(PATIENCE)
        return compute(*given, **options)

    async with AsyncClient(server.address) as client:
        alone = [(await client.embed([text]))[0] for text in asked]
        monkeypatch.setattr(Engine, "answer", gated)
        together = asyncio.gather(*(client.embed_each([text]) for text in asked))
        while server.server.model.gauges().waiting < 8:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        gate.set()
        answers = await together
    sizes = []
    for answer, expected in zip(answers, alone, strict=True):
        assert isinstance(answer[0], Embedding)
        assert answer[0].vector.tobytes() == expected.tobytes()
        sizes.append(answer[0].batch_sequences)
    assert max(sizes) > 1


def test_one_bad_text_does_not_cost_its_neighbours_their_answers(client: Client) -> None:
    """An empty and an over-long text have errors of their own."""
    good, empty, long = client.embed_each(["good", "  ", "word " * 600])
    assert isinstance(good, Embedding)
    assert good.tokens == 3
    assert isinstance(empty, InvalidArgument)
    assert "texts[1] is empty" in empty.message
    assert isinstance(long, InvalidArgument)
    assert "602 tokens" in long.message
    assert "at most 256" in long.message


def test_a_refused_text_still_says_how_many_tokens_it_has(server: RunningServer) -> None:
    """TokenUsage of an error: the known total, nothing read, nothing cut."""
    request = inference_pb2.EmbedRequest(texts=["good", "word " * 600, ""])
    with grpc.insecure_channel(server.address) as channel:
        results = inference_pb2_grpc.InferenceServiceStub(channel).Embed(request).results
    usages = [(r.tokens.total, r.tokens.read, r.tokens.truncated) for r in results]
    assert usages == [(3, 3, 0), (602, 0, 0), (2, 0, 0)]
    assert [r.WhichOneof("outcome") for r in results] == ["embedding", "error", "error"]


def test_truncation_is_done_on_request_and_said(client: Client) -> None:
    """A truncated text counts what was cut, and equals the text cut by hand."""
    (answer,) = client.embed_each(["word " * 600], long_text="truncate")
    assert isinstance(answer, Embedding)
    assert (answer.tokens, answer.truncated_tokens) == (256, 346)
    assert answer.vector.tobytes() == client.embed(["word " * 254])[0].tobytes()


def test_one_text_of_megabytes_costs_nobody_anything(client: Client) -> None:
    """It is refused before it is tokenised, also where it is to be truncated."""
    good, huge = client.embed_each(["good", "word " * 500_000], long_text="truncate")
    assert isinstance(good, Embedding)
    assert isinstance(huge, InvalidArgument)
    assert "texts[1] has 2500000 characters, the server reads at most 100000" in huge.message
    assert huge.violations[0].field == "texts[1]"


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ([], "texts", "at least one"),
        ([""], "texts[0]", "is empty"),
    ],
)
def test_a_bad_call_names_the_field_and_the_remedy(
    client: Client, asked: list[str], field: str, words: str
) -> None:
    """INVALID_ARGUMENT with a field violation."""
    with pytest.raises(InvalidArgument, match=words) as caught:
        client.embed(asked)
    assert caught.value.violations[0].field == field


def test_a_call_with_too_many_texts_says_how_many_it_takes(server: RunningServer) -> None:
    """Which our own client then splits."""
    request = inference_pb2.EmbedRequest(texts=["a"] * 65)
    with grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            inference_pb2_grpc.InferenceServiceStub(channel).Embed(request)
        assert "at most 64" in (caught.value.details() or "")
    with Client(server.address) as client:
        assert len(client.embed(request.texts)) == 65


def test_an_unknown_model_or_prompt_is_named_with_what_there_is(client: Client) -> None:
    """NOT_FOUND and INVALID_ARGUMENT list the alternatives."""
    with pytest.raises(NotFound, match="served: minilm"):
        client.embed(["a"], model="nobody")
    with pytest.raises(InvalidArgument, match="prompt_name 'query' is not a prompt"):
        client.embed(["a"], prompt_name="query")


def test_bytes_that_are_no_utf8_are_the_callers_fault(server: RunningServer) -> None:
    """A message with invalid UTF-8 gets INVALID_ARGUMENT that names the field."""
    body = b"\x12\x02ok" + b"\x12\x02\xff\xfe"
    with grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/bertd.v1.InferenceService/Embed"
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(body)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "texts[1]" in (caught.value.details() or "")


def test_a_deadline_that_has_no_time_left_is_honoured(client: Client) -> None:
    """DEADLINE_EXCEEDED rather than a late answer."""
    with pytest.raises(DeadlineExceeded, match=r"timeout|deadline"):
        client.embed(["word " * 250] * 64, timeout=0.005)


def test_health_models_and_reflection(server: RunningServer, client: Client) -> None:
    """What a load balancer, a client and grpcurl ask for."""
    (model,) = client.list_models()
    assert (model.name, model.dimensions, model.max_tokens) == ("minilm", 384, 256)
    assert client.get_model() == model
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(service="bertd.v1.InferenceService"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match=r"served: bertd\.v1\.InferenceService") as caught:
            check(health_pb2.HealthCheckRequest(service="nobody" * 10_000))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert "bertd.v1.InferenceService" in services
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        reply = stub.Embed(inference_pb2.EmbedRequest(texts=["hello"]))
        assert reply.results[0].timings.compute_ns > 0
