"""Names of labels: schemes of entities, and what inference models call theirs."""

from __future__ import annotations

from itertools import product

import pytest
from bertd.bundle import LabelScheme, tags
from bertd_export.checkpoint.labels import InferenceLabels, inference_labels, label_scheme
from bertd_export.errors import ExportError
from bertd_export.evaluation import metrics
from bertd_export.evaluation.metrics import TaggedSpan


def made(
    letters: str,
    separator: str = "-",
    *,
    suffix: bool = False,
    names: tuple[str, ...] = ("PER", "LOC"),
) -> list[str]:
    """Labels of a scheme, and the outside one."""
    cut = product(letters, names)
    return ["O", *(f"{n}{separator}{x}" if suffix else f"{x}{separator}{n}" for x, n in cut)]


SCHEMES = [
    (made("BI"), ("prefix", "-", "BI")),
    (made("I"), ("prefix", "-", "I")),
    (made("B"), ("prefix", "-", "B")),
    (made("IE"), ("prefix", "-", "EI")),
    (made("BIES"), ("prefix", "-", "BEIS")),
    (made("BILU"), ("prefix", "-", "BILU")),
    (made("BMES"), ("prefix", "-", "BEMS")),
    (made("BMEW", "_"), ("prefix", "_", "BEMW")),
    (made("BI", "_"), ("prefix", "_", "BI")),
    (made("BI", suffix=True), ("suffix", "-", "BI")),
    (made("BIES", "_", suffix=True), ("suffix", "_", "BEIS")),
    (made("BI", names=("GPE-LOC", "E-MAIL")), ("prefix", "-", "BI")),
    (made("BI", suffix=True, names=("GPE-LOC", "S-BAHN")), ("suffix", "-", "BI")),
    # CoNLL 2003 as IOB1: PER is never beside another PER, so that it has no B
    (["O", "B-LOC", "I-LOC", "I-PER"], ("prefix", "-", "BI")),
    (["O", "B-PER", "I-PER", "GPE-LOC", "MISC", "[CLS]", "X"], ("prefix", "-", "BI")),
    (["O", "I-PER", "X", "<pad>"], ("prefix", "-", "I")),
    (["b-per", "i-per", "o"], ("prefix", "-", "bi")),
]


@pytest.mark.parametrize(("labels", "scheme"), SCHEMES)
def test_a_scheme_is_recognised_from_its_labels(
    labels: list[str], scheme: tuple[str, str, str]
) -> None:
    found = label_scheme(labels)
    assert found is not None
    assert (found.position, found.separator, "".join(found.letters)) == scheme
    assert found.outside in labels
    assert tags.read(found.outside, found) == tags.Tag("", "outside")


@pytest.mark.parametrize(
    "labels",
    [
        ["O", "PER", "LOC"],
        ["O", "GPE-LOC", "GPE-ORG"],
        ["O", "PER", "E-MAIL", "I-PHONE"],
        ["O", "E-MAIL", "S-BAHN"],
        ["O", "B-DAY", "E-MAIL"],
        ["O", "VITAMIN-B", "VITAMIN-C", "VITAMIN-E"],
        ["NOUN", "VERB", "ADJ"],
        ["B", "I", "O"],
        ["LABEL_0", "LABEL_1"],
        ["NP/S", "S/NP", "N/N"],
        [],
    ],
)
def test_bare_names_are_not_cut(labels: list[str]) -> None:
    assert label_scheme(labels) is None
    for label in {*labels} - {"O"}:
        assert tags.read(label, None) == tags.Tag(label)


def test_a_label_says_its_name_and_its_place() -> None:
    suffixed = label_scheme(made("BIES", suffix=True, names=("GPE-LOC",)))
    assert tags.read("GPE-LOC-S", suffixed) == tags.Tag("GPE-LOC", "single")
    assert tags.read("GPE-LOC", suffixed) == tags.Tag("GPE-LOC")
    prefixed = label_scheme(made("BI", names=("GPE-LOC", "O")))
    assert tags.read("I-GPE-LOC", prefixed) == tags.Tag("GPE-LOC", "inside")
    assert tags.read("B-O", prefixed) == tags.Tag("O", "begin")
    assert tags.read("S-BAHN", prefixed) == tags.Tag("S-BAHN")


