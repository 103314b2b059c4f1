"""`bertd inspect` and `bertd verify`, and what serving says to the same bundles."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from bertd.bundle import (
    GRAPH_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Source,
    read_manifest,
)
from bertd.bundle.kernels import missing
from bertd_export.bundle import export_model
from bertd_export.verification import verify as verification
from bertd_export.verification.commands import inspect, verify
from bertd_server.cli import serve
from click.testing import CliRunner, Result
from helpers.paths import ROOT
from helpers.tampering import allow_anything
from helpers.tiny_bert import save_tiny_bert


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_model(str(checkpoint), folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def run_inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(inspect, [str(argument) for argument in arguments])


def run_verify(bundle: Path, checkpoint: Path | str, *more: str) -> Result:
    return CliRunner().invoke(verify, [str(bundle), "--against", str(checkpoint), *more])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_inspect_shows_the_manifest_and_the_files(exported: Path) -> None:
    result = run_inspect(exported)
    assert result.exit_code == 0
    lines = dict(line.split("  ", 1) for line in result.output.splitlines())
    shown = {name.strip(): value.strip() for name, value in lines.items()}
    assert shown["architecture"] == "BertModel"
    assert shown["pooling"] == "mean"
    assert shown["normalized"] == "false"
    assert shown["max tokens"] == "64"
    assert "onnxruntime" in shown["made with"]
    assert "torch" in shown["made with"]
    assert "tolerance 1e-04" in shown["parity sentence_embedding"]
    for name in (GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME):
        assert shown[f"file {name}"].endswith("bytes, intact")


def test_inspect_writes_json(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    record = json.loads(run_inspect(bundle, "--json").output)
    assert record["intact"] is True
    assert record["unlisted"] == ["notes.txt"]
    assert record["manifest"] == json.loads((bundle / MANIFEST_NAME).read_text())


def test_the_graph_holds_no_paths_of_this_machine(exported: Path) -> None:
    content = (exported / GRAPH_NAME).read_bytes()
    for part in (b".py", str(Path.cwd()).encode(), sys.prefix.encode()):
        assert part not in content


def test_inspect_counts_operators(exported: Path) -> None:
    graph = json.loads(run_inspect(exported, "--graph", "--json").output)["graph"]
    assert graph["operators"]["bertd::PackedAttention"] == 2
    assert graph["functions"]["bertd::PackedAttention"]["com.microsoft::MultiHeadAttention"] == 1
    stock, native = "com.microsoft::MultiHeadAttention", "bertd::PackedAttention"
    runs = stock if missing() else native  # of bertd-native, where it is installed
    assert graph["optimized"][runs] == 2
    assert not {stock, native} - {runs} & graph["optimized"].keys()
    assert graph["inputs"][0] == {"name": "input_ids", "dtype": "int64", "shape": ["tokens"]}
    outputs = {value["name"]: value["shape"][-1] for value in graph["outputs"]}
    assert outputs == {"sentence_embedding": 32, "token_embeddings": 32, "pooler_output": 32}
    lines = [line.split() for line in run_inspect(exported, "--graph").output.splitlines()]
    assert ["optimised", "here", runs, "2"] in lines


def test_inspect_needs_onnx_for_the_graph_alone(exported: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('onnx', 'torch', 'transformers', 'rich'): sys.modules[name] = None\n"
        "from bertd_export.verification.commands import inspect\n"
        "inspect()\n"
    )
    command = [sys.executable, "-c", code, str(exported)]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "BertModel" in plain.stdout
    graph = subprocess.run([*command, "--graph"], capture_output=True, text=True, check=False)
    assert graph.returncode == 1
    assert "bertd[export]" in graph.stderr
    assert "Traceback" not in graph.stderr


@pytest.mark.parametrize("name", [GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME])
def test_an_altered_file_is_refused_everywhere(name: str, bundle: Path, checkpoint: Path) -> None:
    flip_a_byte(bundle / name)
    serving = CliRunner().invoke(serve, [str(bundle), "--address", "127.0.0.1:0"])
    for result in (run_inspect(bundle), run_verify(bundle, checkpoint), serving):
        assert result.exit_code == 1
        assert f"{name} is not the file that was exported" in result.output


def test_a_missing_file_and_a_link_out_are_named(bundle: Path) -> None:
    (bundle / TOKENIZER_NAME).rename(bundle.parent / "elsewhere.json")
    assert run_inspect(bundle).exit_code == 1
    assert f"lacks {TOKENIZER_NAME}" in run_inspect(bundle).output
    (bundle / TOKENIZER_NAME).symlink_to(bundle.parent / "elsewhere.json")
    result = run_inspect(bundle, "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["intact"] is False
    assert "leaves the bundle" in record["problems"][TOKENIZER_NAME]


def test_a_broken_manifest_is_one_line(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).write_text("{")
    result = run_inspect(bundle)
    assert result.exit_code == 1
    assert MANIFEST_NAME in result.output
    assert len(result.output.splitlines()) == 1


def test_verify_agrees_with_the_checkpoint(exported: Path, checkpoint: Path) -> None:
    result = run_verify(exported, checkpoint)
    assert result.exit_code == 0, result.output
    assert "sentence_embedding" in result.output
    assert "token_embeddings" in result.output
    strict = run_verify(exported, checkpoint, "--tolerance", "1e-12")
    assert strict.exit_code == 1
    assert "ABOVE the tolerance 1e-12" in strict.output
    assert "worst case" in strict.output


def test_a_rewritten_manifest_cannot_vouch_for_other_weights(bundle: Path, tmp_path: Path) -> None:
    allow_anything(bundle)
    result = run_verify(bundle, save_tiny_bert(tmp_path / "other", seed=1))
    assert result.exit_code == 1
    assert "more than 1e-04" in result.output
    assert "other weights" in result.output


def test_bits_that_depend_on_the_batch_fail_on_the_cpu_alone(
    exported: Path, checkpoint: Path
) -> None:
    found = verification.verify(exported, str(checkpoint))
    assert found.varying is None
    assert not found.failures
    varying = dataclasses.replace(found, varying="logits is not bit-identical")
    assert varying.failures == ["logits is not bit-identical"]
    assert not dataclasses.replace(varying, provider="CUDAExecutionProvider").failures


def cache_on_the_hub(cache: Path, checkpoints: dict[str, Path]) -> None:
    """A hub cache as it is on disk: snapshots by commit, whose files are links to blobs."""
    repository = cache / "models--someone--tiny"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    for number, (revision, checkpoint) in enumerate(checkpoints.items(), start=1):
        commit = str(number) * 40
        (repository / "refs" / revision).write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in checkpoint.iterdir():
            blob = repository / "blobs" / f"{commit}-{path.name}"
            blob.write_bytes(path.read_bytes())
            (snapshot / path.name).symlink_to(blob)


def test_the_commit_of_a_hub_id_is_pinned(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_tiny_bert(tmp_path / "other", seed=1)
    cache_on_the_hub(tmp_path / "cache", {"v1": checkpoint, "main": other})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bundle = tmp_path / "bundle"
    export_model("someone/tiny", bundle, revision="v1")
    manifest = read_manifest(bundle)
    assert manifest.name == "tiny"
    assert manifest.source == Source(name="someone/tiny", revision="1" * 40)
    assert f"someone/tiny at {'1' * 40}" in run_inspect(bundle).output
    pinned = run_verify(bundle, "someone/tiny")
    assert pinned.exit_code == 0, pinned.output
    assert run_verify(bundle, "someone/tiny", "--revision", "main").exit_code == 1


def test_the_commands_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["entry-points"]["bertd.commands"]
    for command in (inspect, verify):
        entry = EntryPoint(str(command.name), declared[str(command.name)], "bertd.commands")
        assert entry.load() is command


def test_verify_finds_another_shape(exported: Path, tmp_path: Path) -> None:
    other = save_tiny_bert(tmp_path / "other", layers=3)
    result = run_verify(exported, other)
    assert result.exit_code == 1
    assert "num_layers is 2 in the bundle and 3 in the checkpoint" in result.output


def test_verify_finds_another_vocabulary(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    tokenizer = other / TOKENIZER_NAME
    content = tokenizer.read_text()
    tokenizer.write_text(content.replace('"w1":', '"word":'))
    result = run_verify(exported, other)
    assert result.exit_code == 1
    assert "vocabularies" in result.output
