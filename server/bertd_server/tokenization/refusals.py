"""Texts that no tokenizer can read, and those that it makes no token of.

::

    text ──unreadable──> too long | too long in its normal form | no Unicode
     └──tokenizer──> tokens ──empty──> none but special ones
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from tokenizers import Encoding

from bertd_server.errors import InvalidInput

if TYPE_CHECKING:
    from bertd_server.tokenization.reader import Input

_FIRST, _SECOND = 0, 1  # sequence ids of the texts of a pair
_LONGEST_FORM = 18  # characters that Unicode's normalisation makes of one, at most
# A Korean syllable is up to three characters in the form that some tokenizers read, and so are
# letters with marks; what is longer on the whole is made of rare ligatures.
_FORM_CHARACTERS = 3
_PART = 10_000  # characters that are normalised at once, in less than a ms

_REMEDY = "or have the server started with a larger --max-text-characters"


def unreadable(one: Input, most: int, max_tokens: int) -> InvalidInput | None:
    """Why an input cannot be encoded; None if it can.

    Args:
        one: a text or a pair.
        most: characters of a text.
        max_tokens: that the model reads at once, for the remedy.
    """
    for field, text in ((one.field, one.text), (one.pair_field, one.pair)):
        if text is None:
            continue
        if len(text) > most:
            return InvalidInput(
                f"{field} has {len(text)} characters, the server reads at most {most} of a text: "
                f"send its beginning alone (the model reads at most {max_tokens} tokens at once), "
                f"{_REMEDY}",
                field=field,
                reason="too_long",
                limit=most,
            )
        if _longer_in_form(text, _FORM_CHARACTERS * most):
            return InvalidInput(
                f"{field} has more than {_FORM_CHARACTERS * most} characters with its ligatures "
                f"taken apart (Unicode NFKD), {_FORM_CHARACTERS} times what a text may have: send "
                f"fewer of its {len(text)} characters, such as the first "
                f"{_FORM_CHARACTERS * most // _LONGEST_FORM}, {_REMEDY}",
                field=field,
                reason="too_long",
                limit=_FORM_CHARACTERS * most,
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            return InvalidInput(
                f"{field} holds a lone surrogate, which is no Unicode character: send valid UTF-8",
                field=field,
                reason="not_unicode",
            )
    return None


def _longer_in_form(text: str, most: int) -> bool:
    """Whether a tokenizer may make more characters of a text than so many."""
    if text.isascii() or _LONGEST_FORM * len(text) <= most:
        return False
    for begin in range(0, len(text), _PART):  # the event loop has its turn in between
        most -= len(unicodedata.normalize("NFKD", text[begin : begin + _PART]))
    return most < 0


def empty(encoding: Encoding, one: Input) -> InvalidInput | None:
    """Why an input cannot be asked about: a text of it has no token; None if each has some."""
    field = _empty_field(encoding, one)
    if field is None:
        return None
    return InvalidInput(
        f"{field} is empty: send a text with at least one token",
        field=field,
        tokens=len(encoding),
        reason="empty",
    )


def _empty_field(encoding: Encoding, one: Input) -> str | None:
    if not one.text.strip():
        return one.field
    if one.pair is not None and not one.pair.strip():
        return one.pair_field
    if all(encoding.special_tokens_mask):
        return one.field
    if one.pair is None:
        return None
    read = set(encoding.sequence_ids)
    if _FIRST not in read:
        return one.field
    return one.pair_field if _SECOND not in read else None
