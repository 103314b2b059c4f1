"""From scores of tokens to entities: words, spans and schemes, on tokenizers made here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from bertd.bundle import tags
from bertd_export.checkpoint.labels import label_scheme
from bertd_server.tasks import tagging
from bertd_server.tasks.tagging import Aggregation, Entity
from bertd_server.tokenization.details import details_of
from bertd_server.tokenization.reader import Reading
from helpers.tiny import kind_of_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

IOB2 = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS: tuple[Aggregation, ...] = ("first", "average", "max")


def entities(
    tokenizer: Tokenizer,
    text: str,
    scores: Sequence[Sequence[float]] | Sequence[str],
    aggregation: Aggregation,
    labels: Sequence[str] = IOB2,
) -> list[Entity]:
    """What is found in a text whose tokens score so, or have these labels; all O included."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if isinstance(scores[0], str):
        scores = [[float(one == label) for label in labels] for one in scores]
    assert len(encoding.tokens) == len(scores), encoding.tokens
    known = tagging._Labels(labels, [tags.read(one, label_scheme(labels)) for one in labels])
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(scores, np.float32))
    pieces = tagging._pieces(
        tokenizer,
        Reading((), len(encoding), details_of(encoding), text),
        np.arange(len(encoding)),
        logits,
    )
    found = tagging._entities(tokenizer, pieces, known, aggregation, outside=True)
    return [one for one in found if one is not None]


def found(*given: Any) -> list[tuple[str, int, int]]:
    return [(one.label, one.start, one.end) for one in entities(*given)]


@pytest.mark.parametrize(
    ("aggregation", "label", "score"),
    [("simple", "X", 0.65), ("first", "X", 0.6), ("average", "X", 0.5), ("max", "X", 0.7)],
)
def test_a_word_of_two_tokens_has_one_label(
    aggregation: Aggregation, label: str, score: float
) -> None:
    """B then I; the mean of both is I's, and so is the highest."""
    pieces = {"[UNK]": 0, "cat": 1, "##s": 2}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment,unused-ignore]
    scores = [[0.1, 0.6, 0.3], [0.2, 0.1, 0.7]]
    (one,) = entities(tokenizer, "cats", scores, aggregation, ("O", "B-X", "I-X"))
    assert (one.label, one.start, one.end) == (label, 0, 4)
    assert one.score == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("aggregation", WORDS)
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_letter_written_with_a_mark_does_not_join_or_part_words(
    kind: str, aggregation: Aggregation
) -> None:
    """NFD: the uncased tokenizer drops the mark, the byte-level one splits at it."""
    text = "saw Mu\u0308nchen in rain"
    tokenizer = kind_of_tokenizer(kind)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    labels = ["B-LOC" if 3 <= a < 12 else "O" for a, _ in encoding.offsets]
    city = text.index("M")
    assert found(tokenizer, text, labels, aggregation) == [
        ("O", 0, 3),
        ("LOC", city, city + 8),
        ("O", city + 9, len(text)),
    ]


def test_several_tokens_of_a_character_are_in_one_word() -> None:
    """Uncased WordPiece takes syllables apart, and drops the mark that makes カ a ガ."""
    text = "한국 ガ"
    tokenizer = kind_of_tokenizer("wordpiece", text)
    labels = ["B-LOC", *["O"] * 5, "B-PER"]
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    assert offsets == [(0, 1)] * 3 + [(1, 2)] * 3 + [(3, 4)]
    assert found(tokenizer, text, labels, "first") == [("LOC", 0, 2), ("PER", 3, 4)]


def test_a_cased_tokenizer_has_the_mark_in_the_word() -> None:
    text = "cafe\u0301"
    tokenizer = kind_of_tokenizer("wordpiece", text)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)  # type: ignore[assignment,unused-ignore]
    assert found(tokenizer, text, ["B-LOC", *["O"] * 4], "first") == [("LOC", 0, 5)]


@pytest.mark.parametrize("begins", [3, 4])
def test_the_mark_of_a_word_may_have_the_place_of_the_blank_or_none(begins: int) -> None:
    """Metaspace alone gives "▁cat" the blank; behind a split at blanks, as XLM-R has it, not."""
    tokenizer = kind_of_tokenizer("unigram")
    if begins == 4:
        steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)  # type: ignore[assignment,unused-ignore]
    assert tokenizer.encode("the cat", add_special_tokens=False).offsets == [(0, 3), (begins, 7)]
    assert found(tokenizer, "the cat", ["O", "B-PER"], "simple") == [("O", 0, 3), ("PER", 4, 7)]


