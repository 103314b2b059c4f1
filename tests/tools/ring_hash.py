"""What routing by text is worth to the result cache: ``python tests/tools/ring_hash.py``.

Texts are drawn as often as words of a language are (Zipf, exponent 1), one to a call. Servers of a
fleet keep the most recent answers, each so many; calls go to them in turns, or by the hash of their
text. Prints a table of Markdown: calls answered from a cache, and how many texts the busiest server
computes over an even share of them.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

TEXTS, CALLS, SEED = 1_000_000, 1_000_000, 1
SERVERS, KEPT = (2, 4, 8), (10_000, 50_000)


def draws() -> np.ndarray:
    """The text of each call, int64 [CALLS]."""
    weights = 1 / np.arange(1, TEXTS + 1)
    return np.random.default_rng(SEED).choice(TEXTS, CALLS, p=weights / weights.sum())


def fleet(texts: np.ndarray, places: np.ndarray, servers: int, kept: int) -> tuple[float, float]:
    """Share of calls that a cache answers; misses of the busiest server over an even share.

    Args:
        texts: of each call.
        places: the server of each call.
        servers: how many.
        kept: answers of each, the most recent.
    """
    caches = [OrderedDict[int, None]() for _ in range(servers)]
    missed = [0] * servers
    for text, place in zip(texts.tolist(), places.tolist(), strict=True):
        cache = caches[place]
        if text in cache:
            cache.move_to_end(text)
            continue
        missed[place] += 1
        cache[text] = None
        if len(cache) > kept:
            cache.popitem(last=False)
    return 1 - sum(missed) / len(texts), max(missed) * servers / sum(missed)


def main() -> None:
    texts = draws()
    # Fibonacci hashing: neighbours in frequency go to unlike servers.
    mixed = (texts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    print("| servers | answers kept by each | hits, in turns | hits, by hash | busiest, by hash |")
    print("|---:|---:|---:|---:|---:|")
    for servers in SERVERS:
        turns, hashed = np.arange(CALLS) % servers, mixed % np.uint64(servers)
        for kept in KEPT:
            plain, _ = fleet(texts, turns, servers, kept)
            routed, busiest = fleet(texts, hashed, servers, kept)
            print(f"| {servers} | {kept:,} | {plain:.0%} | {routed:.0%} | {busiest:.2f} |")


if __name__ == "__main__":
    main()
