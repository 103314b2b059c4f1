"""What must be so behind a proxy of Ray: each check asks a channel, in threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
from bertd.oip import grpc_service_pb2 as oip
from bertd.oip import grpc_service_pb2_grpc as oip_grpc
from bertd.tei.v1 import tei_pb2, tei_pb2_grpc
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc as pb_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from helpers.patience import PATIENCE

TEXTS = ["the cat sat on the mat", "서울은 비가 온다 🙂"]


def failed(ask: Callable[[], Any]) -> Any:
    """The error with which a call ends."""
    try:
        ask()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def reason(error: Any) -> str:
    """The reason in the details of an error."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return str(info.reason)


def vectors(channel: grpc.Channel, **options: Any) -> bytes:
    """The bytes of the vectors of `TEXTS`."""
    stub = pb_grpc.InferenceServiceStub(channel)
    results = stub.Embed(pb.EmbedRequest(texts=TEXTS), **options).results
    return b"".join(one.embedding for one in results)


def errors_are_rich(channel: grpc.Channel) -> None:
    stub = pb_grpc.InferenceServiceStub(channel)
    error = failed(lambda: stub.Embed(pb.EmbedRequest(texts=TEXTS, dimensions=10**6)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "dimensions is 1000000" in error.details()
    assert reason(error) == "OUT_OF_RANGE"
    ask: Any = channel.unary_unary("/bertd.v1.InferenceService/Embed")
    error = failed(lambda: ask(b"\x0a\x01\xff"))
    assert reason(error) == "NOT_UNICODE"


def too_large_is_refused(channel: grpc.Channel) -> None:
    stub = pb_grpc.InferenceServiceStub(channel)
    error = failed(lambda: stub.Embed(pb.EmbedRequest(texts=["a" * 4_200_000])))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in error.details()


def streams_flow(channel: grpc.Channel) -> None:
    """Each request of a stream is sent once the one before it is answered."""
    stub = pb_grpc.InferenceServiceStub(channel)
    answered = threading.Semaphore()

    def requests() -> Iterator[pb.EmbedRequest]:
        for _ in range(3):
            assert answered.acquire(timeout=PATIENCE)
            yield pb.EmbedRequest(texts=TEXTS)

    sizes = []
    for response in stub.EmbedStream(requests()):
        sizes.append(len(response.results))
        answered.release()
    assert sizes == [2, 2, 2]


def names_meet(channel: grpc.Channel) -> None:
    """Methods of one bare name, of which RerankStream is of two kinds."""
    documents = pb.RerankRequest(query="a", documents=TEXTS)
    stub = pb_grpc.InferenceServiceStub(channel)
    (response,) = stub.RerankStream(iter([documents]))
    assert all("feature-extraction" in one.error.message for one in response.results)
    rerank = tei_pb2_grpc.RerankStub(channel)
    texts = iter([tei_pb2.RerankStreamRequest(query="a", text="b")])
    error = failed(lambda: rerank.RerankStream(texts))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    embed = tei_pb2_grpc.EmbedStub(channel)
    (whole,) = [embed.Embed(tei_pb2.EmbedRequest(inputs=TEXTS[0])).embeddings]
    first = np.frombuffer(vectors(channel), np.float32)[: len(whole)]
    np.testing.assert_array_equal(np.asarray(whole, np.float32), first)


def heads_arrive(channel: grpc.Channel) -> None:
    embed = tei_pb2_grpc.EmbedStub(channel)
    _, call = embed.Embed.with_call(tei_pb2.EmbedRequest(inputs="the cat"))
    assert dict(call.initial_metadata())["x-compute-characters"] == "7"
    assert not any(name.startswith("bertd-") for name, _ in call.trailing_metadata())


def streams_fail_richly(channel: grpc.Channel) -> None:
    """What was answered before arrives, then the status with its details."""
    embed = tei_pb2_grpc.EmbedStub(channel)
    requests = [tei_pb2.EmbedRequest(inputs=text) for text in ("a", "b", "")]
    got: list[tei_pb2.EmbedResponse] = []

    def read() -> None:
        got.extend(embed.EmbedStream(iter(requests)))

    error = failed(read)
    assert len(got) == 2
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs is empty" in error.details()
    assert reason(error) == "INVALID_INPUT"


def tensors_are_served(channel: grpc.Channel) -> None:
    stub = oip_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ServerReady(oip.ServerReadyRequest()).ready
    error = failed(
        lambda: stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="other"))
    )
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def health_is_told(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # which its types do not know
    answer = stub.Check(health_pb2.HealthCheckRequest(service="bertd.v1.InferenceService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = failed(lambda: next(stub.Watch(health_pb2.HealthCheckRequest())))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def services_are_described(channel: grpc.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked: Any = reflection_pb2.ServerReflectionRequest
    names, file = stub.ServerReflectionInfo(
        iter(
            [
                asked(list_services=""),
                asked(file_containing_symbol="inference.GRPCInferenceService"),
            ]
        )
    )
    listed = {one.name for one in names.list_services_response.service}
    assert {"bertd.v1.InferenceService", "tei.v1.Embed"} <= listed
    assert file.file_descriptor_response.file_descriptor_proto


CHECKS: tuple[Callable[[grpc.Channel], None], ...] = (
    errors_are_rich,
    too_large_is_refused,
    streams_flow,
    names_meet,
    heads_arrive,
    streams_fail_richly,
    tensors_are_served,
    health_is_told,
    services_are_described,
)
