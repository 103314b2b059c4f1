"""Prometheus metrics, health over HTTP, the dashboard and the alerts, against a real server."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from bertd.v1 import inference_pb2, inference_pb2_grpc
from bertd_client import Client
from bertd_server.models.model import Model
from bertd_server.observability import families, metrics
from bertd_server.observability.endpoint import Endpoint
from bertd_server.observability.pages import Pages
from bertd_server.serving import assembly
from bertd_server.serving.server import CannotListenError, Server
from bertd_server.system.call_metrics import RpcCounts
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.observed import get, samples, scrape, value
from helpers.paths import ROOT
from helpers.running import RunningServer, quick_settings
from prometheus_client.openmetrics import parser

CALLS, TEXTS = 24, 5


@pytest.fixture(scope="module")
def watched(tiny_bundle: Path) -> Iterator[RunningServer]:
    """A server with HTTP."""
    running = RunningServer(tiny_bundle, quick_settings(http_address="127.0.0.1:0"))
    with Client(running.address) as client:
        client.embed(["the first text"])
    yield running
    running.stop()


def http(running: RunningServer) -> str:
    return running.server.observability.http_address


def test_scrapes_under_load_are_consistent_and_count_every_text(watched: RunningServer) -> None:
    """Each scrape is whole; in the end each text stands in the queue's histogram, once."""
    before, seen = scrape(http(watched)), []
    done = threading.Event()

    def scraping() -> None:
        while not done.is_set():
            seen.append(scrape(http(watched)))

    with Client(watched.address) as client, ThreadPoolExecutor(5) as threads:
        scraper = threads.submit(scraping)
        calls = [[_text(call * TEXTS + i) for i in range(TEXTS)] for call in range(CALLS)]
        answers = list(threads.map(client.embed, calls))
        done.set()
        scraper.result()
    assert [len(answer) for answer in answers] == [TEXTS] * CALLS
    after = scrape(http(watched))
    for name, more in (
        ("bertd_queue_seconds_count", CALLS * TEXTS),
        ("bertd_texts_total", CALLS * TEXTS),
        ("bertd_request_seconds_count", CALLS),
        ("bertd_tokenize_seconds_count", CALLS),
        ("bertd_rpcs_total", CALLS),
        ("bertd_batch_sequences_sum", CALLS * TEXTS),
    ):
        assert value(after, name) - value(before, name) == more, name
    batches = value(after, "bertd_compute_seconds_count")
    assert value(after, "bertd_cost_model_ratio_count") == batches
    for name in ("bertd_in_flight_texts", "bertd_in_flight_requests", "bertd_rpcs_in_flight"):
        assert value(after, name) == 0
    for found in [*seen, after]:
        _assert_whole(found)
    counts = [value(found, "bertd_queue_seconds_count") for found in [*seen, after]]
    assert counts == sorted(counts)


def _text(number: int) -> str:
    """Another one for each number, of words that the tiny tokenizer tells apart."""
    return " ".join("the" if bit == "1" else "of" for bit in f"{number:b}")


def _assert_whole(found: list[Any]) -> None:
    """Buckets grow, the last one is the count, and no series is there twice."""
    series = [(one.name, *sorted(one.labels.items())) for one in samples(found)]
    assert len(series) == len(set(series))
    for family in found:
        if family.type == "histogram":
            below = [one.value for one in family.samples if one.name.endswith("_bucket")]
            assert below == sorted(below)
            bounds = [one.labels["le"] for one in family.samples if "le" in one.labels]
            assert bounds[-1] == "+Inf"
            assert below[-1] == next(
                one.value for one in family.samples if one.name.endswith("_count")
            )


def test_the_table_of_the_document_is_what_is_exported(watched: RunningServer) -> None:
    """Names, kinds and labels; docs/observability.md has the table as it is."""
    assert families.table() in (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    expected = {
        **{
            each.name: (each.kind, {*families.OF_MODEL, *each.labels}) for each in families.FAMILIES
        },
        **{name: (kind, set(labels)) for name, (kind, _, labels) in families.OF_SERVER.items()},
        **{name: (kind, set()) for name, (kind, _) in families.OF_PROCESS.items()},
    }
    found = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for one in family.samples for label in one.labels} - {"le"},
        )
        for family in scrape(http(watched))
    }
    assert found == expected


