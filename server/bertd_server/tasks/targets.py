"""fill-mask: the tokens among which a caller wants a mask's to be found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bertd.bundle.arrays import Int64Array
from tokenizers import Tokenizer

from bertd_server.errors import InvalidInput
from bertd_server.scheduling.executor import Steps

MOST_TARGETS = 1_000
_LONGEST = 200  # characters of a target that is worth encoding; entries of vocabularies are shorter


def target_ids(tokenizer: Tokenizer, targets: Sequence[str]) -> Steps[Int64Array | None]:
    """The tokens of targets, int64 `[ids]`, ascending, each once; None where there are none.

    A target is an entry of the vocabulary as the vocabulary writes it, else what the tokenizer
    makes a single token of. transformers' pipeline takes the first token where there are several,
    and warns; here that is refused.

    Raises:
        InvalidInput: there are too many, or one is not a single token.
    """
    if not targets:
        return None
    if len(targets) > MOST_TARGETS:
        raise InvalidInput(
            f"targets has {len(targets)} entries, a call takes at most {MOST_TARGETS}: send fewer, "
            "or none and a larger top_k",
            field="targets",
            reason="too_many",
            limit=MOST_TARGETS,
        )
    found = []
    for number, one in enumerate(targets):
        found.append(_id(tokenizer, one, f"targets[{number}]"))
        yield
    return np.unique(np.array(found, np.int64))


def _id(tokenizer: Tokenizer, target: str, field: str) -> int:
    try:
        target.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{field} holds a lone surrogate, which is no Unicode character: send valid UTF-8",
            field=field,
            reason="not_unicode",
        ) from None
    known: int | None = tokenizer.token_to_id(target)
    if known is not None:
        return known
    if len(target) > _LONGEST:
        raise InvalidInput(
            f"{field} has {len(target)} characters, and no token of the vocabulary has so many: "
            "send single tokens",
            field=field,
            reason="too_long",
            limit=_LONGEST,
        )
    encoding = tokenizer.encode(target, add_special_tokens=False)
    if len(encoding) == 1:
        entry = tokenizer.id_to_token(encoding.ids[0])
        # A Unigram model does not tell its unknown token, but writes what was read in its place.
        if entry == encoding.tokens[0] and entry != getattr(tokenizer.model, "unk_token", None):
            return int(encoding.ids[0])
    reads = " ".join(encoding.tokens) or "nothing"
    raise InvalidInput(
        f"{field} is {target!r}, which is not one token of the vocabulary but reads as {reads}: "
        "send an entry of the vocabulary, as Tokenize writes tokens",
        field=field,
        reason="unknown_value",
    )
