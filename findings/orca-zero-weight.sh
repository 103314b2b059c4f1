#!/usr/bin/env bash
# grpcio 1.81.1: two servers report their load with each call (ORCA, the trailer
# endpoint-load-metrics-bin), and the client's service config asks for weighted_round_robin. Which
# reports move calls to the freer server, and does a program see the trailer?
#
# Guess: those with a utilisation, the lower the better, so that an idle server, at 0, gets nearly
#        all calls; the name that gRFC A58 gave the policy at first, weighted_round_robin_experimental,
#        still works; the trailer is there among the others.
# Seen:  0.2 beside 0.8 gives 160 of 200 calls to the freer. But 0, a value that says "idle" in so many
#        words, is no report at all, as is one without rps_fractional: each server then gets half, the
#        one at 0.8 too, with nothing in the log. 0.001 gives the idle one 199 of 200. Above 1 is
#        weighed as well (0.5 beside 2: 160). The experimental name is unknown, and with round_robin
#        behind it in the list nobody notices. The client takes the trailer out: a program sees those
#        beside it alone, so that a server's reports cannot be checked with a grpcio client.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1
"$folder/env/bin/python" - <<'PYTHON'
import asyncio
import json
import struct

import grpc

LOAD = "endpoint-load-metrics-bin"


def report(utilization, rps=100.0):
    """OrcaLoadReport with rps_fractional (6) and application_utilization (9), doubles; 0 is left out."""
    fields = ((b"\x31", rps), (b"\x49", utilization))
    return b"".join(tag + struct.pack("<d", value) for tag, value in fields if value)


async def server(name, load):
    async def behaviour(request, context):
        context.set_trailing_metadata(((LOAD, load), ("other-bin", b"x")))
        return name

    made = grpc.aio.server()
    methods = {"Call": grpc.unary_unary_rpc_method_handler(behaviour)}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", methods),))
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    return made, port


async def share(first, second, policy="weighted_round_robin"):
    """Calls of 200 that the first server gets, and the trailers' names."""
    (one, port), (two, other) = await server(b"1", first), await server(b"2", second)
    weights = {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}
    config = {"loadBalancingConfig": [{policy: weights}, {"round_robin": {}}]}
    options = [("grpc.service_config", json.dumps(config))]
    where = f"ipv4:127.0.0.1:{port},127.0.0.1:{other}"
    async with grpc.aio.insecure_channel(where, options=options) as channel:
        rpc = channel.unary_unary("/S/Call")
        seen = set()
        while len(seen) < 2:  # both are connected
            seen.add(await rpc(b""))
        for _ in range(4):
            await rpc(b"")
        await asyncio.sleep(1)  # weights are computed anew
        call = rpc(b"")
        await call
        names = {name for name, _ in await call.trailing_metadata()}
        got = [await rpc(b"") for _ in range(200)].count(b"1")
    await one.stop(None)
    await two.stop(None)
    return got, names


async def main():
    got = {}
    for name, arguments in {
        "0.2 beside 0.8": (report(0.2), report(0.8)),
        "0.001 beside 0.8": (report(0.001), report(0.8)),
        "0 beside 0.8": (report(0), report(0.8)),
        "0.5 beside 2": (report(0.5), report(2.0)),
        "0.2 beside 0.8, no rps": (report(0.2, 0), report(0.8, 0)),
        "0.2 beside 0.8, old name": (
            report(0.2),
            report(0.8),
            "weighted_round_robin_experimental",
        ),
    }.items():
        got[name], names = await share(*arguments)
        print(name, "->", got[name], "of 200; trailers seen:", names)
        assert names == {"other-bin"}
    weighed = [got["0.2 beside 0.8"], got["0.5 beside 2"]]
    assert all(abs(count - 160) <= 4 for count in weighed), weighed
    assert got["0.001 beside 0.8"] >= 196
    equal = [got[name] for name in ("0 beside 0.8", "0.2 beside 0.8, no rps")]
    equal.append(got["0.2 beside 0.8, old name"])
    assert all(abs(count - 100) <= 2 for count in equal), equal


asyncio.run(main())
PYTHON
