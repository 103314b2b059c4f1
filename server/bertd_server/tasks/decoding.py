"""Token ids as texts."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from bertd_server.scheduling.executor import LONG, Steps

_LONG_IDS = 2_000  # to write more of them takes longer than a step


def written(vocabulary: Tokenizer, ids: Sequence[int], *, skip_special_tokens: bool) -> Steps[str]:
    """Token ids as a text: at once, since one may change how its neighbours are written."""
    if len(ids) > _LONG_IDS:
        yield LONG
    (text,) = vocabulary.decode_batch([list(ids)], skip_special_tokens=skip_special_tokens)
    return text
