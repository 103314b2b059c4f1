"""Metrics against values computed by hand, and how labelled lines are read."""

from pathlib import Path

import pytest
from bertd_export.checkpoint.labels import label_scheme
from bertd_export.errors import ExportError
from bertd_export.evaluation import metrics
from bertd_export.evaluation.examples import read_examples
from bertd_export.evaluation.metrics import TaggedSpan


def test_spearman_shares_ranks_of_equal_values() -> None:
    assert metrics.spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert metrics.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert metrics.spearman([1, 1, 1], [1, 2, 3]) == 0


def test_f1_of_label_sets() -> None:
    expected = [{"a", "b"}, {"a"}, set()]
    found = [{"a"}, {"b"}, {"c"}]
    # together: 1 right, 3 found, 3 expected; a: 1 of 1 and 2, b: 0, c: 0
    assert metrics.micro_f1(expected, found) == pytest.approx(1 / 3)
    assert metrics.macro_f1(expected, found) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert metrics.micro_f1([set()], [set()]) == 1
    assert metrics.macro_f1([set()], [set()]) == 1


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], {TaggedSpan("PER", 0, 1), TaggedSpan("LOC", 3, 3)}),
        (["B-PER", "B-PER"], {TaggedSpan("PER", 0, 0), TaggedSpan("PER", 1, 1)}),
        (["I-PER", "I-LOC", "I-LOC"], {TaggedSpan("PER", 0, 0), TaggedSpan("LOC", 1, 2)}),
        (["B-PER", "O", "I-PER"], {TaggedSpan("PER", 0, 0), TaggedSpan("PER", 2, 2)}),
        (["NOUN", "NOUN", "O"], {TaggedSpan("NOUN", 0, 0), TaggedSpan("NOUN", 1, 1)}),
        (["O"], set()),
    ],
)
def test_entities_of_tags(tags: list[str], expected: set[TaggedSpan]) -> None:
    assert metrics.entities(tags, label_scheme(["O", "B-PER", "I-PER", "NOUN"])) == expected


def test_answers_are_compared_as_squad_does() -> None:
    assert metrics.squad_words("The  Eiffel-Tower, in a park!") == ["eiffeltower", "in", "park"]
    assert metrics.exact_match(["an apple", "pears"], "Apple.") == 1
    assert metrics.exact_match(["apple"], "apples") == 0
    # three of four found words are among the three expected: 2 * 3 / (4 + 3)
    assert metrics.answer_f1(["x", "red old house"], "red old brick house") == pytest.approx(6 / 7)
    assert metrics.answer_f1(["red red"], "red blue") == pytest.approx(0.5)
    assert metrics.answer_f1([], "") == metrics.exact_match([], "") == 1
    assert metrics.answer_f1([], "red") == metrics.exact_match([], "red") == 0
    assert metrics.answer_f1(["red"], "") == 0


def test_lines_that_are_no_examples(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    for content, message in (
        ("", "holds no examples"),
        ('{"text": "a"}\n{"text', "line 2 is not JSON"),
        ('\n["a"]', "line 2 must be a JSON object, not list"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ExportError, match=message):
            read_examples(path)
    with pytest.raises(ExportError, match="cannot be read"):
        read_examples(tmp_path / "absent")


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '\n{"text": " ", "score": true, "label": "c", "labels": ["c"], "tokens": []}', "utf-8"
    )
    (line,) = read_examples(path).lines
    names = ("a", "b")
    for read, message in (
        (lambda: line.text("text"), "line 2: \"text\" is ' '; it must be a string that is not"),
        (lambda: line.text("text_pair"), '"text_pair" is missing; it must be a string'),
        (lambda: line.number("score"), '"score" is True; it must be a finite number'),
        (lambda: line.label("label", names), "\"label\" is 'c'; it must be one of a, b"),
        (lambda: line.each_label("labels", names), r"it must be a list, each one of a, b"),
        (lambda: line.texts("tokens", least=1), r"\[\]; it must be a list of 1 or more strings"),
    ):
        with pytest.raises(ExportError, match=message):
            read()  # type: ignore[no-untyped-call,unused-ignore]
