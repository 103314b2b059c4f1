"""Malformed requests over HTTP: each has a status that is right for it, and never 500.

::

    hypothesis ──path, JSON of its own making, bytes, headers──> server: statuses, its log, its RSS
"""

from __future__ import annotations

import http.client
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from bertd_bench.contestants.hosted import free_port
from helpers.http_served import EMBED, repository
from helpers.restartable import RestartableServer, quick
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from robustness.scale import SCALE, check_memory, patient

EXAMPLES = 100 * SCALE
HANG = 60.0  # seconds in which any call has to end
# Answered; refused for what the client sent. Nothing here is too much, or comes while others wait.
RIGHT = {200, 400, 401, 403, 404, 405, 413, 415, 422, 424}
TASKS = (EMBED, "text-ranking", "question-answering", "token-classification", "other", "")
PATHS = (
    *("/v1/embeddings", "/rerank", "/v2/rerank", "/embed", "/embed_all", "/embed_sparse"),
    *("/predict", "/similarity", "/tokenize", "/decode", "/", "/v1/models/x", "/info"),
    *("/v2/models/{}/infer", "/v2/models/{}/versions/1/infer", "/v2/repository/index"),
    *("/v1/tasks/embed", "/v1/tasks/rerank", "/v1/tasks/tag-tokens", "/v1/tasks/answer"),
    *("/v1/tasks/tokenize", "/v1/tasks/detokenize", "/v1/tasks/zero-shot-classify"),
    *("/v1/tasks/EmbedStream", "/openai/deployments/{}/embeddings", "/nowhere"),
)
NAMES = (
    *("input", "inputs", "model", "texts", "documents", "query", "dimensions", "truncate"),
    *("encoding_format", "parameters", "outputs", "name", "shape", "datatype", "data", "ids"),
    *("question", "context", "source_sentence", "sentences", "top_n", "labels", "sequences"),
    *("candidate_labels", "top_k", "binary_data_size", "output_dtype", "ranges", "id", "text"),
)
WORDS = ("the cat", "BYTES", "INT64", "FP32", "text", "input_ids", "base64", "안녕", "", "\0", "😀")
numbers = st.one_of(
    st.integers(-3, 20), st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**40]), st.floats()
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(WORDS), st.text())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=25,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)
bodies = st.one_of(
    objects.map(lambda value: json.dumps(value).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.tuples(objects, st.integers(0, 40)).map(lambda one: json.dumps(one[0]).encode()[: one[1]]),
    st.binary(max_size=200),
    st.sampled_from([b"[" * 100_000, b'{"input":[' + b'"",' * 200_000, b"\xff\xfe", b'"\\ud800"']),
)
headers = st.dictionaries(
    st.sampled_from(
        [
            *("content-type", "content-encoding", "x-request-timeout-ms", "grpc-timeout"),
            *("inference-header-content-length", "bertd-model", "x-request-id", "authorization"),
        ]
    ),
    st.sampled_from(["gzip", "deflate", "br", "7", "0", "-1", "60S", "x", "9" * 40, *TASKS]),
    max_size=3,
)


@dataclass
class Besieged:
    """A server, a connection to it, and what was seen of it."""

    server: RestartableServer
    port: int
    memory: list[int] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """The status and the JSON of an answer; the connection stays while it may."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        read = answer.read()
        if answer.will_close:
            self.connection.close()
        binary = answer.getheader("content-type") == "application/octet-stream"
        return answer.status, None if binary or method == "HEAD" else json.loads(read)


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    scratch, port = tmp_path_factory.mktemp("http"), free_port()
    flags = ["--repository", str(repository(tmp_path_factory)), "--default-model", EMBED]
    address = ["--http-api", f"127.0.0.1:{port}", "--max-message-bytes", "1MiB"]
    log = scratch / "serve.log"
    server = RestartableServer([*flags, *address, *quick(scratch)], log)
    found = Besieged(server, port)
    try:
        server.start()
        yield found
        assert server.running
        assert "Traceback" not in log.read_text(errors="replace")
        assert {200, 400, 404, 405, 422} <= found.statuses
        check_memory(found.memory, statistics.median)
    finally:
        if found.connection is not None:
            found.connection.close()
        server.close()


@patient
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["POST", "POST", "POST", "POST", "GET", "HEAD", "DELETE", "PATCH"]),
    path=st.sampled_from(PATHS),
    model=st.sampled_from(TASKS),
    body=bodies,
    headers=headers,
)
@example("POST", "/embed", "", b'{"inputs": "the cat"}', {})
@example("POST", "/embed", "", b'{"inputs": 1}', {})
@example("POST", "/v1/embeddings", "", b"", {})
@example("GET", "/embed", "", b"", {})
@example("GET", "/nowhere", "", b"", {})
def test_malformed_requests_have_statuses_that_are_right_for_them(  # noqa: PLR0913, PLR0917 - hypothesis gives them
    besieged: Besieged, method: str, path: str, model: str, body: bytes, headers: dict[str, str]
) -> None:
    named = {"bertd-model": model} if model else {}
    given_up = {"x-request-timeout-ms", "grpc-timeout"} & set(headers)
    status, said = besieged.ask(method, path.format(model or "x"), body, {**named, **headers})
    besieged.statuses.add(status)
    # Of a deadline of some ms 504 is right.
    assert status in RIGHT | ({504, 429} if given_up else set()), said
    if status != 200 and said is not None:
        assert said.get("message") or said.get("error")
    if not len(besieged.memory) % 2:
        assert besieged.ask("GET", "/health", b"", {})[0] == 200
    besieged.memory.append(besieged.server.resident_bytes())


def test_the_log_is_where_it_is_looked_for(besieged: Besieged) -> None:
    """A test of the test: the server says its events there."""
    assert any(line["event"] == "serving" for line in besieged.server.events())
