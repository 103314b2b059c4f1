"""Results that were computed before, least recently used ones dropped beyond a budget of bytes.

A text's answer does not depend on its batch, bit for bit: nobody can tell a cached one.
"""

from __future__ import annotations

from collections import OrderedDict

from bertd_server.engine.engine import GraphOutputs

_OVERHEAD = 512  # bytes of an entry beside its key and arrays: objects and places in tables


class ResultCache:
    """GraphOutputs by key. A budget of 0 bytes keeps none.

    Attributes:
        budget: bytes that entries may take.
        bytes: what the entries take.
        hits: look-ups that found their key.
        misses: the others.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: OrderedDict[bytes, GraphOutputs] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: bytes) -> GraphOutputs | None:
        """The outputs of a key, if they are here; their arrays cannot be written to."""
        if not self.budget:
            return None
        found = self._entries.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, outputs: GraphOutputs) -> None:
        """Keep a copy: a view would keep the whole batch in memory."""
        if _size(key, outputs) > self.budget:
            return
        self._drop(key)
        copies = {name: array.copy() for name, array in outputs.items()}
        for array in copies.values():
            array.flags.writeable = False
        self._entries[key] = copies
        self.bytes += _size(key, copies)
        while self.bytes > self.budget:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        outputs = self._entries.pop(key, None)
        if outputs is not None:
            self.bytes -= _size(key, outputs)


def _size(key: bytes, outputs: GraphOutputs) -> int:
    return _OVERHEAD + len(key) + sum(array.nbytes for array in outputs.values())
