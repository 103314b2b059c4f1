#!/usr/bin/env bash
# Ray Serve 2.60.0, gRPC proxy: a deployment's method is given `grpc_context` to set the status of its
# call, as gRPC's own context does. A method with one answer sets NOT_FOUND and returns; a stream sends
# two messages and half a second later, when its work has failed, sets NOT_FOUND and returns. And an
# application is deployed with route_prefix=None, of which `serve.run` says that it "may be useful if
# you only want the application to be exposed via gRPC". What does the client see?
#
# Guess: NOT_FOUND from both methods, as on any gRPC server; and the application without a route
#        prefix answers over gRPC and not over HTTP.
# Seen:  the single answer is NOT_FOUND; the stream ends with OK, and nothing is logged: the context
#        travels back with each message, and none comes after the last one. A client takes a stream
#        that was cut for a whole one. (Without the half second it may arrive: a race.) Set before the
#        last message, the status arrives with it. The application without a route prefix is not there
#        over gRPC either: NOT_FOUND "Application … not found", whatever the metadata say.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'ray[serve]==2.60.0' grpcio==1.81.1 protobuf==6.33.6
cat > "$folder/services.py" <<'PYTHON'
import grpc
from google.protobuf.wrappers_pb2 import StringValue


def add(servicer, server):
    """What generated code adds, for two methods."""
    ways = {"request_deserializer": StringValue.FromString}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "S",
                {
                    "One": grpc.unary_unary_rpc_method_handler(servicer.One, **ways),
                    "Late": grpc.unary_stream_rpc_method_handler(servicer.Late, **ways),
                    "Early": grpc.unary_stream_rpc_method_handler(servicer.Early, **ways),
                },
            ),
        )
    )
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import socket

import grpc
import ray
from google.protobuf.wrappers_pb2 import StringValue
from ray import serve
from ray.serve.config import gRPCOptions


@serve.deployment
class Methods:
    async def One(self, request, grpc_context):
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        return StringValue(value="")

    async def Late(self, request, grpc_context):
        yield StringValue(value="1")
        yield StringValue(value="2")
        await asyncio.sleep(0.5)
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)

    async def Early(self, request, grpc_context):
        yield StringValue(value="1")
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        yield StringValue(value="2")


def free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def asked(call):
    """What came, the status and its message."""
    got = []
    try:
        for message in call:
            got.append(StringValue.FromString(message).value)
    except grpc.RpcError as error:
        return got, error.code().name, error.details()
    return got, "OK", ""


def single(rpc, **options):
    def call():
        yield rpc(b"", **options)

    return asked(call())


port = free()
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(
    grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["services.add"]),
    http_options={"host": "127.0.0.1", "port": free()},
)
serve.run(Methods.bind(), name="app", route_prefix="/app")
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    one = single(channel.unary_unary("/S/One"))
    late = asked(channel.unary_stream("/S/Late")(b""))
    early = asked(channel.unary_stream("/S/Early")(b""))
    serve.run(Methods.bind(), name="app", route_prefix=None)
    named = single(channel.unary_unary("/S/One"), metadata=(("application", "app"),))
    bare = single(channel.unary_unary("/S/One"))
serve.shutdown()
ray.shutdown()
print("one answer, status set:", one)
print("stream, status set behind its last message:", late)
print("stream, status set before its last message:", early)
print("without a route prefix, application named:", named)
print("without a route prefix:", bare)
assert one[1] == "NOT_FOUND"
assert late == (["1", "2"], "OK", "")
assert early[:2] == (["1", "2"], "NOT_FOUND")
for answer in (named, bare):
    assert answer[1] == "NOT_FOUND" and "pplication" in answer[2], answer
PYTHON
cd "$folder"
RAY_USAGE_STATS_ENABLED=0 PYTHONPATH="$folder" "$folder/env/bin/python" run.py
