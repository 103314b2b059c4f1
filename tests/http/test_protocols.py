"""Each protocol's fields, defaults, answers and errors, beside what gRPC says of the same."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from bertd.tei.v1 import tei_pb2, tei_pb2_grpc
from bertd.v1 import inference_pb2 as pb
from bertd_server.http.methods import INFERENCE, MODELS, hyphened
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from helpers.http_served import EMBED, HttpServed
from openapi_spec_validator import validate
from tritonclient.utils import InferenceServerException

TEXTS = ["the cat sat on a mat", "a dog"]
LONG = "the cat sat " * 40
REQUESTS: dict[str, dict[str, Any]] = {
    "Embed": {"model": EMBED, "texts": TEXTS},
    "EmbedTokens": {"model": EMBED, "texts": TEXTS},
    "EmbedSparse": {"model": "fill-mask", "texts": TEXTS},
    "Classify": {
        "model": "text-classification",
        "inputs": [{"text": "a cat"}, {"text": "a", "textPair": "b"}],
        "topK": 2,
    },
    "ZeroShotClassify": {
        "model": "zero-shot-classification",
        "texts": TEXTS,
        "labels": ["rain", "the sea"],
    },
    "Rerank": {"model": "text-ranking", "query": "the cat", "documents": TEXTS},
    "TagTokens": {"model": "token-classification", "texts": TEXTS},
    "Answer": {
        "model": "question-answering",
        "inputs": [{"question": "the cat", "context": TEXTS[0]}],
    },
    "FillMask": {"model": "fill-mask", "texts": ["the [MASK] sat"]},
    "Tokenize": {"model": EMBED, "inputs": [{"text": "the cat"}]},
    "Detokenize": {"model": EMBED, "sequences": [{"ids": [5, 6]}]},
    "CountTokens": {"model": EMBED, "inputs": [{"text": "the cat"}]},
}
VARYING = ("timings", "batch")  # of a result


@pytest.mark.parametrize("name", REQUESTS)
def test_every_task_has_the_message_that_grpc_has(served: HttpServed, name: str) -> None:
    method = INFERENCE.methods_by_name[name]
    request, response = (GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    over_grpc = getattr(served.stub, name)(json_format.ParseDict(REQUESTS[name], request()))
    answer = served.get(f"/v1/tasks/{hyphened(name)}", REQUESTS[name])
    over_http = json_format.ParseDict(answer, response())
    for one in (over_grpc, over_http):
        for result in getattr(one, "results", ()):
            for field in VARYING:
                if field in result.DESCRIPTOR.fields_by_name:
                    result.ClearField(field)
    assert over_http == over_grpc
    assert served.ask(f"/v1/tasks/{name}", REQUESTS[name]).status == 200


def test_tasks_have_an_address_for_each_method_that_is_no_stream(served: HttpServed) -> None:
    paths = served.get("/openapi.json")["paths"]
    for method in (*INFERENCE.methods, *MODELS.methods):
        path = f"/v1/tasks/{hyphened(method.name)}"
        assert (path in paths) is not method.client_streaming, path
        assert method.name in REQUESTS or method.client_streaming or method in MODELS.methods


def test_models_are_described_as_over_grpc(served: HttpServed) -> None:
    found = served.get("/v1/tasks/list-models", {})["models"]
    assert len(found) == 7
    named = {"name": EMBED}
    assert served.get("/v1/tasks/get-model", named)["model"]["vocab_size"] > 0
    assert served.ask("/v1/tasks/get-model", {"name": "other"}).status == 404


def test_some_inputs_of_a_task_may_have_errors(served: HttpServed) -> None:
    results = served.get("/v1/tasks/embed", {"texts": ["a cat", ""]})["results"]
    assert "embedding" in results[0]
    assert results[1]["error"]["code"] == 3
    refused = served.ask("/v1/tasks/embed", {"texts": [""]})
    assert refused.status == 400
    assert refused.json["details"][0]["reason"] == "EMPTY"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "texts is empty"),
        (b"[]", "no JSON object"),
        (b'{"texts": 5}', "texts"),
        (b'{"texts": ["x"], "longText": "NEVER"}', "longText"),
        (b'{"texts": ["x"], "dimensions": -1}', "dimensions"),
        (b'{"texts": ["x"], "long_txt": 1}', "longText"),
        (b'{"texts": ["\\ud800"]}', "JSON"),
    ],
)
def test_a_task_s_body_that_is_no_message_is_refused(
    served: HttpServed, body: bytes, said: str
) -> None:
    answer = served.ask("/v1/tasks/embed", body)
    assert answer.status == 400
    assert said in answer.json["message"]


def test_tei_embeds_as_its_grpc(served: HttpServed) -> None:
    stub = tei_pb2_grpc.EmbedStub(served.channel)
    options: dict[str, Any]
    for options in ({}, {"normalize": False}, {"dimensions": 8}):
        asked: dict[str, Any] = {"normalize": True, **options}
        expected = [
            stub.Embed(tei_pb2.EmbedRequest(inputs=text, **asked)).embeddings for text in TEXTS
        ]
        found = served.get("/embed", {"inputs": TEXTS, **options})
        assert np.array_equal(np.array(found, np.float32), np.array(expected, np.float32))
    answer = served.ask("/embed", {"inputs": "a cat"})
    assert len(answer.json) == 1
    assert answer.headers["x-compute-characters"] == "5"
    assert int(answer.headers["x-compute-tokens"]) > 2


def test_tei_s_other_routes_answer_as_its_grpc(served: HttpServed) -> None:
    text, channel = TEXTS[0], served.channel
    embed = tei_pb2_grpc.EmbedStub(channel)
    tokens = [list(one.embeddings) for one in embed.EmbedAll(
        tei_pb2.EmbedAllRequest(inputs=text)).token_embeddings]  # fmt: skip
    assert np.array_equal(
        np.array(served.get("/embed_all", {"inputs": text})[0], np.float32),
        np.array(tokens, np.float32),
    )
    (weights,) = served.get("/embed_sparse", {"inputs": text}, model="fill-mask")
    sparse = embed.EmbedSparse(
        tei_pb2.EmbedSparseRequest(inputs=text), metadata=(("bertd-model", "fill-mask"),)
    ).sparse_embeddings
    assert [one["index"] for one in weights] == [one.index for one in sparse]
    (found,) = served.get("/tokenize", {"inputs": text})
    assert found[0] == {
        "id": 1,
        "text": "[CLS]",
        "special": True,
        "start": None,
        "stop": None,
    }
    assert found[1]["start"] == 0
    ids = [one["id"] for one in found]
    assert served.get("/decode", {"ids": ids}) == served.get("/decode", {"ids": [ids]})
    assert served.get("/decode", {"ids": [ids]}) == [text]
    cosines = served.get(
        "/similarity", {"inputs": {"source_sentence": text, "sentences": [text, "a dog"]}}
    )
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert cosines[1] < 0.9999


def test_tei_predicts_texts_pairs_and_lists(served: HttpServed) -> None:
    def predict(inputs: Any, **options: Any) -> Any:
        return served.get("/predict", {"inputs": inputs, **options}, model="text-classification")

    alone = predict("a cat")
    assert [one["score"] for one in alone] == sorted((one["score"] for one in alone), reverse=True)
    assert predict([["a cat"], ["a", "b"]]) == [alone, predict(["a", "b"])]
    raw = predict("a cat", raw_scores=True)
    assert sum(one["score"] for one in alone) == pytest.approx(1, abs=1e-6)
    assert [one["label"] for one in raw] == [one["label"] for one in alone]


def test_tei_describes_the_model_and_its_limits(served: HttpServed) -> None:
    found = served.get("/info")
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert found["max_client_batch_size"] == 8
    assert {"sha", "docker_label", "model_sha", "version"} <= set(found)
    kinds = served.get("/info", model="text-classification")["model_type"]
    assert kinds["classifier"]["label2id"]["bad"] == 0
    assert "reranker" in served.get("/info", model="text-ranking")["model_type"]
    assert served.get("/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": ""}, 400, "Empty"),
        ("/embed", {"inputs": [LONG]}, 422, "Validation"),
        ("/embed", {"inputs": ["x"] * 9}, 422, "Validation"),
        ("/embed", {"inputs": [1, 2]}, 422, "Validation"),
        ("/embed", {"inputs": "x", "truncation_direction": "up"}, 422, "Validation"),
        ("/embed", {"inputs": "x", "dimensions": 99}, 422, "Validation"),
        ("/embed", {}, 400, "Empty"),
        ("/embed", b"{", 422, "Validation"),
        ("/embed?model=other", {"inputs": "x"}, 404, "Validation"),
        ("/embed?model=fill-mask", {"inputs": "x"}, 424, "Backend"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation"),
        ("/decode", {"ids": [10**6]}, 422, "Validation"),
        ("/decode", {"ids": ["x"]}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "x"}}, 400, "Empty"),
        ("/rerank", {"query": "x", "texts": ["y"]}, 424, "Backend"),
        ("/", {"inputs": None}, 422, "Validation"),
    ],
)
def test_tei_s_errors_have_its_statuses_and_form(
    served: HttpServed, path: str, body: Any, status: int, kind: str
) -> None:
    answer = served.ask(path, body)
    assert (answer.status, answer.json["error_type"]) == (status, kind), answer.body
    assert set(answer.json) == {"error", "error_type"}


def test_long_texts_are_cut_where_that_is_asked_for(served: HttpServed) -> None:
    for path, name in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        refused = served.ask(path, {name: LONG})
        assert "truncate = true" in refused.json.get("message", refused.json["error"])
        assert served.ask(path, {name: LONG, "truncate": True}).status == 200
    cut = [
        served.get("/embed", {"inputs": LONG, "truncate": True, "truncation_direction": side})
        for side in ("right", "Left")
    ]
    assert cut[0] != cut[1]


def test_unknown_fields_and_nulls_are_as_good_as_absent(served: HttpServed) -> None:
    plain = served.get("/v1/embeddings", {"input": "a cat"})
    for more in (
        {"user": "me", "x": [1]},
        {"dimensions": None, "encoding_format": None, "model": None, "prompt_name": None},
        {"dimensions": 0, "model": ""},
    ):
        assert served.get("/v1/embeddings", {"input": "a cat", **more}) == plain
    named = {"content-type": "text/plain"}
    assert served.get("/embeddings", {"input": "a cat"}, headers=named) == plain


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_body_decides_how_ranks_are_given(served: HttpServed, path: str) -> None:
    asked = {"model": "text-ranking", "query": "the cat"}
    tei = served.get(path, {**asked, "texts": TEXTS, "return_text": True})
    assert {one["text"] for one in tei} == set(TEXTS)
    for documents in (TEXTS, [{"text": text} for text in TEXTS]):
        found = served.get(path, {**asked, "documents": documents, "top_n": None})
        ranks = [(one["index"], one["relevance_score"]) for one in found["results"]]
        assert ranks == [(one["index"], one["score"]) for one in tei]
        assert found["usage"]["total_tokens"] > 0
    back = served.get(path, {**asked, "documents": TEXTS, "return_documents": True, "top_n": 1})
    (best,) = back["results"]
    text = tei[0]["text"]
    assert best["document"] == (text if path == "/rerank" else {"text": text})
    raw = served.get(path, {**asked, "texts": TEXTS, "raw_scores": True})
    assert raw[0]["score"] != tei[0]["score"]
    for body in ({**asked}, {**asked, "texts": TEXTS, "documents": TEXTS}):
        answer = served.ask(path, body)
        assert answer.status == 400
        assert "documents" in answer.json["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": ["x", 5.5]}, 400, "input[1]"),
        ({"input": {"a": 1}}, 400, "input"),
        ({"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
        ({"input": "x", "dimensions": 99}, 400, "dimensions"),
        ({"input": "x", "dimensions": -1}, 400, "dimensions"),
        ({"input": "x", "dimensions": True}, 400, "dimensions"),
        ({"input": "x", "prompt_name": "none"}, 400, "prompt_name"),
        ({"input": "x", "model": "other"}, 404, None),
        ({"input": "x", "model": "fill-mask"}, 400, None),
        (b"\xff", 400, None),
        (b"5", 400, None),
        (b"[" * 5_000, 400, None),
    ],
)
def test_openai_s_errors_name_the_field(
    served: HttpServed, body: Any, status: int, param: str | None
) -> None:
    answer = served.ask("/v1/embeddings", body)
    assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.body
    assert answer.json["message"] == answer.json["error"]["message"]


def test_tensors_in_json_are_nested_or_flat(served: HttpServed) -> None:
    def infer(model: str, *inputs: dict[str, Any], **more: Any) -> Any:
        return served.get(f"/v2/models/{model}/infer", {"inputs": inputs, **more})

    text = {"name": "text", "shape": [2, 1], "datatype": "BYTES"}
    nested = infer(EMBED, {**text, "data": [[one] for one in TEXTS]}, id="me")
    assert nested["id"] == "me"
    assert nested["model_version"] == "1"
    (output,) = nested["outputs"]
    assert output["shape"] == [2, 32]
    flat = infer(EMBED, {**text, "data": TEXTS, "parameters": {"content_type": "str"}})
    assert flat["outputs"] == nested["outputs"]
    ids = {"name": "input_ids", "shape": [1, 4], "datatype": "INT64", "data": [[1, 5, 6, 2]]}
    (of_tokens,) = infer(EMBED, ids)["outputs"]
    assert of_tokens["datatype"] == "FP32"
    chosen = infer(
        "zero-shot-classification",
        {**text, "data": TEXTS},
        parameters={"labels": ["rain", "the sea"], "content_type": "np"},
        outputs=[{"name": "label", "parameters": {"binary_data": False}}],
    )
    assert set(chosen["outputs"][0]["data"]) <= {"rain", "the sea"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "text is missing"),
        ([{"name": "text", "shape": [1], "datatype": "BYTES"}], "neither data"),
        ([{"name": "text", "shape": [1], "datatype": "BYTES", "data": [1]}], "send strings"),
        ([{"name": "text", "shape": [3], "datatype": "BYTES", "data": ["x"]}], "3 elements"),
        ([{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["x"]}], "x"),
        ([{"name": "text", "shape": [1], "datatype": "FP99", "data": [1]}], "datatype"),
        ([{"name": "input_ids", "shape": [2], "datatype": "INT64", "data": [[1], [2, 3]]}],
         "lists of one"),
        ([{"name": "input_ids", "shape": [1], "datatype": "INT64", "data": ["x"]}], "numbers"),
        ([{"name": "input_ids", "shape": [1], "datatype": "INT64", "data": [10**30]}], "INT64"),
        ([{"name": "text", "shape": [2**80], "datatype": "BYTES", "data": ["x"]}], "shape"),
        ([{"name": "text", "shape": [1], "datatype": "BYTES",
           "parameters": {"binary_data_size": 9}}], "binary_data_size"),
        ([{"shape": [1]}], "name is missing"),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_are_refused_in_a_string(
    served: HttpServed, inputs: Any, said: str
) -> None:
    answer = served.ask(f"/v2/models/{EMBED}/infer", {"inputs": inputs})
    assert answer.status == 400, answer.body
    assert said in answer.json["error"]


def test_a_body_may_be_compressed(served: HttpServed) -> None:
    body = b'{"input": "a cat"}'
    plain = served.get("/v1/embeddings", body)
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for encoding, sent in (
        ("gzip", gzip.compress(body)),
        ("deflate", zlib.compress(body)),
        ("deflate", raw.compress(body) + raw.flush()),
    ):
        found = served.get("/v1/embeddings", sent, headers={"content-encoding": encoding})
        assert found == plain
    for encoding, sent, status in (
        ("br", body, 415),
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-4], 400),
        ("gzip", gzip.compress(bytes(20 * 2**20)), 413),
    ):
        named = {"content-encoding": encoding}
        assert served.ask("/v1/embeddings", sent, headers=named).status == status


def test_names_of_models_may_have_slashes(served: HttpServed) -> None:
    for path in ("/v1/models/org%2Fm", "/models/org/m", "/v2/models/org%2Fm"):
        answer = served.ask(path)
        assert answer.status == 404
        assert "'org/m' is not served" in str(answer.json)
    assert served.get(f"/models/{EMBED}")["stats"]["batch_size"] > 0


def test_the_document_says_what_every_body_has(served: HttpServed) -> None:
    found = served.get("/openapi.json")
    validate(found)
    names: list[str] = []
    for path, ways in found["paths"].items():
        for method, operation in ways.items():
            assert operation["summary"], path
            named = {one["name"] for one in operation.get("parameters", ())}
            assert named == {part.split("}")[0] for part in path.split("{")[1:]}
            names.append(operation["operationId"])
            if method == "post" and "/repository/models/" not in path:
                assert operation["requestBody"], path
    assert len({name.lower() for name in names}) == len(names)
    fields = found["components"]["schemas"]["EmbeddingsBody"]["properties"]
    assert {"input", "model", "encoding_format", "dimensions"} <= set(fields)
    assert "long_text" in str(found["paths"]["/v1/tasks/embed"])


@pytest.mark.parametrize(
    ("model", "parameters", "said"),
    [
        ("zero-shot-classification", {}, "candidate_labels is empty"),
        ("zero-shot-classification", {"candidate_labels": ["x", ""]}, "candidate_labels[1]"),
        ("fill-mask", {"top_k": 10**6}, "top_k is 1000000"),
        ("fill-mask", {"top_k": True}, "top_k is True: send a whole number"),
        ("question-answering", {"max_answer_len": 10**6}, "max_answer_len is 1000000"),
    ],
)
def test_errors_of_pipelines_name_their_parameters(
    served: HttpServed, model: str, parameters: Any, said: str
) -> None:
    texts: Any = {"question": "a cat", "context": "a dog"} if "question" in model else "a [MASK]"
    answer = served.ask("/", {"inputs": texts, "parameters": parameters}, model=model)
    assert answer.status in {400, 422}
    assert answer.json["error"].startswith(f"parameters.{said}")


def test_paths_that_there_are_not_answer_as_their_protocol(served: HttpServed) -> None:
    """Triton's client asks for more than there is, and fails at an error that is no string."""
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    with pytest.raises(InferenceServerException, match="nothing that is served"):
        client.get_log_settings()
    client.close()
    assert served.ask("/v1/tasks/nothing", {}).json["details"][0]["reason"] == "NO_ROUTE"
    assert served.ask("/v1/nothing", {}).json["error"]["code"] == "no_route"


