"""TLS and mTLS with real certificates, made here; each is tried by a real client."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from bertd_client import AsyncClient, Client, DeadlineExceeded, Security, Unavailable
from bertd_client.commands.served import models
from bertd_server.cli import serve
from bertd_server.errors import CannotServeError
from bertd_server.security import exposure, transport
from bertd_server.security.certificates import Certificates
from bertd_server.system.exits import Exit
from click.testing import CliRunner
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from structlog.testing import capture_logs

PAST = datetime.now(UTC) - timedelta(days=1)


@dataclass
class Files:
    """A mounted folder as Kubernetes makes it: names are links into `..data`, a link itself."""

    folder: Path
    version: int = 0

    def put(self, server: trustme.LeafCert, clients: trustme.CA) -> None:
        """Write a new version of all files, then swap the link to it."""
        self.version += 1
        new = self.folder / f"..{self.version}"
        new.mkdir(parents=True)
        write(server, new / "tls")
        clients.cert_pem.write_to_path(new / "ca.crt")
        self.swap(new)

    def swap(self, to: Path) -> None:
        link = self.folder / "..next"
        link.symlink_to(to.name)
        link.replace(self.folder / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.folder / "tls.crt", self.folder / "tls.key", self.folder / "ca.crt"


def write(leaf: trustme.LeafCert, stem: Path) -> None:
    stem.with_suffix(".crt").write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(stem.with_suffix(".key"))
    stem.with_suffix(".key").chmod(0o600)


class World:
    """A server with mTLS, the CAs of servers and clients, and who has which certificate."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self._folder = folder
        self._issued = 0
        self.servers, self.clients, self.strangers = (trustme.CA() for _ in range(3))
        self.right = self.servers.issue_cert("127.0.0.1", "localhost")
        self.ca = folder / "servers.pem"
        self.servers.cert_pem.write_to_path(self.ca)
        self.files = Files(folder / "mounted")
        self.files.put(self.right, self.clients)
        certificate, key, client_ca = self.files.paths
        settings = quick_settings(
            tls_certificate=certificate, tls_key=key, tls_client_ca=client_ca, insecure=False
        )
        self.server = RunningServer(bundle, settings)

    def someone(self, ca: trustme.CA, **changes: Any) -> Security:
        """A client with a certificate of that CA."""
        self._issued += 1
        stem = self._folder / f"client-{self._issued}"
        write(ca.issue_cert("client@bertd.example", **changes), stem)
        return Security(
            ca=self.ca, certificate=stem.with_suffix(".crt"), key=stem.with_suffix(".key")
        )

    def refused(self, security: Security) -> str:
        """What a client hears that cannot connect."""
        with (
            Client(self.server.address, security=security) as client,
            pytest.raises(Unavailable) as caught,
        ):
            client.list_models(timeout=PATIENCE)
        return caught.value.message


@pytest.fixture(scope="module")
def world(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("tls"), tiny_bundle)
    yield made
    made.server.stop()


def names(client: Client) -> list[str]:
    return [model.name for model in client.list_models(timeout=PATIENCE)]


async def test_a_client_with_the_right_certificate_is_answered(world: World) -> None:
    me = world.someone(world.clients)
    address = world.server.address
    with Client(address, security=me) as client:
        assert client.embed(["the cat"]).shape[0] == 1
    async with AsyncClient(address, security=me) as client_:
        assert [model.name for model in await client_.list_models()] == ["tiny"]
    files = ["--ca", str(me.ca), "--cert", str(me.certificate), "--key", str(me.key)]
    result = CliRunner().invoke(models, ["--address", address, "--json", *files])
    assert '"name": "tiny"' in result.output


def test_who_lacks_it_cannot_connect(world: World) -> None:
    """No certificate, another CA's, an expired one, and no TLS at all."""
    for security in (
        Security(ca=world.ca),
        world.someone(world.strangers),
        world.someone(world.clients, not_after=PAST),
        Security(),
    ):
        assert re.search("certificate.*--cert", world.refused(security))
    assert "speaks TLS (tls or ca; --tls, --ca)" in world.refused(Security())


