"""The Open Inference Protocol, driven by Triton's own client, sync, aio and streaming."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as pb
from bertd.oip import grpc_service_pb2_grpc, model_config_pb2
from bertd.v1 import inference_pb2 as v1
from bertd.v1 import inference_pb2_grpc
from bertd_export.bundle import export_model
from bertd_server.settings import Settings
from conftest import RunningServer
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from tiny import save_tiny
from tritonclient.grpc import model_config_pb2 as triton_config_pb
from tritonclient.grpc import service_pb2 as triton_pb
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TASKS: tuple[Task, ...] = get_args(Task)
HEADS: dict[str, dict[str, Any]] = {
    "text-classification": {"id2label": {0: "bad", 1: "so so", 2: "good"}},
    "zero-shot-classification": {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}},
    "text-ranking": {"num_labels": 1},
    "token-classification": {"id2label": {0: "O", 1: "B-PET", 2: "I-PET", 3: "B-SEA"}},
}
TEXTS = ["the cat sat on a mat", "안녕 the dog saw rain", "a cat and a dog in the sea. rain!"]
MASKED = ["the [MASK] sat on a mat", "[MASK] saw the [MASK]", "안녕 [MASK] rain"]
QUESTIONS = ["the cat", "dog saw", "rain"]
LABELS = ["rain", "the sea", "cat"]
MOST = 8  # inputs of a call
LONG = "the cat sat " * 40


class Served:
    """A server of one task, and the clients that ask it."""

    def __init__(self, task: Task, folder: Path) -> None:
        head = {"max_position_embeddings": 64, **HEADS.get(task, {})}
        source = save_tiny(folder / "source", "bert", task, **head)
        export_model(str(source), folder / "bundle", name="tiny", task=task)
        settings = Settings(
            address="127.0.0.1:0",
            max_texts_per_call=MOST,
            warmup_seconds=0,
            calibration_seconds=0.05,
            lanes=1,
            threads=1,
        )
        self.server = RunningServer(folder / "bundle", settings)
        self.address = self.server.address
        self.triton = triton.InferenceServerClient(self.address)
        self.channel = grpc.insecure_channel(self.address)
        self.v1 = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.v2 = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def stop(self) -> None:
        self.triton.close()
        self.channel.close()
        self.server.stop()

    def infer(self, tensors: dict[str, Any], *outputs: str, **options: Any) -> Callable[[str], Any]:
        """Ask Triton's client; the answer's outputs by name."""
        wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
        result = self.triton.infer("tiny", inputs(tensors), outputs=wanted, **options)
        return lambda name: strings(result.as_numpy(name))

    def tokens(self, *texts: str, pairs: list[str] | None = None) -> tuple[np.ndarray, ...]:
        """Ids, types and mask of texts, padded on the right to the longest."""
        given = [
            v1.TextInput(text=text, **({"text_pair": pairs[n]} if pairs else {}))
            for n, text in enumerate(texts)
        ]
        results = self.v1.Tokenize(v1.TokenizeRequest(inputs=given)).results
        rows = [[token.id for token in result.tokens] for result in results]
        longest = max(map(len, rows))
        ids, types, mask = np.zeros((3, len(rows), longest), np.int64)
        for row, found in enumerate(rows):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
            if pairs:
                types[row, found.index(SEPARATOR) + 1 : len(found)] = 1
        return ids, types, mask


SEPARATOR = 2  # of the tiny WordPiece tokenizer


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Task], Served]]:
    """A server for each task that is asked for."""
    running: dict[Task, Served] = {}

    def start(task: Task) -> Served:
        if task not in running:
            running[task] = Served(task, tmp_path_factory.mktemp(task))
        return running[task]

    yield start
    for served in running.values():
        served.stop()


def inputs(tensors: dict[str, Any]) -> list[Any]:
    """Triton's tensors of arrays, or of lists of texts, `[n, 1]`."""
    made = []
    for name, given in tensors.items():
        text = isinstance(given, list)
        array = np.array([[one.encode()] for one in given], object) if text else given
        kind = np_to_triton_dtype(array.dtype)
        tensor = triton.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def strings(array: Any) -> Any:
    """Bytes as text, numbers as they are."""
    if array is None or array.dtype != object:
        return array
    return (
        [one.decode() for one in array.ravel()]
        if array.shape[1] == 1
        else np.char.decode(array.astype(bytes)).tolist()
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_asked_as_its_metadata_says(at: Callable[[Task], Served], task: Task) -> None:
    """What is listed is what load generators send and ask for, in the shapes that it says."""
    served = at(task)
    metadata = served.triton.get_model_metadata("tiny", as_json=True)
    config = served.triton.get_model_config("tiny").config
    assert (config.name, config.max_batch_size, metadata["versions"]) == ("tiny", MOST, ["1"])
    assert config.parameters["task"].string_value == task
    assert not config.model_transaction_policy.decoupled
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    for listed, described in (
        (metadata["inputs"], config.input),
        (metadata["outputs"], config.output),
    ):
        assert [one["name"] for one in listed] == [one.name for one in described]
        for one, same in zip(listed, described, strict=True):
            assert [int(axis) for axis in one["shape"]] == [-1, *same.dims]
            kind = one["datatype"].replace("BYTES", "STRING")
            assert model_config_pb2.DataType.Name(same.data_type) == f"TYPE_{kind}"
    filler = "the [MASK]" if task == "fill-mask" else "the cat"
    tensors = {
        one["name"]: np.full(
            [2, *(abs(int(axis)) for axis in one["shape"][1:])], filler.encode(), object
        )
        for one in metadata["inputs"]
    }
    wanted = [triton.InferRequestedOutput(one["name"]) for one in metadata["outputs"]]
    result = served.triton.infer("tiny", inputs(tensors), outputs=wanted, request_id="7")
    assert result.get_response().id == "7"
    for one in metadata["outputs"]:
        shape = result.as_numpy(one["name"]).shape
        assert len(shape) == len(one["shape"])
        assert shape[0] == 2
        assert all(int(axis) in (-1, size) for axis, size in zip(one["shape"], shape, strict=True))
    extra = json.loads(config.parameters["optional_outputs"].string_value)
    more = served.triton.infer(
        "tiny", inputs(tensors), outputs=[triton.InferRequestedOutput(name) for name in extra]
    )
    for name, slot in extra.items():
        array = more.as_numpy(name)
        assert array.ndim == len(slot["shape"])
        assert str(array.dtype).upper().replace("FLOAT", "FP") == slot["datatype"]


def test_vectors_are_those_of_the_typed_api_bit_for_bit(at: Callable[[Task], Served]) -> None:
    """Alone, in a batch, from texts, and from tokens with padding on either side."""
    served = at("feature-extraction")
    theirs = served.v1.Embed(v1.EmbedRequest(texts=TEXTS)).results
    expected = np.stack([np.frombuffer(one.embedding, np.float32) for one in theirs])
    assert (served.infer({"text": TEXTS})("sentence_embedding") == expected).all()
    for text, vector in zip(TEXTS, expected, strict=True):
        flat = np.array([text.encode()], object)
        assert (served.infer({"text": flat})("sentence_embedding") == vector).all()
    ids, _, mask = served.tokens(*TEXTS)
    left = np.stack(
        [np.roll(row, int((kept == 0).sum())) for row, kept in zip(ids, mask, strict=True)]
    )
    for given, kept in ((ids, mask), (left, np.sort(mask, axis=1))):
        answer = served.infer({"input_ids": given, "attention_mask": kept})
        assert (answer("sentence_embedding") == expected).all()
    narrow = {"input_ids": ids[2:].astype(np.int32)}
    assert (served.infer(narrow)("sentence_embedding") == expected[2:]).all()


def test_tokens_have_vectors_and_say_which_they_are(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    names = ("token_embeddings", "token_ids", "attention_mask", "sentence_embedding", "tokens_read")
    answer = served.infer({"text": TEXTS}, *names)
    ids, _, mask = served.tokens(*TEXTS)
    assert (answer("token_ids") == ids).all()
    assert (answer("attention_mask") == mask).all()
    assert (answer("tokens_read") == mask.sum(axis=1, keepdims=True)).all()
    results = served.v1.EmbedTokens(v1.EmbedTokensRequest(texts=TEXTS)).results
    for row, result in enumerate(results):
        count = len(result.vectors.tokens)
        vectors = np.frombuffer(result.vectors.vectors, np.float32).reshape(count, -1)
        assert (answer("token_embeddings")[row, :count] == vectors).all()
        assert not answer("token_embeddings")[row, count:].any()
    assert (
        served.infer({"text": TEXTS})("sentence_embedding") == answer("sentence_embedding")
    ).all()


def test_classes_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("text-classification")
    pairs = list(reversed(TEXTS))
    given = [v1.TextInput(text=a, text_pair=b) for a, b in zip(TEXTS, pairs, strict=True)]
    results = served.v1.Classify(v1.ClassifyRequest(inputs=given)).results
    answer = served.infer({"text": TEXTS, "text_pair": pairs}, parameters={"top_k": 2})
    for row, result in enumerate(results):
        expected = [(one.label, np.float32(one.score)) for one in result.labels.labels]
        assert answer("label")[row] == [label for label, _ in expected[:2]]
        assert answer("score")[row].tolist() == [score for _, score in expected[:2]]
        by_label = dict(expected)
        assert answer("scores")[row].tolist() == [by_label[one] for one in ("bad", "so so", "good")]
    ids, types, mask = served.tokens(*TEXTS, pairs=pairs)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    assert (served.infer(tokens)("scores") == answer("scores")).all()
    assert served.infer({"text": TEXTS})("label") != []
    logits = served.infer({"text": TEXTS}, "scores", parameters={"score_function": "none"})(
        "scores"
    )
    assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3


def test_labels_of_the_caller_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    """From an input of either shape, or from a parameter; pairs have the model's own labels."""
    served = at("zero-shot-classification")
    request = v1.ZeroShotClassifyRequest(texts=TEXTS[:2], labels=LABELS, multi_label=True)
    expected = [
        {one.label: np.float32(one.score) for one in result.labels.labels}
        for result in served.v1.ZeroShotClassify(request).results
    ]
    flat = np.array([one.encode() for one in LABELS], object)
    text: dict[str, Any] = {"text": TEXTS[:2]}
    for tensors, options in (
        ({**text, "labels": flat}, {"multi_label": True}),
        ({**text, "labels": np.stack([flat, flat])}, {"multi_label": True}),
        (text, {"multi_label": True, "labels": json.dumps(LABELS)}),
    ):
        answer = served.infer(tensors, parameters={**options, "top_k": 3})
        for row, scores in enumerate(expected):
            assert answer("scores")[row].tolist() == [scores[label] for label in LABELS]
            assert answer("label")[row] == sorted(LABELS, key=lambda one: -scores[one])
    own = served.infer({"text": TEXTS[:2], "text_pair": TEXTS[1:]})
    assert own("scores").shape == (2, 3)


def test_relevance_is_that_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    """A query for all documents, or for each; under the other names too; in windows."""
    served = at("text-ranking")
    documents = [*TEXTS, LONG]
    request = v1.RerankRequest(
        query="the cat",
        documents=documents,
        long_text=v1.LONG_TEXT_POLICY_WINDOW,
        stride=4,
    )
    expected = np.zeros((4, 1), np.float32)
    for result in served.v1.Rerank(request).results:
        expected[result.index] = result.score
    options = {"long_text": "window", "stride": 4}
    for query in (["the cat"], ["the cat"] * 4):
        for first, second in (("query", "document"), ("text", "text_pair")):
            answer = served.infer(
                {first: query, second: documents}, "score", "windows", parameters=options
            )
            assert (answer("score") == expected).all()
            assert (answer("windows")[:, 0] > 1).tolist() == [False, False, False, True]
    ids, types, mask = served.tokens(*["the cat"] * 3, pairs=TEXTS)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    assert (served.infer(tokens)("score") == expected[:3]).all()


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_the_typed_api(
    at: Callable[[Task], Served], aggregation: str
) -> None:
    """From tokens: the same entities, whose places are those of tokens."""
    served = at("token-classification")
    request = v1.TagTokensRequest(
        texts=TEXTS,
        aggregation=getattr(v1, f"AGGREGATION_{aggregation.upper()}"),
        include_outside=True,
    )
    options = {"aggregation": aggregation, "include_outside": True}
    found = served.infer({"text": TEXTS}, parameters=options)("entities")
    ids, _, mask = served.tokens(*TEXTS)
    padded = {
        "input_ids": np.pad(ids, ((0, 0), (2, 0))),
        "attention_mask": np.pad(mask, ((0, 0), (2, 0))),
    }
    of_tokens = served.infer(padded, parameters=options)("entities")
    results = served.v1.TagTokens(request).results
    for text, result, row, tokens in zip(TEXTS, results, found, of_tokens, strict=True):
        expected = [
            {
                "label": one.label,
                "score": one.score,
                "word": one.word,
                "text": one.text,
                "start": one.offsets.start,
                "end": one.offsets.end,
                "start_byte": one.offsets.start_byte,
                "end_byte": one.offsets.end_byte,
            }
            for one in result.entities.entities
        ]
        entities = json.loads(row)
        assert [{**one, "score": np.float32(one["score"])} for one in entities] == expected
        given = served.v1.Tokenize(v1.TokenizeRequest(inputs=[v1.TextInput(text=text)])).results[0]
        starts = [token.offsets.start for token in given.tokens]
        ends = [token.offsets.end for token in given.tokens]
        for one, same in zip(json.loads(tokens), entities, strict=True):
            assert (one["label"], one["score"], one["word"]) == (
                same["label"],
                same["score"],
                same["word"].replace("안녕", "[UNK]"),
            )
            places = range(one["start"] - 2, one["end"] - 2)  # without the padding before
            assert (starts[places[0]], ends[places[-1]]) == (same["start"], same["end"])


def test_answers_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("question-answering")
    given = [
        v1.QuestionInput(question=question, context=context)
        for question, context in zip(QUESTIONS, TEXTS, strict=True)
    ]
    request = v1.AnswerRequest(inputs=given, top_k=3, allow_no_answer=True, max_answer_tokens=2)
    options = {"top_k": 3, "allow_no_answer": True, "max_answer_tokens": 2}
    answer = served.infer({"question": QUESTIONS, "context": TEXTS}, parameters=options)
    ids, types, mask = served.tokens(*QUESTIONS, pairs=TEXTS)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    of_tokens = served.infer(tokens, parameters=options)
    for row, result in enumerate(served.v1.Answer(request).results):
        spans = result.spans.spans
        assert answer("answer")[row] == [one.text for one in spans]
        assert answer("score")[row].tolist() == [one.score for one in spans]
        assert answer("start")[row].tolist() == [one.offsets.start for one in spans]
        assert answer("end")[row].tolist() == [one.offsets.end for one in spans]
        assert of_tokens("score")[row].tolist() == [one.score for one in spans]
        for column, span in enumerate(spans):
            begin, end = (of_tokens(name)[row, column] for name in ("start", "end"))
            assert of_tokens("answer")[row][column].replace(" ", "") == span.text.replace(" ", "")
            assert (end - begin <= 2, end > begin) == (True, not span.no_answer)
    few = served.infer({"question": ["the cat"], "context": ["sat"]}, parameters={"top_k": 3})
    assert few("start").tolist() == [[0, -1, -1]]


def test_masks_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("fill-mask")
    results = served.v1.FillMask(v1.FillMaskRequest(texts=MASKED, top_k=3)).results
    found = served.infer({"text": MASKED}, parameters={"top_k": 3})("masks")
    ids, _, mask = served.tokens(*MASKED)
    tokens = {"input_ids": ids, "attention_mask": mask}
    of_tokens = served.infer(tokens, parameters={"top_k": 3})("masks")
    for number, result in enumerate(results):
        masks, same = json.loads(found[number]), json.loads(of_tokens[number])
        assert [one["start"] for one in masks] == [one.offsets.start for one in result.masks.masks]
        assert [one["start"] for one in same] == np.flatnonzero(ids[number] == 4).tolist()
        for ours, also, theirs in zip(masks, same, result.masks.masks, strict=True):
            expected = [(one.id, one.text, one.score, one.sequence) for one in theirs.candidates]
            assert expected == [
                (one["id"], one["token"], np.float32(one["score"]), one["sequence"])
                for one in ours["candidates"]
            ]
            assert [one["id"] for one in also["candidates"]] == [one[0] for one in expected]


def test_typed_contents_have_typed_answers(at: Callable[[Task], Served]) -> None:
    """The same values as raw ones, of every type."""
    embedder, finder = at("feature-extraction"), at("question-answering")
    request = pb.ModelInferRequest(id="a", outputs=[{"name": "sentence_embedding"}])
    text = request.inputs.add(name="text", datatype="BYTES", shape=[3])
    text.contents.bytes_contents.extend(one.encode() for one in TEXTS)
    response = embedder.v2.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "a")
    assert not response.raw_output_contents
    vectors = embedder.infer({"text": TEXTS})("sentence_embedding")
    (output,) = response.outputs
    typed = np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
    assert (typed == vectors).all()
    ids, _, _ = embedder.tokens(TEXTS[0])
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="input_ids", datatype="INT64", shape=ids.shape)
    tensor.contents.int64_contents.extend(ids[0].tolist())
    (output,) = embedder.v2.ModelInfer(request).outputs
    assert (np.array(output.contents.fp32_contents, np.float32) == vectors[0]).all()
    request = pb.ModelInferRequest()
    for name, value in (("question", "the cat"), ("context", TEXTS[1])):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
        tensor.contents.bytes_contents.append(value.encode())
    outputs = {one.name: one.contents for one in finder.v2.ModelInfer(request).outputs}
    answer = finder.infer({"question": ["the cat"], "context": [TEXTS[1]]})
    assert [one.decode() for one in outputs["answer"].bytes_contents] == answer("answer")
    assert list(outputs["start"].int64_contents) == answer("start")[0].tolist()