def test_answers_are_held_against_the_document(served: HttpServed) -> None:
    """A test of the tests: what the document does not say fails."""
    described = served.described
    assert described is not None
    served.get("/embed", {"inputs": "a cat"})
    served.ask("/embed", {"inputs": ""})
    assert {("post", "/embed", "200"), ("post", "/embed", "default")} <= described.seen
    for status, body in ((200, b'[{"no": "vector"}]'), (422, b'{"message": "no error_type"}')):
        with pytest.raises(AssertionError, match="/embed"):
            described.check("POST", "/embed", status, "application/json", body)


def test_the_rows_of_a_protobuf_answer_are_as_its_mapping_has_them(served: HttpServed) -> None:
    """What is written here by hand is what protobuf's own reader reads, and its writer writes."""
    answer = served.get("/v1/tasks/embed", {"texts": ["a cat"]})
    message = json_format.ParseDict(answer, pb.EmbedResponse())
    again = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert answer == again


def test_characters_that_are_told_of_one_by_one_are_bounded_together(served: HttpServed) -> None:
    """As in bertd.v1; text by text they would be as many as fit into a body."""
    answer = served.ask("/tokenize", {"inputs": ["x" * 130_000] * 8})
    assert (answer.status, b"at most 1000000 together" in answer.body) == (422, True)