def test_the_command_says_what_the_two_disagree_on(world: World, tiny_bundle: Path) -> None:
    """A server is there, so that nobody looks for one that is not."""
    address = ["--address", world.server.address]
    assert "speaks TLS" in CliRunner().invoke(models, address).output
    unknown = CliRunner().invoke(models, [*address, "--tls"]).output
    assert "not of a CA that this client trusts: give the file of its CA" in unknown
    plain = RunningServer(tiny_bundle, quick_settings())
    try:
        result = CliRunner().invoke(models, ["--address", plain.address, "--tls"])
    finally:
        plain.stop()
    assert "speaks no TLS" in result.output
    assert "is `bertd serve` running" not in result.output


def test_a_client_refuses_a_server_that_is_another(world: World) -> None:
    """Wrong CA, wrong host, expired; then all is well again."""
    me = world.someone(world.clients)
    try:
        assert "CERTIFICATE_VERIFY_FAILED" in world.refused(
            Security(ca=me.certificate, certificate=me.certificate, key=me.key)
        )
        world.files.put(world.servers.issue_cert("elsewhere.example"), world.clients)
        assert "Hostname Verification" in world.refused(me)
        world.files.put(world.servers.issue_cert("127.0.0.1", not_after=PAST), world.clients)
        assert "CERTIFICATE_VERIFY_FAILED" in world.refused(me)
    finally:
        world.files.put(world.right, world.clients)
    with Client(world.server.address, security=me) as client:
        assert names(client) == ["tiny"]


def test_a_channel_stays_open_while_the_certificate_is_rotated(world: World) -> None:
    """Others see the new one at once; a pair that is none changes nothing."""
    new = trustme.CA()
    me = world.someone(world.clients)
    theirs = world.ca.with_name("new.pem")
    new.cert_pem.write_to_path(theirs)
    trusting = Security(ca=theirs, certificate=me.certificate, key=me.key)
    address = world.server.address
    try:
        with Client(address, security=me) as open_, Client(address, security=trusting) as later:
            assert names(open_) == ["tiny"]
            world.files.put(new.issue_cert("127.0.0.1"), world.clients)
            assert names(later) == ["tiny"]
            assert names(open_) == ["tiny"]  # on the connection that it has
        world.refused(me)
        broken = world.files.folder / "..broken"
        broken.mkdir()
        write(world.right, broken / "tls")
        write(new.issue_cert("127.0.0.1"), broken / "other")
        (broken / "other.key").replace(broken / "tls.key")
        world.clients.cert_pem.write_to_path(broken / "ca.crt")
        world.files.swap(broken)
        with capture_logs() as logs, Client(address, security=trusting) as another:
            assert names(another) == ["tiny"]
        assert [one["event"] for one in logs] == ["certificate not reloaded"]
        assert not world.server.server.guard.reload()
    finally:
        world.files.put(world.right, world.clients)
    assert world.server.server.guard.reload()


def test_clients_are_revoked_with_the_bundle_of_their_ca(world: World) -> None:
    me, other = world.someone(world.clients), world.someone(world.strangers)
    with Client(world.server.address, security=me) as client:
        assert names(client) == ["tiny"]
    try:
        world.files.put(world.right, world.strangers)
        world.refused(me)
        with Client(world.server.address, security=other) as client:
            assert names(client) == ["tiny"]
    finally:
        world.files.put(world.right, world.clients)


def test_files_that_are_no_pair_are_refused_at_start(world: World, tmp_path: Path) -> None:
    certificate, key, ca = world.files.paths
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(CannotServeError, match="No such file"):
        Certificates(certificate, nothing, None)
    nothing.write_text("nothing")
    with pytest.raises(CannotServeError, match="unencrypted key in PEM"):
        Certificates(certificate, nothing, None)
    for pem in ("", "nothing"):
        nothing.write_text(pem)
        with pytest.raises(CannotServeError, match="TLS cannot be offered"):
            Certificates(certificate, key, nothing)
    os.utime(ca)  # touched, and the same: no change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "0.0.0.0:0"}, ["--address 0.0.0.0:0", "--tls-certificate", "--insecure"]),
        ({"address": "[::]:0"}, ["--insecure"]),
        ({"address": "10.1.2.3:0"}, ["--insecure"]),
        ({"address": "nowhere.invalid:0"}, ["--insecure"]),
        ({"management_address": "0.0.0.0:0"}, ["--management-address", "--insecure"]),
        ({"tls_certificate": "a"}, ["--tls-certificate without --tls-key"]),
        ({"tls_key": "a"}, ["--tls-key without --tls-certificate"]),
        ({"tls_client_ca": "a"}, ["--tls-client-ca without"]),
    ],
)
def test_what_would_serve_strangers_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CannotServeError) as caught:
        exposure.check(quick_settings(**changes))
    assert all(word in str(caught.value) for word in words)


