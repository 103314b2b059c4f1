"""A grpc.aio server of somebody's own, with their service and ours.

    python examples/own_grpc_server.py BUNDLE

It prints its address, and drains with SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import bertd_server
import grpc
from google.protobuf.wrappers_pb2 import StringValue

GREETER = "example.Greeter"


async def say_hello(
    request: StringValue, _context: grpc.aio.ServicerContext[StringValue, StringValue]
) -> StringValue:
    """Answer the program's own RPC."""
    return StringValue(value=f"hello {request.value}")


def add_greeter(server: grpc.aio.Server) -> None:
    """Add the program's own service."""
    hello = grpc.unary_unary_rpc_method_handler(
        say_hello,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(GREETER, {"SayHello": hello})
    server.add_generic_rpc_handlers((handler,))


async def main(folder: str) -> None:
    """Serve until a signal; the signals, the server and its stop are the program's."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with bertd_server.open_models(lanes=1) as models:
        await models.load(folder)

        server = grpc.aio.server(interceptors=[bertd_server.interceptor()])
        add_greeter(server)
        services = bertd_server.HostedServices(models, others=[GREETER])
        services.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)

        await stop.wait()
        services.leave()  # health says NOT_SERVING; a program behind a balancer waits here
        services.drain()  # streams end with what they have sent
        await server.stop(30)  # in-flight calls of all services finish
    # Here models finish what is left, and their threads end.


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
