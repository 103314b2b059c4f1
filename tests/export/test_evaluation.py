"""The task's own metrics: each task's format, scored on chosen logits; the gate."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint import loading as checkpoints
from bertd_export.checkpoint.labels import label_scheme
from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.tasks import Head
from bertd_export.checkpoint.texts import TextOutputs, TokenizedText
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_export.evaluation import evaluator as evaluation
from bertd_export.evaluation.evaluator import Evaluator
from bertd_export.evaluation.examples import read_examples
from bertd_export.evaluation.scoring import EvaluationResult
from bertd_export.quantization.calibration import read_sample, tokenized
from click.testing import CliRunner
from helpers.checkpoints import MASK, WORDS, save_checkpoint
from helpers.tiny_bert import save_tiny_bert
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

Rows = list[list[float]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoints.load(str(save_tiny_bert(tmp_path_factory.mktemp("checkpoint") / "tiny")))


def written(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def measured(
    checkpoint: Checkpoint, path: Path, answer: Callable[[int, TokenizedText], TextOutputs]
) -> EvaluationResult:
    """The metrics where a graph gives these answers."""

    def run(texts: list[TokenizedText]) -> list[TextOutputs]:
        return [answer(number, text) for number, text in enumerate(texts)]

    return evaluation._scoring(read_examples(path), checkpoint).measure(run)


def logits(*rows: list[float]) -> Callable[[int, TokenizedText], TextOutputs]:
    """Answers of a sequence head."""
    return lambda number, _: {"logits": np.array([rows[number]], np.float32)}


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    """JSON allows U+2028 and U+0085 inside a string; a byte order mark may come first."""
    path = tmp_path / "data.jsonl"
    texts = ["a\u2028b", "c\u0085d", "e"]
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    assert [line.text("text") for line in read_examples(path).lines] == texts
    path.write_bytes("\n".join(rows * 2).encode("utf-8-sig"))
    sample = read_sample(path)
    assert sorted([*sample.calibrate, *sample.judge]) == sorted(texts * 2)


def test_a_text_without_tokens_is_refused(plain: Checkpoint, tmp_path: Path) -> None:
    bare = Tokenizer.from_str(plain.tokenizer.to_str())
    bare.post_processor = TemplateProcessing(single="$A")  # no [CLS], no [SEP]
    with pytest.raises(ExportError, match="no token of the calibration text"):
        tokenized(replace(plain, tokenizer=bare), ["w1", "\u200b"])
    path = written(tmp_path, {"text": "w1", "text_pair": "\u200b", "score": 1})
    with pytest.raises(ExportError, match="line 1 leaves no tokens"):
        Evaluator(path, replace(plain, tokenizer=bare), 0.01)


def test_labels_are_scored_by_accuracy(plain: Checkpoint, tmp_path: Path) -> None:
    head = Head(("no", "yes"), problem_type="single_label_classification")
    checkpoint = replace(plain, task="text-classification", head=head)
    path = written(
        tmp_path,
        {"text": "w1", "label": "yes"},
        {"text": "w1", "text_pair": "w2", "label": 0},
        {"text": "w1", "label": "no"},
    )
    found = measured(checkpoint, path, logits([0, 1], [0, 1], [2, 1]))
    assert found.metrics == {"accuracy": pytest.approx(2 / 3)}
    assert found.goodness == [1, 0, 1]
    with pytest.raises(ExportError, match=r'data.jsonl, line 1: "label" is \'maybe\'.*no, yes'):
        Evaluator(written(tmp_path, {"text": "w1", "label": "maybe"}), checkpoint, 0.01)


def test_label_sets_are_scored_by_f1(plain: Checkpoint, tmp_path: Path) -> None:
    head = Head(("a", "b"), problem_type="multi_label_classification")
    checkpoint = replace(plain, task="text-classification", head=head)
    path = written(tmp_path, {"text": "w1", "labels": ["a", "b"]}, {"text": "w1", "labels": ["a"]})
    found = measured(checkpoint, path, logits([3, -3], [3, 3]))
    assert found.metrics == {
        "micro_f1": pytest.approx(4 / 6),
        "macro_f1": pytest.approx((1 + 0) / 2),
    }


def test_scores_are_ranked(plain: Checkpoint, tmp_path: Path) -> None:
    checkpoint = replace(plain, task="text-ranking", head=Head(("one",), activation="sigmoid"))
    records = [{"text": "w1", "text_pair": "w2", "score": score} for score in (1, 2, 3)]
    path = written(tmp_path, *records)
    found = measured(checkpoint, path, logits([0.1], [0.5], [0.3]))
    assert found.metrics == {"spearman": pytest.approx(0.5)}
    assert found.goodness == pytest.approx([0, -1 / 3, -1 / 3])
    with pytest.raises(ExportError, match="different values"):
        Evaluator(written(tmp_path, records[0]), checkpoint, 0.01)
    with pytest.raises(ExportError, match='"text_pair" is missing'):
        Evaluator(written(tmp_path, {"text": "w1", "score": 1}), checkpoint, 0.01)


@pytest.mark.parametrize(("angles", "order"), [((0.1, 0.2, 0.3), -1), ((0.3, 0.2, 0.1), 1)])
def test_embeddings_are_compared_by_their_cosine(
    angles: tuple[float, ...], order: int, plain: Checkpoint, tmp_path: Path
) -> None:
    """The second vectors all lie on an axis, and the first turn away from it."""
    records = [{"text": f"w{n}", "text_pair": "w9", "score": n} for n in range(3)]
    turned = [*angles, 0, 0, 0]
    vectors = [[np.cos(angle), np.sin(angle)] for angle in turned]
    found = measured(
        plain,
        written(tmp_path, *records),
        lambda number, _: {"sentence_embedding": np.array([vectors[number]], np.float32)},
    )
    assert found.metrics == {"spearman": pytest.approx(order)}


def test_zero_shot_reads_the_entailment_of_each_candidate(
    plain: Checkpoint, tmp_path: Path
) -> None:
    head = Head(("contradiction", "entailment"), entailment_label=1, contradiction_label=0)
    checkpoint = replace(plain, task="zero-shot-classification", head=head)
    path = written(
        tmp_path,
        {"text": "w1", "candidate_labels": ["w2", "w3"], "label": "w3"},
        {
            "text": "w1",
            "candidate_labels": ["w2", "w3", "w4"],
            "label": "w4",
            "hypothesis_template": "w5 {}",
        },
    )
    found = measured(checkpoint, path, logits([0, 1], [0, 2], [0, 3], [0, 2], [9, 1]))
    assert found.metrics == {"accuracy": 0.5}
    wrong = {"text": "w1", "candidate_labels": ["w2", "w3"], "label": "w4"}
    with pytest.raises(ExportError, match=r"one of w2, w3"):
        Evaluator(written(tmp_path, wrong), checkpoint, 0.01)


def test_tags_are_scored_by_entity(plain: Checkpoint, tmp_path: Path) -> None:
    names = ("O", "B-X", "I-X")
    head = Head(names, label_scheme=label_scheme(names))
    checkpoint = replace(plain, task="token-classification", head=head)
    words = ["w1", "w2", "w3", "w4"]
    path = written(
        tmp_path,
        {"tokens": words, "tags": ["B-X", "I-X", "O", "B-X"]},
        {"tokens": ["w5"] * 90, "tags": ["O"] * 89 + ["B-X"]},  # the last words are cut off
    )
    predicted = [0, 1, 2, 0, 0, 0]  # with [CLS] and [SEP]: the first entity alone

    def answer(number: int, text: TokenizedText) -> TextOutputs:
        best = predicted if number == 0 else [0] * len(text.ids)
        return {"logits": np.eye(3, dtype=np.float32)[best]}

    found = measured(checkpoint, path, answer)
    assert found.metrics == {
        "entity_f1": pytest.approx(2 * 1 / (1 + 3)),
        "accuracy": pytest.approx((3 + 89) / 94),
    }
    wrong = {"tokens": words, "tags": ["O"]}
    with pytest.raises(ExportError, match=r'"tags" is .* a list of 4 labels'):
        Evaluator(written(tmp_path, wrong), checkpoint, 0.01)


def test_answers_are_scored_as_squad_does(plain: Checkpoint, tmp_path: Path) -> None:
    checkpoint = replace(plain, task="question-answering", head=Head())
    path = written(
        tmp_path,
        {"question": "w1", "context": "w2 w3 w4", "answers": ["w3 w4", "w9"]},
        {"question": "w1", "context": "w2 w3 w4", "answers": []},
    )

    def answer(number: int, text: TokenizedText) -> TextOutputs:
        start, end = np.zeros((2, len(text.ids)), np.float32)
        best = (3, 4) if number == 0 else (0, 0)  # [CLS] w1 [SEP] w2 w3 w4 [SEP]
        start[best[0]], end[best[1]] = 9, 9
        return {"start_logits": start, "end_logits": end}

    found = measured(checkpoint, path, answer)
    assert found.metrics == {"exact_match": 0.5, "f1": pytest.approx((0.5 + 1) / 2)}


def test_a_context_without_tokens_is_refused(plain: Checkpoint, tmp_path: Path) -> None:
    checkpoint = replace(plain, task="question-answering", head=Head())
    path = written(tmp_path, {"question": "w1", "context": "\u200b", "answers": ["w1"]})
    with pytest.raises(ExportError, match=r'line 1: "context" is .* makes tokens'):
        Evaluator(path, checkpoint, 0.01)


def test_masks_are_scored_by_their_best_token(plain: Checkpoint, tmp_path: Path) -> None:
    checkpoint = replace(plain, task="fill-mask", head=Head(mask_token_id=MASK))
    path = written(
        tmp_path,
        {"text": "w1 [MASK] w2", "answer": "w7"},
        {"text": "[MASK]", "answer": "w8"},
    )
    best = [WORDS.index("w7"), WORDS.index("w7")]
    found = measured(checkpoint, path, logits(*(np.eye(len(WORDS))[n].tolist() for n in best)))
    assert found.metrics == {"accuracy": 0.5}
    for record, message in (
        ({"text": "w1", "answer": "w2"}, r"a string with \[MASK\] in it once"),
        ({"text": "w1 [MASK]", "answer": "w1 w2"}, "a single token"),
    ):
        with pytest.raises(ExportError, match=message):
            Evaluator(written(tmp_path, record), checkpoint, 0.01)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    save_checkpoint(folder / "source", "Bert", "ForSequenceClassification", num_labels=3)
    records = [{"text": f"w{n} w{2 * n} w3", "label": n % 3} for n in range(40)]
    written(folder, *records)
    return folder


@pytest.mark.slow
def test_fp32_records_its_own_figure(classifier: Path, tmp_path: Path) -> None:
    summary = export_model(
        str(classifier / "source"), tmp_path / "bundle", evaluate=classifier / "data.jsonl"
    )
    found = read_manifest(summary.path).evaluation
    assert found is not None
    assert (found.data, found.examples) == ("data.jsonl", 40)
    assert found.metrics.keys() == {"accuracy"}
    assert found.metrics["accuracy"].keys() == {"fp32"}


@pytest.mark.slow
def test_another_precision_is_compared_with_fp32(classifier: Path, tmp_path: Path) -> None:
    arguments = [str(classifier / "source"), "--precision", "fp16", "--min-cosine", "0.99"]
    arguments += ["--evaluate", str(classifier / "data.jsonl"), "--output", str(tmp_path / "b")]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 0, result.output
    assert "metric  accuracy: " in result.output
    found = read_manifest(tmp_path / "b").evaluation
    assert found is not None
    assert found.metrics["accuracy"].keys() == {"fp32", "fp16"}
    assert found.metrics["accuracy"]["fp16"] >= found.metrics["accuracy"]["fp32"] - 0.01


def test_a_larger_drop_is_refused_with_the_worst_examples(
    plain: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"text": f"w{n}", "text_pair": "w9", "score": n} for n in range(4)]
    evaluator = Evaluator(written(tmp_path, *records), plain, 0.01)
    figures = {
        "fp32": EvaluationResult({"spearman": 0.9}, [0, 0, 0, 0]),
        "int8": EvaluationResult({"spearman": 0.88}, [0, -0.5, 0, -0.75]),
    }
    monkeypatch.setattr(evaluator, "_measure", lambda graph: figures[graph.name])
    with pytest.raises(ExportError) as caught:
        evaluator.compare({"fp32": Path("fp32"), "int8": Path("int8")})
    assert "int8's spearman is 0.8800, 0.0200 below fp32's 0.9000" in caught.value.message
    assert re.findall(r"line (\d) \('(w\d)'\)", caught.value.message) == [("4", "w3"), ("2", "w1")]


def test_max_metric_drop_needs_examples(classifier: Path, tmp_path: Path) -> None:
    arguments = [str(classifier / "source"), "--output", str(tmp_path / "b")]
    result = CliRunner().invoke(export, [*arguments, "--max-metric-drop", "0.1"])
    assert result.exit_code == 2
    assert "--max-metric-drop needs --evaluate" in result.output
