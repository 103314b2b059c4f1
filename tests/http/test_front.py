"""What goes around each call over HTTP: keys, deadlines, ids, limits, metrics, the end."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from bertd_server.errors import CannotServeError
from bertd_server.security.keys import new_key
from bertd_server.serving.server import CannotListenError, Server
from helpers.http_served import EMBED, HttpServed, ask, until
from helpers.key_files import write_keys
from helpers.observed import scrape, value
from helpers.patience import PATIENCE
from helpers.running import quick_settings
from structlog.testing import capture_logs

TEXT = {"input": "the cat"}
BODY = json.dumps(TEXT).encode()
EMBEDDINGS = "/v1/embeddings"
REQUEST = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
)


@pytest.fixture(scope="module")
def guarded(tasks_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    """A server that wants keys, counts calls, and lets few bytes in."""
    file = write_keys(
        tmp_path_factory.mktemp("keys") / "keys.json",
        KEYS,
        all={"scopes": ["infer", "manage"]},
        slow={"requests_per_second": 0.001, "burst": 1},
    )
    with alone(
        tasks_folder,
        api_keys=file,
        http_address="127.0.0.1:0",
        max_message_bytes=100_000,
        handshake_seconds=1.0,
        keepalive_timeout_seconds=1.0,
        max_connections=40,
    ) as server:
        yield server


KEYS = {id_: new_key(id_) for id_ in ("all", "infer", "slow")}


def bearer(id_: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[id_]}"}


def test_a_key_comes_as_bearer_raw_or_in_the_other_header(guarded: HttpServed) -> None:
    for headers in (
        bearer("infer"),
        {"authorization": KEYS["infer"]},
        {"authorization": f"bearer {KEYS['infer']}"},
        {"api-key": KEYS["infer"]},
    ):
        assert guarded.ask(EMBEDDINGS, TEXT, headers=headers).status == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        answer = guarded.ask(EMBEDDINGS, TEXT, headers=headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json["error"]["type"] == "authentication_error"
    # Strangers learn nothing of what there is, but that it is healthy.
    assert guarded.ask("/nothing").status == 401
    assert guarded.ask("/v1/models").status == 401
    for path in ("/health", "/v2/health/ready", "/v2/health/live"):
        assert guarded.ask(path).status == 200


def test_a_key_is_for_what_its_scope_says(guarded: HttpServed) -> None:
    path = f"/v2/repository/models/{EMBED}/load"
    refused = guarded.ask(path, b"", headers=bearer("infer"))
    assert refused.status == 403
    assert "needs manage" in refused.json["error"]
    assert guarded.ask(path, b"", headers=bearer("all")).status == 200
    assert guarded.ask("/v2/models/stats", headers=bearer("infer")).status == 200


def test_a_key_s_rate_is_kept(guarded: HttpServed) -> None:
    assert guarded.ask(EMBEDDINGS, TEXT, headers=bearer("slow")).status == 200
    refused = guarded.ask(EMBEDDINGS, TEXT, headers=bearer("slow"))
    assert refused.status == 429
    assert refused.json["error"]["code"] == "key_rate"
    assert 900 < int(refused.headers["retry-after"]) <= 1000
    assert refused.headers["x-should-retry"] == "false"


def test_requests_keep_their_ids(guarded: HttpServed) -> None:
    answer = guarded.ask("/health", headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    made = {guarded.ask("/health").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert guarded.ask("/nothing", headers={"x-request-id": "a"}).headers["x-request-id"] == "a"


def test_deadlines_come_by_header(served: HttpServed) -> None:
    for headers in (
        {"x-request-timeout-ms": "60000"},
        {"grpc-timeout": "60S"},
        {"connect-timeout-ms": "60000"},
    ):
        assert served.ask(EMBEDDINGS, TEXT, headers=headers).status == 200
    for headers in ({"x-request-timeout-ms": "0"}, {"grpc-timeout": "1n"}):
        late = served.ask(EMBEDDINGS, TEXT, headers=headers)
        assert late.status == 504
        assert "allow more time" in late.json["message"]
    for headers in (
        {"x-request-timeout-ms": "soon"},
        {"grpc-timeout": "5"},
        {"grpc-timeout": "5x"},
        {"x-request-timeout-ms": "9" * 30},
    ):
        wrong = served.ask(EMBEDDINGS, TEXT, headers=headers)
        assert wrong.status == 400
        assert next(iter(headers)) in wrong.json["message"]


def test_bodies_and_heads_are_bounded(guarded: HttpServed) -> None:
    large = guarded.ask(EMBEDDINGS, b"x" * 100_001, headers=bearer("infer"))
    assert large.status == 413
    assert "at most 100000" in large.json["message"]
    for path in ("/nowhere", "/v1/models"):  # what nobody wants is read, and the answer heard
        refused = guarded.ask(path, b"x" * 90_000, headers=bearer("infer"))
        assert refused.status == (404 if path == "/nowhere" else 405)
        assert "connection" not in refused.headers
    with connected(guarded) as stranger:  # whoever has no key sends no body
        head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n"
        stranger.sendall(head.encode())
        assert received(stranger).startswith(b"HTTP/1.1 401")
    with connected(guarded) as endless:
        endless.settimeout(PATIENCE)
        with suppress(OSError):  # reset, or a broken pipe
            endless.sendall(b"GET /health HTTP/1.1\r\nx: " + b"y" * 20_000_000)
        assert received(endless) == b""


def test_chunks_are_counted_as_they_come(guarded: HttpServed) -> None:
    with connected(guarded) as client:
        key = bearer("infer")["authorization"]
        client.sendall(
            f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        client.sendall(chunk * 2)
        assert received(client).startswith(b"HTTP/1.1 413")


def test_slow_and_silent_clients_are_let_go(guarded: HttpServed) -> None:
    """A head, or a body, that does not come; others are answered meanwhile."""
    key = bearer("infer")["authorization"]
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n"
    body = f"{head}authorization: {key}\r\ncontent-length: 50\r\n\r\n"
    slow = [connecting(guarded) for _ in range(20)]
    for number, client in enumerate(slow):
        client.sendall((body if number % 2 else head).encode())
    assert guarded.ask("/health").status == 200
    for number, client in enumerate(slow):
        ended = received(client)
        assert ended.startswith(b"HTTP/1.1 408" if number % 2 else b""), ended
        client.close()
    assert guarded.ask("/health").status == 200


def test_a_client_that_reads_nothing_is_let_go(guarded: HttpServed) -> None:
    """Its system has taken what it could; the rest waits a second, not for ever."""
    with connected(guarded) as client:
        key = bearer("infer")["authorization"]
        asked = f"GET /openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n\r\n"
        size = len(guarded.ask("/openapi.json", headers=bearer("infer")).body)
        count = 32 * 2**20 // size
        with suppress(OSError):  # it may be gone before all is asked
            client.sendall(asked.encode() * count)
        assert until(lambda: guarded.http.connections == 0)


def test_connections_are_counted(guarded: HttpServed) -> None:
    many = [connecting(guarded) for _ in range(60)]
    try:
        assert until(lambda: any(is_closed(one) for one in many))
    finally:
        for one in many:
            one.close()
    assert until(lambda: answers(guarded))


def test_pipelined_requests_are_answered_in_order(served: HttpServed) -> None:
    with connected(served) as client:
        client.sendall(
            b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
            b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        answered = received(client)
        assert answered.index(b'"live"') < answered.index(b'"extensions"')


def test_what_is_no_http_is_refused(served: HttpServed) -> None:
    for sent in (b"\x16\x03\x01\x00\x05hello", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\r\n\r\n"):
        with connected(served) as client:
            client.sendall(sent)
            assert received(client)[:12] in {b"", b"HTTP/1.1 400"}


def test_methods_and_paths_that_there_are_not(served: HttpServed) -> None:
    answer = served.ask(EMBEDDINGS, method="DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    unknown = served.ask("/v1/images", {})
    assert unknown.status == 404
    assert "/openapi.json" in unknown.json["message"]
    head = served.ask("/v1/models", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_calls_are_counted_with_their_protocol(guarded: HttpServed) -> None:
    address = guarded.server.observability.http_address
    before = scrape(address)
    guarded.ask(EMBEDDINGS, TEXT, headers=bearer("infer"))
    guarded.ask(EMBEDDINGS, {}, headers=bearer("infer"))
    guarded.ask("/v2/models/other", headers=bearer("infer"))
    guarded.ask("/made/up", headers=bearer("infer"))
    after = scrape(address)

    def counted(rpc: str, code: str) -> float:
        labels = {"rpc": rpc, "protocol": "http", "code": code}
        return value(after, "bertd_rpcs_total", **labels) - value(
            before, "bertd_rpcs_total", **labels
        )

    assert counted(EMBEDDINGS, "OK") == 1
    assert counted(EMBEDDINGS, "INVALID_ARGUMENT") == 1
    assert counted("/v2/models/{model}", "NOT_FOUND") == 1
    assert "/made/up" not in str(after)


@pytest.mark.usefixtures("unconfigured_structlog")  # and so it is left for others
def test_the_access_log_has_calls_over_http(tasks_folder: Path) -> None:
    with alone(tasks_folder, access_log="on") as server, capture_logs() as lines:
        server.get(EMBEDDINGS, TEXT, headers={"x-request-id": "mine"})
        server.ask(EMBEDDINGS, {"input": ""})
    found = [line for line in lines if line["event"] == "rpc"]
    assert [line["code"] for line in found] == ["OK", "INVALID_ARGUMENT"]
    assert found[0]["rpc"] == EMBEDDINGS
    assert found[0]["protocol"] == "http"
    assert found[0]["request_id"] == "mine"
    assert (found[0]["model"], found[0]["texts"]) == (EMBED, 1)
    assert found[1]["reason"] == "empty"


def test_calls_that_wait_are_refused_cancelled_and_cut_short(
    tasks_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that does not fill lets a call wait; what may wait beside it is one token."""
    with alone(
        tasks_folder, max_queue_delay=3600.0, max_queue_tokens=1, drain_seconds=0.2
    ) as served:
        statistics = served.server.model.statistics
        leaving = connecting(served)
        leaving.sendall(REQUEST)
        assert until(lambda: statistics.in_flight.calls == 1)
        refused = served.ask(EMBEDDINGS, {"input": "a dog"})  # an equal text would join it
        assert refused.status == 429, refused.body
        assert refused.json["error"]["type"] == "rate_limit_error"
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 1
        leaving.close()
        assert until(lambda: statistics.in_flight.calls == 0)
        assert statistics.cancelled == 1
        several = connecting(served)
        several.sendall(REQUEST * 3)
        assert until(lambda: statistics.in_flight.calls == 1)
        several.close()
        assert until(lambda: served.http.connections == 0)
        assert statistics.cancelled == 2
        waiting, idle = connecting(served), connecting(served)
        waiting.sendall(REQUEST)
        assert until(lambda: statistics.in_flight.calls == 1)
    with waiting, idle:
        answered = received(waiting)
        assert answered.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1\r\n" in answered
        assert received(idle) == b""
    assert not [one for one in caplog.records if one.name.startswith("uvicorn")]


