"""tei.v1, driven by a client that was generated afresh from the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from bertd import bundle
from bertd.tei.v1 import tei_pb2
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_server.engine import engine as engines
from bertd_server.engine.engine import Engine
from bertd_server.tokenization.reader import Reader
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from helpers.fresh_tei import FreshClient
from helpers.running import RunningServer
from helpers.tei_served import LONG, Served, good
from sentence_transformers import CrossEncoder

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11 w12", "w1 안녕 w2 🙂 w3"]
PAIRS = [("w1 w2", "w3 w4 w5"), ("w6", "w7"), ("w8 w9 w10", LONG), (LONG, LONG)]

# Names and numbers of text-embeddings-inference's own contract.
PUBLIC = """
InfoRequest
InfoResponse version=1 sha=2 docker_label=3 model_id=4 model_sha=5 model_dtype=6 model_type=7
  max_concurrent_requests=8 max_input_length=9 max_batch_tokens=10 max_batch_requests=11
  max_client_batch_size=12 tokenization_workers=13
Metadata compute_chars=1 compute_tokens=2 total_time_ns=3 tokenization_time_ns=4 queue_time_ns=5
  inference_time_ns=6
EmbedRequest inputs=1 truncate=2 normalize=3 truncation_direction=4 prompt_name=5 dimensions=6
EmbedResponse embeddings=1 metadata=2
EmbedSparseRequest inputs=1 truncate=2 truncation_direction=3 prompt_name=4
SparseValue index=1 value=2
EmbedSparseResponse sparse_embeddings=1 metadata=2
EmbedAllRequest inputs=1 truncate=2 truncation_direction=3 prompt_name=4
TokenEmbedding embeddings=1
EmbedAllResponse token_embeddings=1 metadata=2
PredictRequest inputs=1 truncate=2 raw_scores=3 truncation_direction=4
PredictPairRequest inputs=1 truncate=2 raw_scores=3 truncation_direction=4
Prediction score=1 label=2
PredictResponse predictions=1 metadata=2
RerankRequest query=1 texts=2 truncate=3 raw_scores=4 return_text=5 truncation_direction=6
RerankStreamRequest query=1 text=2 truncate=3 raw_scores=4 return_text=5 truncation_direction=6
Rank index=1 text=2 score=3
RerankResponse ranks=1 metadata=2
EncodeRequest inputs=1 add_special_tokens=2 prompt_name=3
SimpleToken id=1 text=2 special=3 start=4 stop=5
EncodeResponse tokens=1
DecodeRequest ids=1 skip_special_tokens=2
DecodeResponse text=1
"""


@pytest.fixture
def embedder(tei: Callable[[str], Served]) -> Served:
    return tei("embedder")


@pytest.fixture
def classifier(tei: Callable[[str], Served]) -> Served:
    return tei("classifier")


@pytest.fixture
def ranker(tei: Callable[[str], Served]) -> Served:
    return tei("ranker")


@pytest.fixture
def filler(tei: Callable[[str], Served]) -> Served:
    return tei("filler")


def floats(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_names_and_numbers_are_the_public_contracts() -> None:
    found = [
        [name, *(f"{field.name}={field.number}" for field in message.fields)]
        for name, message in tei_pb2.DESCRIPTOR.message_types_by_name.items()
    ]
    wanted = [line.split() for line in PUBLIC.strip().replace("\n  ", " ").splitlines()]
    assert sorted(found) == sorted(wanted)
    calls = {
        f"{service.name}.{method.name}": (method.client_streaming, method.server_streaming)
        for service in tei_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert calls.pop("Rerank.RerankStream") == (True, False)
    assert len(calls) == 16
    for path, streams in calls.items():
        assert streams == (path.endswith("Stream"),) * 2


def test_vectors_are_those_of_bertd_v1_bit_for_bit(fresh: FreshClient, embedder: Served) -> None:
    with grpc.insecure_channel(embedder.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        vectors = [
            np.frombuffer(one.embedding, "<f4")
            for one in stub.Embed(inference_pb2.EmbedRequest(texts=TEXTS)).results
        ]
        of_tokens = [
            np.frombuffer(one.vectors.vectors, "<f4").reshape(-1, embedder.manifest.hidden_size)
            for one in stub.EmbedTokens(inference_pb2.EmbedTokensRequest(texts=TEXTS)).results
        ]
    requests = [{"inputs": text} for text in TEXTS]
    streamed = good(fresh(embedder.address, "Embed.EmbedStream", *requests))
    for request, answer, vector in zip(requests, streamed, vectors, strict=True):
        (alone,) = good(fresh(embedder.address, "Embed.Embed", request))
        np.testing.assert_array_equal(floats(alone["embeddings"]), vector)
        np.testing.assert_array_equal(floats(answer["embeddings"]), vector)
    streamed = good(fresh(embedder.address, "Embed.EmbedAllStream", *requests))
    for request, answer, rows in zip(requests, streamed, of_tokens, strict=True):
        (alone,) = good(fresh(embedder.address, "Embed.EmbedAll", request))
        for one in (alone, answer):
            found = [floats(token["embeddings"]) for token in one["token_embeddings"]]
            np.testing.assert_array_equal(np.stack(found), rows)


def test_length_and_dimensions_of_a_vector(fresh: FreshClient, embedder: Served) -> None:
    """A bundle that does not normalise does so on request, after the cut."""

    def embed(**options: Any) -> np.ndarray:
        (one,) = good(fresh(embedder.address, "Embed.Embed", {"inputs": TEXTS[0], **options}))
        return floats(one["embeddings"])

    plain = embed()
    assert abs(np.linalg.norm(plain) - 1) > 0.1
    np.testing.assert_allclose(embed(normalize=True), plain / np.linalg.norm(plain), rtol=1e-6)
    np.testing.assert_array_equal(embed(dimensions=8), plain[:8])
    cut = embed(dimensions=8, normalize=True)
    np.testing.assert_allclose(cut, plain[:8] / np.linalg.norm(plain[:8]), rtol=1e-6)


def test_a_bundle_that_normalises_does_so_in_any_case(
    fresh: FreshClient, server: RunningServer
) -> None:
    """What it has divided by is gone; asking for it changes no bit."""
    asked, unasked = (
        good(fresh(server.address, "Embed.Embed", {"inputs": "a cat", "normalize": normalize}))[0]
        for normalize in (True, False)
    )
    assert asked["embeddings"] == unasked["embeddings"]
    assert np.linalg.norm(asked["embeddings"]) == pytest.approx(1, abs=1e-6)


def test_an_answer_says_how_it_came_about(fresh: FreshClient, embedder: Served) -> None:
    heard = fresh(embedder.address, "Embed.Embed", {"inputs": TEXTS[3]})
    (answer,) = good(heard)
    metadata = {name: int(value) for name, value in answer["metadata"].items()}
    assert metadata["compute_chars"] == len(TEXTS[3])
    assert metadata["compute_tokens"] == 7
    assert metadata["inference_time_ns"] > 0
    stages = ("tokenization_time_ns", "queue_time_ns", "inference_time_ns")
    assert metadata["total_time_ns"] >= sum(metadata[stage] for stage in stages)
    assert heard.headers["x-compute-tokens"] == "7"
    assert heard.headers["x-total-time"] == str(metadata["total_time_ns"] // 1_000_000)


@pytest.mark.parametrize("cut", ["right", "left"])
def test_labels_are_those_of_pytorch(fresh: FreshClient, classifier: Served, cut: str) -> None:
    names = classifier.manifest.labels
    options = {"truncate": True, "truncation_direction": f"TRUNCATION_DIRECTION_{cut.upper()}"}

    def compare(answer: dict[str, Any], logits: np.ndarray, *, raw: bool) -> None:
        powers = np.exp(logits - logits.max())
        scores = logits if raw else powers / powers.sum()
        best = np.argsort(-scores)
        found = answer["predictions"]
        assert [one["label"] for one in found] == [names[place] for place in best]
        np.testing.assert_allclose([one["score"] for one in found], scores[best], atol=1e-4)

    for raw in (False, True):
        given = {**options, "raw_scores": raw}
        singles: list[dict[str, Any]] = [{"inputs": text, **given} for text in (*TEXTS, LONG)]
        pairs: list[dict[str, Any]] = [{"inputs": pair, **given} for pair in (*PAIRS, [TEXTS[0]])]
        for path, requests in (("Predict", singles), ("PredictPair", pairs)):
            streamed = good(fresh(classifier.address, f"Predict.{path}Stream", *requests))
            (alone,) = good(fresh(classifier.address, f"Predict.{path}", requests[0]))
            assert alone["predictions"] == streamed[0]["predictions"]
            for request, answer in zip(requests, streamed, strict=True):
                texts = request["inputs"]
                parts = [texts] if isinstance(texts, str) else texts
                compare(answer, classifier.logits(*parts, cut=cut), raw=raw)


def test_ranks_are_those_of_a_cross_encoder(fresh: FreshClient, ranker: Served) -> None:
    encoder: Any = CrossEncoder(str(ranker.checkpoint), max_length=ranker.manifest.max_tokens)
    query, texts = "w1 w2", ["w3 w4", "w5", LONG, ""]
    requests = [{"query": query, "text": text, "truncate": True} for text in texts]
    for raw in (False, True):
        activation = torch.nn.Identity() if raw else torch.nn.Sigmoid()
        pairs = [(query, text) for text in texts]
        scores = encoder.predict(pairs, activation_fn=activation, show_progress_bar=False)
        options = {"raw_scores": raw, "return_text": True}
        (whole,) = good(
            fresh(
                ranker.address,
                "Rerank.Rerank",
                {"query": query, "texts": texts, "truncate": True, **options},
            )
        )
        # Of a stream, the first request's choices count.
        (streamed,) = good(
            fresh(ranker.address, "Rerank.RerankStream", {**requests[0], **options}, *requests[1:])
        )
        for answer in (whole, streamed):
            best = [rank["index"] for rank in answer["ranks"]]
            assert best == np.argsort(-scores).tolist()
            found = [rank["score"] for rank in answer["ranks"]]
            np.testing.assert_allclose(found, scores[best], rtol=0, atol=1e-4)
            assert [rank["text"] for rank in answer["ranks"]] == [texts[place] for place in best]
            characters = int(answer["metadata"]["compute_chars"])
            assert characters == sum(len(query) + len(text) for text in texts)
    (plain,) = good(fresh(ranker.address, "Rerank.RerankStream", *requests))
    assert not any("text" in rank for rank in plain["ranks"])


def test_a_ranker_predicts_too(fresh: FreshClient, ranker: Served) -> None:
    request = {"inputs": ["w1", "w2"], "raw_scores": True}
    (answer,) = good(fresh(ranker.address, "Predict.PredictPair", request))
    (prediction,) = answer["predictions"]
    assert prediction["score"] == pytest.approx(float(ranker.logits("w1", "w2")[0]), abs=1e-4)
    assert prediction["label"] == "LABEL_0"


def test_sparse_weights_are_splades(fresh: FreshClient, filler: Served) -> None:
    """log(1 + relu(logits)), the largest over all tokens; the same bits alone and in a stream."""
    requests: list[dict[str, Any]] = [{"inputs": text, "truncate": True} for text in (*TEXTS, LONG)]
    streamed = good(fresh(filler.address, "Embed.EmbedSparseStream", *requests))
    for request, answer in zip(requests, streamed, strict=True):
        logits = filler.logits(request["inputs"])
        expected = np.log1p(np.maximum(logits, 0)).max(axis=0)
        found = np.zeros_like(expected)
        for one in answer["sparse_embeddings"]:
            found[one["index"]] = one["value"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert 0 < len(answer["sparse_embeddings"]) < len(expected)
        assert all(one["value"] > 0 for one in answer["sparse_embeddings"])
        (alone,) = good(fresh(filler.address, "Embed.EmbedSparse", request))
        assert alone["sparse_embeddings"] == answer["sparse_embeddings"]


@pytest.mark.parametrize("most", [engines.MOST_LOGITS, 0])
def test_sparse_weights_and_masks_share_a_batch(
    filler: Served, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Each has what it has alone, bit for bit, also in several runs; pooled, it is one row.

    So it is where each run has its memory given back.
    """
    monkeypatch.setattr(engines, "MOST_LOGITS", most)
    monkeypatch.setattr(engines, "LEAST_POOLED", min(most, engines.LEAST_POOLED))
    monkeypatch.setattr(engines, "KEPT_LOGITS", min(most, engines.KEPT_LOGITS))
    engine = Engine(filler.bundle, filler.manifest)
    reader = Reader.of(filler.bundle, filler.manifest)
    texts = reader.sequences(["w1 [MASK] w2 [MASK]", "w3", "[MASK] w4 w5 w6"])
    names = [bundle.LOGITS, bundle.SPARSE_EMBEDDING]
    for text, together in zip(texts, engine.answer(texts, names), strict=True):
        (masks,) = engine.answer([text], [bundle.LOGITS])
        (weights,) = engine.answer([text], [bundle.SPARSE_EMBEDDING])
        np.testing.assert_array_equal(together[bundle.LOGITS], masks[bundle.LOGITS])
        weighed = together[bundle.SPARSE_EMBEDDING]
        np.testing.assert_array_equal(weighed, weights[bundle.SPARSE_EMBEDDING])
        assert weighed.shape == (1, filler.manifest.vocab_size)


