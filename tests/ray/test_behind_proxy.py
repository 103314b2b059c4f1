"""The services behind a proxy that passes on what Ray's does, without Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc as pb_grpc
from bertd_ray import wire
from bertd_ray.calls import AnswerBytes, RayCall
from bertd_ray.replica import Replica
from bertd_server.errors import DeadlineMissed, InvalidInput, Overloaded, RequestError
from bertd_server.inside.options import OpenOptions
from bertd_server.rpc.services import METHODS
from helpers.key_files import write_keys
from helpers.like_ray import ActorDied, LikeRay
from helpers.patience import PATIENCE
from helpers.ray_checks import CHECKS, TEXTS, failed, vectors

QUICK: OpenOptions = {
    "warmup_seconds": 0,
    "calibration_seconds": 0.05,
    "lane_niceness": 0,
    "lanes": 1,
    "threads": 1,
    "max_queue_seconds": PATIENCE,
    "max_request_seconds": PATIENCE,
}


@asynccontextmanager
async def behind(replica: Any) -> AsyncIterator[grpc.Channel]:
    """A channel to a replica behind a proxy."""
    proxy = LikeRay(replica)
    port = proxy.server.add_insecure_port("127.0.0.1:0")
    await proxy.server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await proxy.server.stop(None)


@asynccontextmanager
async def replica_of(bundle: Path, **options: Any) -> AsyncIterator[Replica]:
    """A replica, made and ended as Ray does it."""
    replica = Replica.__new__(Replica)
    made: Any = replica.__init__(  # type: ignore[misc]  # Ray's way
        str(bundle),
        max_texts_per_call=256,
        max_message_bytes=4 * 2**20,
        settings=QUICK,
        **options,
    )
    await made
    try:
        yield replica
    finally:
        ending = replica.__del__()
        assert ending is not None
        await ending
    assert replica.__del__() is None


def test_all_methods_are_there_but_watch() -> None:
    assert set(wire.METHODS) == METHODS - {"/grpc.health.v1.Health/Watch"}


async def test_calls_are_what_they_are_without_a_proxy(tiny_bundle: Path) -> None:
    async with replica_of(tiny_bundle) as replica, behind(replica) as channel:
        expected = (await replica.embed(TEXTS)).tobytes()
        assert await asyncio.to_thread(vectors, channel) == expected
        for check in CHECKS:
            await asyncio.to_thread(check, channel)
        replica.check_health()
        assert replica.record_autoscaling_stats()["bertd_utilisation"] > 0


async def test_keys_and_scopes_count(tiny_bundle: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", {"someone": "bertd_someone_secret"})
    async with replica_of(tiny_bundle, api_keys=str(keys)) as replica, behind(replica) as channel:
        error = await asyncio.to_thread(failed, lambda: vectors(channel))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        own = (("authorization", "Bearer bertd_someone_secret"),)
        assert await asyncio.to_thread(vectors, channel, metadata=own)


class Told:
    """In the place of a replica: answers with what it is told of a call."""

    async def Embed(  # noqa: N802 - the RPC's name
        self,
        request: bytes,  # noqa: ARG002 - the time is all that is told
        *,
        grpc_context: Any,
    ) -> AnswerBytes:
        call = RayCall(grpc_context)
        left = call.time_remaining()
        whole = "none" if left is None else str(left)
        return AnswerBytes(
            pb.EmbedResponse(model=whole, model_version=call.path).SerializeToString()
        )


async def test_the_path_and_the_deadline_are_told_by_the_proxy_alone() -> None:
    async with behind(Told()) as channel:
        stub = pb_grpc.InferenceServiceStub(channel)

        def told(timeout: float | None) -> tuple[str, str]:
            lies = ((wire.TIMEOUT, "1"), (wire.RPC, "/tei.v1.Info/Info"))
            response = stub.Embed(pb.EmbedRequest(), timeout=timeout, metadata=lies)
            return response.model, response.model_version

        left, path = await asyncio.to_thread(told, 500)
        assert path == "/bertd.v1.InferenceService/Embed"
        assert 1 < float(left) <= 505  # gRPC rounds so long a timeout up
        assert (await asyncio.to_thread(told, None))[0] == "none"


class Dying:
    """In the place of a replica that dies with its call."""

    async def Embed(  # noqa: N802 - the RPC's name
        self, request: bytes, *, grpc_context: Any
    ) -> AnswerBytes:
        raise ActorDied(request, grpc_context)


async def test_a_call_whose_replica_died_may_be_sent_again() -> None:
    async with behind(Dying()) as channel:
        error = await asyncio.to_thread(failed, lambda: vectors(channel))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "send it again" in error.details()
        assert "192" not in error.details()


async def test_a_proxy_with_generated_servicers_is_told_what_is_wrong(tiny_bundle: Path) -> None:
    """Ray then decodes messages itself, and says nothing of paths."""

    class Context:
        code: Any = None
        details = ""

        def invocation_metadata(self) -> list[tuple[str, str]]:
            return []

        def set_code(self, code: Any) -> None:
            self.code = code

        def set_details(self, details: str) -> None:
            self.details = details

    async with replica_of(tiny_bundle) as replica:
        context = Context()
        answer = await replica.Embed(pb.EmbedRequest(texts=["a"]), grpc_context=context)  # type: ignore[attr-defined]
        assert answer.SerializeToString() == b""
        assert context.code is grpc.StatusCode.FAILED_PRECONDITION
        assert wire.SERVICERS in context.details


async def test_what_is_unexpected_is_no_secret_of_the_machine(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica_of(tiny_bundle) as replica, behind(replica) as channel:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("here")

        monkeypatch.setattr("bertd_server.rpc.v1.inference.requests.vector_format", broken)
        error = await asyncio.to_thread(failed, lambda: vectors(channel))
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert error.details() == "Unexpected ZeroDivisionError: here"


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full", reason="queue", retry_after_seconds=2.0, in_vain=True),
        InvalidInput("wrong", field="texts", limit=3),
        DeadlineMissed("late"),
    ],
)
def test_errors_go_from_process_to_process(error: RequestError) -> None:
    """Another deployment, which asks through a handle, gets them so."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert (again.args, again.__dict__) == (error.args, error.__dict__)
