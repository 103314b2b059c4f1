"""Each task from checkpoint to logits, on small random models, against PyTorch eager."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from bertd.bundle import GRAPH_NAME, LabelScheme, Manifest, heads, read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint import loading as checkpoint
from bertd_export.checkpoint.tasks import describe_head, find_task, other_tasks
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_export.graph import first_rows
from bertd_export.graph.hidden_state import hidden_source, probe
from bertd_export.verification.commands import verify as verify_command
from bertd_export.verification.verify import verify
from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from click.testing import CliRunner
from helpers.checkpoints import MASK, NLI, SIZES, WORDS, save_checkpoint
from sentence_transformers import CrossEncoder


def texts(types: int) -> list[TokenSequence]:
    """Texts of several lengths; the second half of each has another token type, if there is one."""
    generator = np.random.default_rng(1)
    made = []
    for length in (5, 2, 31, 9):
        ids = generator.integers(5, len(WORDS), length)
        if length > 4:
            ids[[1, length - 2]] = MASK
        kinds = (np.arange(length) > length // 2).astype(np.int64) if types > 1 else ids * 0
        made.append(TokenSequence(ids, kinds))
    return made


def eager(model: Any, manifest: Manifest, text: TokenSequence) -> dict[str, np.ndarray]:
    """The stock model's outputs for one text alone, rows as in the packed graph."""
    ids = torch.from_numpy(text.input_ids)[None]
    options = {"token_type_ids": torch.from_numpy(text.token_type_ids)[None]}
    with torch.no_grad():
        output = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **(options if manifest.type_vocab_size > 1 else {}),
        )
    found = {}
    for name, rows in manifest.outputs.items():
        if name in output:
            value = output[name] if rows == "sequences" else output[name][0]
            found[name] = (value[ids[0] == MASK] if rows == "masks" else value).numpy()
    return found


def compare(model: Any, folder: Path) -> Manifest:
    """Every output of a bundle: close to eager, and bit-identical alone or in a batch."""
    manifest = read_manifest(folder)
    engine = Engine(folder, manifest)
    batch = texts(manifest.type_vocab_size)
    outputs = list(manifest.outputs)
    together = engine.answer(batch, outputs)
    compared = 0
    for text, answer in zip(batch, together, strict=True):
        expected = eager(model, manifest, text)
        (alone,) = engine.answer([text], outputs)
        for name, rows in alone.items():
            np.testing.assert_array_equal(answer[name], rows)
            if name in expected:
                assert rows.shape == expected[name].shape
                np.testing.assert_allclose(rows, expected[name], rtol=0, atol=1e-4)
                compared += rows.size
    assert compared > 0
    return manifest