def test_tokens_have_bytes_for_places(fresh: FreshClient, embedder: Served) -> None:
    text = TEXTS[3]
    requests = [
        {"inputs": text, "add_special_tokens": True},
        {"inputs": text, "add_special_tokens": False},
    ]
    whole, bare = good(fresh(embedder.address, "Tokenize.TokenizeStream", *requests))
    assert good(fresh(embedder.address, "Tokenize.Tokenize", requests[0])) == [whole]
    assert whole["tokens"][1:-1] == bare["tokens"]
    assert [one["text"] for one in whole["tokens"]] == ["[CLS]", *text.split(), "[SEP]"]
    assert whole["tokens"][0] == {"id": 2, "text": "[CLS]", "special": True}
    for one in bare["tokens"]:
        assert text.encode()[one["start"] : one["stop"]].decode() == one["text"]
    ids = [one["id"] for one in whole["tokens"]]
    decoded = good(
        fresh(
            embedder.address,
            "Tokenize.DecodeStream",
            {"ids": ids},
            {"ids": ids, "skip_special_tokens": True},
        )
    )
    assert decoded[0]["text"] == "[CLS] w1 [UNK] w2 [UNK] w3 [SEP]"
    assert decoded[1]["text"] == embedder.tokenizer.decode(ids, skip_special_tokens=True)
    assert good(fresh(embedder.address, "Tokenize.Decode", {"ids": ids})) == [decoded[0]]