def test_long_texts_are_cut_or_read_in_windows(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    names = ("sentence_embedding", "token_count", "tokens_read", "windows")
    seen = {}
    for options in (
        {"truncate": True},
        {"long_text": "truncate", "truncation_side": "left"},
        {"long_text": "window", "stride": 8},
    ):
        answer = served.infer({"text": [LONG]}, *names, parameters=options)
        seen[json.dumps(options)] = answer("sentence_embedding").tobytes()
        counts = [int(answer(name)[0, 0]) for name in names[1:]]
        assert counts == ([122, 122, 3] if "stride" in options else [122, 64, 1])
    assert len(set(seen.values())) == 3
    for policy, code in (
        ("TRUNCATE", '{"truncate": true}'),
        ("WINDOW", '{"long_text": "window", "stride": 8}'),
    ):
        request = v1.EmbedRequest(
            texts=[LONG], long_text=getattr(v1, f"LONG_TEXT_POLICY_{policy}"), stride=8
        )
        assert served.v1.Embed(request).results[0].embedding == seen[code]


def test_priority_and_timeout_are_honoured(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    expected = served.infer({"text": TEXTS})("sentence_embedding")
    for options in ({"priority": 1}, {"priority": 9}, {"timeout": 60_000_000}):
        assert (served.infer({"text": TEXTS}, **options)("sentence_embedding") == expected).all()
    with pytest.raises(InferenceServerException, match=r"deadline|time") as caught:
        served.infer({"text": TEXTS}, timeout=1)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    # The gRPC deadline is the earlier one here.
    with pytest.raises(InferenceServerException) as caught:
        served.infer({"text": TEXTS}, timeout=60_000_000, client_timeout=1e-4)
    late = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED")
    assert caught.value.status() in late


def test_a_stream_answers_each_request_in_order_and_survives_errors(
    at: Callable[[Task], Served],
) -> None:
    """As clients of decoupled models read it: until the final response of each request."""
    served = at("feature-extraction")
    expected = served.infer({"text": TEXTS})("sentence_embedding")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            text = "" if number == 5 else TEXTS[number % 3]
            client.async_stream_infer(
                "tiny",
                inputs({"text": [text]}),
                request_id=str(number),
                enable_empty_final_response=True,
            )
        for number in range(20):
            result, error = answers.get(timeout=60)
            if number == 5:
                assert "text[0] is empty" in error.message()
                continue
            assert error is None
            response = result.get_response()
            assert response.id == str(number)
            assert response.parameters["triton_final_response"].bool_param
            assert (result.as_numpy("sentence_embedding")[0] == expected[number % 3]).all()
        client.stop_stream()


async def test_the_aio_client_asks_and_streams(at: Callable[[Task], Served]) -> None:
    served = at("text-classification")
    expected = served.infer({"text": TEXTS})("scores")

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, text in enumerate(TEXTS):
            yield {
                "model_name": "tiny",
                "inputs": inputs({"text": [text]}),
                "request_id": str(number),
            }

    async with triton_aio.InferenceServerClient(served.address) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("tiny", "1")
        result = await client.infer("tiny", inputs({"text": TEXTS}))
        assert (result.as_numpy("scores") == expected).all()
        count = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None
            assert (result.as_numpy("scores")[0] == expected[count]).all()
            count += 1
        assert count == 3


def test_the_server_and_its_models_describe_themselves(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    client = served.triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("tiny", "2")
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("bertd", "0.1.0")
    assert {"statistics", "model_configuration"} <= set(metadata.extensions)
    (index,) = client.get_model_repository_index().models
    assert (index.name, index.version, index.state) == ("tiny", "1", "READY")
    client.load_model("tiny")
    for call in (client.get_model_metadata, client.get_model_config, client.load_model):
        with pytest.raises(InferenceServerException, match="served: tiny") as caught:
            call("nobody")
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_statistics_rise(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    before = served.triton.get_inference_statistics("tiny").model_stats[0]
    served.infer({"text": [*TEXTS, "dog"]})
    (after,) = served.triton.get_inference_statistics().model_stats
    assert after.version.isdecimal()
    assert after.inference_count == before.inference_count + 4
    assert after.execution_count > before.execution_count
    assert after.last_inference > 1_600_000_000_000
    ours, theirs = after.inference_stats, before.inference_stats
    assert ours.success.count == theirs.success.count + 1
    assert ours.queue.count == theirs.queue.count + 4
    for stage in ("success", "queue", "compute_input", "compute_infer"):
        assert getattr(ours, stage).ns >= getattr(theirs, stage).ns > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.get_system_shared_memory_status(), "no shared memory"),
        (lambda client: client.register_system_shared_memory("a", "b", 8), "no shared memory"),
        (lambda client: client.unregister_system_shared_memory(), "no shared memory"),
        (lambda client: client.get_cuda_shared_memory_status(), "no shared memory"),
        (lambda client: client.register_cuda_shared_memory("a", b"", 0, 8), "no shared memory"),
        (lambda client: client.unregister_cuda_shared_memory(), "no shared memory"),
        (lambda client: client.get_trace_settings(), "no trace settings"),
        (lambda client: client.update_log_settings({"log_info": True}), "log settings"),
        (lambda client: client.unload_model("tiny"), "cannot be unloaded"),
        (lambda client: client.load_model("tiny", config="{}"), "parameter 'config'"),
    ],
)
def test_what_is_not_there_says_so(
    at: Callable[[Task], Served], call: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        call(at("feature-extraction").triton)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


IDS = np.array([[1, 6, 2]], np.int64)
A: dict[str, Any] = {"text": ["a"]}
ASKED: dict[str, Any] = {"question": ["a"], "context": ["the cat"]}


@pytest.mark.parametrize(
    ("task", "tensors", "options", "words"),
    [
        ("feature-extraction", {"txt": ["a"]}, {}, r"inputs\[0\] is named 'txt'.* takes text, "),
        ("feature-extraction", {}, {}, "text is missing"),
        ("feature-extraction", {"text": ["a", " "]}, {}, r"text\[1\] is empty"),
        ("feature-extraction", {"text": ["a"] * 9}, {}, "text has 9 elements, .* at most 8"),
        (
            "feature-extraction",
            {"text": [LONG]},
            {},
            r"text\[0\] has 122 tokens.*long_text = trunc",
        ),
        ("feature-extraction", {"text": np.array([[b"a", b"b"]], object)}, {}, r"shape \[1, 2\]"),
        (
            "feature-extraction",
            {"text": np.array([b"\xff"], object)},
            {},
            r"text\[0\] is not valid",
        ),
        ("feature-extraction", {"text": np.zeros((1, 1), np.float32)}, {}, "send BYTES"),
        ("feature-extraction", {"text": ["a"], "input_ids": IDS}, {}, "text and tokens are both"),
        ("feature-extraction", {"attention_mask": IDS}, {}, "input_ids is missing"),
        ("feature-extraction", {"input_ids": IDS[0]}, {}, r"input_ids has shape \[3\]"),
        (
            "feature-extraction",
            {"input_ids": IDS * 160},
            {},
            r"input_ids\[0\]\[1\] is 960.* to 319",
        ),
        ("feature-extraction", {"input_ids": IDS - 2}, {}, r"input_ids\[0\]\[0\] is -1"),
        (
            "feature-extraction",
            {"input_ids": IDS, "token_type_ids": IDS},
            {},
            r"token_type_ids\[0\]\[1\] is 6: the model has 0 to 1",
        ),
        (
            "feature-extraction",
            {"input_ids": IDS, "token_type_ids": IDS[:, :2]},
            {},
            r"token_type_ids has shape \[1, 2\] and input_ids has \[1, 3\]",
        ),
        ("feature-extraction", {"input_ids": np.ones((1, 65), np.int64)}, {}, "has 65 tokens"),
        ("feature-extraction", {"input_ids": np.ones((9, 2), np.int64)}, {}, "at most 8"),
        (
            "feature-extraction",
            {"input_ids": IDS, "attention_mask": np.array([[1, 0, 1]])},
            {},
            r"attention_mask\[0\] is not one stretch",
        ),
        ("feature-extraction", {"input_ids": IDS, "attention_mask": IDS * 0}, {}, "has no 1"),
        (
            "feature-extraction",
            {"input_ids": IDS},
            {"parameters": {"truncate": True}},
            "parameter truncate goes with texts",
        ),
        (
            "feature-extraction",
            {"text": ["a"]},
            {"sequence_id": 3, "sequence_start": True},
            "leave out all",
        ),
        (
            "feature-extraction",
            {"text": ["a"]},
            {"parameters": {"top_k": 3}},
            "'top_k' is not known",
        ),
        ("feature-extraction", A, {"parameters": {"stride": -1}}, "stride is -1"),
        ("feature-extraction", A, {"parameters": {"stride": "4"}}, "an integer"),
        ("feature-extraction", A, {"parameters": {"truncate": 1}}, "a truth value"),
        (
            "feature-extraction",
            {"text": ["a"]},
            {"parameters": {"long_text": "cut"}},
            "error, truncate",
        ),
        (
            "feature-extraction",
            {"text": ["a"]},
            {"parameters": {"long_text": "window", "truncate": True}},
            "send one of them",
        ),
        (
            "feature-extraction",
            {"text": ["a"]},
            {"parameters": {"prompt_name": "q"}},
            "prompt_name",
        ),
        ("text-ranking", {"query": ["a"]}, {}, "document is missing"),
        ("text-ranking", {"query": ["a"], "text": ["a"], "document": ["a"]}, {}, "two names"),
        ("text-ranking", {"query": ["a"] * 2, "document": ["a"] * 3}, {}, "has 2 texts and"),
        ("question-answering", {"input_ids": IDS}, {}, r"input_ids\[0\] has no context"),
        (
            "question-answering",
            ASKED,
            {"parameters": {"top_k": 99}},
            "top_k",
        ),
        ("fill-mask", {"text": ["[MASK]", "a"]}, {}, r"text\[1\] has no mask"),
        (
            "fill-mask",
            {"text": ["a"]},
            {"parameters": {"long_text": "window"}},
            "one of error, trunc",
        ),
        ("zero-shot-classification", A, {}, "labels is missing"),
        (
            "zero-shot-classification",
            {"text": ["a"]},
            {"parameters": {"labels": "a, b"}},
            "a JSON list",
        ),
        (
            "zero-shot-classification",
            {"text": ["a"] * 4, "labels": np.array([b"x", b"y", b"z"], object)},
            {},
            "12 pairs with the labels",
        ),
    ],
)
def test_a_bad_request_is_told_what_to_change(
    at: Callable[[Task], Served], task: Task, tensors: dict[str, Any], options: Any, words: str
) -> None:
    served = at(task)
    with pytest.raises(InferenceServerException, match=words) as caught:
        served.infer(tensors, **options)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.raw_input_contents.extend([b"", b""]), "2 entries and inputs has 1"),
        (lambda one: one.raw_input_contents.append(b""), "use one of them"),
        (lambda one: one.inputs[0].shape.append(3), "which is 3 elements"),
        (lambda one: one.inputs[0].shape.append(-1), "each of length 1 or more"),
        (lambda one: one.inputs.append(one.inputs[0]), "there already"),
        (lambda one: one.inputs[0].parameters["shared_memory_region"], "no shared memory"),
        (lambda one: one.inputs[0].parameters["binary_data_size"], "inputs have none"),
        (lambda one: one.outputs.add(name="scores"), "does not give; it gives sentence_embedding"),
        (lambda one: [one.outputs.add(name="windows") for _ in "ab"], "ask for it once"),
        (lambda one: one.outputs.add(name="windows").parameters["classification"], "top_k"),
        (lambda one: one.outputs.add(name="windows").parameters["shared_memory_region"], "leave"),
        (lambda one: one.parameters["truncate"], "truncate is empty"),
        (lambda one: setattr(one, "model_version", "3"), "no version '3'; served: 1"),
        (lambda one: setattr(one, "model_name", "x"), "served: tiny"),
    ],
)
def test_a_bad_message_is_told_what_to_change(
    at: Callable[[Task], Served], change: Callable[[Any], Any], words: str
) -> None:
    request = pb.ModelInferRequest(model_name="tiny")
    text = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    text.contents.bytes_contents.append(b"a")
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        at("feature-extraction").v2.ModelInfer(request)
    assert words in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x01\x00\x00", "its raw contents end after 0"),
        (b"\x05\x00\x00\x00abc", "text[0] should have 5 bytes and 3 are left"),
        (b"\x01\x00\x00\x00ab", "1 bytes of raw contents after its 1 elements"),
        (b"\xff\xff\xff\xffa", "should have 4294967295 bytes"),
    ],
)
def test_raw_strings_that_do_not_add_up_are_refused(
    at: Callable[[Task], Served], data: bytes, words: str
) -> None:
    request = pb.ModelInferRequest(raw_input_contents=[data])
    request.inputs.add(name="text", datatype="BYTES", shape=[1])
    with pytest.raises(grpc.RpcError) as caught:
        at("feature-extraction").v2.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


