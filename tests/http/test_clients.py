"""Clients that people have, as they come, against a real server: the rows of docs/http.md."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, cast

import cohere
import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from bertd.v1 import inference_pb2 as pb
from helpers.http_served import EMBED, HttpServed
from helpers.v2_served import strings
from huggingface_hub import InferenceClient
from tritonclient.utils import InferenceServerException

TEXTS = ["the cat sat on a mat", "안녕 the dog saw rain"]
RANKED, LABELLED = "text-ranking", "text-classification"


def vectors(served: HttpServed, texts: list[str] = TEXTS) -> np.ndarray[Any, Any]:
    """What gRPC gives, which HTTP must give to the bit."""
    results = served.stub.Embed(pb.EmbedRequest(model=EMBED, texts=texts)).results
    return np.array([np.frombuffer(one.embedding, "<f4") for one in results])


@pytest.fixture
def sdk(served: HttpServed) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_gets_the_bits_of_grpc(sdk: openai.OpenAI, served: HttpServed) -> None:
    """It asks for base64 by itself, and takes floats where it is told to."""
    for form in ({}, {"encoding_format": "float"}):
        made = sdk.embeddings.create(model=EMBED, input=TEXTS, **cast("Any", form))
        found = np.array([one.embedding for one in made.data], np.float32)
        assert np.array_equal(found, vectors(served))
        assert [one.index for one in made.data] == [0, 1]
        assert made.usage.total_tokens == made.usage.prompt_tokens > 0
    short = sdk.embeddings.create(model=EMBED, input=TEXTS[0], dimensions=8)
    assert len(short.data[0].embedding) == 8


def test_openai_lists_models_and_understands_errors(sdk: openai.OpenAI) -> None:
    assert EMBED in [one.id for one in sdk.models.list()]
    assert sdk.models.retrieve(EMBED).id == EMBED
    with pytest.raises(openai.NotFoundError, match="is not served; served:") as unknown:
        sdk.embeddings.create(model="org/other", input="x")
    assert unknown.value.code == "unknown_model"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("org/other")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as ids:
        sdk.embeddings.create(model=EMBED, input=[[5, 6]])
    assert ids.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="at most 8"):
        sdk.embeddings.create(model=EMBED, input=["x"] * 9)


def test_azure_s_openai_client_asks_by_deployment(served: HttpServed) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=served.url, api_key="none", api_version="2024-10-21"
    ) as client:
        made = client.embeddings.create(model=EMBED, input=TEXTS)
    assert np.array_equal(
        np.array([one.embedding for one in made.data], np.float32), vectors(served)
    )


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_ranks(served: HttpServed, version: int) -> None:
    kind = cohere.Client if version == 1 else cohere.ClientV2
    with httpx.Client() as connections:
        rank(served, kind(api_key="none", base_url=served.url, httpx_client=connections))


def rank(served: HttpServed, client: Any) -> None:
    """Ask Cohere's client, and gRPC for the same."""
    found = client.rerank(model=RANKED, query="the cat", documents=TEXTS, top_n=1)
    scores = served.stub.Rerank(
        pb.RerankRequest(
            model=RANKED,
            query="the cat",
            documents=TEXTS,
            score_function=pb.SCORE_FUNCTION_SIGMOID,
        )
    ).results
    assert [(one.index, one.relevance_score) for one in found.results] == [
        (scores[0].index, pytest.approx(scores[0].score))
    ]
    with pytest.raises(cohere.NotFoundError) as unknown:
        client.rerank(model="other", query="x", documents=["y"])
    assert "is not served" in unknown.value.body["message"]


def hub(served: HttpServed, model: str) -> InferenceClient:
    """Hugging Face's client of a model at a URL, which is all of the address."""
    return InferenceClient(model=f"{served.url}/?model={model}")


def test_huggingface_hub_asks_every_task(served: HttpServed) -> None:
    found = hub(served, EMBED).feature_extraction(TEXTS[0], normalize=True)
    lengths = vectors(served)[:1]
    assert np.allclose(found, lengths / np.linalg.norm(lengths), atol=1e-6)
    (cosine,) = hub(served, EMBED).sentence_similarity(TEXTS[0], [TEXTS[0]])
    assert cosine == pytest.approx(1, abs=1e-6)
    labels = hub(served, LABELLED).text_classification(TEXTS[0])
    assert {one.label for one in labels} == {"bad", "so so", "good"}
    assert sum(one.score for one in labels) == pytest.approx(1, abs=1e-5)
    chosen = hub(served, "zero-shot-classification").zero_shot_classification(
        TEXTS[0], candidate_labels=["rain", "the sea"]
    )
    assert {one.label for one in chosen} == {"rain", "the sea"}
    (answer,) = as_list(
        hub(served, "question-answering").question_answering(question="the cat", context=TEXTS[0])
    )
    assert TEXTS[0][answer.start : answer.end] == answer.answer
    tokens = hub(served, "fill-mask").fill_mask("the [MASK] sat", top_k=2)
    assert len(tokens) == 2
    entities = hub(served, "token-classification").token_classification(TEXTS[0])
    assert all(TEXTS[0][one.start : one.end] for one in entities)


def as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_infers(served: HttpServed, compression: Any, binary: bool) -> None:
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    try:
        asked = triton.InferInput("text", [2, 1], "BYTES")
        asked.set_data_from_numpy(np.array([[one.encode()] for one in TEXTS], object), binary)
        wanted = [triton.InferRequestedOutput("sentence_embedding", binary_data=binary)]
        found = client.infer(
            EMBED, [asked], outputs=wanted, request_compression_algorithm=compression
        )
        assert np.array_equal(found.as_numpy("sentence_embedding"), vectors(served))
        everything = client.infer(LABELLED, [asked], request_id="7")
        assert everything.get_response()["id"] == "7"
        assert strings(everything.as_numpy("label"))
    finally:
        client.close()


def test_triton_s_client_looks_around(served: HttpServed) -> None:
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(EMBED)
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "bertd"
        assert client.get_model_metadata(EMBED)["inputs"][0]["name"] == "text"
        assert client.get_model_config(EMBED)["name"] == EMBED
        (stats,) = client.get_inference_statistics(EMBED)["model_stats"]
        assert isinstance(stats["inference_stats"]["fail"]["count"], int)
        assert len(client.get_inference_statistics()["model_stats"]) == 7
        assert {one["name"] for one in client.get_model_repository_index()} >= {EMBED, RANKED}
        with pytest.raises(InferenceServerException, match=r"other.*is not served"):
            client.infer("other", inputs_over_http("x"))
    finally:
        client.close()


def inputs_over_http(text: str) -> list[Any]:
    asked = triton.InferInput("text", [1, 1], "BYTES")
    asked.set_data_from_numpy(np.array([[text.encode()]], object))
    return [asked]


def test_a_plain_client_reads_base64_of_little_endian_floats(served: HttpServed) -> None:
    body = {"input": TEXTS, "encoding_format": "base64"}
    answer = httpx.post(f"{served.url}/embeddings", json=body)
    rows = [base64.b64decode(one["embedding"]) for one in answer.json()["data"]]
    assert np.array_equal(np.array([np.frombuffer(row, "<f4") for row in rows]), vectors(served))
