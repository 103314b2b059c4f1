"""API keys: who may call what, how often, and until when; every service is asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd_client import AsyncClient, Client, Overloaded, PermissionDenied, Security
from bertd_client import Unauthenticated as NoKey
from bertd_client.commands.served import models
from bertd_server.errors import CannotServeError, Unauthenticated
from bertd_server.errors import Overloaded as Refused
from bertd_server.errors import PermissionDenied as Denied
from bertd_server.process.keys import keys
from bertd_server.rpc.services import SERVICES
from bertd_server.security.allowance import Allowance, KeyLimits
from bertd_server.security.keys import KeyRing, hashed, new_key
from bertd_server.security.management import Management
from click.testing import CliRunner
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from helpers.held import Clock
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings

METHODS = [
    f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods
]
V2 = "/inference.GRPCInferenceService/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS_AND_STANDARD = {*METHODS, REFLECTION, "/grpc.health.v1.Health/Check"}
MANAGED = re.compile(V2 + r"(Repository.*oad|\w+(Unr|R)egister|\w+Settings?)")
INFERRING = re.compile(
    r"/bertd\.v1\.InferenceService/|/tei\.v1\.(?!Info)|" + V2 + r"Model(Stream)?Infer"
)
TEXT = b"\x12\x07the cat"  # EmbedRequest.texts
KINDS = ("infer", "manage", "all", "old", "slow", "narrow", "quick", "reader")
KEYS = {id_: new_key(id_) for id_ in KINDS}


def entries(*ids: str) -> dict[str, list[dict[str, Any]]]:
    more: dict[str, dict[str, Any]] = {
        "manage": {"scopes": ["manage"]},
        "all": {"scopes": ["infer", "manage"], "expires": "2999-01-01T00:00:00Z"},
        "old": {"expires": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()},
        "slow": {"requests_per_second": 1e-6, "burst": 2},
        "narrow": {"concurrent_calls": 1},
        "quick": {"requests_per_second": 100, "burst": 1},
        "reader": {"tokens_per_second": 0.001},
    }
    return {
        "keys": [
            {"id": id_, "hash": hashed(KEYS[id_]), "scopes": ["infer"], **more.get(id_, {})}
            for id_ in ids
        ]
    }


def write(path: Path, *ids: str) -> Path:
    path.write_text(json.dumps(entries(*ids)))
    path.chmod(0o640)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("keys") / "keys.json", *KINDS)


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, file: Path) -> Iterator[RunningServer]:
    running = RunningServer(tiny_bundle, quick_settings(api_keys=file, access_log="on"))
    yield running
    running.stop()


@pytest.fixture
def channel(server: RunningServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as made:
        yield made


def bearer(key: str | None) -> Sequence[tuple[str, str]] | None:
    return None if key is None else (("authorization", f"Bearer {key}"),)


def answer(
    channel: Any, method: str, key: str | None, message: bytes = b""
) -> tuple[grpc.StatusCode, str]:
    """Status and reason of a call with a message, as a stream: it has all kinds of calls."""
    call = channel.stream_stream(method)(iter([message]), metadata=bearer(key), timeout=PATIENCE)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        status = rpc_status.from_call(call)
        info = error_details_pb2.ErrorInfo()
        if status is not None and status.details[0].Unpack(info):
            assert info.domain == "bertd"
            return call.code(), info.reason
    return call.code(), ""


@pytest.mark.parametrize("method", [*METHODS, REFLECTION])
def test_every_service_wants_a_key_that_is_for_it(channel: Any, method: str) -> None:
    denied = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    assert answer(channel, method, None) == (denied[0], "MISSING_KEY")
    assert answer(channel, method, KEYS["infer"] + "x") == (denied[0], "UNKNOWN_KEY")
    assert answer(channel, method, KEYS["old"]) == (denied[0], "EXPIRED_KEY")
    assert answer(channel, method, KEYS["all"])[0] not in denied
    other = answer(channel, method, KEYS["infer" if MANAGED.match(method) else "manage"])
    if MANAGED.match(method) or INFERRING.match(method):
        assert other == (denied[1], "MISSING_SCOPE")
    else:
        assert other[0] not in denied


def test_what_is_not_there_is_not_shown_to_strangers(channel: Any) -> None:
    assert answer(channel, "/no/Where", None)[1] == "MISSING_KEY"
    assert answer(channel, "/no/Where", KEYS["infer"])[0] is grpc.StatusCode.UNIMPLEMENTED


def test_names_that_strangers_make_up_leave_nothing_behind(
    server: RunningServer, channel: Any
) -> None:
    """Each would be a series of its own in the metrics."""
    counts = server.server.observability.counts
    assert answer(channel, METHODS[0], None)[1] == "MISSING_KEY"
    assert answer(channel, "/made/Up", None)[1] == "MISSING_KEY"
    assert counts.ended[METHODS[0][1:], grpc.StatusCode.UNAUTHENTICATED.value[0]] > 0
    assert {f"/{rpc}" for rpc, _ in counts.ended} <= METHODS_AND_STANDARD


def test_health_needs_no_key(channel: Any) -> None:
    assert answer(channel, "/grpc.health.v1.Health/Check", None)[0] is grpc.StatusCode.OK


async def test_the_clients_send_keys_and_name_what_is_wrong(server: RunningServer) -> None:
    address, key = server.address, KEYS["infer"]
    with Client(address, security=Security(api_key=key)) as client:
        assert client.embed(["the cat"]).shape[0] == 1
        assert client.embed(["the cat"] * 300).shape[0] == 300  # several calls
    async with AsyncClient(address, security=Security(api_key=key)) as client_:
        assert (await client_.embed(["the cat"])).shape[0] == 1
    with Client(address) as client, pytest.raises(NoKey, match="authorization: Bearer KEY"):
        client.list_models()
    manage = Security(api_key=KEYS["manage"])
    with Client(address, security=manage) as client:
        assert len(client.list_models()) == 1
        with pytest.raises(PermissionDenied, match="this call needs infer"):
            client.embed(["the cat"])
    assert KEYS["manage"] not in repr(manage)
    result = CliRunner().invoke(models, ["--address", address], env={"BERTD_API_KEY": key})
    assert "tiny" in result.output
    refused = CliRunner().invoke(models, ["--address", address])
    assert "no API key: set BERTD_API_KEY, or give --api-key, with a key" in refused.output
    for wrong in ("", "two\nlines", "schlüssel"):
        with pytest.raises(ValueError, match="no key has"):
            Security(api_key=wrong)


def test_a_key_has_its_rate_and_its_calls_at_once(server: RunningServer, channel: Any) -> None:
    with Client(server.address, security=Security(api_key=KEYS["slow"])) as client:
        assert len(client.list_models()) == len(client.list_models()) == 1
        with pytest.raises(Overloaded, match="'slow' may make 1e-06 requests") as caught:
            client.list_models()
    assert caught.value.retry_after_s
    assert caught.value.retry_after_s > 1000
    ended = threading.Event()

    def texts() -> Iterator[bytes]:
        yield TEXT
        ended.wait()

    stream = channel.stream_stream("/bertd.v1.InferenceService/EmbedStream")
    open_ = stream(texts(), metadata=bearer(KEYS["narrow"]))
    next(open_)
    exhausted = (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_CONCURRENCY")
    list_models = "/bertd.v1.ModelService/ListModels"
    no_retries = [("grpc.enable_retries", 0)]
    with grpc.insecure_channel(server.address, no_retries) as impatient:
        assert answer(impatient, list_models, KEYS["narrow"]) == exhausted
    open_.cancel()
    ended.set()
    with Client(server.address, security=Security(api_key=KEYS["narrow"])) as client:
        assert len(client.list_models()) == 1  # retried until the call before has ended


def test_messages_of_a_stream_wait_for_the_rate(channel: Any) -> None:
    """They are held back, and none is refused."""
    stream = channel.stream_stream("/bertd.v1.InferenceService/EmbedStream")
    assert len(list(stream(iter([TEXT] * 4), metadata=bearer(KEYS["quick"])))) == 4


def test_a_key_owes_the_tokens_that_are_read_for_it(channel: Any) -> None:
    """A request may leave a debt, since it is known only once its texts are read."""
    embed = "/bertd.v1.InferenceService/Embed"
    for wrong in (b"", b"\x12\x00"):  # no text, and an empty one: nothing is read
        status, _ = answer(channel, embed, KEYS["reader"], wrong)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert answer(channel, embed, KEYS["reader"], TEXT)[0] is grpc.StatusCode.OK
    exhausted = (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_TOKENS")
    assert answer(channel, embed, KEYS["reader"], TEXT) == exhausted


def test_tokens_are_charged_by_the_second() -> None:
    clock = Clock()
    bucket = Allowance(KeyLimits(per_second=2, burst=3, tokens_per_second=100), clock)
    bucket.charge(80)
    assert bucket.wait() == 0
    bucket.charge(70)
    assert bucket.wait() == 0.5
    with pytest.raises(Refused, match="may have 100 tokens a second read") as caught:
        bucket.take("me")
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("key_tokens", 0.5)
    clock.now += 0.5
    assert bucket.wait() == 0
    bucket.charge(1_000)
    bucket.charge(-1_000)  # it was refused
    clock.now += 1_000
    bucket.charge(100)  # no more than a second's worth is left
    assert bucket.wait() == 0
    bucket.charge(1)
    assert bucket.wait() == 0.01


def test_a_key_is_revoked_by_reload(server: RunningServer, file: Path) -> None:
    guard = server.server.guard
    with Client(server.address, security=Security(api_key=KEYS["infer"])) as client:
        try:
            write(file, "all")
            assert guard.reload()
            with pytest.raises(NoKey, match="not known"):
                client.list_models()
            file.write_text("{")
            assert not guard.reload()  # the keys before stay
            with pytest.raises(NoKey, match="not known"):
                client.list_models()
        finally:
            write(file, *KINDS)
        assert guard.reload()
        assert len(client.list_models()) == 1


@pytest.mark.parametrize(
    ("elsewhere", "keys", "words"),
    [
        (False, False, "--management-address, or with --api-keys"),
        (True, False, "management address alone"),
        (True, True, "management address alone"),
        (False, True, None),
    ],
)
def test_calls_that_change_the_server_are_off_until_asked_for(
    caplog: pytest.LogCaptureFixture, *, elsewhere: bool, keys: bool, words: str | None
) -> None:
    management = Management.of(elsewhere=elsewhere, keys=keys)
    if words is None:
        with caplog.at_level("INFO", "bertd"):
            management.check("Load", "minilm" + "m" * 1000)
        assert "minilm" in caplog.text
        assert len(caplog.text) < 500
    else:
        with pytest.raises(Denied, match=words):
            management.check("Load", "minilm")


def test_a_changed_file_is_seen_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    path = write(tmp_path / "keys.json", "slow", "all")
    ring = KeyRing(path, clock=clock)
    slow = ring.find(f"Bearer {KEYS['slow']}")
    slow.allowance.take("slow")
    write(path, "slow")
    assert ring.find(f"bearer {KEYS['all']}").entry.id == "all"  # not looked yet
    clock.now += 1
    with pytest.raises(Unauthenticated):
        ring.find(f"Bearer {KEYS['all']}")
    assert ring.find(f"Bearer {KEYS['slow']}").allowance is slow.allowance
    path.unlink()
    clock.now += 1
    assert ring.find(f"Bearer {KEYS['slow']}").entry.id == "slow"


def test_a_bucket_fills_with_time() -> None:
    clock = Clock()
    bucket = Allowance(KeyLimits(per_second=2, burst=3), clock)
    assert [bucket.wait() for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now += 0.5
    assert [bucket.wait() for _ in range(2)] == [0, 0.5]
    clock.now += 100
    assert [bucket.wait() for _ in range(4)] == [0, 0, 0, 0.5]
    with pytest.raises(Refused) as caught:
        bucket.take("me")
    assert caught.value.retry_after_seconds == 0.5
    assert Allowance(KeyLimits(), clock).unlimited


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hash": "sha256:1"}, "hash"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "'infer' or 'manage'"),
        ({"expires": "2030-01-01T00:00:00"}, "timezone"),
        ({"burst": 3}, "burst without requests_per_second"),
        ({"id": "a_b"}, "id"),
        ({"rate": 3}, "rate"),
    ],
)
def test_a_file_that_is_wrong_names_the_field(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    given = entries("infer")
    given["keys"][0] |= change
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(given))
    with pytest.raises(CannotServeError, match=words) as caught:
        KeyRing(path)
    assert KEYS["infer"] not in str(caught.value)


def test_files_that_others_write_or_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.json", "all", "all")
    with pytest.raises(CannotServeError, match="'all' is there twice"):
        KeyRing(path)
    write(path, "all").chmod(0o666)
    with pytest.raises(CannotServeError, match="chmod o-w"):
        KeyRing(path)
    for name, text in (("keys.toml", ""), ("keys.toml", "["), ("keys.json", "{}")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(CannotServeError, match=name):
            KeyRing(tmp_path / name)
    with pytest.raises(CannotServeError, match="No such file"):
        KeyRing(tmp_path / "missing")


def test_the_command_makes_a_key_that_its_lines_let_in(tmp_path: Path) -> None:
    flags = ["--id", "search", "--scope", "infer", "--scope", "manage", "--expires", "2999-12-31"]
    result = CliRunner().invoke(keys, ["new", *flags])
    key = result.stdout.strip()
    assert re.fullmatch(r"bertd_search_[\w-]{43}", key)
    assert key not in result.stderr
    path = tmp_path / "keys.toml"
    path.write_text(result.stderr)
    caller = KeyRing(path).find(f"Bearer {key}")
    assert caller.entry.scopes == {"infer", "manage"}
    assert caller.entry.expires == datetime(2999, 12, 31, tzinfo=UTC)
    refused = CliRunner().invoke(keys, ["new", "--id", "a_b"])
    assert refused.exit_code == 2
    assert "small letters" in refused.stderr