CASES = [
    ("Bert", "ForTokenClassification", "token-classification", {"num_labels": 5}),
    ("Bert", "ForMaskedLM", "fill-mask", {}),
    ("Bert", "Model", "feature-extraction", {}),
    pytest.param(
        "Roberta",
        "ForSequenceClassification",
        "text-classification",
        {"num_labels": 3},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "DistilBert",
        "ForSequenceClassification",
        "text-ranking",
        {"num_labels": 1},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "DistilBert",
        "ForQuestionAnswering",
        "question-answering",
        {"num_labels": 2},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "Electra",
        "ForTokenClassification",
        "token-classification",
        {"num_labels": 3},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "Albert",
        "ForSequenceClassification",
        "text-classification",
        {"num_labels": 2},
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("family", "head", "task", "config"), CASES)
def test_a_task_answers_as_the_stock_model(
    family: str, head: str, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    model = save_checkpoint(tmp_path / "source", family, head, **config)
    export_model(str(tmp_path / "source"), tmp_path / "bundle")
    manifest = compare(model, tmp_path / "bundle")
    assert manifest.task == task
    assert set(manifest.parity) == set(manifest.outputs)


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An inference model and its checkpoint."""
    folder = tmp_path_factory.mktemp("nli") / "source"
    return save_checkpoint(folder, "Bert", "ForSequenceClassification", id2label=NLI), folder


def operators(folder: Path) -> list[str]:
    graph = onnx.load(str(folder / GRAPH_NAME), load_external_data=False).graph
    return [node.op_type for node in graph.node]


def test_the_last_layer_is_computed_for_first_rows_alone(
    nli: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = nli
    first = tmp_path / "first"
    export_model(str(source), first, task="zero-shot-classification")
    manifest = compare(model, first)
    assert manifest.labels == tuple(NLI.values())
    assert (manifest.entailment_label, manifest.contradiction_label) == (2, 0)
    assert verify(first, str(source)).parity.keys() == {"logits"}
    monkeypatch.setattr(first_rows, "_movable", lambda *_: [])
    full = tmp_path / "full"
    export_model(str(source), full)
    assert read_manifest(full).problem_type == "single_label_classification"
    assert operators(first).count("PackedFirstAttention") == 1
    assert operators(first).count("PackedAttention") == 1
    assert operators(full).count("PackedAttention") == 2
    logits = []
    for folder in (first, full):
        engine = Engine(folder, read_manifest(folder))
        logits.append([answer["logits"] for answer in engine.answer(texts(2))])
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-6)


def test_a_cross_encoder_scores_as_sentence_transformers_does(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "plain", "Bert", "ForSequenceClassification", num_labels=1)
    source = tmp_path / "source"
    CrossEncoder(str(tmp_path / "plain")).save_pretrained(str(source))
    bundle = tmp_path / "bundle"
    export_model(str(source), bundle)
    manifest = read_manifest(bundle)
    assert (manifest.task, manifest.activation) == ("text-ranking", "sigmoid")
    pairs = [("w1 w2", "w3 w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w2", "w2")]
    tokenizer = checkpoint.load(str(source)).tokenizer
    sequences = []
    for query, text in pairs:
        encoding = tokenizer.encode(query, text)
        sequences.append(TokenSequence(np.array(encoding.ids), np.array(encoding.type_ids)))
    engine = Engine(bundle, manifest)
    logits = np.concatenate([answer["logits"] for answer in engine.answer(sequences)])
    expected = CrossEncoder(str(source)).predict(pairs)
    np.testing.assert_allclose(heads.ranking_scores(logits, "sigmoid"), expected, atol=1e-5)


def test_a_checkpoint_says_what_it_is_for(nli: tuple[Any, Path], tmp_path: Path) -> None:
    _, source = nli
    assert checkpoint.load(str(source)).task == "text-classification"
    assert checkpoint.load(str(source), "feature-extraction").outputs == {
        "sentence_embedding": "sequences",
        "token_embeddings": "tokens",
        "pooler_output": "sequences",
    }
    head = "ForSequenceClassification"
    save_checkpoint(tmp_path / "r", "Bert", head, num_labels=1, problem_type="regression")
    regression = checkpoint.load(str(tmp_path / "r"))
    assert (regression.task, regression.head.problem_type) == ("text-classification", "regression")
    save_checkpoint(tmp_path / "lm", "Bert", "ForMaskedLM")
    assert checkpoint.load(str(tmp_path / "lm")).head.mask_token_id == MASK
    untrained = checkpoint.load(str(tmp_path / "lm"), "feature-extraction")
    assert "pooler_output" not in untrained.outputs


def test_the_user_names_the_labels_of_an_inference_model(tmp_path: Path) -> None:
    """Where its config does not; `verify` is told the same."""
    source, bundle = tmp_path / "source", tmp_path / "bundle"
    save_checkpoint(source, "Bert", "ForSequenceClassification", num_labels=3)
    zero_shot = ["--task", "zero-shot-classification"]
    named = ["--entailment-label", "LABEL_1", "--contradiction-label", "LABEL_2"]
    run = CliRunner().invoke
    unnamed = run(export, [str(source), "--output", str(bundle), *zero_shot])
    assert unnamed.exit_code == 1
    assert "LABEL_2: say which it is with --entailment-label NAME" in unnamed.output
    other = run(export, [str(source), "--output", str(bundle), *named])
    assert "--contradiction-label are for --task zero-shot-classification" in other.output
    made = run(export, [str(source), "--output", str(bundle), *zero_shot, *named])
    assert made.exit_code == 0, made.output
    manifest = read_manifest(bundle)
    assert (manifest.entailment_label, manifest.contradiction_label) == (1, 2)
    assert manifest.problem_type == "single_label_classification"
    again = run(verify_command, [str(bundle), "--against", str(source), *named])
    assert again.exit_code == 0, again.output
    swapped = run(
        verify_command,
        [str(bundle), "--against", str(source), named[0], named[3], named[2], named[1]],
    )
    assert "entailment_label is 1 in the bundle and 2 in the checkpoint" in swapped.output


def test_what_a_checkpoint_calls_its_entities_is_recorded(tmp_path: Path) -> None:
    naver = {0: "O", 1: "PER-B", 2: "PER-I", 3: "LOC-B", 4: "LOC-I"}
    save_checkpoint(tmp_path / "source", "Bert", "ForTokenClassification", id2label=naver)
    head = checkpoint.load(str(tmp_path / "source")).head
    assert head.label_scheme == LabelScheme(position="suffix", separator="-", letters=("B", "I"))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"num_labels": 1}, "multi_label_classification"),
        ({"num_labels": 1, "problem_type": "regression"}, "regression"),
        (
            {"num_labels": 1, "problem_type": "single_label_classification"},
            "multi_label_classification",
        ),
        ({"num_labels": 2}, "single_label_classification"),
        ({"num_labels": 2, "problem_type": "regression"}, "regression"),
    ],
)
def test_scores_are_made_as_transformers_pipeline_makes_them(
    config: dict[str, Any], problem: str
) -> None:
    """A lone logit that is no regression has a sigmoid."""
    head = describe_head("text-classification", config, {}, None)
    assert head.problem_type == problem


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("translation", "'translation' is not a task; tasks: feature-extraction, "),
        ("token-classification", "lacks weights that token-classification needs: classifier"),
        ("question-answering", "lacks weights that question-answering needs: qa_outputs"),
        ("zero-shot-classification", "entailment label; this one has the labels bad, good"),
        ("text-ranking", "needs one logit, the model has 2"),
    ],
)
def test_an_impossible_task_is_refused(task: str, reason: str, tmp_path: Path) -> None:
    labels = {0: "bad", 1: "good"}
    source = tmp_path / "source"
    head = "ForSequenceClassification"
    if task in ("token-classification", "question-answering"):
        head = "Model"
    save_checkpoint(source, "Bert", head, id2label=labels)
    with pytest.raises(ExportError, match=reason):
        export_model(str(source), tmp_path / "bundle", task=task)
    assert list(tmp_path.iterdir()) == [source]


def test_an_architecture_without_task_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "source", "Bert", "ForMultipleChoice")
    with pytest.raises(ExportError, match="none of the tasks, so choose one with --task"):
        checkpoint.load(str(tmp_path / "source"))


def test_a_head_that_reads_other_rows_is_refused() -> None:
    model: Any = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    model.eval()
    pooler = model.bert.pooler
    pooler.register_forward_hook(lambda _m, inputs, _o: inputs[0][:, -1] + inputs[0][:, 0])
    with pytest.raises(ExportError, match="neither the first row nor the mean"):
        probe(model, hidden_source(model.bert))


@pytest.mark.parametrize(
    ("config", "found", "others"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "fill-mask", ("feature-extraction",)),
        ({"architectures": ["BertModel"]}, "feature-extraction", ()),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}},
            "text-ranking",
            ("text-classification", "feature-extraction"),
        ),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": NLI},
            "text-classification",
            ("zero-shot-classification", "feature-extraction"),
        ),
    ],
)
def test_what_else_the_weights_can_do(
    config: dict[str, Any], found: str, others: tuple[str, ...]
) -> None:
    task = find_task(config, {})
    assert (task, other_tasks(config, task)) == (found, others)
    for other in others:  # and each of them can be chosen
        assert find_task(config, {}, requested=other) == other
