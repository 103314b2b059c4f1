"""Descriptors for server reflection, from protobuf's default pool and from our private one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool


class DescriptorPools:
    """Several descriptor pools, read as one: the first that knows a name speaks.

    It has what `grpc_reflection` asks of a pool.
    """

    def __init__(self, pools: Sequence[DescriptorPool]) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:  # noqa: N802 - as DescriptorPool has it
        """The file of that name."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - likewise
        """The file that defines a message, an enum, a service or a method."""
        return self._first(lambda pool: pool.FindFileContainingSymbol(symbol))

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802 - likewise
        """The message of that name."""
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:  # noqa: N802 - likewise
        """An extension of a message."""
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:  # noqa: N802 - likewise
        """All extensions of a message."""
        return message.file.pool.FindAllExtensions(message)

    def _first(self, find: Callable[[Any], Any]) -> Any:
        for pool in self._pools[:-1]:
            try:
                return find(pool)
            except KeyError:
                continue
        return find(self._pools[-1])