TEXTS = (
    "hello world",
    "\nthe cat\u00a0sat \u3000 on\n\na mat\t",
    "  the  cat ",
    "안녕 \u1112\u1161\u11ab국 cafe\u0301 🙂",
    "tabs\tand\nlines \u200b zero",
)


@pytest.mark.parametrize("aggregation", WORDS)
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "unigram without words"])
def test_entities_of_words_are_disjoint_and_without_blanks(
    kind: str, aggregation: Aggregation
) -> None:
    """Whatever the tokens say; together they hold each word once."""
    tokenizer = kind_of_tokenizer(kind.partition(" ")[0])
    if kind == "unigram without words":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)  # type: ignore[assignment,unused-ignore]
    random = np.random.default_rng(0)
    for text in TEXTS:
        tokens = len(tokenizer.encode(text, add_special_tokens=False))
        for _ in range(20):
            scores = random.random((tokens, len(IOB2)))
            spans = [(a, b) for _, a, b in found(tokenizer, text, scores.tolist(), aggregation)]
            assert all(a < b and text[a:b].strip(" \u200b") == text[a:b] for a, b in spans), text
            assert all(end <= start for (_, end), (start, _) in pairwise(spans)), text
            covered = " ".join(text[a:b] for a, b in spans)
            assert len("".join(covered.split())) >= len("".join(text.split())) - 2, text


def test_a_simple_entity_has_no_blanks_at_its_ends() -> None:
    tokenizer = kind_of_tokenizer("unigram")
    labels = ["O", "B-PER", "I-PER", "O"]
    assert found(tokenizer, "the cat sat", labels[:3], "simple") == [("O", 0, 3), ("PER", 4, 11)]
    # the mark of a word alone: an entity without a character is none
    assert found(tokenizer, "x ", ["O", "O", "B-PER"], "simple") == [("O", 0, 1)]
    (token,) = entities(tokenizer, "x ", ["O", "O", "B-PER"], "none")[2:]
    assert (token.label, token.word, token.start, token.end) == ("B-PER", "▁", 1, 2)


def test_characters_that_make_several_words_belong_to_the_first() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, ".": 1, "x": 2}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.NFKC()  # type: ignore[assignment,unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment,unused-ignore]
    labels = ["B-PER", "B-LOC", "I-LOC", "I-LOC"]
    assert found(tokenizer, "… x", labels, "first") == [("PER", 0, 1), ("LOC", 2, 3)]


CAT = "the cat sat on a mat"
SCHEMES = [
    ("PER-B PER-I O LOC-B LOC-B LOC-I", "PER:7 O:11 LOC:14 LOC:20"),
    ("B_PER I_PER O I_LOC B_LOC I_LOC", "PER:7 O:11 LOC:14 LOC:20"),
    ("B-PER I-PER E-PER S-PER S-PER O", "PER:11 PER:14 PER:16 O:20"),
    ("B-PER L-PER U-PER U-PER I-PER L-PER", "PER:7 PER:11 PER:14 PER:20"),
    ("I-PER I-PER B-PER I-LOC O B-LOC", "PER:7 PER:11 LOC:14 O:16 LOC:20"),
    ("GPE-LOC GPE-LOC GPE-ORG O PER PER", "GPE-LOC:7 GPE-ORG:11 O:14 PER:20"),
    ("b-per i-per o o b-per b-per", "per:7 o:14 per:16 per:20"),
]


@pytest.mark.parametrize("aggregation", ["simple", *WORDS])
@pytest.mark.parametrize(("labels", "expected"), SCHEMES)
def test_the_scheme_says_where_an_entity_ends_and_what_it_is_called(
    labels: str, expected: str, aggregation: Aggregation
) -> None:
    tokenizer = kind_of_tokenizer("wordpiece")
    given = labels.split()
    ends = [
        f"{a}:{end}" for a, _, end in found(tokenizer, CAT, given, aggregation, sorted({*given}))
    ]
    assert " ".join(ends) == expected


def test_tokens_of_a_word_that_say_single_or_end_alike_are_one() -> None:
    """As transformers joins them; of two words they are two entities."""
    tokenizer = kind_of_tokenizer("wordpiece")
    labels = ("O", "B-PER", "E-PER", "S-PER")
    given = ["S-PER", "S-PER", "S-PER", "B-PER", "E-PER", "E-PER"]
    assert found(tokenizer, "ab the xyz", given, "simple", labels) == [
        ("PER", 0, 2),
        ("PER", 3, 6),
        ("PER", 7, 10),
    ]
