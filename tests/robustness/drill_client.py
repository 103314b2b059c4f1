"""Callers of a drill, in a process of their own: ``python -m robustness.drill_client``.

::

    stdin: {"ask": …} ──> made and serialised, connected ──> "ready" ──> "go" ──> calls
    stdout: <── one line of JSON once all have ended

Stubs are grpc's own; a request is bytes before its time begins, and an answer stays bytes. So the
callers share neither the server's interpreter nor, in two processes, each other's.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from bertd.v1 import inference_pb2 as pb
from robustness.worst_calls import BY_NAME, V1, WorstCall

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PATIENCE = 60.0  # seconds for a neighbour's call
_WARM = 20  # calls of the neighbour that do not count


@dataclass(frozen=True, slots=True)
class Outcome:
    """A call.

    Attributes:
        code: its status.
        seconds: until it ended, from when its last byte was handed to gRPC.
        answer_bytes: of all its messages.
        said: why it failed.
    """

    code: str
    seconds: float
    answer_bytes: int = 0
    said: str = ""


def neighbour(address: str, model: str, seconds: float) -> Iterator[Any]:
    """Short texts one after another; gives None once it is ready, then seconds of each call.

    A call that fails counts as infinitely long.
    """
    waits: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{V1}/Embed")
        request = pb.EmbedRequest(model=model, texts=["the cat sat"]).SerializeToString()
        for _ in range(_WARM):
            call(request, timeout=_PATIENCE)
        yield None
        end = time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            try:
                call(request, timeout=_PATIENCE)
                waits.append(time.monotonic() - begin)
            except grpc.RpcError:
                waits.append(_PATIENCE)
    yield waits


def attack(address: str, name: str, callers: int, seconds: float, once: bool) -> Iterator[Any]:
    """A row's call by several callers again and again, then cancelled; gives None, then outcomes.

    Args:
        address: of the server.
        name: of the row.
        callers: that call at once.
        seconds: after which all that still runs is cancelled.
        once: whether each calls once.
    """
    row = BY_NAME[name]
    messages = [message.SerializeToString() for message in row.make(row.model)]
    outcomes: list[Outcome] = []
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        grpc.channel_ready_future(channel).result(_PATIENCE)
        yield None
        end = time.monotonic() + seconds

        def work() -> None:
            while time.monotonic() < end:
                outcomes.append(_called(channel, row, messages, end))
                if once:
                    return
                if outcomes[-1].code not in {"OK", "CANCELLED"}:
                    time.sleep(0.05)  # a refused caller who does not listen, but sleeps

        threads = [threading.Thread(target=work) for _ in range(callers)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    yield [asdict(each) for each in outcomes]


def _called(
    channel: grpc.Channel, row: WorstCall, messages: Sequence[bytes], end: float
) -> Outcome:
    """One call without a deadline, which is cancelled at the end; a stream or not."""
    path = f"/{row.rpc}"
    streams = len(messages) > 1
    sent = time.monotonic()

    def sending() -> Iterator[bytes]:
        nonlocal sent
        for each in messages:
            yield each
            sent = time.monotonic()

    size = 0
    open_channel: Any = channel
    # All RPCs of the table that take a stream give one, but for one; grpc's core does not mind.
    call: Any = (
        open_channel.stream_stream(path)(sending(), metadata=row.metadata())
        if streams
        else open_channel.unary_stream(path)(messages[0], metadata=row.metadata())
    )
    timer = threading.Timer(max(0.0, end - time.monotonic()), call.cancel)
    timer.start()
    try:
        for part in call:
            size += len(part)
    except grpc.RpcError as error:
        failed: Any = error
        return Outcome(failed.code().name, time.monotonic() - sent, size, failed.details()[:200])
    finally:
        timer.cancel()
    return Outcome("OK", time.monotonic() - sent, size)


def main() -> None:
    """Take orders until stdin ends."""
    orders: dict[str, Any] = {"neighbour": neighbour, "attack": attack}
    for line in sys.stdin:
        order = json.loads(line)
        steps = orders[order.pop("ask")](**order)
        next(steps)
        _say("ready")
        sys.stdin.readline()
        _say(json.dumps(next(steps)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
