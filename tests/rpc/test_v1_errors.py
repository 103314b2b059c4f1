"""What is wrong with a call of bertd.v1, over real gRPC: the code, the reason, the field."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2 as pb
from bertd_server.errors import Overloaded, RequestError
from bertd_server.rpc.status import to_status
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helpers.servers import Servers

LONG = "the cat " * 400
INVALID, FAILED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
UNKNOWN: Any = 17  # no value of any enum
WINDOW: dict[str, Any] = {"long_text": pb.LONG_TEXT_POLICY_WINDOW}
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
        "fill-mask", "FillMask", pb.FillMaskRequest(texts=["[MASK]"], targets=["cat", "sat on"]),
        INVALID, "targets[1]", "UNKNOWN_VALUE",
    ),
    (
        "fill-mask", "FillMask", pb.FillMaskRequest(texts=["[MASK]"], targets=["cat"] * 1_001),
        INVALID, "targets", "TOO_MANY",
    ),
    (
        "fill-mask", "EmbedSparse", pb.EmbedSparseRequest(texts=["a"], **WINDOW), INVALID,
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
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"], priority=UNKNOWN), INVALID,
        "priority", "UNKNOWN_VALUE",
    ),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"], dimensions=33), INVALID,
        "dimensions", "OUT_OF_RANGE",
    ),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"], dimensions=0), INVALID,
        "dimensions", "OUT_OF_RANGE",
    ),
    (
        "feature-extraction", "Embed", pb.EmbedRequest(texts=["a"], output_dtype=UNKNOWN), INVALID,
        "output_dtype", "UNKNOWN_VALUE",
    ),
    (
        "feature-extraction", "Embed",
        pb.EmbedRequest(texts=["a"], output_dtype=pb.VECTOR_DTYPE_INT8), INVALID,
        "ranges", "INVALID_INPUT",
    ),
    (
        "feature-extraction", "EmbedSparse", pb.EmbedSparseRequest(texts=["a"]), FAILED,
        "", "WRONG_TASK",
    ),
    (
        "text-ranking", "Rerank",
        pb.RerankRequest(query="a", documents=["b"], prompt_name="query"), INVALID,
        "prompt_name", "UNKNOWN_VALUE",
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
        pb.ClassifyRequest(inputs=[pb.TextInput(text="a")], score_function=UNKNOWN), INVALID,
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
        "token-classification", "TagTokens", pb.TagTokensRequest(texts=["a"], aggregation=UNKNOWN),
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


def test_every_error_has_a_reason_and_only_a_lack_of_room_a_time_to_retry() -> None:
    """One status for each class, whatever RPC it meets."""
    made: list[RequestError] = [
        Overloaded("full", reason="queue_tokens", retry_after_seconds=0.25),
        *(
            kind("why")
            for kind in RequestError.__subclasses__()
            if kind is not Overloaded and kind.__module__ == RequestError.__module__
        ),
    ]
    seen = {}
    for error in made:
        status = to_status(error)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        seen[type(error).__name__] = (status.code, info.reason)
        assert any(detail.Unpack(retry) for detail in status.details) == (type(error) is Overloaded)
        assert retry.retry_delay.ToMilliseconds() == (250 if type(error) is Overloaded else 0)
    assert seen == {
        "Overloaded": (8, "QUEUE_TOKENS"),
        "InvalidInput": (3, "INVALID_INPUT"),
        "Unauthenticated": (16, "UNAUTHENTICATED"),
        "PermissionDenied": (7, "PERMISSION_DENIED"),
        "UnknownModel": (5, "UNKNOWN_MODEL"),
        "WrongTask": (9, "WRONG_TASK"),
        "CannotLoad": (9, "CANNOT_LOAD"),
        "Unsupported": (12, "UNSUPPORTED"),
        "DeadlineMissed": (4, "DEADLINE_MISSED"),
        "Draining": (14, "DRAINING"),
        "Starting": (14, "STARTING"),
        "NoLane": (14, "NO_LANE"),
        "EngineFailure": (13, "ENGINE_FAILURE"),
    }
