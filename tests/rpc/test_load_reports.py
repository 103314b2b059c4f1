"""Load reports: what they say, with calls and as a stream, and that balancers follow them."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import Client
from bertd_client.connection.channel import target
from bertd_server.rpc import load_reports
from bertd_server.rpc.load_reports import SERVICE, Rate, Report, Request, utilisation
from bertd_server.rpc.status import LOAD_REPORT
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings


@pytest.fixture(scope="module")
def reporting(tiny_bundle: Path) -> Iterator[RunningServer]:
    running = RunningServer(
        tiny_bundle, quick_settings(http_address="off", load_reports="on", access_log="on")
    )
    yield running
    running.stop()


class Wire:
    """Relays one connection after the other to a server, and keeps what the server sends.

    gRPC's own clients use up a load report and do not show it.
    """

    def __init__(self, address: str) -> None:
        self._to = address.split(":")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.received = b""

    def relay(self) -> None:
        """Relay a connection until it ends."""
        near, _ = self._socket.accept()
        far = socket.create_connection((self._to[0], int(self._to[1])))
        with near, far, selectors.DefaultSelector() as either:
            either.register(near, selectors.EVENT_READ, far)
            either.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in either.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    self.received += data if key.fileobj is far else b""
                    if not data:
                        return
                    key.data.sendall(data)


def asked(address: str, text: str) -> tuple[Any, Any, dict[str, Any]]:
    """The status of a call, its load report if there is one, and the other trailers."""
    wire = Wire(address)
    relaying = threading.Thread(target=wire.relay)
    relaying.start()
    with grpc.insecure_channel(wire.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        call: Any = stub.Embed.future(inference_pb2.EmbedRequest(texts=[text]), timeout=PATIENCE)
        call.exception()
        code, trailers = call.code(), dict(call.trailing_metadata())
    relaying.join(PATIENCE)
    wire._socket.close()
    _, found, rest = wire.received.partition(LOAD_REPORT.encode())
    # A byte with the length, then 0 for bytes as they are.
    return code, Report.FromString(rest[2 : 1 + rest[0]]) if found else None, trailers


@pytest.mark.parametrize(
    ("state", "used"),
    [
        ((0.0, 2, 0.0, 10.0), 0.01),
        ((1.0, 2, 0.0, 10.0), 0.5),
        ((2.0, 2, 0.0, 10.0), 1.0),
        ((2.5, 2, 1.5, 10.0), 2.5),
        ((0.0, 0, math.inf, 10.0), 11.0),
    ],
)
def test_utilisation(state: tuple[float, int, float, float], used: float) -> None:
    """Idle is not 0, which gRPC would not weigh; above 1 are seconds of queue."""
    assert utilisation(*state) == pytest.approx(used)


def test_a_steady_rate_is_found_and_forgotten() -> None:
    rate = Rate()
    for tenth in range(200):
        rate.add(3, 1000 + tenth / 10)
    assert rate.at(1020) == pytest.approx(30, rel=0.05)
    assert rate.at(1060) < 1e-6
    assert Rate().at(5) == 0


def test_each_call_has_a_report_beside_other_trailers(reporting: RunningServer) -> None:
    """So does one that fails; that was not the server's fault."""
    for text, code in (("the cat", grpc.StatusCode.OK), ("", grpc.StatusCode.INVALID_ARGUMENT)):
        got, report, trailers = asked(reporting.address, text)
        assert got is code
        assert 0.01 <= report.application_utilization < 11
        assert report.rps_fractional > 0
        assert report.eps == 0
        assert trailers["x-request-id"]


def test_nothing_is_reported_unless_asked_for(tiny_bundle: Path) -> None:
    running = RunningServer(tiny_bundle, quick_settings(http_address="off"))
    try:
        assert asked(running.address, "the cat")[1] is None
    finally:
        running.stop()


def test_the_stream_reports_until_the_server_stops(tiny_bundle: Path) -> None:
    """It is found by reflection, and holds up no drain."""
    running = RunningServer(tiny_bundle, quick_settings(http_address="off", load_reports="on"))
    with grpc.insecure_channel(running.address) as channel:
        assert SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()
        stream = channel.unary_stream(
            f"/{SERVICE}/StreamCoreMetrics", Request.SerializeToString, Report.FromString
        )(Request(report_interval={"seconds": 3600}), timeout=PATIENCE)
        first: Any = next(stream)
        assert first.application_utilization == pytest.approx(0.01, abs=0.01)
        running.stop()
        assert not list(stream)
        assert stream.code() is grpc.StatusCode.OK


def test_so_many_streams_and_no_more(
    reporting: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third is refused with the limit and the remedy; once one has left, it is taken."""
    monkeypatch.setattr(load_reports, "MOST_STREAMS", 2)
    with grpc.insecure_channel(reporting.address) as channel:
        asks = channel.unary_stream(
            f"/{SERVICE}/StreamCoreMetrics", Request.SerializeToString, Report.FromString
        )
        streams = [asks(Request(), timeout=PATIENCE) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(asks(Request(), timeout=PATIENCE))
        refused: Any = caught.value
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 calls of StreamCoreMetrics are open" in refused.details()
        assert LOAD_REPORT in refused.details()
        streams[0].cancel()
        taken = None
        while taken is None:  # until the server has heard of it
            with contextlib.suppress(grpc.RpcError):
                taken = next(asks(Request(), timeout=PATIENCE))


def test_the_client_asks_for_weights_only_if_told() -> None:
    for weighted in (False, True):
        _, options = target("127.0.0.1:1,127.0.0.1:2", weighted=weighted)
        assert ("weighted_round_robin" in str(dict(options)["grpc.service_config"])) is weighted


@pytest.mark.slow
def test_the_freer_of_two_servers_gets_more_calls(tiny_bundle: Path) -> None:
    """The client weighs what servers report: 0.2 and 0.8 are four calls to one."""
    settings = quick_settings(http_address="off", load_reports="on")
    both = [RunningServer(tiny_bundle, settings) for _ in range(2)]
    for running, used in zip(both, (0.2, 0.8), strict=True):
        load = running.server.reported_load
        assert load is not None
        report = Report(rps_fractional=100, application_utilization=used)
        load._report, load._made = report.SerializeToString(), math.inf
    try:
        with Client([running.address for running in both], weighted=True) as client:
            end = time.monotonic() + PATIENCE
            while True:
                before = [running.server.model.statistics.total.count for running in both]
                for _ in range(200):
                    client.embed(["the cat"])
                after = [running.server.model.statistics.total.count for running in both]
                free, used_up = (b - a for a, b in zip(before, after, strict=True))
                if 3.6 < free / max(used_up, 1) < 4.4 or time.monotonic() > end:
                    break
        assert free / used_up == pytest.approx(4, rel=0.1)
    finally:
        for running in both:
            running.stop()
