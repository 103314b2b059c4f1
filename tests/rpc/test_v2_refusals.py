"""Requests of the Open Inference Protocol that cannot be answered, and what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as pb
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helpers.v2_served import LONG, Served
from tritonclient.utils import InferenceServerException

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
        ("feature-extraction", A, {"parameters": {"dimensions": 33}}, "ask for 1 to 32"),
        ("feature-extraction", A, {"parameters": {"dimensions": 0}}, "send 1 or more"),
        ("feature-extraction", A, {"parameters": {"output_dtype": "int4"}}, "float32, int8"),
        ("feature-extraction", A, {"parameters": {"output_dtype": "int8"}}, "ranges is missing"),
        ("feature-extraction", A, {"parameters": {"ranges": "[0]"}}, "lowest and the highest"),
        ("feature-extraction", A, {"parameters": {"ranges": '["a", 1]'}}, "lowest and the highest"),
        ("feature-extraction", A, {"parameters": {"ranges": f"[0, {10**400}]"}}, "the highest"),
        (
            "feature-extraction",
            A,
            {"parameters": {"output_dtype": "int8", "ranges": "[NaN, 1]"}},
            "send finite numbers",
        ),
        ("fill-mask", A, {"parameters": {"targets": "cat"}}, "a JSON list"),
        ("fill-mask", A, {"parameters": {"targets": '["a cat"]'}}, "not one token"),
        (
            "text-ranking",
            {"query": ["a"], "document": ["b"]},
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


def set_string(one: Any, name: str, value: str) -> None:
    one.parameters[name].string_param = value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.raw_input_contents.extend([b"", b""]), "2 entries and inputs has 1"),
        (lambda one: one.raw_input_contents.append(b""), "use one of them"),
        (lambda one: one.inputs[0].shape.append(3), "which is 3 elements"),
        (lambda one: one.inputs[0].shape.append(-1), "each of length 1 or more"),
        (lambda one: one.inputs[0].shape.extend([1] * 64), "of 65 axes: send 1 to 4"),
        (lambda one: one.inputs.append(one.inputs[0]), "there already"),
        (lambda one: one.inputs[0].parameters["shared_memory_region"], "no shared memory"),
        (lambda one: one.inputs[0].parameters["size"], "inputs have none"),
        (
            lambda one: set_string(one.inputs[0], "content_type", "base64"),
            "'base64': send el",
        ),
        (lambda one: set_string(one, "content_type", "pil_image"), "the request has content_type"),
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
    failed: Any = caught.value
    status = rpc_status.from_call(failed)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [one.field for one in bad.field_violations] == ["text[0]", "text[2]"]
