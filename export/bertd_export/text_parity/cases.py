"""Raw texts and pairs, as users send them: what a tokenizer or a pooling may read otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass

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
_WORDS = ("one", "reading", "of", "many,", "in", "12", "words:", "기차", "München;", "then")


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
    texts = [*TEXTS, *_too_long(checkpoint)]
    named = [*checkpoint.prompts, ""] if checkpoint.prompts else []
    return [
        *(RawText(text) for text in texts),
        *(RawText(text, prompt_name=name) for name in named for text in TEXTS[:3]),
    ]


def pairs(checkpoint: Checkpoint) -> list[RawText]:
    """Pairs, one with too long a second text, with the default prompt; then some with each."""
    named = [*checkpoint.prompts, ""] if checkpoint.prompts else []
    long = [RawText(PAIRS[0][0], text) for text in _too_long(checkpoint)]
    return [
        *(RawText(*pair) for pair in PAIRS),
        *long,
        *(RawText(*pair, prompt_name=name) for name in named for pair in PAIRS[:2]),
    ]


def _too_long(checkpoint: Checkpoint) -> Iterator[str]:
    """A text of more tokens than the model reads, where that does not take too long."""
    if checkpoint.max_tokens <= _LONGEST:
        words = (_WORDS * (checkpoint.max_tokens // len(_WORDS) + 1))[: checkpoint.max_tokens + 1]
        yield " ".join(words)