def test_the_command_names_both_remedies(tiny_bundle: Path) -> None:
    """Before anything is loaded."""
    flags = [str(tiny_bundle), "--address", "0.0.0.0:0"]
    result = CliRunner().invoke(serve, flags)
    assert result.exit_code == Exit.MISUSED
    assert "give --tls-certificate and --tls-key, or --insecure" in result.output
    assert "engine ready" not in result.output


def test_loopback_sockets_and_what_is_asked_for_are_served() -> None:
    for address in ("127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0", "unix:/tmp/b.sock"):
        exposure.check(quick_settings(address=address))
    exposure.check(quick_settings(address="0.0.0.0:0", insecure=True))
    exposure.check(quick_settings(address="0.0.0.0:0", tls_certificate="a", tls_key="b"))


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def test_limits_become_arguments_of_grpc() -> None:
    given = dict(
        transport.options(
            quick_settings(max_connections=0, keepalive_seconds=1.5, max_concurrent_streams=7)
        )
    )
    assert given["grpc.max_allowed_incoming_connections"] == 2**31 - 1
    assert given["grpc.keepalive_time_ms"] == 1500
    assert given["grpc.max_concurrent_streams"] == 7


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        (b"", {"handshake_seconds": 0.5}),
        (b"PRI * HTTP/2.0\r\n", {"handshake_seconds": 0.5}),
        (b"PRI * HTTP/2.0\r\n", {"max_connections_per_peer": 5}),
        (_PREFACE, {"max_connections_per_peer": 0}),
        (_PREFACE, {"max_connections_per_peer": 5}),
    ],
)
def test_connections_that_say_nothing_keep_nobody_out(
    tiny_bundle: Path, said: bytes, limits: dict[str, float]
) -> None:
    """Without a word they are not taken; with half a word, or a whole one and no call, they go.

    After their time; or before it, as one client has too many, or all of them together.
    """
    limits = {"handshake_seconds": 9 * PATIENCE, "max_connections": 10} | limits
    server = RunningServer(tiny_bundle, quick_settings(**limits))
    host, _, port = server.address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), 60) for _ in range(30)]
    channel: Any  # its stubs cannot say what bytes are
    try:
        for one in silent:
            with contextlib.suppress(OSError):  # it was one too many
                one.sendall(said)
        with grpc.insecure_channel(server.address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=PATIENCE, wait_for_ready=bool(said))
    finally:
        for one in silent:
            one.close()
        server.stop()


def test_connections_are_few_and_end_and_requests_have_a_limit(tiny_bundle: Path) -> None:
    """The one connection keeps others out, even when it is old, as long as a call is on it."""
    limits = {"max_connections": 1, "max_connection_age_seconds": 0.2, "max_request_seconds": 1e-6}
    server = RunningServer(tiny_bundle, quick_settings(**limits))
    first: Any  # a channel; its stubs cannot say what bytes are
    second: Any
    old = threading.Event()

    def note(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.IDLE:
            old.set()

    apart = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    method = "/bertd.v1.ModelService/ListModels"
    try:
        with (
            grpc.insecure_channel(server.address, apart) as first,
            grpc.insecure_channel(server.address, apart) as second,
        ):
            watch = first.unary_stream("/grpc.health.v1.Health/Watch")(b"", wait_for_ready=True)
            next(watch)
            first.subscribe(note)
            with pytest.raises(grpc.RpcError) as caught:
                second.unary_unary(method)(b"")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert old.wait(PATIENCE)  # no new calls go on it
            with pytest.raises(grpc.RpcError):
                second.unary_unary(method)(b"")
            watch.cancel()
            assert second.unary_unary(method)(b"", wait_for_ready=True, timeout=PATIENCE)
        with Client(server.address) as client, pytest.raises(DeadlineExceeded):
            client.embed(["the cat " * 1_000])  # it waits for the tokeniser's thread
    finally:
        server.stop()
