"""Whether the words of a tokenizer's own vocabulary survive the tokenizer.

A vocabulary is made of what the model was trained to read. Where the tokenizer turns its words into
unknown tokens, or into pieces of other words, it is not the tokenizer of that training: it puts
into lower case what was trained in upper case, or splits words that SentencePiece marked.

::

    vocabulary ──words_of──> words ──tokenizer──> unknown | other tokens | themselves
                                                     └───────┴──check_survival──> refused, a note
"""

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

import tokenizers

from bertd_export.errors import ExportError

# Real vocabularies (all-MiniLM-L6-v2, a Korean ALBERT) lose none or one in thousands.
_LOST = 0.1
_SAMPLE = 2000
_SHOWN = 5
_UNHEARD_OF = "\U000e0fff \ufdd0"  # code points that no vocabulary has
_WORDS = ("WordPiece", "WordLevel")  # models whose tokens are words of texts, as they stand
_SPACE = "▁"
_BLANK = "Ġ"  # in byte-level vocabularies


class Survival(NamedTuple):
    """Words of a vocabulary, and which of them its tokenizer does not read as themselves."""

    words: list[str]
    unknown: list[str]
    changed: list[str]


def words_of(vocabulary: Iterable[str], special: Container[str]) -> list[str]:
    """Up to 2,000 tokens that are words of texts, spread evenly over the vocabulary in its order.

    Special and unused tokens, what continues a word, and what has no letter or digit are none.
    """
    words = [
        token
        for token in vocabulary
        if token not in special
        and not token.startswith("##")
        and not (token.startswith(("[unused", "<unused")) and token.endswith(("]", ">")))
        and any(character.isalnum() for character in token)
    ]
    return words[:: max(1, -(-len(words) // _SAMPLE))]


def survival(tokenizer: tokenizers.Tokenizer) -> Survival:
    """Send words of the vocabulary through the tokenizer.

    A vocabulary without an unknown token, as of byte-level BPE, loses nothing.
    """
    kind = type(tokenizer.model).__name__
    ids = tokenizer.get_vocab(with_added_tokens=False)
    if kind == "Unigram":
        unknown = json.loads(tokenizer.to_str())["model"]["unk_id"]
    else:
        unknown = ids.get(getattr(tokenizer.model, "unk_token", None) or "")
    if unknown is None or kind not in (*_WORDS, "Unigram"):
        return Survival([], [], [])
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    special.add(tokenizer.id_to_token(unknown) or "")
    tokens = words_of(sorted(ids, key=ids.__getitem__), special)
    read = tokenizer.encode_batch(
        [token.removeprefix(_SPACE) for token in tokens], add_special_tokens=False
    )
    lost = {token for token, found in zip(tokens, read, strict=True) if unknown in found.ids}
    changed = [
        token
        for token, found in zip(tokens, read, strict=True)
        if kind in _WORDS and token not in lost and found.ids != [ids[token]]
    ]
    return Survival(tokens, [token for token in tokens if token in lost], changed)


def check_survival(
    folder: Path, tokenizer: tokenizers.Tokenizer, lower_case: bool | None
) -> tuple[str, ...]:
    """Refuse a tokenizer that loses its own vocabulary.

    Args:
        folder: named in the error.
        tokenizer: the checkpoint's.
        lower_case: ``do_lower_case`` of tokenizer_config.json; None where it does not say.

    Returns:
        Notes for whoever exports.

    Raises:
        ExportError: more than a tenth of the words become unknown; or become other words, and no
            setting asks for that; or the tokenizer fails on what it does not know.
    """
    _check_unknown(folder, tokenizer)
    _check_bytes(folder, tokenizer)
    words, unknown, changed = survival(tokenizer)
    if not words:
        return ()
    whole = type(tokenizer.model).__name__ in _WORDS
    pieces = [word for word in words if whole and word.startswith(_SPACE)]
    if len(pieces) > _LOST * len(words) and len(unknown) > _LOST * len(words):
        raise ExportError(
            f"{folder}: the vocabulary is made of SentencePiece's pieces ({_quoted(pieces)}), and "
            f"its tokenizer reads whole words: {_share(unknown, words)} become unknown; put the "
            f"SentencePiece model, or the model's own tokenizer.json, beside it"
        )
    if len(unknown) > _LOST * len(words):
        raise ExportError(
            f"{folder}: the tokenizer does not know its own vocabulary: {_share(unknown, words)} "
            f"become unknown tokens ({_quoted(unknown)}); {_remedy(tokenizer, unknown)}"
        )
    lost = f"{_share(changed, words)} are read as other tokens ({_quoted(changed)})"
    if len(changed) > _LOST * len(words):
        if lower_case is None:
            raise ExportError(
                f"{folder}: of the tokenizer's own vocabulary {lost}; "
                f"{_remedy(tokenizer, changed)}; if that is meant, set do_lower_case to true"
            )
        return (f"of the tokenizer's own vocabulary {lost}",)
    return ()


def _check_unknown(folder: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Refuse a tokenizer without a token for what it does not know, which fails on such texts."""
    try:
        tokenizer.encode(_UNHEARD_OF)
    except Exception as error:  # of tokenizers, which has no class of its own
        raise ExportError(
            f"{folder}: the tokenizer fails on characters that it does not know ({error}): name in "
            f"unk_token, of tokenizer.json's model too, a token that its vocabulary has"
        ) from error


def _check_bytes(folder: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Refuse what reads texts as bytes with a vocabulary of letters: most would vanish."""
    steps = json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"])
    if '"ByteLevel"' in steps and not any(_BLANK in token for token in tokenizer.get_vocab()):
        raise ExportError(
            f"{folder}: the tokenizer reads texts as bytes, and no token of its vocabulary has the "
            f"letter of a blank ({_BLANK}): characters that it lacks vanish without a word. Set "
            f"tokenizer_class in tokenizer_config.json to the tokenizer that the vocabulary is for"
        )


def _share(part: list[str], words: list[str]) -> str:
    return f"{len(part)} of {len(words)} words"


def _quoted(words: list[str]) -> str:
    return ", ".join(repr(word) for word in words[:_SHOWN])


def _remedy(tokenizer: tokenizers.Tokenizer, lost: list[str]) -> str:
    """What to set, seen on whether the words would survive in lower case."""
    cased, lower = (tokenizer.encode(text).ids for text in ("ABC", "abc"))
    if cased == lower and any(word != word.lower() for word in lost):
        return (
            "it puts texts into lower case: if the model was trained on cased texts, set "
            "do_lower_case in tokenizer_config.json to false, or tokenizer_class to the tokenizer "
            "that it was trained with"
        )
    return (
        "use the tokenizer that the model was trained with, or set do_lower_case, strip_accents "
        "and tokenize_chinese_chars in tokenizer_config.json as it was trained"
    )
