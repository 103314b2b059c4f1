"""What an export refuses: one clear line, exit code 1, and nothing left behind."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bertd.bundle import GRAPH_NAME, MANIFEST_NAME, read_manifest, safe_name
from bertd_export import bundle as exporter
from bertd_export.bundle import export_model
from bertd_export.cli import export
from bertd_export.errors import ExportError
from bertd_export.quantization.fp16 import Fp16Options
from bertd_export.quantization.int8 import Int8Options
from click.testing import CliRunner
from helpers.tiny_bert import save_tiny_bert
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
MODULES = "sentence_transformers.models"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "checkpoint"))


def refused(checkpoint: Path, *options: str) -> str:
    """Export, expect a refusal in one line and no trace on disk; the line."""
    work = checkpoint.parent / "work"
    work.mkdir()
    arguments = [str(checkpoint), "--output", str(work / "deep" / "bundle"), *options]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert not list(work.iterdir())
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    return errors[0]


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "nothing"}, "not known to transformers"),
        ({"hidden_size": -32}, "hidden_size is -32; it must be a positive integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a positive integer"),
        ({"num_attention_heads": 5}, "not a multiple of num_attention_heads 5"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"hidden_size": 64}, "its sizes make embeddings.LayerNorm.bias [64], but the weights"),
        ({"num_hidden_layers": 3}, "lacks weights"),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, but the weights hold encoder.layer.1"),
        ({"hidden_act": "nothing"}, "nothing"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
    ],
)
def test_a_wrong_config(changes: dict[str, Any], message: str, checkpoint: Path) -> None:
    edit(checkpoint / "config.json", **changes)
    assert message in refused(checkpoint)


@pytest.mark.parametrize("content", ["{", "[]", "\udc80"])
def test_a_config_that_is_no_json_object(content: str, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(content, errors="surrogateescape")
    assert "config.json" in refused(checkpoint)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json cannot be read"),
        (WEIGHTS, "has no weights: model.safetensors is missing"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_missing_file(name: str, message: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    assert message in refused(checkpoint)


def test_a_broken_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{}")
    assert "the tokenizer in" in refused(checkpoint)


def test_a_tokenizer_larger_than_the_embedding(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    number = max(content["model"]["vocab"].values()) + 1
    content["model"]["vocab"] |= {f"extra{n}": number + n for n in range(5)}
    path.write_text(json.dumps(content), encoding="utf-8")
    line = refused(checkpoint)
    assert f"since vocab_size is {number}: 'extra0' ({number}), 'extra1'" in line
    assert "and 2 more" in line


def test_weights_that_are_cut_short(checkpoint: Path) -> None:
    path = checkpoint / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut short" in refused(checkpoint)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float, checkpoint: Path) -> None:
    weights = load_file(checkpoint / WEIGHTS)
    weights["encoder.layer.1.output.dense.bias"][3] = value
    save_file(weights, checkpoint / WEIGHTS, metadata={"format": "pt"})
    assert "encoder.layer.1.output.dense.bias hold NaN or infinity" in refused(checkpoint)


def test_a_shard_outside_the_folder(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).rename(checkpoint.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"x": "../outside.safetensors"}}
    (checkpoint / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "leaves its folder" in refused(checkpoint)


def test_code_of_a_checkpoint_is_never_run(checkpoint: Path) -> None:
    trap = checkpoint.parent / "was_run"
    code = f"open({str(trap)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    (checkpoint / "code.py").write_text(code)
    auto_map = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    edit(checkpoint / "config.json", model_type="homemade", auto_map=auto_map)
    assert "a checkpoint's code is never run" in refused(checkpoint)
    assert not trap.exists()


class _Trap:
    """A pickle that makes a folder when it is loaded by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_weights_need_consent_and_run_no_code(checkpoint: Path) -> None:
    expected = load_file(checkpoint / WEIGHTS)
    (checkpoint / WEIGHTS).unlink()
    pickled = checkpoint / "pytorch_model.bin"
    trap = checkpoint.parent / "was_run"
    torch.save({**expected, "trap": _Trap(trap)}, pickled)
    assert "--allow-pickle" in refused(checkpoint)
    (checkpoint.parent / "work").rmdir()
    assert "cannot be loaded" in refused(checkpoint, "--allow-pickle")
    assert not trap.exists()
    torch.save(expected, pickled)
    export_model(str(checkpoint), checkpoint.parent / "bundle", allow_pickle=True)
    assert read_manifest(checkpoint.parent / "bundle").architecture == "BertModel"


