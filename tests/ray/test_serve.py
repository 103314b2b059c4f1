"""The same behind Ray's own proxy, which takes its time to start; `make clusters` installs it."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bertd_server.inside import SettingsError
from helpers.patience import PATIENCE
from helpers.ray_checks import CHECKS, TEXTS, vectors
from helpers.ray_served import RayServed, channel_to, ray_served
from helpers.serve_process import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: make clusters"
    ),
]

QUICK = {"warmup_seconds": 0, "calibration_seconds": 0.05, "max_queue_seconds": PATIENCE}


@pytest.fixture(scope="module")
def served(tiny_bundle: Path) -> Iterator[RayServed]:
    with ray_served({"bundle": str(tiny_bundle), "num_cpus": 1, **QUICK}) as cluster:
        yield cluster


def test_calls_are_what_they_are_of_serve(served: RayServed, tiny_bundle: Path) -> None:
    with serving(tiny_bundle, "--lanes=1") as (_, address), channel_to(address) as direct:
        expected = vectors(direct)
    with channel_to(served.address) as channel:
        assert vectors(channel) == expected
        for check in CHECKS:
            check(channel)
    assert bytes.fromhex(served.tell(embed=TEXTS)) == expected


def test_other_deployments_get_errors_as_they_are(served: RayServed) -> None:
    assert served.tell(embed=[" "]) == {
        "error": "InvalidInput",
        "message": served.tell(embed=[" "])["message"],
    }


def test_http_says_where_to_ask(served: RayServed) -> None:
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(f"http://127.0.0.1:{served.http}/")
    assert failed.value.code == 404
    assert b"gRPC" in failed.value.read()


def test_a_killed_replica_is_replaced(served: RayServed) -> None:
    (first,) = served.tell(replicas=True)
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    with channel_to(served.address) as channel:
        while time.monotonic() < end:
            try:
                assert vectors(channel, timeout=PATIENCE)
                break
            except grpc.RpcError:
                time.sleep(0.2)
    (second,) = served.tell(replicas=True)
    assert second != first


@pytest.mark.filterwarnings("ignore")  # of Ray's own modules, as they are imported
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no bundle"),
        ({"bundle": "models/minilm"}, "absolute path"),
        (
            {"bundle": "/models/minilm", "tls_key": "key.pem"},
            "tls_key is a setting of `bertd serve`",
        ),
        ({"bundle": "/models/minilm", "lanes": 2}, "num_cpus"),
        ({"bundle": "/models/minilm", "max_replica": 2}, "use max_replicas"),
        ({"bundle": "/models/minilm", "max_queue_seconds": -1}, "max_queue_seconds"),
        ({"bundle": "/models/minilm", "max_replicas": 2, "target_utilisation": 9}, "target is 9"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_deployed(
    arguments: dict[str, Any], message: str
) -> None:
    from bertd_ray.serve import app  # noqa: PLC0415 - imports Ray

    with pytest.raises((SettingsError, ValueError), match=message):
        app(arguments)
