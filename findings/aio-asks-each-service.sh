#!/usr/bin/env bash
# grpcio 1.81.1: a server has 40 services, added by generated code, which registers each method by
# its path (add_registered_method_handlers, "registered methods" since 1.65). What does a call of the
# last one pay to be found?
#
# Guess: nothing: methods are registered by their paths, so that a look-up finds one of any number.
# Seen:  on grpc.server nobody is asked. On grpc.aio.server the method does nothing, and each call
#        asks one service after the other until one knows the path, in the order in which they were
#        added: 40 Python calls for the last one, and as many for every path that does not exist,
#        which any stranger can send. Health and reflection, which are usually added last, pay most;
#        the service with the traffic is to be added first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1
"$folder/env/bin/python" - <<'PYTHON'
import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICES = 40
asked = []


class Asked(grpc.ServiceRpcHandler):
    """A service's handler, as generated code makes one, that notes when it is asked."""

    def __init__(self, name, methods):
        self.name = name
        self.handler = grpc.method_handlers_generic_handler(name, methods)

    def service_name(self):
        return self.name

    def service(self, details):
        asked.append(self.name)
        return self.handler.service(details)


def add(server, behaviour):
    """What add_…Servicer_to_server of generated code does, for each service."""
    for number in range(SERVICES):
        name, methods = f"S{number}", {"Call": grpc.unary_unary_rpc_method_handler(behaviour)}
        server.add_generic_rpc_handlers((Asked(name, methods),))
        server.add_registered_method_handlers(name, methods)


def found(port, service):
    """How many services are asked for one call."""
    asked.clear()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/{service}/Call")(b"")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    return len(asked)


def of_threads():
    server = grpc.server(ThreadPoolExecutor(1))
    add(server, lambda request, context: b"")
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    counts = [found(port, service) for service in ("S0", f"S{SERVICES - 1}")]
    server.stop(None).wait()
    return counts


async def of_asyncio():
    async def behaviour(request, context):
        return b""

    server = grpc.aio.server()
    add(server, behaviour)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asked_for = ("S0", f"S{SERVICES - 1}", "Nobody")
    counts = [await asyncio.to_thread(found, port, service) for service in asked_for]
    await server.stop(None)
    return counts


threads, aio = of_threads(), asyncio.run(of_asyncio())
print("grpc.server asks", threads, "services for the first and the last one")
print("grpc.aio.server asks", aio, "for the first, the last and one that is not there")
assert threads == [0, 0]
assert aio == [1, SERVICES, SERVICES]
PYTHON