def sentence_folder(checkpoint: Path, pooling: str) -> Path:
    """A sentence-transformers folder around the checkpoint, its pooling at the given path."""
    folder = checkpoint.parent / "sentence"
    folder.mkdir()
    checkpoint.rename(folder / "0_Transformer")
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{MODULES}.Transformer"},
        {"idx": 1, "name": "1", "path": pooling, "type": f"{MODULES}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("kind", ["climbing", "absolute", "link"])
def test_a_module_outside_the_folder(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text('{"pooling_mode": "mean"}')
    paths = {"climbing": "../outside", "absolute": str(outside), "link": "1_Pooling"}
    folder = sentence_folder(checkpoint, paths[kind])
    if kind == "link":
        (folder / "1_Pooling").symlink_to(outside)
    assert "leaves its folder" in refused(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling_mode is 3"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "'median' is not supported"),
        ("0_Transformer/sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length is -1"),
        ("config_sentence_transformers.json", {"prompts": ["x"]}, "prompts is ['x']"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "not among"),
    ],
)
def test_wrong_sentence_settings(
    file: str, content: dict[str, Any], message: str, checkpoint: Path
) -> None:
    folder = sentence_folder(checkpoint, "1_Pooling")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (folder / file).write_text(json.dumps(content))
    assert message in refused(folder)


def test_modules_json_of_another_form(checkpoint: Path) -> None:
    folder = sentence_folder(checkpoint, "1_Pooling")
    (folder / "modules.json").write_text('{"0": "x"}')
    assert "modules.json" in refused(folder)


def test_a_revision_is_for_the_hub(checkpoint: Path) -> None:
    assert "--revision is for a hub id" in refused(checkpoint, "--revision", "main")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("someone/model.v1", "model.v1"),
        ("mein Modell; rm -rf $HOME", "mein-Modell-rm-rf-HOME"),
        ("../..", "model"),
        ("", "model"),
        ("模型", "model"),
    ],
)
def test_the_default_name_has_plain_characters(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_an_output_that_is_a_link_or_not_ours_is_kept(sound: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(precious)
    for output in (link, precious):
        arguments = [str(sound), "--output", str(output), "--force"]
        assert CliRunner().invoke(export, arguments).exit_code == 1
    assert (precious / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "precious"]


@pytest.mark.parametrize("limit", [pytest.param(1000, marks=pytest.mark.slow), 60_000])
def test_a_file_that_cannot_grow(limit: int, checkpoint: Path) -> None:
    """The limit on the size of files makes real writes fail: of the graph, of the weights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        message = refused(checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in message
    assert os.strerror(errno.EFBIG) in message


def test_a_full_disk_leaves_the_older_bundle(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "bundle"
    output.mkdir()
    (output / MANIFEST_NAME).write_text("an older bundle")
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporter, "write_manifest", full)
    arguments = [str(sound), "--output", str(output), "--force"]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 1
    assert "cannot be written: [Errno 28] No space left on device" in result.output
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision",
    [{"int8": Int8Options()}, pytest.param({"fp16": Fp16Options()}, marks=pytest.mark.slow)],
)
def test_scratch_lies_beside_the_output_and_other_errors_are_not_its(
    precision: dict[str, Any], sound: Path, tmp_path: Path
) -> None:
    """Only the disk of the output needs room; an error elsewhere is not blamed on it."""
    found: list[Path] = []

    def stop(step: str) -> None:
        if step.startswith("comparing the fp32 graph"):
            found.extend(tmp_path.rglob("*.onnx"))
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/elsewhere")

    with pytest.raises(FileNotFoundError, match="/elsewhere"):
        export_model(str(sound), tmp_path / "bundle", progress=stop, **precision)
    assert found
    assert list(tmp_path.iterdir()) == []


def test_force_keeps_what_is_not_of_the_bundle(sound: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in (MANIFEST_NAME, GRAPH_NAME, "notes.txt"):
        (bundle / name).write_text("mine")
    with pytest.raises(ExportError, match=r"also holds notes\.txt, .* move it away"):
        export_model(str(sound), bundle, force=True)
    assert len(list(bundle.iterdir())) == 3


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_in_the_midst_of_an_export(
    number: signal.Signals, checkpoint: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from bertd_export.cli import export\n"
        "export()\n"
    )
    command = [sys.executable, "-c", code, str(checkpoint), "--output", str(work / "bundle")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = ""
        for line in process.stderr:
            if "] tracing " in line:
                break
        assert "] tracing " in line
        assert [path.name for path in work.iterdir()] != []
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait() == 128 + number
    assert rest.splitlines()[-1] == f"stopped by {number.name}: nothing was written"
    assert not re.search("Traceback", rest)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("option", ["--tolerance", "--min-cosine", "--max-metric-drop"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_limits_are_finite(option: str, value: str, tmp_path: Path) -> None:
    """No difference is larger than NaN or infinity: with them nothing would be refused."""
    arguments = [str(tmp_path), "--output", str(tmp_path / "bundle"), option, value]
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {value}" in result.stderr
