"""What somebody could put into a repository or a bundle: refused before ONNX Runtime opens it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from bertd.bundle import (
    GRAPH_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    BundleError,
    read_manifest,
)
from bertd.bundle.graphs import MAX_GRAPH_BYTES, check_graph
from bertd_server.models.startup import ModelOptions
from bertd_server.security.paths import check_name, safe_bundle, version_of
from helpers.served import open_model
from helpers.tampering import sign


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def refusal(bundle: Path) -> str:
    """Why the server does not load it, whose hashes are right."""
    sign(bundle)
    with pytest.raises(BundleError) as caught:
        open_model(bundle, ModelOptions())
    return str(caught.value)


def spoil(bundle: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    path = bundle / GRAPH_NAME
    graph = onnx.load(path, load_external_data=False)
    change(graph)
    path.write_bytes(graph.SerializeToString())


def elsewhere(model: onnx.ModelProto) -> onnx.TensorProto:
    """The first tensor with weights in another file."""
    return next(one for one in model.graph.initializer if one.external_data)


def put(tensor: onnx.TensorProto, key: str, value: str) -> None:
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return
    tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../../secret", "./model.onnx.data", "", "weights\0", "C:\\x", MANIFEST_NAME],
)
def test_weights_outside_the_bundle_are_refused(copy: Path, location: str) -> None:
    spoil(copy, lambda model: put(elsewhere(model), "location", location))
    assert "which is no file of the bundle" in refusal(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [("length", "9" * 18), ("offset", "-1"), ("offset", "9" * 30), ("length", "x")],
)
def test_weights_past_the_end_are_refused(copy: Path, key: str, value: str) -> None:
    spoil(copy, lambda model: put(elsewhere(model), key, value))
    assert f"ends beyond {WEIGHTS_NAME}" in refusal(copy)


def test_weights_in_two_places_are_refused(copy: Path) -> None:
    spoil(
        copy, lambda model: elsewhere(model).external_data.add(key="location", value=WEIGHTS_NAME)
    )
    assert "says twice" in refusal(copy)


def test_tensors_are_found_wherever_they_hide(copy: Path) -> None:
    """In attributes, graphs within graphs, functions, sparse tensors and training."""
    away = onnx.TensorProto(name="away", data_location=onnx.TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="../away")
    sparse = onnx.SparseTensorProto(values=away)
    inner = onnx.GraphProto(name="inner", initializer=[away])
    attributes = [
        onnx.AttributeProto(name="t", t=away),
        onnx.AttributeProto(name="ts", tensors=[away]),
        onnx.AttributeProto(name="g", g=inner),
        onnx.AttributeProto(name="gs", graphs=[inner]),
        onnx.AttributeProto(name="s", sparse_tensor=sparse),
        onnx.AttributeProto(name="ss", sparse_tensors=[sparse]),
    ]
    nodes = [onnx.NodeProto(op_type="Constant", attribute=[one]) for one in attributes]
    graphs = [onnx.GraphProto(node=[node]) for node in nodes]
    models = [
        *(onnx.ModelProto(graph=graph) for graph in graphs),
        onnx.ModelProto(graph=onnx.GraphProto(sparse_initializer=[sparse])),
        onnx.ModelProto(graph=inner, functions=[onnx.FunctionProto(node=[nodes[0]])]),
        onnx.ModelProto(training_info=[onnx.TrainingInfoProto(algorithm=inner)], graph={}),
        onnx.ModelProto(functions=[onnx.FunctionProto(attribute_proto=[attributes[0]])], graph={}),
    ]
    manifest = read_manifest(copy)
    for model in models:
        (copy / GRAPH_NAME).write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match=r"'away' is in '\.\./away'"):
            check_graph(copy, manifest)


def test_graphs_that_are_none_or_too_large_are_refused(copy: Path) -> None:
    graph = copy / GRAPH_NAME
    for content, words in (
        (b"no protobuf", "is no ONNX graph"),
        (b"", "holds no graph"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
    ):
        graph.write_bytes(content)
        assert words in refusal(copy)
    with graph.open("wb") as file:
        file.truncate(MAX_GRAPH_BYTES + 1)  # sparse: no disk is used
    assert "a graph has at most" in refusal(copy)


def test_a_graph_that_onnx_runtime_does_not_run_is_one_error(copy: Path) -> None:
    spoil(copy, lambda model: model.graph.node.add(op_type="NoSuchOperator", output=["x"]))
    words = refusal(copy)
    assert "ONNX Runtime does not load" in words
    assert "export the model again" in words


def test_files_that_do_not_fit_their_manifest_are_one_error(copy: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output.add().CopyFrom(model.graph.output[0])
        model.graph.node.add(op_type="Identity", input=[model.graph.output[0].name], output=["x"])
        model.graph.output[0].name = "x"
        del model.graph.output[-1]

    spoil(copy, rename)
    assert "has no output" in refusal(copy)
    spoil(copy, lambda model: model.graph.input.add().CopyFrom(more_input()))
    assert "asks for ['more']" in refusal(copy)
    (copy / TOKENIZER_NAME).write_text("{}")
    assert "holds no tokenizer" in refusal(copy)


def more_input() -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])


def test_a_file_of_another_size_is_not_even_read(copy: Path) -> None:
    with (copy / WEIGHTS_NAME).open("ab") as file:
        file.truncate(10**12)
    with pytest.raises(BundleError, match="1000000000000 bytes, expected"):
        open_model(copy, ModelOptions())


def test_the_manifest_lies_in_its_bundle_and_is_small(copy: Path, tmp_path: Path) -> None:
    manifest = copy / MANIFEST_NAME
    manifest.rename(tmp_path / "elsewhere.json")
    manifest.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="a link that leaves the bundle"):
        read_manifest(copy)
    manifest.unlink()
    with manifest.open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match="no file of at most"):
        read_manifest(copy)
    manifest.write_text("[" * 100_000)
    with pytest.raises(BundleError, match="cannot be read"):
        read_manifest(copy)


def test_a_version_of_a_model_is_a_folder_within_the_root(tmp_path: Path) -> None:
    """Links may lead from one place of the root to another."""
    root = tmp_path / "root"
    (root / "store" / "abc").mkdir(parents=True)
    (root / "model" / "1").mkdir(parents=True)
    (root / "model" / "2").symlink_to(Path("..") / "store" / "abc")
    assert safe_bundle(root, "model", "1") == (root / "model" / "1").resolve()
    assert safe_bundle(root, "model", "2") == (root / "store" / "abc").resolve()
    mounted = tmp_path / "mounted"
    mounted.symlink_to(root)
    assert safe_bundle(mounted, "model", "1") == (root / "model" / "1").resolve()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(
            (name, "1")
            for name in ("", ".", "..", "../other", "/etc", "a/b", "a\\b", "a\0", ".git")
        ),
        *(("a" * 200, "1"), ("ä", "1"), ("model\n", "1"), ("-f", "1")),
        *(("model", one) for one in ("", "0", "01", "-1", "1/..", "..", "\uff11", "1\n", "9" * 19)),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(BundleError, match=r"cannot be a folder|is none: use"):
        safe_bundle(tmp_path, name, version)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (root / "model").mkdir(parents=True)
    (root / "whole").symlink_to(outside)
    (root / "model" / "1").symlink_to(outside / "1")
    (root / "model" / "2").symlink_to("2")
    (root / "model" / "3").symlink_to(root)
    (root / "model" / "4").write_text("a file")
    for name, version, words in (
        ("whole", "1", "leaves the repository"),
        ("model", "1", "leaves the repository"),
        ("model", "2", "is not there"),
        ("model", "3", "leaves the repository"),
        ("model", "4", "is no folder"),
        ("model", "5", "is not there"),
    ):
        with pytest.raises(BundleError, match=words):
            safe_bundle(root, name, version)
    assert check_name("all-MiniLM-L6-v2") == "all-MiniLM-L6-v2"
    named = {"7": "7", "007": "1", "٣": "1", "20261125093000123456": "1", "minilm": "1"}
    assert {name: version_of(Path("models") / name) for name in named} == named
