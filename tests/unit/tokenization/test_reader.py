"""Windows, cuts and offsets, for any text: against their promises and the tokenizers library."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bertd_server.errors import InvalidInput
from bertd_server.tokenization import windows
from bertd_server.tokenization.budget import answer_budget, token_budget
from bertd_server.tokenization.details import NONE, Details, details_of
from bertd_server.tokenization.least import Least, words
from bertd_server.tokenization.reader import Fit, Input, LongText, Reader, Reading, texts_of
from bertd_server.tokenization.token_list import TokenList
from bertd_server.tokenization.tokens import Places
from bertd_server.tokenization.truncation import CutSide
from helpers.sentences import ALPHABET
from helpers.tiny import _tokenizer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

LIMIT = 16
CHARACTERS = st.sampled_from(sorted(set(ALPHABET)))
TEXTS = st.text(CHARACTERS, min_size=1, max_size=60)
WORDY = st.lists(st.sampled_from(["the", "cat", "안녕", "🙂", "e\u0301", "xyz"]), max_size=40)
FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


@dataclass
class Kind:
    """A reader, and the library's own tokenizer, which cuts by itself."""

    reader: Reader
    library: Tokenizer


@pytest.fixture(scope="module", params=["wordpiece", "bpe", "unigram"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    _tokenizer(request.param, int(request.param != "wordpiece"), ALPHABET).backend_tokenizer.save(
        str(path)
    )
    return Kind(Reader(path, max_tokens=LIMIT, token_types=2), Tokenizer.from_file(str(path)))


def read(kind: Kind, one: Input, fit: Fit) -> Reading:
    (outcome,) = kind.reader([one], fit, offsets=True)
    assume(isinstance(outcome, Reading))
    assert isinstance(outcome, Reading)
    return outcome


@FEW
@given(WORDY.map(" ".join), st.none() | WORDY.map(" ".join), st.integers(0, 6))
def test_windows_cover_every_token_and_overlap_by_the_stride(
    kind: Kind, text: str, pair: str | None, stride: int
) -> None:
    """No token is lost, none is out of order, special tokens and the first text are in each."""
    reading = read(kind, Input(text, pair), Fit("window", stride=stride))
    encoding = reading.encoding
    moves = 0 if pair is None else 1
    moving = [place for place, which in enumerate(encoding.texts) if which == moves]
    fixed = [place for place in range(len(encoding)) if place not in moving]
    parts = []
    for window in reading.windows:
        places = window.places.tolist()
        assert len(places) <= LIMIT
        assert places == sorted(set(places))
        assert [place for place in places if place in fixed] == fixed
        np.testing.assert_array_equal(
            window.sequence.input_ids, [encoding.ids[place] for place in places]
        )
        parts.append([place for place in places if place in moving])
    assert sorted({place for part in parts for place in part}) == moving
    assert all(part == list(range(part[0], part[-1] + 1)) for part in parts)
    for before, after in pairwise(parts):
        assert len(before) == LIMIT - len(fixed)
        assert len(set(before) & set(after)) == stride
        assert before[-1] < after[-1]
    assert reading.read == reading.tokens == len(encoding)


@FEW
@given(TEXTS, st.none() | TEXTS, st.sampled_from(["right", "left"]), st.booleans())
def test_a_cut_is_that_of_the_tokenizers_library(
    kind: Kind, text: str, pair: str | None, side: CutSide, second_only: object
) -> None:
    """`longest_first` and `only_second`, from either end: ids and token types."""
    only_second = bool(second_only) and pair is not None
    reading = read(kind, Input(text, pair), Fit("truncate", side, second_only=only_second))
    kind.library.enable_truncation(
        LIMIT, strategy="only_second" if only_second else "longest_first", direction=side
    )
    expected = kind.library.encode(text, pair)
    (window,) = reading.windows
    assert window.sequence.input_ids.tolist() == expected.ids
    assert window.sequence.token_type_ids.tolist() == expected.type_ids
    assert reading.read == len(expected)


@FEW
@given(TEXTS, st.sampled_from(["right", "left"]))
def test_the_first_text_alone_is_cut_where_that_is_asked_for(
    kind: Kind, text: str, side: CutSide
) -> None:
    reading = read(kind, Input(text, "the cat"), Fit("truncate", side, first_only=True))
    kind.library.enable_truncation(LIMIT, strategy="only_first", direction=side)
    assert (
        reading.windows[0].sequence.input_ids.tolist() == kind.library.encode(text, "the cat").ids
    )


@FEW
@given(TEXTS)
def test_offsets_in_code_points_and_in_bytes_are_of_one_stretch(kind: Kind, text: str) -> None:
    """Emoji, marks that combine and Korean among them."""
    (encoding,) = kind.reader.encode([Input(text)])
    places, utf8 = Places(text), text.encode()
    reached = 0
    for token in TokenList.of(details_of(encoding), kind.reader.tokenizer):
        offsets = places.offsets(token.start, token.end)
        assert (offsets.start, offsets.end) == (token.start, token.end)
        assert utf8[offsets.start_byte : offsets.end_byte].decode() == text[token.start : token.end]
        assert len(text[: token.start].encode()) == offsets.start_byte
        assert kind.reader.tokenizer.token_to_id(token.token) == token.id
        if not token.special:
            assert token.start <= len(text)
            reached = max(reached, token.end)
    assert reached <= len(text)


def like_the_library(details: Details, expected: Encoding) -> bool:
    """Whether details say what the tokenizers library says of the same tokens."""
    texts = [None if which == NONE else which for which in details.texts.tolist()]
    words = [None if which == NONE else which for which in details.words.tolist()]
    return (
        details.ids.tolist() == expected.ids
        and list(map(tuple, details.offsets.tolist())) == expected.offsets
        and details.special.astype(int).tolist() == expected.special_tokens_mask
        and texts == expected.sequence_ids
        and words == expected.word_ids
    )


@FEW
@given(
    TEXTS | WORDY.map(" ".join),
    st.none() | TEXTS,
    st.sampled_from(["right", "left"]),
    st.sampled_from(["longest", "first", "second"]),
)
def test_details_are_of_the_tokens_that_are_read_by_their_places(
    kind: Kind, text: str, pair: str | None, side: CutSide, which: str
) -> None:
    """Of a cut text those that stay, from either end, of either text; nothing is kept of others."""
    only = {"first": "only_first", "second": "only_second"}.get(which, "longest_first")
    only = only if pair is not None else "longest_first"
    fit = Fit("truncate", side, first_only=which == "first", second_only=which == "second")
    (reading,) = kind.reader([Input(text, pair)], fit, offsets=True)
    assume(isinstance(reading, Reading))
    assert isinstance(reading, Reading)
    (window,) = reading.windows
    kind.library.enable_truncation(LIMIT, strategy=only, direction=side)
    assert like_the_library(reading.encoding, kind.library.encode(text, pair))
    assert window.places.tolist() == list(range(len(reading.encoding)))
    np.testing.assert_array_equal(
        reading.encoding.ids[window.places], window.sequence.input_ids, strict=False
    )
    assert reading.read == len(reading.encoding) <= LIMIT


@FEW
@given(WORDY.map(" ".join), st.none() | WORDY.map(" ".join), st.integers(0, 6))
def test_details_of_windows_are_of_every_token(
    kind: Kind, text: str, pair: str | None, stride: int
) -> None:
    reading = read(kind, Input(text, pair), Fit("window", stride=stride))
    kind.library.no_truncation()
    assert like_the_library(reading.encoding, kind.library.encode(text, pair))
    for window in reading.windows:
        assert (reading.encoding.ids[window.places] == window.sequence.input_ids).all()


@FEW
@given(WORDY.map(" ".join), st.none() | WORDY.map(" ".join), st.integers(0, 6))
def test_a_plan_counts_windows_and_tokens_before_they_are_built(
    kind: Kind, text: str, pair: str | None, stride: int
) -> None:
    one, fit = Input(text, pair), Fit("window", stride=stride)
    reading = read(kind, one, fit)
    (encoding,) = kind.reader.encode([one])
    planned = windows.plan(encoding, one, fit, LIMIT)
    assert isinstance(planned, windows.Plan)
    sizes = [len(window.sequence) for window in reading.windows]
    assert (planned.windows, planned.tokens) == (len(sizes), sum(sizes))


def test_a_request_is_refused_for_its_tokens_before_windows_are_built(kind: Kind) -> None:
    """By the input that is too much by itself, or by the field where all together are."""
    texts = texts_of(["the cat " * 30] * 9)
    fit = Fit("window", stride=LIMIT - 3)
    (one,) = kind.reader(texts[:1], fit)
    assert isinstance(one, Reading)
    size = sum(len(window.sequence) for window in one.windows)
    assert all(isinstance(each, Reading) for each in kind.reader(texts, fit))
    three = kind.reader(texts[:3], fit, budget=token_budget(3 * size))
    assert all(isinstance(each, Reading) for each in three)
    with pytest.raises(InvalidInput, match=rf"up to texts\[3\] have {4 * size} tokens") as refused:
        kind.reader(texts, fit, budget=token_budget(3 * size))
    assert (refused.value.field, refused.value.reason) == ("texts", "too_many")
    assert refused.value.limit == 3 * size
    assert "--max-request-tokens" in str(refused.value)
    short, long = kind.reader(texts_of(["the", texts[0].text]), fit, budget=token_budget(size - 1))
    assert isinstance(short, Reading)
    assert isinstance(long, InvalidInput)
    assert (long.field, long.reason, long.limit) == ("texts[1]", "too_long", size - 1)
    assert (long.tokens, f"{size} tokens to read" in str(long)) == (one.tokens, True)


@FEW
@given(
    WORDY.map(" ".join) | st.text(CHARACTERS, min_size=1, max_size=60),
    st.sampled_from(["truncate", "window"]),
    st.integers(0, 6),
)
def test_no_text_has_fewer_tokens_than_is_said_before_it_is_read(
    kind: Kind, text: str, long_text: LongText, stride: int
) -> None:
    """Windows too: none that is read has less."""
    one, fit = Input(text), Fit(long_text, stride=stride)
    once, each = Least(kind.reader.tokenizer, LIMIT, 1_000).read(words(text), fit)
    reading = read(kind, one, fit)
    assert once <= reading.read
    assert each <= sum(len(window.sequence) for window in reading.windows)


def foreseen(
    kind: Kind, texts: list[str], fit: Fit | None, *, tokens: int = 0, answer: float = math.inf
) -> list[InvalidInput | None]:
    """Why texts are refused that are not read, one byte of answer to a token."""
    least = Least(kind.reader.tokenizer, LIMIT, 1_000_000)
    budgets = token_budget(tokens), answer_budget(answer)
    inputs = asyncio.run(least.foreseen(texts_of(texts), fit, *budgets, token_bytes=1))
    assert all(one.characters == 0 for one in inputs if one.refused)
    return [one.refused for one in inputs]


@pytest.mark.parametrize(
    ("fit", "answer"),
    [
        (Fit(), math.inf),
        (Fit("window", stride=LIMIT - 2), math.inf),  # no room beside it
        (Fit("window", stride=LIMIT - 3), math.inf),  # too many windows
        (Fit("window"), 5_000),
        (Fit("truncate"), LIMIT - 2),
    ],
)
def test_what_is_too_long_in_any_case_is_not_read(kind: Kind, fit: Fit, answer: float) -> None:
    """It is refused as the reader refuses it, with the tokens that it has at least."""
    long = "the cat " * 3_000
    short, wrong = foreseen(kind, ["the", long], fit, answer=answer)
    assert short is None
    assert isinstance(wrong, InvalidInput)
    assert ("at least" in str(wrong)) == ("room" not in str(wrong))
    (read,) = kind.reader([Input(long, field="texts[1]", refused=wrong)], fit)
    assert read is wrong
    if math.isinf(answer):
        (known,) = kind.reader([Input(long, field="texts[1]")], fit)
        assert isinstance(known, InvalidInput)
        same = ("field", "reason", "limit")
        assert [getattr(wrong, each) for each in same] == [getattr(known, each) for each in same]


def test_a_request_is_refused_by_its_words_alone(kind: Kind) -> None:
    """For tokens of all windows, or for bytes of an answer, which has each token once."""
    texts, fit = ["the cat " * 1_000] * 9, Fit("window", stride=LIMIT // 2)
    assert foreseen(kind, texts, fit, answer=18_100) == [None] * 9
    with pytest.raises(InvalidInput, match=r"up to .* have at least .* bytes of answer"):
        foreseen(kind, texts, fit, answer=10_000)
    with pytest.raises(InvalidInput, match=r"up to .* have at least .* tokens to read"):
        foreseen(kind, texts, fit, tokens=30_000)
    with pytest.raises(InvalidInput, match=r"up to .* bytes of answer"):
        foreseen(kind, texts, None, answer=10_000)
    assert foreseen(kind, texts[:1], Fit()) == [None]  # too little for it to matter


def test_a_budget_is_that_of_all_slices_of_a_request(kind: Kind) -> None:
    """Slices are read one by one; of documents, the field is theirs."""
    pairs = [Input("the", "cat", "query", f"documents[{number}]") for number in range(4)]
    (first,) = kind.reader(pairs[:1], Fit())
    assert isinstance(first, Reading)
    budget = token_budget(2 * first.read)
    assert isinstance(kind.reader(pairs[:1], Fit(), budget=budget)[0], Reading)
    with pytest.raises(InvalidInput, match=r"up to documents\[2\]") as refused:
        kind.reader(pairs[1:], Fit(), budget=budget)
    assert refused.value.field == "documents"


def test_a_text_many_times_longer_in_its_normal_form_is_refused(tmp_path: Path) -> None:
    """A ligature of 18 characters; three times as long, as Korean may be, is read."""
    path = tmp_path / "tokenizer.json"
    _tokenizer("wordpiece", 0, ALPHABET).backend_tokenizer.save(str(path))
    reader = Reader(path, max_tokens=LIMIT, token_types=1, max_characters=600)
    few, many, korean = reader(texts_of(["ﷺ" * 100, "ﷺ" * 101, "\uac01" * 600]), Fit("truncate"))
    assert isinstance(few, Reading)
    assert isinstance(korean, Reading)
    assert isinstance(many, InvalidInput)
    assert (many.field, many.reason, many.limit) == ("texts[1]", "too_long", 1_800)


def test_a_stride_that_is_no_less_than_a_window_is_refused_where_windows_are_made(
    kind: Kind,
) -> None:
    """It names the largest that can be; where nothing is read in windows it does not matter."""
    long = Input("the cat " * 30)
    (refused,) = kind.reader([long], Fit("window", stride=LIMIT - 2))
    assert isinstance(refused, InvalidInput)
    assert (refused.field, refused.limit) == ("stride", LIMIT - 3)
    assert f"room for {LIMIT - 2} tokens of text" in str(refused)
    fits, cut = (
        kind.reader([long], fit)[0]
        for fit in (Fit("window", stride=LIMIT - 3), Fit("truncate", stride=1_000))
    )
    assert isinstance(fits, Reading)
    assert isinstance(cut, Reading)


def test_what_cannot_be_read_is_refused_by_field(kind: Kind) -> None:
    """An empty part, a lone surrogate, a pair of which the first text fills the window."""
    long = "the cat " * 30
    cases = {
        (" ", "the"): ("text", "empty"),
        ("the", "\u3000"): ("text_pair", "empty"),
        ("a\ud800", "the"): ("text", "not_unicode"),
        ("the", "\udfff"): ("text_pair", "not_unicode"),
        (long, "the"): ("text", "too_long"),
    }
    outcomes = kind.reader([Input(*pair) for pair in cases], Fit("truncate", second_only=True))
    for refused, expected in zip(outcomes, cases.values(), strict=True):
        assert isinstance(refused, InvalidInput)
        assert (refused.field, refused.reason) == expected
    assert all(isinstance(one, Reading) for one in kind.reader(texts_of(["the", "안녕"]), Fit()))


def test_a_stride_that_makes_a_window_of_nearly_every_token_is_refused(kind: Kind) -> None:
    """Before any is made: a short request would fill the memory."""
    (refused,) = kind.reader([Input("w1 " * 3_000)], Fit("window", stride=LIMIT - 3))
    assert isinstance(refused, InvalidInput)
    assert (refused.field, refused.reason, refused.limit) == ("stride", "too_many", 1_000)