def test_a_space_is_read_as_the_protocols_server_reads_it(
    fresh: FreshClient, embedder: Served
) -> None:
    (answer,) = good(fresh(embedder.address, "Embed.Embed", {"inputs": " "}))
    assert answer["metadata"]["compute_tokens"] == 2


def test_info_health_and_reflection(
    fresh: FreshClient, embedder: Served, classifier: Served, ranker: Served, filler: Served
) -> None:
    """A service that the model has no answers for is NOT_SERVING, as with the original."""
    expected = [
        (embedder, "MODEL_TYPE_EMBEDDING", {"Embed"}),
        (classifier, "MODEL_TYPE_CLASSIFIER", {"Predict"}),
        (ranker, "MODEL_TYPE_RERANKER", {"Predict", "Rerank"}),
        (filler, "MODEL_TYPE_EMBEDDING", {"Embed"}),
    ]
    for served, kind, answered in expected:
        (info,) = good(fresh(served.address, "Info.Info", {}))
        assert (info["model_type"], info["model_dtype"]) == (kind, "float32")
        assert info["model_id"] == served.manifest.name
        assert info["max_input_length"] == served.manifest.max_tokens
        assert info["max_client_batch_size"] == 4
        with grpc.insecure_channel(served.address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("Info", "Tokenize", "Embed", "Predict", "Rerank"):
                request = health_pb2.HealthCheckRequest(service=f"tei.v1.{name}")
                serving = name in answered | {"Info", "Tokenize"}
                status = health_pb2.HealthCheckResponse
                wanted = status.SERVING if serving else status.NOT_SERVING
                assert health.Check(request).status == wanted
    with grpc.insecure_channel(embedder.address) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {f"tei.v1.{name}" for name in ("Info", "Embed", "Predict", "Rerank", "Tokenize")} <= set(
        services
    )