def spans(text: str) -> set[TaggedSpan]:
    """Written as name, first and last word."""
    parts = (one.split(":") for one in text.split())
    return {TaggedSpan(name, int(first), int(last)) for name, first, last in parts}


# Each as seqeval 1.2.2 reads it: get_entities; of suffixes with suffix=True; of L and U, which
# get_entities takes for letters without a meaning, Entities with the scheme BILOU.
GOLD = [
    ("BI", "B-PER I-PER O B-LOC B-LOC I-LOC", "PER:0:1 LOC:3:3 LOC:4:5"),
    ("BI", "I-PER I-PER B-PER I-LOC O I-LOC", "PER:0:1 PER:2:2 LOC:3:3 LOC:5:5"),
    ("I", "I-PER I-PER O I-LOC I-PER", "PER:0:1 LOC:3:3 PER:4:4"),
    ("IE", "I-PER E-PER I-PER E-PER E-PER O E-LOC", "PER:0:1 PER:2:3 PER:4:4 LOC:6:6"),
    ("BIES", "B-PER I-PER E-PER S-PER S-PER O B-LOC E-LOC", "PER:0:2 PER:3:3 PER:4:4 LOC:6:7"),
    ("BIES", "S-PER I-PER B-PER S-PER E-PER", "PER:0:0 PER:1:1 PER:2:2 PER:3:3 PER:4:4"),
    ("BILU", "B-PER I-PER L-PER U-PER U-PER B-LOC L-LOC", "PER:0:2 PER:3:3 PER:4:4 LOC:5:6"),
    ("BI suffix", "PER-B PER-I O LOC-B LOC-B LOC-I", "PER:0:1 LOC:3:3 LOC:4:5"),
    ("BIES suffix", "PER-B PER-E PER-S PER-S", "PER:0:1 PER:2:2 PER:3:3"),
    ("BI _", "B_PER I_PER B_PER O I_LOC", "PER:0:1 PER:2:2 LOC:4:4"),
]


@pytest.mark.parametrize(("kind", "labels", "expected"), GOLD)
def test_gold_tags_name_the_entities_that_seqeval_reads(
    kind: str, labels: str, expected: str
) -> None:
    letters, *rest = kind.split()
    scheme = label_scheme(made(letters, "_" if "_" in rest else "-", suffix="suffix" in rest))
    assert isinstance(scheme, LabelScheme)
    assert metrics.entities(labels.split(), scheme) == spans(expected)


NLI = ("neutral", "entailment", "contradiction")


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (NLI, (None, None), (1, 2)),
        (("ENTAILMENT", "NEUTRAL", "CONTRADICTION"), (None, None), (0, 2)),
        (("contradiction", "neutral", "entailment"), (None, None), (2, 0)),
        (("entailment", "not_entailment"), (None, None), (0, 1)),
        (("not_entailment", "entailment"), (None, None), (1, 0)),
        (("entail", "neutral", "no"), (None, None), (0, 2)),  # as the pipeline
        (("neutral", "entail", "no"), (None, None), (1, 0)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("LABEL_2", None), (2, 0)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("LABEL_1", "LABEL_2"), (1, 2)),
        (NLI, ("contradiction", "neutral"), (2, 0)),
    ],
)
def test_names_or_the_user_say_what_the_labels_of_inference_are(
    labels: tuple[str, ...], given: tuple[str | None, str | None], expected: tuple[int, int]
) -> None:
    assert inference_labels(labels, InferenceLabels(*given)) == expected


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), (None, None), "LABEL_2: say which it is with --ent"),
        (("entailment", "entailed"), (None, None), "--entailment-label NAME"),
        (("entailment",), (None, None), "one entailment label"),
        (NLI, ("yes", None), "--entailment-label 'yes' is not a label of the model: it has neut"),
        (NLI, (None, "no"), "--contradiction-label 'no' is not a label"),
        (NLI, (None, "entailment"), "entailment cannot be both"),
    ],
)
def test_an_inference_model_whose_labels_do_not_say_it_is_refused(
    labels: tuple[str, ...], given: tuple[str | None, str | None], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        inference_labels(labels, InferenceLabels(*given))
