"""The memory limit: the largest batch that keeps the process below it, whatever the texts.

::

    limit ─ reserve ─┬─ resident after the longest text on every lane    (must fit, or no start)
                     └─ rest / growth per token = tokens that a batch may have beyond that

Everything that a packed batch needs grows with its tokens: rows of the layers, and the scores of
attention, since a kernel that holds all pairs of a text takes only texts up to 256 tokens
(:mod:`bertd.runs`). So growth is measured between two batches of the worst kind. The arena keeps
what it once had, and what runs later fits into it.
"""

from __future__ import annotations

import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bertd import bundle
from bertd.runs import SHORT_TOKENS

from bertd_server import shapes
from bertd_server.engine import NO_LIMIT, Engine
from bertd_server.errors import CannotServeError
from bertd_server.values import format_bytes

_RESERVE_BYTES = 48 * 2**20  # for requests, answers and the interpreter
_SECOND_BATCH = 1_024  # tokens, about; growth is measured between a longest text and this
_MARGIN = 1.25  # the arena grows in steps and has gaps
_ROWS = 10  # of the hidden size, live at once for a token: q, k, v, context, residual, FFN


def resident_bytes() -> int:
    """Memory of this process; pages that it maps more than once count once.

    Linux alone says so. Elsewhere it is the most that was ever resident.
    """
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)
    sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
    return int(sizes["Pss"]) * 1024


def unread_bytes() -> int:
    """Bytes of mapped weights that no run has read yet, such as rows of rare tokens."""
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    sizes: dict[str, int] = {}  # of each stretch of the file, mapped once or more
    read: dict[str, int] = {}
    stretch = ""
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):  # a mapping: addresses, rights, offset, device, inode, path
            ours = bundle.WEIGHTS_NAME in line
            stretch = " ".join(words[2:5]) if ours else ""
        elif stretch and words[0] == "Size:":
            sizes[stretch] = max(sizes.get(stretch, 0), int(words[1]))
        elif stretch and words[0] == "Rss:":
            read[stretch] = max(read.get(stretch, 0), int(words[1]))
    return 1024 * sum(size - read.get(each, 0) for each, size in sizes.items())


def _needed_bytes() -> int:
    """What the process takes once every token has been seen."""
    return resident_bytes() + unread_bytes()


def limit_batches(engine: Engine, limit: int) -> None:
    """Set `engine.max_batch_tokens` so that batches on all lanes keep below a limit.

    Args:
        engine: loaded; nothing else runs on it.
        limit: bytes of the whole process; 0 for none.

    Raises:
        CannotServeError: the model, or its longest text on every lane, does not fit.
    """
    if not limit:
        engine.max_batch_tokens = NO_LIMIT
        return
    model = _needed_bytes()
    longest = engine.manifest.max_tokens
    _refuse_above(limit, model + _RESERVE_BYTES, engine, "its weights alone")
    _run_worst(engine, longest)
    first = _needed_bytes()
    _refuse_above(
        limit,
        first + _RESERVE_BYTES,
        engine,
        f"a text of {longest} tokens on each of {engine.lanes} lanes",
    )
    more = longest * max(2, _SECOND_BATCH // longest)
    least = _ROWS * 4 * engine.manifest.hidden_size * engine.lanes
    # The second batch may itself be too large: a bound from the first one comes before it.
    growth = max(least, _MARGIN * (first - model) / longest)
    if first + growth * (more - longest) <= limit - _RESERVE_BYTES:
        _run_worst(engine, more)
        second = _needed_bytes()
        growth = max(least, _MARGIN * (second - first) / (more - longest))
        first, longest = second, more
    engine.max_batch_tokens = longest + int((limit - _RESERVE_BYTES - first) / growth)


def _refuse_above(limit: int, needed: int, engine: Engine, what: str) -> None:
    if needed > limit:
        raise CannotServeError(
            f"memory_limit is {format_bytes(limit)}, and {engine.manifest.name} needs "
            f"{format_bytes(needed)} for {what}: raise --memory-limit, "
            f"lower --lanes, or serve an int8 bundle"
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