def test_until_models_are_loaded_calls_are_asked_to_wait(tasks_folder: Path) -> None:
    async def run() -> None:
        settings = quick_settings(repository=tasks_folder, http_api="127.0.0.1:0")
        server = Server(None, settings)
        await server.listen()
        assert server.http is not None
        port = server.http.port
        try:
            answer = await asyncio.to_thread(ask, port, EMBEDDINGS, TEXT)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            ready = await asyncio.to_thread(ask, port, "/v2/health/ready")
            assert (ready.status, ready.body) == (503, b'{"ready":false}')
        finally:
            await server.abandon()

    asyncio.run(run())


def test_tls_is_that_of_grpc_and_is_renewed(tasks_folder: Path, tmp_path: Path) -> None:
    old, new, clients = trustme.CA(), trustme.CA(), trustme.CA()
    certificate, key, ca = (tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def put(issuer: trustme.CA, trusted: trustme.CA) -> None:
        leaf = issuer.issue_cert("127.0.0.1")
        certificate.write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        trusted.cert_pem.write_to_path(ca)
        key.chmod(0o600)

    def status(trust: trustme.CA, mine: trustme.CA | None) -> int:
        context = ssl.create_default_context()
        trust.configure_trust(context)
        if mine is not None:
            mine.issue_cert("client@bertd.example").configure_cert(context)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        finally:
            connection.close()

    put(old, clients)
    with alone(tasks_folder, tls_certificate=certificate, tls_key=key, tls_client_ca=ca) as server:
        port = server.port
        assert status(old, clients) == 200
        for stranger in (None, trustme.CA()):
            with pytest.raises(OSError):  # noqa: PT011 - as the handshake ends
                status(old, stranger)
        put(new, new)
        assert status(new, new) == 200
        with pytest.raises(ssl.SSLError):
            status(old, clients)
        with pytest.raises(OSError):  # noqa: PT011 - its CA is not trusted any more
            status(new, clients)


def test_beyond_loopback_it_needs_tls_as_grpc_does(tasks_folder: Path) -> None:
    settings = quick_settings(repository=tasks_folder, http_api="0.0.0.0:0")
    with pytest.raises(CannotServeError, match=r"--http-api 0\.0\.0\.0:0 can be reached"):
        Server(None, settings)


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(tasks_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        async def run() -> None:
            await Server(None, quick_settings(repository=tasks_folder, http_api=address)).listen()

        with pytest.raises(CannotListenError, match="--http-api"):
            asyncio.run(run())


def alone(folder: Path, **changes: Any) -> HttpServed:
    """A server of the model for vectors alone, which starts at once."""
    return HttpServed(folder, model_control="explicit", load_models=EMBED, **changes)


@contextmanager
def connected(served: HttpServed) -> Iterator[socket.socket]:
    with connecting(served) as client:
        yield client


def connecting(served: HttpServed) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", served.port))
    client.settimeout(PATIENCE)
    return client


def received(client: socket.socket) -> bytes:
    """All that comes until the server closes; of a keep-alive, until it has nothing to say."""
    found = b""
    try:
        while part := client.recv(65_536):
            found += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return found


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def answers(served: HttpServed) -> bool:
    try:
        return served.ask("/health").status == 200
    except OSError:
        return False