def test_errors_carry_the_fields_of_all_bad_inputs(at: Callable[[Task], Served]) -> None:
    request = pb.ModelInferRequest()
    text = request.inputs.add(name="text", datatype="BYTES", shape=[3])
    text.contents.bytes_contents.extend([b"", b"cat", b" "])
    with pytest.raises(grpc.RpcError) as caught:
        at("feature-extraction").v2.ModelInfer(request)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [one.field for one in bad.field_violations] == ["text[0]", "text[2]"]


def test_health_reflection_and_undecodable_messages(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    service = "inference.GRPCInferenceService"
    check = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert {service, "bertd.v1.InferenceService"} <= set(database.get_services())
    file = database.FindFileContainingSymbol(service)
    (found,) = (one for one in file.service if one.name == "GRPCInferenceService")
    assert len(found.method) == 20
    assert database.FindFileByName("bertd/oip/model_config.proto").package == "inference"
    raw: Any = served.channel.unary_unary(f"/{service}/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        raw(b"\x0a\x02\xff\xfe")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "model_name is not valid UTF-8" in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(pb, triton_pb), (model_config_pb2, triton_config_pb)],
    ids=["rpc", "config"],
)
def test_every_field_has_the_number_and_type_that_triton_gives_it(ours: Any, theirs: Any) -> None:
    """The whole service; of the configuration, what we know of it."""
    compared = 0
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        same = theirs.DESCRIPTOR.message_types_by_name[name]
        compared += fields_alike(message, same)
    for name, enum in ours.DESCRIPTOR.enum_types_by_name.items():
        same = theirs.DESCRIPTOR.enum_types_by_name[name]
        assert {v.name: v.number for v in enum.values} == {v.name: v.number for v in same.values}
    if ours is pb:
        missing = set(theirs.DESCRIPTOR.message_types_by_name) - set(
            ours.DESCRIPTOR.message_types_by_name
        )
        assert not missing
        service = "GRPCInferenceService"
        methods = [
            {
                method.name: (method.input_type.name, method.output_type.name)
                for method in module.DESCRIPTOR.services_by_name[service].methods
            }
            for module in (ours, theirs)
        ]
        assert methods[0] == methods[1]
        assert compared > 100


def fields_alike(ours: Any, theirs: Any) -> int:
    """Compare a message and those in it; returns the number of fields."""
    for field in ours.fields:
        same = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            same.number,
            same.type,
            same.is_repeated,
        ), field.full_name
        if field.message_type is not None:
            assert field.message_type.full_name == same.message_type.full_name
    return len(ours.fields) + sum(
        fields_alike(one, theirs.nested_types_by_name[one.name]) for one in ours.nested_types
    )


@pytest.mark.parametrize(
    "imports",
    [
        ("tritonclient.grpc", "bertd_server.app"),
        ("bertd_server.app", "tritonclient.grpc"),
    ],
)
def test_tritons_client_and_our_server_share_a_process(imports: tuple[str, str]) -> None:
    """Whichever is imported first."""
    code = (
        "import importlib; "
        + "; ".join(f"importlib.import_module({name!r})" for name in imports)
        + "; from bertd.oip import grpc_service_pb2 as ours; "
        "from tritonclient.grpc import service_pb2 as theirs; "
        "assert ours.ModelInferRequest is not theirs.ModelInferRequest; "
        "sent = ours.ModelInferRequest(id='x').SerializeToString(); "
        "assert theirs.ModelInferRequest.FromString(sent).id == 'x'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