def test_formats_and_encodings_are_those_that_the_scraper_accepts(watched: RunningServer) -> None:
    """OpenMetrics, gzip, a selection of names."""
    accept = "application/openmetrics-text; version=1.0.0"
    status, headers, body = get(
        http(watched), "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"}
    )
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert headers["content-encoding"] == "gzip"
    read: Any = parser.text_string_to_metric_families  # it has no types
    named = {one.name for one in read(gzip.decompress(body).decode())}
    assert {"bertd_queue_seconds", "bertd_refusals", "process_cpu_seconds"} <= named
    _, _, body = get(http(watched), "/metrics?name[]=bertd_ready")
    assert body.decode().splitlines()[-1] == "bertd_ready 1.0"


def test_paths_and_methods(watched: RunningServer) -> None:
    """404 names the pages, 405 the methods; HEAD has no body."""
    status, _, body = get(http(watched), "/metric")
    assert (status, body) == (404, b"there are /, /healthz, /metrics, /readyz\n")
    status, headers, _ = get(http(watched), "/metrics", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    status, headers, body = get(http(watched), "/healthz", "HEAD")
    assert (status, headers["content-length"], body) == (200, "3", b"")
    assert get(http(watched), "/")[2].startswith(b"bertd ")
    status, _, body = get(http(watched), "/readyz")
    (model,) = json.loads(body)["models"]
    assert (status, model["name"], model["ready"]) == (200, "tiny", True)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"hello\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000, b"HTTP/1.1 431 "),
    ],
)
def test_what_is_no_request_is_told_so(watched: RunningServer, sent: bytes, answer: bytes) -> None:
    """And takes no memory beyond the limit."""
    host, _, port = http(watched).rpartition(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(answer)


async def test_slow_clients_hold_nobody_up_and_a_stuck_loop_is_seen() -> None:
    """The page is asked from the event loop itself, which so is stuck for just that long."""

    def look() -> metrics.ServerSnapshot:
        return metrics.look(lambda: (), RpcCounts(), ready=True, draining=False)

    endpoint = Endpoint(Pages(look, 0, seconds=0.05).pages(), seconds=0.5)
    port = endpoint.start("127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as slow:
            slow.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert (await asyncio.to_thread(get, address, "/healthz"))[0] == 200
            assert (await asyncio.to_thread(slow.recv, 1)) == b""  # let go after its time
        for path in ("/healthz", "/readyz", "/metrics"):
            status, _, body = get(address, path)
            assert status == 503
            assert b"the event loop has not answered in 0.05 s" in body
        assert (await asyncio.to_thread(get, address, "/readyz"))[0] == 200
    finally:
        await asyncio.to_thread(endpoint.stop)


async def test_a_probe_is_answered_beside_any_number_of_slow_connections() -> None:
    """Whoever says nothing makes room for the next; nobody waits for its time."""

    def look() -> metrics.ServerSnapshot:
        return metrics.look(lambda: (), RpcCounts(), ready=True, draining=False)

    endpoint = Endpoint(Pages(look, 0).pages(), seconds=900)
    port = endpoint.start("127.0.0.1", 0)
    slow = []
    try:
        for number in range(200):
            slow.append(socket.create_connection(("127.0.0.1", port), 60))
            if number % 2:
                slow[-1].sendall(b"GET /healthz HTTP/1.1\r\n")
        for path in ("/healthz", "/readyz"):
            assert (await asyncio.to_thread(get, f"127.0.0.1:{port}", path))[0] == 200
        assert len(endpoint._connections) <= 64
    finally:
        for one in slow:
            one.close()
        await asyncio.to_thread(endpoint.stop)


async def test_a_draining_server_is_not_ready_and_two_live_side_by_side(
    tiny_bundle: Path, watched: RunningServer
) -> None:
    """One's counts are not the other's; a port that is taken is said so."""
    taken = Server(tiny_bundle, quick_settings(http_address=http(watched)))
    with pytest.raises(CannotListenError, match=r"already in use.*another with --http-address"):
        await taken.start()
    await taken.drain()
    server = Server(tiny_bundle, quick_settings(http_address="127.0.0.1:0"))
    await server.start()
    address = server.observability.http_address
    found = await asyncio.to_thread(scrape, address)
    assert (
        value(found, "bertd_texts_total") == 0 < value(scrape(http(watched)), "bertd_texts_total")
    )
    server._health.drain()
    status, _, body = await asyncio.to_thread(get, address, "/readyz")
    assert (status, json.loads(body)["ready"], json.loads(body)["draining"]) == (503, False, True)
    assert value(await asyncio.to_thread(scrape, address), "bertd_ready") == 0
    assert (await asyncio.to_thread(get, address, "/healthz"))[0] == 200
    await server.drain()


def test_rpcs_are_counted_by_code_and_models_have_a_health_of_their_own(
    watched: RunningServer,
) -> None:
    """An error, and a watcher that is in flight until it leaves."""
    before = scrape(http(watched))
    rpc = "bertd.v1.InferenceService/Embed"
    with grpc.insecure_channel(watched.address) as channel:
        with pytest.raises(grpc.RpcError):
            inference_pb2_grpc.InferenceServiceStub(channel).Embed(
                inference_pb2.EmbedRequest(model="nobody")
            )
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="models/tiny"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        during = scrape(http(watched))
        assert value(during, "bertd_rpcs_in_flight", rpc="grpc.health.v1.Health/Watch") == 1
        watch.cancel()
    counted = [
        value(found, "bertd_rpcs_total", rpc=rpc, code="NOT_FOUND") for found in (before, during)
    ]
    assert counted[1] - counted[0] == 1


async def test_models_have_series_of_their_own_and_a_reload_no_series_twice(
    tiny_bundle: Path,
) -> None:
    """While one of a name and version replaces another, the newer is seen."""
    servers = [Server(tiny_bundle, quick_settings(http_address="off")) for _ in range(2)]
    first, second = [await _loaded(server) for server in servers]
    first.statistics.answered, second.statistics.answered = 1, 2
    served = [("a", "1", first), ("b", "2", first), ("a", "1", second)]
    views = [
        replace(assembly._snapshot(model), name=name, version=version)
        for name, version, model in served
    ]
    state = metrics.look(lambda: views, RpcCounts(), ready=True, draining=False)
    second.statistics.answered = 9  # what was seen stays
    collector = metrics.SnapshotCollector(0)
    collector.state = state
    found = list(metrics.registry(collector).collect())
    _assert_whole([family for family in found if family.name == "bertd_texts"])
    for name, version, count in (("a", "1", 2), ("b", "2", 1)):
        labels = {"model": name, "version": version, "outcome": "answered"}
        assert value(found, "bertd_texts_total", **labels) == count
    for server in servers:
        await server.drain()


async def _loaded(server: Server) -> Model:
    await server.load()
    return server.model


# --- dashboard and alerts ---

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-z_]+)\{([^}]*)\}|\b((?:bertd|process)_[a-z_]+|up)\b")
_MATCHER = re.compile(r'([a-z_]+)\s*(=~|=|!=|!~)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_TEMPLATE = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")
_WORDS = {"histogram_quantile", "increase", "rate", "sum"}  # of PromQL, that are used
_TARGET = {"instance", "job"}  # labels that Prometheus itself adds


def _queries() -> list[tuple[str, str]]:
    """Each PromQL expression of the dashboard and the alerts, and the text that it labels."""
    board = json.loads((ROOT / "deploy/grafana/bertd.json").read_text(encoding="utf-8"))
    found = [
        (target["expr"], target["legendFormat"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}
            notes = rule["annotations"]
            found.append((rule["expr"], f"{notes['summary']} {notes['description']}"))
    return found


def test_dashboard_and_alerts_use_what_is_exported(watched: RunningServer) -> None:
    """Every name, every label that is matched, grouped by or shown, every value of a closed set."""
    exported: dict[str, set[str]] = {"up": set()}
    for one in samples(scrape(http(watched))):
        exported.setdefault(one.name, set()).update(one.labels)
    values = {"outcome": families.OUTCOMES, "reason": families.REFUSALS}
    queries = _queries()
    assert len(queries) > 40
    used = set()
    for expression, shown in queries:
        assert expression.count("(") == expression.count(")")
        labels = set(_TARGET)
        for name, matchers, bare in _SELECTOR.findall(expression):
            metric = name or bare
            assert metric in exported, expression
            used.add(metric)
            labels |= exported[metric]
            for label, operator, wanted in _MATCHER.findall(matchers):
                assert label in exported[metric] | _TARGET, (expression, label)
                if label in values and operator in {"=", "=~"}:
                    assert any(re.fullmatch(wanted, one) for one in values[label]), expression
        left = _GROUPING.sub("", re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression))
        assert set(re.findall(r"[a-z_]{2,}", left)) <= _WORDS | exported.keys(), expression
        for grouping in _GROUPING.findall(expression):
            assert {each.strip() for each in grouping.split(",")} <= labels, expression
        mentioned = set(_TEMPLATE.findall(_STRING.sub("", shown)))
        assert mentioned <= labels, (expression, mentioned - labels)
    assert len(used) > 30
