"""The access log: one line for an RPC, when it has ended.

What was asked is never in it unless wanted, and so neither are messages of errors, which may quote
a request; the reason is.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

import grpc

from bertd_server.system.call_metrics import RpcRecord, protocol_of
from bertd_server.system.logs import get_logger

log = get_logger("bertd.access")

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_OK = grpc.StatusCode.OK.value[0]
_LONGEST_TEXT = 1_000  # characters of a text in a line
_MOST_TEXTS = 16  # texts in a line


class AccessLog:
    """Writes a share of the lines of answered RPCs, and each one of an error.

    Attributes:
        texts: whether lines have what was asked.
    """

    def __init__(self, sample: float, *, texts: bool = False) -> None:
        """Take the share, 0 to 1."""
        self.texts = texts
        self._sample = sample

    def write(self, record: RpcRecord, code: int) -> None:
        """Write the line of an RPC, or leave it out."""
        if code == _OK and self._sample < 1 and random.random() >= self._sample:  # noqa: S311
            return
        more: dict[str, Any] = {}
        if record.reason:
            more["reason"] = record.reason
        if record.trace is not None and record.trace.id:
            more["trace_id"] = record.trace.id
        if self.texts:
            more["inputs"] = [_shown(one) for one in record.inputs[:_MOST_TEXTS]]
        write = log.info if code == _OK else log.warning
        with contextlib.suppress(OSError):  # a log that cannot be written costs no answer
            write(
                "rpc",
                rpc=record.rpc,
                protocol=protocol_of(record.rpc),
                model=record.model,
                code=_NAMES.get(code, str(code)),
                texts=record.texts,
                tokens=record.tokens,
                milliseconds=round(1_000 * (time.perf_counter() - record.began), 3),
                peer=record.peer,
                request_id=record.id,
                **more,
            )


def _shown(one: Any) -> str | list[str]:
    """A text, or the two of a pair, as far as a line has room."""
    if one.pair is None:
        return str(one.text[:_LONGEST_TEXT])
    return [one.text[:_LONGEST_TEXT], one.pair[:_LONGEST_TEXT]]
