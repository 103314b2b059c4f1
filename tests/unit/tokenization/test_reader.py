"""Windows, cuts and offsets, for any text: against their promises and the tokenizers library."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bertd_server.errors import InvalidInput
from bertd_server.tokenization.reader import Fit, Input, Reader, Reading, texts_of
from bertd_server.tokenization.tokens import Places, tokens_of
from bertd_server.tokenization.truncation import CutSide
from helpers.sentences import ALPHABET
from helpers.tiny import _tokenizer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

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
    moving = [place for place, which in enumerate(encoding.sequence_ids) if which == moves]
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
    for token in tokens_of(encoding, vocabulary=kind.reader.tokenizer):
        offsets = places.offsets(token.start, token.end)
        assert (offsets.start, offsets.end) == (token.start, token.end)
        assert utf8[offsets.start_byte : offsets.end_byte].decode() == text[token.start : token.end]
        assert len(text[: token.start].encode()) == offsets.start_byte
        assert kind.reader.tokenizer.token_to_id(token.token) == token.id
        if not token.special:
            assert token.start <= len(text)
            reached = max(reached, token.end)
    assert reached <= len(text)


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
