"""Raw texts and pairs, as users send them: what a tokenizer or a pooling may read otherwise."""

from dataclasses import dataclass

import numpy as np

from bertd_export.checkpoint.loading import Checkpoint

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "서울에서 부산까지 기차로 두 시간 반이 걸립니다.",
    "In 2024, ACME Corp. paid $1,234.56 for 10% of it: https://example.com/a?b=c",
    "BERT",
    "e\u0301te\u0301, été, naïve and München",
    "\u1112\u1161\u11ab\u1100\u1173\u11af, written as single letters",
    "東京は日本の首都です。 北京是中国的首都。",
    "Быстрая лиса, سلام, שלום",
    "two\nlines,\ta tab and a no-break\u00a0space",
    "What [SEP] follows [CLS] a </s> token <s> that is spelled out?",
    "  blanks at both ends  ",
)
PAIRS = (
    ("How long does the train take?", "The train from Seoul to Busan takes two and a half hours."),
    ("기차는 얼마나 걸립니까?", "서울에서 부산까지 기차로 두 시간 반이 걸립니다."),
    ("Who wrote it", "A fox jumps over the lazy dog."),
    ("capital", "東京は日本の首都です。 [SEP] Paris"),
)
_LONGEST = 1024  # tokens; a text beyond what the model reads is compared up to this limit
_OWN = 12  # tokens of the vocabulary in a text made of it


@dataclass(frozen=True)
class RawText:
    """A text, or a pair, and the name of its prompt.

    Attributes:
        text: the text, or the first of a pair.
        pair: the second text; None for a text alone.
        prompt_name: of the checkpoint's prompts; None for its default, "" for none.
    """

    text: str
    pair: str | None = None
    prompt_name: str | None = None


def single(checkpoint: Checkpoint) -> list[RawText]:
    """Texts alone: with the default prompt, then some of them with each prompt, and without one."""
    own = _made(checkpoint, _OWN, 2)
    return [
        *(RawText(text) for text in (*TEXTS, *own, *_too_long(checkpoint))),
        *(RawText(text, None, name) for name in _named(checkpoint) for text in (TEXTS[0], *own)),
    ]


def pairs(checkpoint: Checkpoint) -> list[RawText]:
    """Pairs, one with too long a second text, with the default prompt; then some with each."""
    first, second = _made(checkpoint, _OWN, 2)
    own = (first, second)
    given = [*PAIRS, own, *((PAIRS[0][0], text) for text in _too_long(checkpoint))]
    return [
        *(RawText(text, pair) for text, pair in given),
        *(
            RawText(text, pair, name)
            for name in _named(checkpoint)
            for text, pair in (PAIRS[0], own)
        ),
    ]


def _named(checkpoint: Checkpoint) -> list[str]:
    """The prompts by name, and "" for none."""
    return [*checkpoint.prompts, ""] if checkpoint.prompts else []


def _made(checkpoint: Checkpoint, tokens: int, count: int, seed: int = 0) -> list[str]:
    """Texts made of the checkpoint's own vocabulary, whatever language or notation that is."""
    special = set(checkpoint.stock_tokenizer.all_special_ids)
    known = sorted(set(checkpoint.tokenizer.get_vocab().values()) - special)
    chosen = np.random.default_rng(seed).choice(known or sorted(special), (count, tokens))
    texts = [checkpoint.tokenizer.decode(ids.tolist()).strip() for ids in chosen]
    return [text or TEXTS[0] for text in texts]


def _too_long(checkpoint: Checkpoint) -> list[str]:
    """A text of more tokens than the model reads, where that does not take too long."""
    if checkpoint.max_tokens > _LONGEST:
        return []
    return _made(checkpoint, checkpoint.max_tokens + _OWN, 1, seed=1)
