"""The texts and the batches on which a graph is compared with PyTorch.

Lengths find what depends on size; batches of unequal lengths, and of different texts of equal
length, find what leaks from one sequence into another; token types, special tokens inside a text
and odd characters find inputs that a model, or its packed form, treats otherwise.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from bertd.bundle.arrays import Int64Array
from bertd.bundle.runs import SHORT_TOKENS

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText, as_read

LENGTHS = (2, 3, 7, 16, 33, 128, SHORT_TOKENS, SHORT_TOKENS + 1)  # two kernels meet at the end
LONGEST = 512  # attention over thousands of tokens would need gigabytes
CHARACTERS = (
    "naïve café, e\u0301 and é",
    "안녕하세요 你好 こんにちは",
    "👩\u200d🚀 \u200b zero width",
    "שלום عليكم, tab\tand\nline",
)

_MASKED_SHARE = 0.15
_TWIN = 128  # tokens; of a text this long, and of the longest, there are two


def texts(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """The texts to compare, by a name that says what is in them; none is above `LONGEST`."""
    return {
        **_random(checkpoint),
        **_types(checkpoint),
        **_special(checkpoint),
        **_prompts(checkpoint),
        **_real(checkpoint),
    }


def batches(texts: Mapping[str, TokenizedText]) -> list[list[str]]:
    """Each text alone, then batches: all, reversed, runs beside a short one, many equal ones.

    Attention takes neighbours of equal length together. Different texts are what shows a leak
    between them: it changes nothing where the neighbour is the same text.
    """
    names = list(texts)
    first = names[0]
    sizes = Counter(len(text.ids) for text in texts.values())
    alike = [name for name, text in texts.items() if sizes[len(text.ids)] > 1]
    runs = [*alike, first, *alike[::-1]]
    return [[name] for name in names] + [names, names[::-1], runs, [*names[:4]] * 8, [first] * 33]


def _vocabulary(checkpoint: Checkpoint) -> Int64Array:
    """Every token id but padding's."""
    ids = np.arange(int(checkpoint.model.config.vocab_size), dtype=np.int64)
    kept: Int64Array = ids[ids != checkpoint.pad_token_id]
    return kept


def _random(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """A text of each length, two of some; where masks are filled, each holds at least one."""
    generator = np.random.default_rng(0)
    vocabulary = _vocabulary(checkpoint)
    longest = min(checkpoint.max_tokens, LONGEST)
    mask = checkpoint.head.mask_token_id
    found = {}
    lengths = [length for length in sorted({*LENGTHS, longest}) if length <= longest]
    twins = sorted({min(_TWIN, longest), longest})
    for length in (*lengths, *twins):
        ids = generator.choice(vocabulary, length)
        types = np.sort(generator.integers(0, checkpoint.type_vocab_size, length))
        if mask is not None:
            ids[generator.random(length) < _MASKED_SHARE] = mask
            ids[length // 2] = mask
        name = f"{length} tokens"
        found[f"{length} other tokens" if name in found else name] = TokenizedText(ids, types)
    return found


def _types(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """One text for each token type: the same ids, all of that type."""
    length = min(12, checkpoint.max_tokens)
    ids = np.random.default_rng(1).choice(_vocabulary(checkpoint), length)
    return {
        f"{length} tokens of type {kind}": TokenizedText(ids, np.full(length, kind, np.int64))
        for kind in range(checkpoint.type_vocab_size)
    }


def _prompts(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """Where pooling leaves out a prompt, texts of which one token is left, and all but one."""
    if checkpoint.include_prompt:
        return {}
    length = min(14, checkpoint.max_tokens)
    ids = np.random.default_rng(3).choice(_vocabulary(checkpoint), length)
    return {
        f"{length} tokens without the first {count}": TokenizedText(ids, ids * 0, count)
        for count in (1, length - 1)
    }


def _special(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """Every special token, twice, between ordinary ones; a text may spell out even padding."""
    vocabulary = _vocabulary(checkpoint)
    special = [
        number
        for number, token in sorted(checkpoint.tokenizer.get_added_tokens_decoder().items())
        if token.special and number < int(checkpoint.model.config.vocab_size)
    ]
    if not special:
        return {}
    ordinary = np.random.default_rng(2).choice(vocabulary, 2 * len(special))
    ids = np.column_stack([ordinary, np.array([*special, *special])]).ravel()
    ids = ids[: checkpoint.max_tokens]
    types = (np.arange(len(ids)) >= len(ids) // 2).astype(np.int64)
    types = np.minimum(types, checkpoint.type_vocab_size - 1)
    return {"special tokens inside": TokenizedText(ids, types)}


def _real(checkpoint: Checkpoint) -> dict[str, TokenizedText]:
    """Odd characters through the tokenizer: alone, and as pairs with the types that it gives."""
    encode = checkpoint.tokenizer.encode
    found = {f"text {text!r}": encode(text) for text in CHARACTERS}
    found[f"pair {CHARACTERS[0]!r}, {CHARACTERS[1]!r}"] = encode(CHARACTERS[0], CHARACTERS[1])
    return {
        name: as_read(encoding, checkpoint)
        for name, encoding in found.items()
        if encoding.ids and max(encoding.ids) < int(checkpoint.model.config.vocab_size)
    }
