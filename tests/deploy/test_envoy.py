"""deploy/envoy: what must not fall back to Envoy's defaults."""

from __future__ import annotations

from typing import Any

from bertd_server.config.settings import Settings
from helpers.deployed import DEPLOY, documents

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


def test_a_retry_finds_the_other_server_and_health_is_asked_from_the_start() -> None:
    """5 choices leave 18 % of the retries at a dead server; the second check comes after 60 s."""
    (document,) = documents(FILE)
    (listener,) = document["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    retries = host["routes"][0]["route"]["retry_policy"]
    assert retries["host_selection_retry_max_attempts"] >= 50
    assert "cancelled" in retries["retry_on"].split(",")  # a call that meets the end of a drain
    (check,) = _cluster()["health_checks"]
    assert check["no_traffic_interval"] == check["interval"]


def test_bertd_bears_its_pings() -> None:
    """Else a call that takes longer than three of them ends: Too many pings."""
    options = _cluster()["typed_extension_protocol_options"]
    (protocol,) = options.values()
    settings = protocol["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    least = float(Settings.model_fields["min_client_ping_seconds"].default)
    assert float(settings["interval"].removesuffix("s")) > least
