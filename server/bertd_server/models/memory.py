"""The memory limit: the largest batch that keeps the process below it, whatever the texts.

::

    limit ─ reserve ─ results kept ─┬─ resident after the longest text on every lane
                                    │                                    (must fit, or no start)
                                    └─ rest / growth per token = tokens of a batch beyond that
    limit ─ results kept ─ batches as large as they get ─> requests in flight

Everything that a packed batch needs grows with its tokens: rows of the layers, and the scores of
attention, since a kernel that holds all pairs of a text takes only texts up to 256 tokens
(`bertd.bundle.runs`). So growth is measured between two batches of the worst kind. The arena keeps
what it once had, and what runs later fits into it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bertd import bundle
from bertd.bundle.runs import SHORT_TOKENS

from bertd_server.engine.engine import NO_LIMIT, Engine
from bertd_server.errors import CannotServeError
from bertd_server.models import shapes
from bertd_server.system.setting_types import format_bytes

_RESERVE_BYTES = 48 * 2**20  # for requests, answers and the interpreter
_SECOND_BATCH = 1_024  # tokens, about; growth is measured between a longest text and this
_FOR_REQUESTS = 0.75  # of what batches leave: what was freed is not the system's at once
_MARGIN = 1.25  # the arena grows in steps and has gaps
_ROWS = 10  # of the hidden size, live at once for a token: q, k, v, context, residual, FFN


@dataclass(slots=True)
class _Mapping:
    """One line of the process's address space, and the bytes that are resident of it.

    Attributes:
        stretch: offset, device and inode: the same wherever, and by whomever, it is mapped.
        is_weights: whether it is of a file of weights.
        size: of all of it.
        resident: of these, in memory.
        anonymous: of these, this process's own, not the file's.
    """

    stretch: str
    is_weights: bool
    size: int = 0
    resident: int = 0
    anonymous: int = 0


def _mappings() -> Iterator[_Mapping]:
    """What `/proc/self/smaps` says; Linux alone has it.

    Raises:
        OSError: it is not there.
    """
    known = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # addresses, rights, offset, device, inode, path
            if known:
                yield known
            known = _Mapping(" ".join(words[2:5]), bundle.WEIGHTS_NAME in line)
        elif known and words[0] == "Size:":
            known.size = int(words[1]) * 1024
        elif known and words[0] == "Rss:":
            known.resident = int(words[1]) * 1024
        elif known and words[0] == "Anonymous:":
            known.anonymous = int(words[1]) * 1024
    if known:
        yield known


def resident_bytes() -> int:
    """Memory of this process; pages that it maps more than once count once.

    Pages of files count in full whoever else maps them: another server of the same weights may
    stop at any time, and leave them to this one. Elsewhere than on Linux it is the most that was
    ever resident.
    """
    own = 0
    files: dict[str, int] = {}  # by stretch
    try:
        for each in _mappings():
            own += each.anonymous
            shared = each.resident - each.anonymous
            files[each.stretch] = max(files.get(each.stretch, 0), shared)
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)
    return own + sum(files.values())


def unread_bytes() -> int:
    """Bytes of mapped weights that no run has read yet, such as rows of rare tokens."""
    sizes: dict[str, int] = {}  # by stretch
    read: dict[str, int] = {}
    try:
        for each in _mappings():
            if each.is_weights:
                sizes[each.stretch] = max(sizes.get(each.stretch, 0), each.size)
                read[each.stretch] = max(read.get(each.stretch, 0), each.resident)
    except OSError:
        return 0
    return sum(size - read[stretch] for stretch, size in sizes.items())


def _needed_bytes() -> int:
    """What the process takes once every token has been seen."""
    return resident_bytes() + unread_bytes()


def limit_batches(
    engine: Engine, limit: int, cache_bytes: int = 0, batch_tokens: int = NO_LIMIT
) -> None:
    """Set `engine.max_batch_tokens` so that batches on all lanes keep below a limit.

    `engine.request_bytes` is what such batches leave to requests in flight.

    Args:
        engine: loaded; nothing else runs on it.
        limit: bytes of the whole process; 0 for none.
        cache_bytes: that the results kept may grow to.
        batch_tokens: that a batch has at most, whatever the memory.

    Raises:
        CannotServeError: the model, or its longest text on every lane, does not fit.
    """
    if not limit:
        engine.max_batch_tokens, engine.request_bytes = NO_LIMIT, 0
        return
    reserve = _RESERVE_BYTES + cache_bytes
    kept = f", and {format_bytes(cache_bytes)} for results that are kept" if cache_bytes else ""
    model = _needed_bytes()
    longest = engine.manifest.max_tokens
    _refuse_above(limit, model + reserve, engine, f"its weights alone{kept}")
    _run_worst(engine, longest)
    first = _needed_bytes()
    _refuse_above(
        limit,
        first + reserve,
        engine,
        f"a text of {longest} tokens on each of {engine.lanes} lanes{kept}",
    )
    more = longest * max(2, _SECOND_BATCH // longest)
    least = _ROWS * 4 * engine.manifest.hidden_size * engine.lanes
    # The second batch may itself be too large: a bound from the first one comes before it.
    growth = max(least, _MARGIN * (first - model) / longest)
    if first + growth * (more - longest) <= limit - reserve:
        _run_worst(engine, more)
        second = _needed_bytes()
        growth = max(least, _MARGIN * (second - first) / (more - longest))
        first, longest = second, more
    engine.max_batch_tokens = longest + int((limit - reserve - first) / growth)
    beyond = max(0, min(engine.max_batch_tokens, batch_tokens) - longest)
    rest = limit - cache_bytes - first - int(growth * beyond)
    engine.request_bytes = int(_FOR_REQUESTS * rest)


def _refuse_above(limit: int, needed: int, engine: Engine, what: str) -> None:
    if needed > limit:
        raise CannotServeError(
            f"memory_limit is {format_bytes(limit)}, and {engine.manifest.name} needs "
            f"{format_bytes(needed)} for {what}: raise --memory-limit, "
            f"lower --lanes or --cache-bytes, or serve an int8 bundle"
        )


def _run_worst(engine: Engine, tokens: int) -> None:
    """Batches of the kinds that take most, on all lanes at once, then on the wide session."""
    longest = engine.manifest.max_tokens
    for length in sorted({min(SHORT_TOKENS, longest), longest}):
        lengths = [length] * (tokens // length)
        batch = shapes.texts(lengths or [tokens], engine.manifest, worst=True)
        with ThreadPoolExecutor(engine.lanes) as threads:
            runs = [threads.submit(engine.answer, batch) for _ in range(engine.lanes)]
            for run in runs:
                run.result()
        if engine.has_wide:
            engine.answer(batch, wide=True)
