"""Traces to a real collector; ids of requests; the access log; what is not done where it is off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_client import Client
from bertd_client.errors import NotFound
from bertd_server.errors import CannotServeError
from bertd_server.rpc.health import HealthService
from bertd_server.scheduling.memory_budget import MemoryBudget
from bertd_server.serving.assembly import Observability
from bertd_server.system.call_metrics import given_id
from google.rpc import error_details_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_status import rpc_status
from helpers.observed import collecting
from helpers.running import RunningServer, quick_settings
from pydantic import ValidationError
from structlog.testing import capture_logs

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "nobody shall read this"  # noqa: S105 - a text


def test_a_request_is_traced_below_its_caller(tiny_bundle: Path) -> None:
    """Stages below one server span, a batch with links both ways, one id in log and trailers."""
    with collecting() as (collector, endpoint), capture_logs() as lines:
        settings = quick_settings(
            tracing_endpoint=endpoint, access_log="on", channelz="on", http_address="off"
        )
        running = RunningServer(tiny_bundle, settings)
        with grpc.insecure_channel(running.address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "mine"))
            call = stub.Embed.with_call(pb.EmbedRequest(texts=[SECRET, "b"]), metadata=metadata)[1]
            assert ("x-request-id", "mine") in call.trailing_metadata()
            unsampled = (("traceparent", f"00-{TRACE[::-1]}-{PARENT}-00"),)
            stub.Embed(pb.EmbedRequest(texts=["c"]), metadata=unsampled)
            messages = iter([pb.EmbedRequest(texts=[str(i)]) for i in range(3)])
            assert len(list(stub.EmbedStream(messages))) == 3
            with pytest.raises(grpc.RpcError):
                stub.Embed(pb.EmbedRequest(texts=[""]))
            tops = channelz_pb2_grpc.ChannelzStub(channel).GetServers(
                channelz_pb2.GetServersRequest()
            )
            assert len(tops.server) >= 1
        running.stop()  # which sends what is left
    spans = {span.span_id: span for span in collector.spans}
    assert collector.resources["service.name"] == "bertd"
    mine = [span for span in spans.values() if span.trace_id.hex() == TRACE]
    (top,) = [span for span in mine if span.parent_span_id.hex() == PARENT]
    assert (top.name, top.kind) == ("bertd.v1.InferenceService/Embed", 2)
    attributes = {one.key: one.value for one in top.attributes}
    assert attributes["rpc.grpc.status_code"].int_value == 0
    assert attributes["bertd.request_id"].string_value == "mine"
    assert attributes["bertd.model"].string_value == "tiny"
    stages = {span.name: span for span in mine if span.parent_span_id == top.span_id}
    assert set(stages) == {"tokenize", "queue", "compute", "conclude"}
    begins = [stages[name].start_time_unix_nano for name in ("tokenize", "queue", "compute")]
    assert begins == sorted(begins)
    for stage in stages.values():
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano <= top.end_time_unix_nano
    (link,) = stages["compute"].links
    batch = spans[link.span_id]
    assert (batch.name, batch.trace_id.hex() != TRACE) == ("batch", True)
    assert top.span_id in [back.span_id for back in batch.links]
    assert not [span for span in spans.values() if span.trace_id.hex() == TRACE[::-1]]
    (stream,) = [span for span in spans.values() if span.name.endswith("EmbedStream")]
    below = [span.name for span in spans.values() if span.parent_span_id == stream.span_id]
    assert below.count("tokenize") == below.count("compute") == 3

    access = [line for line in lines if line["event"] == "rpc"]
    assert [(line["code"], line["texts"]) for line in access] == [
        ("OK", 2), ("OK", 1), ("OK", 3), ("INVALID_ARGUMENT", 1),
    ]  # fmt: skip
    assert (access[0]["request_id"], access[0]["trace_id"]) == ("mine", TRACE)
    assert (access[0]["model"], access[0]["tokens"] > 2) == ("tiny", True)
    assert access[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert (access[3]["reason"], access[3]["log_level"]) == ("empty", "warning")
    assert len({line["request_id"] for line in access}) == 4
    assert SECRET not in str(lines)


def test_errors_alone_have_lines_at_a_share_of_0_and_texts_only_if_asked(tiny_bundle: Path) -> None:
    """The id made here is in the log, the trailers and the status."""
    settings = quick_settings(access_log="on", access_log_sample=0.0, log_texts="on")
    running = RunningServer(tiny_bundle, settings)
    with capture_logs() as lines, grpc.insecure_channel(running.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        stub.Embed(pb.EmbedRequest(texts=["fine"]))
        with Client(running.address) as client, pytest.raises(NotFound) as unknown:
            client.embed(["a"], model="nobody")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embed(pb.EmbedRequest(texts=["", " "]))
        running.stop()  # the line may come after the answer
    first, line = (line for line in lines if line["event"] == "rpc")
    assert (unknown.value.request_id, "NOT_FOUND") == (first["request_id"], first["code"])
    assert line["inputs"] == ["", " "]
    assert _request_info(caught.value) == line["request_id"]
    assert ("x-request-id", line["request_id"]) in _trailers(caught.value)


def test_where_all_is_off_nothing_watches_and_an_error_keeps_its_callers_id(
    task_server: Callable[[Task], RunningServer],
) -> None:
    """No interceptor; no id is made up."""
    running = task_server("feature-extraction")
    assert not running.server.observability.interceptors
    with grpc.insecure_channel(running.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for metadata, expected in (
            ((("x-request-id", "theirs"),), "theirs"),
            ((), None),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Embed(pb.EmbedRequest(), metadata=metadata)
            assert _request_info(caught.value) == expected
            assert dict(_trailers(caught.value)).get("x-request-id") == expected


def _trailers(error: Any) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(error.trailing_metadata())


def _request_info(error: Any) -> str | None:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.RequestInfo()
    found = [detail.Unpack(info) for detail in status.details]
    return str(info.request_id) if any(found) else None


@pytest.mark.parametrize("given", ["", "a" * 129, "a\nb", "é"])
def test_an_id_that_cannot_be_logged_is_not_taken_over(given: str) -> None:
    assert given_id((("x-request-id", given),)) == ""
    assert given_id((("x-request-id", b"\xff"),)) == ""


def test_off_imports_nothing_and_the_variables_of_opentelemetry_turn_traces_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """prometheus-client and OpenTelemetry wait until they are asked for."""
    script = (
        "import sys, bertd_server.process.app\n"
        "print([m for m in ('prometheus_client', 'opentelemetry', 'grpc_channelz')"
        " if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

    def observability(**changes: str) -> Observability:
        settings = quick_settings(**changes)
        return Observability(settings, HealthService([]), lambda: (), frozenset(), MemoryBudget())

    assert not observability().interceptors
    with collecting() as (_, endpoint), monkeypatch.context() as variables:
        variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        made = observability()
        assert made.interceptors
        assert made._tracing is not None
        made._tracing.close()
        assert not observability(tracing_endpoint="off").interceptors
        variables.setenv("OTEL_SDK_DISABLED", "true")
        assert not observability().interceptors
        variables.delenv("OTEL_SDK_DISABLED")
        variables.setitem(sys.modules, "bertd_server.observability.tracing", None)
        with capture_logs() as lines:
            assert not observability().interceptors
        assert lines[0]["remedy"] == "pip install 'bertd[tracing]'"
        with pytest.raises(CannotServeError, match=r"pip install 'bertd\[tracing\]'"):
            observability(tracing_endpoint=endpoint)
    with pytest.raises(ValidationError, match="is no endpoint"):
        quick_settings(tracing_endpoint="localhost")
    with pytest.raises(ValidationError, match="is no address"):
        quick_settings(http_address="8002")


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_form_and_the_level_of_the_log(form: str) -> None:
    """In a process of its own, as set-up is global."""
    script = (
        "import structlog\nfrom bertd_server.system import logs\n"
        f"logs.configure({form!r}, 'warning')\n"
        "log = structlog.get_logger()\nlog.info('quiet')\nlog.warning('loud', texts=3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    if form == "json":
        assert json.loads(line)["texts"] == 3
    else:
        assert "loud" in line
        assert "texts=3" in line
